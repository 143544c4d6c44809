//! The fields of a head, read in one pass: their offsets, their names, and what
//! they say about framing and persistence.
//!
//! It reports what was said; what follows from it differs between requests and
//! responses, and is decided there.

use super::head::{Decoded, HeadFault, Span, Version};
use super::known::{Known, KnownSet, is_framing_look_alike};
use super::scan;
use super::text::{is_token, members};

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Field {
    /// As it came, in the sender's case.
    pub name: Span,
    /// Without the blanks around it; may be empty.
    pub value: Span,
    /// Which name it is, if one that matters.
    pub known: Known,
}

/// Whether a `Connection` field among `fields` names `name` as meant for this
/// connection only, so that it must not be forwarded (RFC 9110 §7.6.1). Only
/// names that are [`Known::Other`] can be given away like that: what is known has
/// a rule of its own, and `Connection: content-length` must not undo it.
pub fn named_by_connection(fields: &[Field], bytes: &[u8], name: &[u8]) -> bool {
    Known::of(name) == Known::Other
        && fields
            .iter()
            .filter(|field| field.known == Known::Connection)
            .flat_map(|field| members(field.value.of(bytes)))
            .any(|member| member.eq_ignore_ascii_case(name))
}

/// What the fields of a head said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) present: KnownSet,
    pub(super) length: Option<u64>,
    pub(super) coding: Option<Coding>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) keep_alive_timeout: Option<u32>,
    pub(super) connection_names: bool,
    pub(super) expect_continue: bool,
    pub(super) host: Option<Span>,
    pub(super) many_hosts: bool,
    upgrade_listed: bool,
    upgrade_field: Option<Span>,
}

/// A `Transfer-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Chunked,
    Unknown,
    Bad,
}

impl Said {
    /// Reads the field lines that start at `from` into `fields`, replacing what was
    /// there, and tells where the head ends, behind the blank line. `fields_max` is the
    /// number of lines that may be there.
    ///
    /// A line ends with CR LF and nothing else (RFC 9112 §2.2 would let a line feed pass
    /// alone, but parsers differ).
    #[inline]
    pub(super) fn read(
        bytes: &[u8],
        from: usize,
        fields_max: usize,
        fields: &mut Vec<Field>,
    ) -> Result<Decoded<(Said, usize)>, HeadFault> {
        let mut said = Said::default();
        let mut at = from;
        fields.clear();
        loop {
            match bytes.get(at) {
                None => return Ok(Decoded::Incomplete),
                Some(b'\r') => {
                    return Ok(match line_feed(bytes, at + 1, HeadFault::LineEnd)? {
                        Decoded::Incomplete => Decoded::Incomplete,
                        Decoded::Complete(end) => Decoded::Complete((said, end)),
                    });
                }
                Some(b'\n') => return Err(HeadFault::LineEnd),
                Some(_) => {}
            }
            let colon = scan::colon(bytes, at);
            let name = bytes.get(at..colon).unwrap_or_default();
            let known = Known::of(name);
            if known == Known::Other {
                if !is_token(name) {
                    return Err(HeadFault::FieldName);
                }
                if colon == bytes.len() {
                    return Ok(Decoded::Incomplete);
                }
                if is_framing_look_alike(name) {
                    return Err(HeadFault::FramingLookAlike);
                }
            }
            if fields.len() == fields_max {
                return Err(HeadFault::TooManyFields);
            }
            let Decoded::Complete((value, next)) = read_value(bytes, colon + 1)? else {
                return Ok(Decoded::Incomplete);
            };
            let field = Field {
                name: Span::between(at, colon),
                value,
                known,
            };
            fields.push(field);
            at = next;
            if known != Known::Other {
                let repeated = said.present.contains(known);
                said.present.insert(known);
                said.note(known, value.of(bytes), value, repeated)?;
            }
        }
    }

    #[inline]
    fn note(
        &mut self,
        known: Known,
        value: &[u8],
        span: Span,
        repeated: bool,
    ) -> Result<(), HeadFault> {
        match known {
            Known::Host => {
                self.many_hosts |= repeated;
                self.host = Some(span);
            }
            // RFC 9112 §6.3 would allow equal repeats; SPEC rule 3 does not
            Known::ContentLength if repeated => return Err(HeadFault::ManyLengths),
            Known::ContentLength => self.length = Some(content_length(value)?),
            Known::TransferEncoding => {
                self.coding = Some(if repeated {
                    Coding::Bad
                } else {
                    transfer_coding(value)
                });
            }
            Known::Connection => self.note_connection(value),
            Known::KeepAlive => {
                self.keep_alive_timeout = self.keep_alive_timeout.or(timeout(value));
            }
            // two lists cannot be told by one span: none is passed on
            Known::Upgrade => self.upgrade_field = if repeated { None } else { Some(span) },
            Known::Expect => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for member in members(value) {
            if member.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if member.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if member.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_listed = true;
            } else if !member.is_empty() && Known::of(member) == Known::Other {
                self.connection_names = true;
            }
        }
    }

