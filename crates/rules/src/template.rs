//! Texts with placeholders that each request fills in: `{host}`, `{client_cert.subject}`.

use std::io::Write as _;

use crate::Request;
use crate::tls::CertPart;

/// A text whose placeholders are filled in for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Host,
    Path,
    Query,
    Source,
    Sni,
    Cert(CertPart),
    /// The whole certificate, as RFC 9440 §2.1 writes it.
    CertDer,
}

/// Every placeholder, for messages and the reference.
pub const PLACEHOLDERS: [&str; 11] = [
    "{host}",
    "{path}",
    "{query}",
    "{source}",
    "{sni}",
    "{client_cert.subject}",
    "{client_cert.issuer}",
    "{client_cert.serial}",
    "{client_cert.san}",
    "{client_cert.fingerprint}",
    "{client_cert.der}",
];

impl Piece {
    fn named(name: &str) -> Option<Piece> {
        Some(match name {
            "{host}" => Piece::Host,
            "{path}" => Piece::Path,
            "{query}" => Piece::Query,
            "{source}" => Piece::Source,
            "{sni}" => Piece::Sni,
            "{client_cert.subject}" => Piece::Cert(CertPart::Subject),
            "{client_cert.issuer}" => Piece::Cert(CertPart::Issuer),
            "{client_cert.serial}" => Piece::Cert(CertPart::Serial),
            "{client_cert.san}" => Piece::Cert(CertPart::San),
            "{client_cert.fingerprint}" => Piece::Cert(CertPart::Fingerprint),
            "{client_cert.der}" => Piece::CertDer,
            _ => return None,
        })
    }
}

impl Template {
    /// Reads a text in which every `{…}` is a placeholder.
    ///
    /// # Errors
    /// The first one that means nothing, or is not closed.
    pub(crate) fn strict(text: &str) -> Result<Template, &str> {
        Self::read(text, |from| {
            let end = from.find('}').ok_or(from)?;
            let (name, _) = from.split_at(end + 1);
            Piece::named(name)
                .map(|piece| Some((piece, name.len())))
                .ok_or(name)
        })
    }

    /// Reads a text in which braces may stand for themselves, as those of JSON do: a placeholder is a word in braces.
    /// `None` when the text has none.
    ///
    /// # Errors
    /// The first word in braces that means nothing.
    pub(crate) fn lenient(text: &str) -> Result<Option<Template>, &str> {
        let made = Self::read(text, |from| {
            let Some(end) = from.find('}') else {
                return Ok(None);
            };
            let (name, _) = from.split_at(end + 1);
            let word = name.get(1..end).unwrap_or_default();
            let is_word = word.starts_with(|first: char| first.is_ascii_lowercase())
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
            if !is_word {
                return Ok(None);
            }
            Piece::named(name)
                .map(|piece| Some((piece, name.len())))
                .ok_or(name)
        })?;
        let is_plain = made.0.iter().all(|piece| matches!(piece, Piece::Text(_)));
        Ok((!is_plain).then_some(made))
    }

    /// `placeholder` says what begins at a brace and how long it is; `None`: the brace stands for itself.
    fn read<'t>(
        text: &'t str,
        placeholder: impl Fn(&'t str) -> Result<Option<(Piece, usize)>, &'t str>,
    ) -> Result<Template, &'t str> {
        let mut pieces = Vec::new();
        // What stands for itself, up to the brace that is looked at.
        let (mut begin, mut at) = (0, 0);
        while let Some(open) = text.get(at..).and_then(|rest| rest.find('{')) {
            let open = at + open;
            let Some((piece, length)) = placeholder(text.get(open..).unwrap_or_default())? else {
                at = open + 1;
                continue;
            };
            let before = text.get(begin..open).unwrap_or_default();
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(piece);
            (begin, at) = (open + length, open + length);
        }
        let rest = text.get(begin..).unwrap_or_default();
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Template(pieces))
    }

    /// Whether it says something of the client's certificate.
    pub(crate) fn tells_of_client_cert(&self) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Cert(_) | Piece::CertDer))
    }

    /// Whether `{host}` stands where a URI has its authority (RFC 3986 §3.2).
    pub(crate) fn has_host_in_authority(&self) -> bool {
        let mut before = String::new();
        for piece in &self.0 {
            let authority = before.split_once("//").map(|(_, rest)| rest);
            match piece {
                Piece::Text(text) => before.push_str(text),
                Piece::Host => {
                    return authority.is_some_and(|it| !it.contains(['/', '?', '#']));
                }
                // What it becomes ends the authority, or is part of it.
                Piece::Path | Piece::Query => before.push('/'),
                _ => before.push('x'),
            }
        }
        false
    }

    /// Appends the text of one request, whose path is now `path`.
    pub(crate) fn write(&self, path: &[u8], request: &Request<'_>, to: &mut Vec<u8>) {
        for (at, piece) in self.0.iter().enumerate() {
            piece.push(at == 0, path, request, to);
        }
    }
}

