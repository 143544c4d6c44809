//! The request as typed on a command line, and the bytes that a client would send for it.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use config::ListenerTls;
use rules::TlsFacts;

/// Bytes of a file with certificates; the API takes no more, either.
const CERT_BYTES_MAX: u64 = 12 * 1024;

/// The text of a file with certificates.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_cert(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CERT_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| format!("{shown}: {error}"))?;
    if text.len() as u64 > CERT_BYTES_MAX {
        return Err(format!("{shown}: more than 12 KiB of certificates"));
    }
    Ok(text)
}

/// What a user asks about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// For display.
    pub(super) shown: String,
    method: String,
    /// Origin form.
    target: String,
    headers: Vec<(String, String)>,
    /// Named by the URL, or its scheme's own; `None` without a URL.
    pub(super) port: Option<u16>,
    /// Whether the URL says `https`.
    https: bool,
    /// What the client shows, as PEM.
    pub(super) client_cert: Option<String>,
}

impl Asked {
    /// Reads `GET http://host/path`, `http://host/path` or, where the headers name a host, `GET /path`; headers are
    /// `name: value`.
    ///
    /// # Errors
    /// What is wrong with them, in words for the user.
    pub(super) fn parse(request: &str, headers: &[String]) -> Result<Self, String> {
        let words: Vec<&str> = request.split_whitespace().collect();
        let (method, url) = match *words {
            [url] if url.contains("://") || url.starts_with('/') => ("GET", url),
            [method, url] => (method, url),
            _ => {
                return Err(format!(
                    "`{request}` is no request: write 'GET http://host/path'"
                ));
            }
        };
        let mut headers = headers
            .iter()
            .map(|header| parse_header(header))
            .collect::<Result<Vec<_>, _>>()?;
        let (authority, target, port) = parse_url(url)?;
        let has_host = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"));
        match authority {
            _ if has_host => {}
            Some(authority) => headers.insert(0, ("Host".to_owned(), authority)),
            None => {
                return Err(format!(
                    "no host: write the whole URL, 'http://example.com{target}', or add -H 'Host: example.com'"
                ));
            }
        }
        Ok(Self {
            shown: format!("{method} {url}"),
            method: method.to_owned(),
            target,
            headers,
            port,
            https: url
                .split_once("://")
                .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https")),
            client_cert: None,
        })
    }

    /// The TLS that a client would come by, asking for the host; `None` without any. `with`: what the listener speaks.
    ///
    /// # Errors
    /// Why there would be no such connection, in words for the user.
    pub(super) fn tls(
        &self,
        host: &[u8],
        with: Option<&ListenerTls>,
    ) -> Result<Option<TlsFacts>, String> {
        let Some(with) = with.filter(|_| self.https) else {
            return match self.client_cert {
                None => Ok(None),
                Some(_) if self.https => Err("the listener speaks no TLS".to_owned()),
                Some(_) => {
                    Err("a client shows its certificate over TLS: write https://".to_owned())
                }
            };
        };
        let client = match (&self.client_cert, &with.client) {
            (None, Some(auth)) if auth.required => {
                let why =
                    "the listener takes no client without a certificate: give one (--client-cert)";
                return Err(why.to_owned());
            }
            (None, _) => None,
            (Some(_), None) => {
                let why = "the listener asks its clients for no certificate (`client_ca`)";
                return Err(why.to_owned());
            }
            (Some(pem), Some(auth)) => Some(Box::new(proxy::ask_certificate(pem, auth)?)),
        };
        let name = std::str::from_utf8(host).ok();
        let is_name = |name: &&str| !name.starts_with('[') && name.parse::<IpAddr>().is_err();
        let sni = name.filter(is_name).map(Into::into);
        Ok(Some(TlsFacts { sni, client }))
    }

    /// As it would stand on the wire.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        bytes.into_bytes()
    }
}

fn parse_header(header: &str) -> Result<(String, String), String> {
    let (name, value) = header
        .split_once(':')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{header}` is no header: write 'name: value'"))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Authority, target and port; the last part of a URL, after `#`, never leaves a client.
fn parse_url(url: &str) -> Result<(Option<String>, String, Option<u16>), String> {
    let url = url.split('#').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok((None, url.to_owned(), None));
    };
    let port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(format!("`{scheme}` is neither http nor https")),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let mut scratch = Vec::new();
    let parsed = rules::host::normalise(authority.as_bytes(), &mut scratch)
        .map_err(|error| format!("`{url}`: {error}"))?;
    let target = match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("/{target}"),
    };
    Ok((
        Some(authority.to_owned()),
        target,
        Some(parsed.port.unwrap_or(port)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_typed() {
        let check = |request: &str, wire: &str, port: Option<u16>| {
            let asked = Asked::parse(request, &["X-A:  b ".to_owned()]).expect(request);
            let sent = String::from_utf8(asked.encode()).expect("ASCII");
            assert_eq!((sent.as_str(), asked.port), (wire, port), "{request}");
        };
        check(
            "GET http://a:81/x?y#z",
            "GET /x?y HTTP/1.1\r\nHost: a:81\r\nX-A: b\r\n\r\n",
            Some(81),
        );
        check(
            "https://a?y",
            "GET /?y HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n",
            Some(443),
        );
    }

    #[test]
    fn what_is_no_request_is_told() {
        for (request, header, part) in [
            ("", "a: b", "is no request"),
            ("GET", "a: b", "is no request"),
            ("GET a b", "a: b", "is no request"),
            ("GET ftp://a/", "a: b", "neither http nor https"),
            ("GET http:///", "a: b", "host is empty"),
            ("GET /", "a: b", "no host"),
            ("GET http://a/", "ab", "is no header"),
        ] {
            let error = Asked::parse(request, &[header.to_owned()]).expect_err(request);
            assert!(error.contains(part), "{request}: {error}");
        }
    }
}
