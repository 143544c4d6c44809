//! What certificates say of themselves, as text: names, times, and what is told of a client's.
//!
//! It verifies nothing.

use std::net::IpAddr;
use std::time::Duration;

use rules::{ClientCertificate, SAN_BETWEEN};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What the certificate of this end says of itself.
pub(crate) struct Facts {
    /// In lower case; `*.` at the front stands for one label. IP addresses as text.
    pub(crate) names: Vec<String>,
    /// Wall time.
    pub(crate) not_before: Duration,
    /// Wall time.
    pub(crate) not_after: Duration,
    /// As it stands in the certificate.
    pub(crate) serial: Vec<u8>,
}

/// Reads one.
///
/// # Errors
/// Why it is none.
pub(crate) fn facts_of(der: &[u8]) -> Result<Facts, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let wall = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.as_slice());
    Ok(Facts {
        names: names
            .unwrap_or_default()
            .iter()
            .filter_map(name_of)
            .collect(),
        not_before: wall(validity.not_before.timestamp()),
        not_after: wall(validity.not_after.timestamp()),
        serial: certificate.raw_serial().to_vec(),
    })
}

/// Wall time after which a certificate is out of date; `None`: it cannot be read.
#[must_use]
pub fn not_after(der: &[u8]) -> Option<Duration> {
    facts_of(der).ok().map(|facts| facts.not_after)
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address_of(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

/// What rules are told of a client's certificate that was verified. `fingerprint` is the SHA-256 of `der`.
///
/// A part that cannot be read is empty.
#[must_use]
pub fn client_certificate(der: &[u8], fingerprint: &[u8]) -> ClientCertificate {
    let mut told = ClientCertificate {
        fingerprint: hex(fingerprint).into(),
        der: der.into(),
        ..ClientCertificate::default()
    };
    if let Ok((_, certificate)) = X509Certificate::from_der(der) {
        told.subject = distinguished(certificate.subject()).into();
        told.issuer = distinguished(certificate.issuer()).into();
        told.serial = hex(certificate.raw_serial()).into();
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice());
        let names = names.unwrap_or_default().iter().filter_map(alternative);
        told.san = names.collect::<Vec<_>>().join(SAN_BETWEEN).into();
    }
    told
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One name with its kind; other kinds are left out. What is not printable ASCII, and what could be taken for the end
/// of the name, is written as `\XX`.
fn alternative(name: &GeneralName<'_>) -> Option<String> {
    let (kind, text) = match name {
        GeneralName::DNSName(name) => ("DNS", name.to_ascii_lowercase()),
        GeneralName::URI(uri) => ("URI", (*uri).to_owned()),
        GeneralName::IPAddress(bytes) => ("IP", address_of(bytes)?.to_string()),
        GeneralName::RFC822Name(email) => ("email", (*email).to_owned()),
        _ => return None,
    };
    let mut out = format!("{kind}:");
    for byte in text.bytes() {
        match byte {
            b',' | b'\\' | b' ' => push_escaped(byte, &mut out),
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            byte => push_escaped(byte, &mut out),
        }
    }
    Some(out)
}

fn push_escaped(byte: u8, out: &mut String) {
    out.push_str(&format!("\\{byte:02X}"));
}

/// A distinguished name as RFC 4514 writes it: the last part first, with what is not printable ASCII as `\XX`.
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts = parts.into_iter().rev().map(|part| {
        let mut values: Vec<String> = part.iter().map(attribute).collect();
        values.reverse();
        values.join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

/// Short names of RFC 4514 §3, and two more that are usual.
const SHORT_NAMES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
];

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == id);
    let value = attribute.attr_value();
    match (short, text_of(value)) {
        (Some((_, short)), Some(text)) => format!("{short}={}", escaped(&text)),
        // RFC 4514 §2.4: what has no short name, or is no text, as the bytes that it is.
        (short, _) => format!(
            "{}=#{}",
            short.map_or(id.as_str(), |(_, short)| short),
            hex(&encoded(value))
        ),
    }
}

fn text_of(value: &Any<'_>) -> Option<String> {
    let bytes = value.as_bytes();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        Tag::BmpString => {
            let units = bytes.chunks(2).map(|pair| match pair {
                [high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            });
            String::from_utf16(&units.collect::<Option<Vec<_>>>()?).ok()
        }
        _ => None,
    }
}

/// RFC 4514 §2.4.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' ' => out.push(' '),
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            byte => push_escaped(byte, &mut out),
        }
    }
    // No field's value ends in a blank.
    if out.ends_with(' ') {
        out.pop();
        out.push_str("20");
    }
    out
}

/// As DER.
fn encoded(value: &Any<'_>) -> Vec<u8> {
    let bytes = value.as_bytes();
    let tag = u8::try_from(value.tag().0).unwrap_or_default();
    let constructed = if value.header.is_constructed() {
        0x20
    } else {
        0
    };
    let mut out = vec![tag | constructed];
    let length = bytes.len().to_be_bytes();
    let length: Vec<u8> = length
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    match (bytes.len(), u8::try_from(length.len())) {
        (short @ ..128, _) => out.push(u8::try_from(short).unwrap_or_default()),
        (_, Ok(count)) => {
            out.push(0x80 | count);
            out.extend(length);
        }
        (_, Err(_)) => {}
    }
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_mean_something_else_are_escaped() {
        for (text, expected) in [
            ("Alice", "Alice"),
            ("a,b+c", "a\\,b\\+c"),
            ("#1 of <us>", "\\#1 of \\<us\\>"),
            (" a ", "\\ a\\20"),
            ("a\r\nb", "a\\0D\\0Ab"),
            ("Zoë", "Zo\\C3\\AB"),
            ("", ""),
        ] {
            assert_eq!(escaped(text), expected, "{text}");
        }
    }

    #[test]
    fn no_name_can_look_like_two() {
        let check = |name: GeneralName<'_>, expected: &str| {
            assert_eq!(alternative(&name).as_deref(), Some(expected));
        };
        check(GeneralName::DNSName("A.example"), "DNS:a.example");
        check(
            GeneralName::URI("spiffe://a/b, DNS:admin"),
            "URI:spiffe://a/b\\2C\\20DNS:admin",
        );
        check(GeneralName::IPAddress(&[10, 0, 0, 1]), "IP:10.0.0.1");
        check(GeneralName::RFC822Name("a@b\u{7f}"), "email:a@b\\7F");
        assert_eq!(alternative(&GeneralName::IPAddress(&[1, 2])), None);
    }

    #[test]
    fn names_of_every_kind_are_told_as_openssl_tells_them() {
        let der = include_bytes!("../../../fuzz/corpus/der/names");
        let told = client_certificate(der, &[0]);
        // But for the postal code, which has no short name in RFC 4514.
        let expected = "2.5.4.17=#0c0178,serialNumber=1,emailAddress=a@b.example,CN=alice+OU=a,\
             O=Ex\\C3\\A4mple\\, \\\"Sons\\\",DC=example,DC=org";
        assert_eq!(&*told.subject, expected);
        assert_eq!(told.subject, told.issuer);
        let names = "DNS:a.example, URI:spiffe://a/b, IP:10.0.0.1, IP:::1, email:a@b";
        assert_eq!(&*told.san, names);
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        let told = client_certificate(b"nothing", &[0xab, 1]);
        assert_eq!((&*told.fingerprint, &*told.subject), ("ab01", ""));
        assert!(facts_of(b"nothing").is_err());
    }
}