impl Piece {
    fn push(&self, first: bool, path: &[u8], request: &Request<'_>, to: &mut Vec<u8>) {
        let client = || request.tls.and_then(|tls| tls.client.as_deref());
        match (self, request.query) {
            (Piece::Text(text), _) => to.extend_from_slice(text.as_bytes()),
            (Piece::Host, _) => to.extend_from_slice(request.host),
            (Piece::Path, _) => push_path(path, first, to),
            (Piece::Query, Some(query)) => to.extend_from_slice(query),
            (Piece::Query, None) => {
                to.pop_if(|last| matches!(last, b'?' | b'&'));
            }
            (Piece::Source, _) => {
                // Writing to a Vec cannot fail.
                let _ = write!(to, "{}", request.source);
            }
            (Piece::Sni, _) => {
                let sni = request.tls.and_then(|tls| tls.sni.as_deref());
                to.extend_from_slice(sni.unwrap_or_default().as_bytes());
            }
            (Piece::Cert(part), _) => {
                let text = client().map(|shown| shown.part(*part));
                to.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
            (Piece::CertDer, _) => {
                if let Some(shown) = client() {
                    to.push(b':');
                    push_base64(&shown.der, to);
                    to.push(b':');
                }
            }
        }
    }
}

/// A place that begins with `//`, or with `/\` in a browser's eyes, would be another host: at the
/// start (`first`) one slash is all that stays of them.
pub(crate) fn push_path(path: &[u8], first: bool, to: &mut Vec<u8>) {
    let mut path = path;
    if first {
        while let [b'/' | b'\\', rest @ ..] = path {
            path = rest;
        }
    }
    if !path.starts_with(b"/") {
        to.push(b'/');
    }
    // `*`, of the server as a whole, is no path.
    if path != b"*" {
        to.extend_from_slice(path);
    }
}

/// With padding (RFC 4648 §4).
fn push_base64(bytes: &[u8], to: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4_usize {
            let index = (bits >> (18 - 6 * place)) & 63;
            let digit = DIGITS.get(index as usize).copied().unwrap_or(b'=');
            to.push(if place > group.len() { b'=' } else { digit });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use crate::tls::{ClientCertificate, TlsFacts};

    fn written(text: &str, tls: Option<&TlsFacts>) -> String {
        let sample = sample("GET a.example/x?y=1", &[]);
        let request = Request {
            tls,
            ..sample.request()
        };
        let mut to = Vec::new();
        let template = Template::lenient(text).expect(text).expect("placeholders");
        template.write(request.path, &request, &mut to);
        String::from_utf8(to).expect("ASCII")
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        let tls = TlsFacts {
            sni: Some("s.example".into()),
            client: Some(Box::new(ClientCertificate {
                subject: "CN=a".into(),
                issuer: "CN=b".into(),
                serial: "0c".into(),
                san: "DNS:d, DNS:e".into(),
                fingerprint: "f0".into(),
                der: [251, 255, 191, 1].into(),
            })),
        };
        let all = PLACEHOLDERS.join("|");
        let expected =
            "a.example|/x|y=1|192.0.2.1|s.example|CN=a|CN=b|0c|DNS:d, DNS:e|f0|:+/+/AQ==:";
        assert_eq!(written(&all, Some(&tls)), expected);
        assert_eq!(written(&all, None), "a.example|/x|y=1|192.0.2.1|||||||");
    }

    #[test]
    fn braces_that_hold_no_word_stand_for_themselves() {
        for text in [
            "{\"a\":{\"b\":1}}",
            "{}",
            "{ host }",
            "{host",
            "a } b {",
            "{1}",
        ] {
            assert_eq!(Template::lenient(text), Ok(None), "{text}");
        }
        assert_eq!(Template::lenient("a {hots} b"), Err("{hots}"));
        assert_eq!(Template::lenient("{client_cert.x}"), Err("{client_cert.x}"));
        assert_eq!(written("{\"h\":\"{host}\"}", None), "{\"h\":\"a.example\"}");
        assert_eq!(Template::strict("{ host }"), Err("{ host }"));
        assert_eq!(Template::strict("/{host"), Err("{host"));
    }

    #[test]
    fn base64_as_of_the_rfc() {
        // RFC 4648 §10.
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut to = Vec::new();
            push_base64(bytes.as_bytes(), &mut to);
            assert_eq!(String::from_utf8(to).expect("ASCII"), expected);
        }
    }
}
