//! What rules see of a connection's TLS, and what a match may ask of a client's certificate.
//!
//! It reads no certificate and verifies none: whoever ends TLS does, once for a connection.

use std::fmt;

use crate::covers::each_in;
use crate::pattern::Pattern;
use crate::scratch::{Caches, Scratch};

/// A connection's TLS, as far as rules care.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The name that the client asked for, in lower case, without a dot at its end.
    pub sni: Option<Box<str>>,
    /// The certificate that the client showed; it was verified.
    pub client: Option<Box<ClientCertificate>>,
}

/// A client's certificate. Every text is printable ASCII, so that it can stand in a header; a part that could not be
/// read is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its distinguished name, as RFC 4514 writes it: `CN=alice,O=Example`.
    pub subject: Box<str>,
    /// Who issued it, in the same form.
    pub issuer: Box<str>,
    /// Hexadecimal digits, in lower case, two for each byte.
    pub serial: Box<str>,
    /// Its other names, `DNS:…`, `URI:…`, `IP:…` and `email:…`, with [`SAN_BETWEEN`] between them, which stands in none.
    pub san: Box<str>,
    /// SHA-256 of the whole, 64 hexadecimal digits in lower case.
    pub fingerprint: Box<str>,
    /// The whole, as DER.
    pub der: Box<[u8]>,
}

/// What stands between the names of a certificate.
pub const SAN_BETWEEN: &str = ", ";

impl ClientCertificate {
    /// The parts of a certificate by the names under which a config knows them.
    pub(crate) fn part(&self, part: CertPart) -> &str {
        match part {
            CertPart::Subject => &self.subject,
            CertPart::Issuer => &self.issuer,
            CertPart::Serial => &self.serial,
            CertPart::San => &self.san,
            CertPart::Fingerprint => &self.fingerprint,
        }
    }
}

/// A part of a client's certificate that can be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertPart {
    /// `subject`
    Subject,
    /// `issuer`
    Issuer,
    /// `serial`
    Serial,
    /// `san`: each name is looked at by itself.
    San,
    /// `fingerprint`
    Fingerprint,
}

impl CertPart {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Subject,
        Self::Issuer,
        Self::Serial,
        Self::San,
        Self::Fingerprint,
    ];

    /// As the config spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Issuer => "issuer",
            Self::Serial => "serial",
            Self::San => "san",
            Self::Fingerprint => "fingerprint",
        }
    }
}

/// What a match asks of a client's certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum CertMatch {
    /// That one was shown, or that none was.
    Present(bool),
    /// That one was shown of which each of these parts is like one of its patterns.
    Like(Vec<(CertPart, Vec<Pattern>)>),
}

impl CertMatch {
    pub(crate) fn matches(&self, shown: Option<&ClientCertificate>, caches: &mut Caches) -> bool {
        match (self, shown) {
            (CertMatch::Present(present), shown) => *present == shown.is_some(),
            (CertMatch::Like(_), None) => false,
            (CertMatch::Like(parts), Some(shown)) => parts.iter().all(|(part, patterns)| {
                let text = shown.part(*part);
                let mut holds = |value: &str| {
                    let value = value.as_bytes();
                    patterns
                        .iter()
                        .any(|pattern| pattern.matches_value(value, caches))
                };
                match part {
                    CertPart::San => text
                        .split(SAN_BETWEEN)
                        .any(|name| !name.is_empty() && holds(name)),
                    _ => !text.is_empty() && holds(text),
                }
            }),
        }
    }

    /// Whether every certificate that `narrow` takes is taken. It may say no where it is so.
    pub(crate) fn covers(&self, narrow: &CertMatch, scratch: &mut Scratch) -> bool {
        match (self, narrow) {
            (CertMatch::Present(wide), CertMatch::Present(narrow)) => wide == narrow,
            (CertMatch::Present(wide), CertMatch::Like(_)) => *wide,
            (CertMatch::Like(_), CertMatch::Present(_)) => false,
            (CertMatch::Like(wide), CertMatch::Like(narrow)) => wide.iter().all(|(part, wide)| {
                narrow.iter().any(|(other, narrow)| {
                    part == other
                        && each_in(wide, narrow, |wide, narrow| wide.contains(narrow, scratch))
                })
            }),
        }
    }

