//! An authority's word on a certificate (OCSP, RFC 6960): what it says, and of which certificate.
//!
//! It verifies no signature: whoever is shown it does, and a file that was tampered with would only make that fail.
//!
//! ```text
//! OCSPResponse  ::= SEQUENCE { status ENUMERATED, [0] { SEQUENCE { type OID, OCTET STRING (BasicOCSPResponse) } } }
//! BasicOCSPResponse ::= SEQUENCE { SEQUENCE { [0] version?, [1]/[2] responder, producedAt, SEQUENCE OF Single }, … }
//! Single        ::= SEQUENCE { SEQUENCE { algorithm, name, key, serial }, [0]/[1]/[2] status, thisUpdate, [0] nextUpdate? }
//! ```

use std::time::Duration;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const OID: u8 = 0x06;
const TIME: u8 = 0x18;
/// `[0]`, constructed.
const FIRST: u8 = 0xa0;
/// id-pkix-ocsp-basic, the one kind that there is.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// Answers on further certificates that are looked at.
const ANSWERS_MAX: usize = 64;

/// What an authority says of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    /// Wall time from which it holds.
    pub(crate) from: Duration,
    /// Wall time after which it does not; `None` when newer ones may be had at any time.
    pub(crate) until: Option<Duration>,
}

/// Whether a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Good,
    Revoked,
    Unknown,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is no answer of an authority at all.
    Malformed,
    /// The authority answered that it does not answer, by this number (RFC 6960 §4.2.1).
    Refused(u8),
    /// It is about other certificates.
    OfAnother,
}

/// What `der` says of the certificate with this serial number.
///
/// # Errors
/// [`Fault`].
pub(crate) fn read(der: &[u8], serial: &[u8]) -> Result<Answer, Fault> {
    let responses = responses(der)?;
    let mut rest = responses;
    for _ in 0..ANSWERS_MAX {
        if rest.is_empty() {
            break;
        }
        let (single, after) = take(rest, SEQUENCE).ok_or(Fault::Malformed)?;
        rest = after;
        let (of, answer) = read_single(single).ok_or(Fault::Malformed)?;
        if of == serial {
            return Ok(answer);
        }
    }
    Err(Fault::OfAnother)
}

/// The answers on single certificates, one after the other.
fn responses(der: &[u8]) -> Result<&[u8], Fault> {
    let whole = |input, tag| take(input, tag).ok_or(Fault::Malformed);
    let (response, _) = whole(der, SEQUENCE)?;
    match whole(response, ENUMERATED)? {
        ([0], rest) => basic(rest).ok_or(Fault::Malformed),
        ([status], _) => Err(Fault::Refused(*status)),
        _ => Err(Fault::Malformed),
    }
}

fn basic(rest: &[u8]) -> Option<&[u8]> {
    let (bytes, _) = take(rest, FIRST)?;
    let (bytes, _) = take(bytes, SEQUENCE)?;
    let (kind, bytes) = take(bytes, OID)?;
    if kind != BASIC {
        return None;
    }
    let (bytes, _) = take(bytes, OCTETS)?;
    let (bytes, _) = take(bytes, SEQUENCE)?;
    let (data, _) = take(bytes, SEQUENCE)?;
    let data = take(data, FIRST).map_or(data, |(_, rest)| rest);
    let (_, _, data) = next(data)?;
    let (_, data) = take(data, TIME)?;
    Some(take(data, SEQUENCE)?.0)
}

/// The serial number, and what is said of it.
fn read_single(bytes: &[u8]) -> Option<(&[u8], Answer)> {
    let (id, bytes) = take(bytes, SEQUENCE)?;
    let (_, id) = take(id, SEQUENCE)?;
    let (_, id) = take(id, OCTETS)?;
    let (_, id) = take(id, OCTETS)?;
    let (serial, _) = take(id, INTEGER)?;
    let (status, _, bytes) = next(bytes)?;
    let status = match status & 0x1f {
        0 => Status::Good,
        1 => Status::Revoked,
        2 => Status::Unknown,
        _ => return None,
    };
    let (from, bytes) = take(bytes, TIME)?;
    let until = match take(bytes, FIRST) {
        Some((until, _)) => Some(time(take(until, TIME)?.0)?),
        None => None,
    };
    let from = time(from)?;
    Some((
        serial,
        Answer {
            status,
            from,
            until,
        },
    ))
}

/// The content of a value with this tag, and what follows it.
fn take(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next(input)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what follows (X.690 §8.1).
fn next(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = input.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let add = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
            (bytes.iter().fold(0, add), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `20260131235959Z` as wall time (RFC 5280 §4.1.2.5.2).
fn time(text: &[u8]) -> Option<Duration> {
    let digits = text.strip_suffix(b"Z")?;
    if digits.len() != 14 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = digits.get(from..to).unwrap_or_default();
        let add = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
        digits.iter().fold(0, add)
    };
    let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
    let (hour, minute, second) = (number(8, 10), number(10, 12), number(12, 14));
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March, so that a leap day is the last; 719,468 days before 1970 begins year 0.
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leaps = year / 4 + year / 400 - year / 100;
    let days = 365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(Duration::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = include_bytes!("tests/tls/ocsp.der");

    fn serial() -> Vec<u8> {
        let pem = include_bytes!("tests/tls/cert.pem");
        use rustls_pki_types::pem::PemObject as _;
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem).expect("a certificate");
        crate::x509::facts_of(&der).expect("a certificate").serial
    }

    #[test]
    fn an_answer_that_openssl_made_is_read() {
        let answer = read(REAL, &serial()).expect("an answer");
        assert_eq!(answer.status, Status::Good);
        // 2026-11-21 21:57:44 and 2126-10-28 21:57:44.
        assert_eq!(answer.from.as_secs(), 1_795_298_264);
        assert_eq!(
            answer.until.map(|until| until.as_secs()),
            Some(4_948_898_264)
        );
        assert_eq!(read(REAL, &[1]), Err(Fault::OfAnother));
    }

    #[test]
    fn an_answer_that_is_cut_or_refused_is_none() {
        for length in 0..REAL.len() {
            let cut = REAL.get(..length).unwrap_or_default();
            assert_eq!(read(cut, &serial()), Err(Fault::Malformed), "{length}");
        }
        // tryLater
        assert_eq!(read(&[0x30, 3, 0x0a, 1, 3], &[1]), Err(Fault::Refused(3)));
        assert_eq!(read(b"an answer", &[1]), Err(Fault::Malformed));
        assert_eq!(
            read(&[0x30, 0x85, 1, 1, 1, 1, 1], &[1]),
            Err(Fault::Malformed)
        );
    }

    #[test]
    fn every_changed_byte_is_borne() {
        let serial = serial();
        for at in 0..REAL.len() {
            for bit in 0..8 {
                let mut changed = REAL.to_vec();
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                let _ = read(&changed, &serial);
            }
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("19700101000000Z", Some(0)),
            ("20000229235959Z", Some(951_868_799)),
            ("20240301000000Z", Some(1_709_251_200)),
            ("20380119031407Z", Some(2_147_483_647)),
            ("19691231235959Z", None),
            ("20261301000000Z", None),
            ("20260101000000", None),
            ("2026010100000xZ", None),
        ] {
            assert_eq!(time(text.as_bytes()).map(|time| time.as_secs()), expected);
        }
    }
}