    /// RFC 9112 §9.3, as far as this head goes.
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// The protocols offered or chosen, if `Connection` says so too and the
    /// version knows the mechanism (RFC 9110 §7.8).
    pub(super) fn upgrade(&self, version: Version) -> Option<Span> {
        self.upgrade_field
            .filter(|_| self.upgrade_listed && version == Version::Http11)
    }

    /// Whether a chunked body was announced; an error for whatever else
    /// `Transfer-Encoding` may say, and for `Content-Length` beside it.
    pub(super) fn chunked(&self, version: Version) -> Result<bool, HeadFault> {
        match self.coding {
            None => Ok(false),
            Some(_) if self.length.is_some() => Err(HeadFault::LengthAndCoding),
            Some(_) if version == Version::Http10 => Err(HeadFault::CodingInHttp10),
            Some(Coding::Chunked) => Ok(true),
            Some(Coding::Unknown) => Err(HeadFault::UnknownCoding),
            Some(Coding::Bad) => Err(HeadFault::BadCoding),
        }
    }
}

/// The value that starts behind a colon, without the blanks around it, and where the
/// next line starts.
#[inline(always)]
fn read_value(bytes: &[u8], from: usize) -> Result<Decoded<(Span, usize)>, HeadFault> {
    let mut start = from;
    while let Some(b' ' | b'\t') = bytes.get(start) {
        start += 1;
    }
    let mut end = scan::control(bytes, start);
    while let Some(b'\t') = bytes.get(end) {
        end = scan::control(bytes, end + 1);
    }
    let next = match bytes.get(end) {
        None => return Ok(Decoded::Incomplete),
        Some(b'\r') => match line_feed(bytes, end + 1, HeadFault::FieldValue)? {
            Decoded::Complete(next) => next,
            Decoded::Incomplete => return Ok(Decoded::Incomplete),
        },
        Some(b'\n') => return Err(HeadFault::LineEnd),
        Some(_) => return Err(HeadFault::FieldValue),
    };
    while let Some([.., b' ' | b'\t']) = bytes.get(start..end) {
        end -= 1;
    }
    Ok(Decoded::Complete((Span::between(start, end), next)))
}

/// What lies behind the line feed that must be at `at`, after a carriage return.
#[inline(always)]
pub(super) fn line_feed<E>(bytes: &[u8], at: usize, otherwise: E) -> Result<Decoded<usize>, E> {
    match bytes.get(at) {
        Some(b'\n') => Ok(Decoded::Complete(at + 1)),
        None => Ok(Decoded::Incomplete),
        Some(_) => Err(otherwise),
    }
}

/// RFC 9110 §8.6: digits, nothing else.
fn content_length(value: &[u8]) -> Result<u64, HeadFault> {
    if value.is_empty() {
        return Err(HeadFault::BadLength);
    }
    value
        .iter()
        .try_fold(0_u64, |length, &byte| {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            length.checked_mul(10)?.checked_add(u64::from(digit))
        })
        .ok_or(HeadFault::BadLength)
}

/// RFC 9112 §6.1. Only `chunked` alone can be read here; of the rest we tell
/// what is well-formed but unknown to us from what is wrong for anybody.
fn transfer_coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut count = 0;
    let mut chunked = 0;
    let mut chunked_last = false;
    for member in members(value) {
        if !is_token(member) {
            return Coding::Bad;
        }
        count += 1;
        chunked_last = member.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(chunked_last);
    }
    match chunked {
        0 if count == 1 => Coding::Unknown,
        1 if chunked_last => Coding::Unknown,
        _ => Coding::Bad,
    }
}

/// The seconds of `Keep-Alive: timeout=5, max=100`.
fn timeout(value: &[u8]) -> Option<u32> {
    members(value).find_map(|member| {
        let (key, digits) = member.split_at_checked(8)?;
        if !key.eq_ignore_ascii_case(b"timeout=") {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}