    pub(crate) fn number(&mut self, next: &mut u32) {
        if let CertMatch::Like(parts) = self {
            let patterns = parts.iter_mut().flat_map(|(_, patterns)| patterns);
            patterns.for_each(|pattern| pattern.number(next));
        }
    }
}

/// As a config would say it: `subject CN=a* and san DNS:b`.
impl fmt::Display for CertMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertMatch::Present(true) => f.write_str("any"),
            CertMatch::Present(false) => f.write_str("none"),
            CertMatch::Like(parts) => {
                for (at, (part, patterns)) in parts.iter().enumerate() {
                    let between = if at > 0 { " and " } else { "" };
                    let texts: Vec<&str> = patterns.iter().map(Pattern::text).collect();
                    write!(f, "{between}{} {}", part.as_str(), texts.join(" or "))?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> ClientCertificate {
        ClientCertificate {
            subject: "CN=alice,O=Example".into(),
            issuer: "CN=the authority".into(),
            serial: "0a1b".into(),
            san: "DNS:a.example, URI:spiffe://a/ns/x, email:a@b.example".into(),
            fingerprint: "00".repeat(32).into(),
            der: Box::default(),
        }
    }

    fn like(parts: &[(CertPart, &[&str])]) -> CertMatch {
        let compiled = |texts: &[&str]| {
            let patterns = texts
                .iter()
                .map(|text| Pattern::compile_text(text).unwrap());
            patterns.collect()
        };
        let parts = parts.iter();
        CertMatch::Like(
            parts
                .map(|(part, texts)| (*part, compiled(texts)))
                .collect(),
        )
    }

    #[test]
    fn parts_are_matched_and_each_name_by_itself() {
        use CertPart::{Fingerprint, Issuer, San, Serial, Subject};
        let mut scratch = Scratch::new();
        let mut check = |rule: &CertMatch, expected: (bool, bool)| {
            let got = (
                rule.matches(Some(&shown()), &mut scratch.caches),
                rule.matches(None, &mut scratch.caches),
            );
            assert_eq!(got, expected, "{rule}");
        };
        check(&CertMatch::Present(true), (true, false));
        check(&CertMatch::Present(false), (false, true));
        for (part, texts, expected) in [
            (Subject, &["CN=alice,*"][..], true),
            (Subject, &["CN=bob,*", "~O=Exam"], true),
            (Subject, &["alice"], false),
            (Issuer, &["CN=the authority"], true),
            (Serial, &["0a1b"], true),
            (San, &["DNS:a.example"], true),
            (San, &["URI:spiffe://a/ns/*"], true),
            (San, &["email:a@b.example"], true),
            // No pattern reaches over the end of a name.
            (San, &["DNS:a.example, URI*"], false),
            (San, &["a.example"], false),
            (Fingerprint, &["0*0"], true),
            (Fingerprint, &["1"], false),
        ] {
            check(&like(&[(part, texts)]), (expected, false));
        }
        check(
            &like(&[(Subject, &["CN=alice*"]), (San, &["DNS:b.example"])]),
            (false, false),
        );
    }

    #[test]
    fn what_could_not_be_read_matches_nothing() {
        let mut scratch = Scratch::new();
        let nothing = ClientCertificate::default();
        for part in CertPart::ALL {
            let rule = like(&[(part, &["*"])]);
            assert!(!rule.matches(Some(&nothing), &mut scratch.caches), "{rule}");
        }
    }

    #[test]
    fn the_wider_one_covers() {
        use CertPart::{San, Subject};
        let mut scratch = Scratch::new();
        let (any, none) = (CertMatch::Present(true), CertMatch::Present(false));
        let ops = like(&[(Subject, &["CN=ops*"])]);
        let one = like(&[(Subject, &["CN=ops-1"]), (San, &["DNS:a"])]);
        let mut check = |wide: &CertMatch, narrow: &CertMatch, expected: bool| {
            let got = wide.covers(narrow, &mut scratch);
            assert_eq!(got, expected, "{wide} over {narrow}");
        };
        check(&any, &ops, true);
        check(&any, &none, false);
        check(&none, &none, true);
        check(&none, &ops, false);
        check(&ops, &one, true);
        check(&one, &ops, false);
        check(&ops, &any, false);
    }
}
