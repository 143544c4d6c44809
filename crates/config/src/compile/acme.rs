//! Automatic certificates: from whom they come, and for which names.

use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::DnsName;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::{Keys, form_of};
use crate::defaults;
use crate::diagnostic::{Kind, Report, Span};
use crate::load::beside;
use crate::raw::{RawAcme, RawExternalAccount};
use crate::read::At;
use crate::snapshot::{
    Acme, Certificate, Challenge, ExternalAccount, HttpListener, Issuer, ListenerTls, PoolTls,
    PrivateKey, ServerHttp, TlsVersion, Trust,
};
use crate::values::{Many, Text};
use crate::x509::facts_of;

/// Bytes of an HMAC key.
const HMAC_KEY_BYTES_MAX: usize = 1024;

impl Keys<'_> {
    /// From whom certificates come; names as far as they are written.
    pub(super) fn acme(&mut self, raw: At<RawAcme>, report: &mut Report) -> Option<Acme> {
        let At {
            value: raw, key, ..
        } = raw;
        let place = report.files.place(key);
        let directory = match &raw.directory {
            Some(written) => Directory::parse(&written.value.0)
                .map_err(|why| report.error(Kind::Value, written.span, why))
                .ok(),
            None => Directory::parse(defaults::ACME_DIRECTORY).ok(),
        };
        let store = match &raw.store {
            Some(written) if written.value.0.is_empty() => {
                report.error(Kind::Empty, written.span, "`store` is the path of a folder");
                return None;
            }
            Some(written) => beside(&report.files.place(written.span).file, &written.value.0),
            None => defaults::ACME_STORE.to_owned(),
        };
        let trust = match &raw.ca {
            Some(ca) => Trust::Authorities(self.authorities(ca, report).unwrap_or_default()),
            None => Trust::System,
        };
        let trust = PoolTls {
            trust,
            server_name: None,
            client: None,
            min_version: TlsVersion::Tls12,
            http: ServerHttp::Http1,
            place: place.to_string().into(),
        };
        let external_account = raw
            .external_account
            .and_then(|account| self.external_account(account.value, report));
        let domains = raw.domains.map(|domains| names(domains, report));
        let contacts = raw.email.map(|email| contacts(email, report));
        let Directory {
            url,
            host,
            port,
            folder,
        } = directory?;
        let issuer = Issuer {
            directory: url.into(),
            host: host.into(),
            port,
            contacts: contacts.unwrap_or_default(),
            trust: Arc::new(trust),
            external_account,
            challenge: match raw.challenge.as_ref().map(|word| word.value.0) {
                Some("http-01") => Challenge::Http01,
                Some(_) => Challenge::TlsAlpn01,
                None if self.has_plain_http => Challenge::Http01,
                None => Challenge::TlsAlpn01,
            },
            folder: format!("{}/{folder}", store.trim_end_matches('/')).into(),
            place: place.to_string().into(),
        };
        if issuer.challenge == Challenge::Http01 && !self.has_plain_http {
            let span = raw.challenge.map_or(key, |word| word.span);
            let message = "no HTTP listener here is without TLS, so somebody else has to answer for `http-01`";
            report.warn(Kind::Certificate, span, message);
        }
        Some(Acme {
            issuer: self.same_issuer(issuer, key, report),
            domains: domains.unwrap_or_default(),
        })
    }

    /// One that keeps the same folder has the same account, so it has to be the same in all.
    fn same_issuer(&mut self, issuer: Issuer, key: Span, report: &mut Report) -> Arc<Issuer> {
        let known = self.issuers.iter();
        let known = known.map(|(known, span)| (known.clone(), *span));
        let same = known
            .clone()
            .find(|(known, _)| known.folder == issuer.folder);
        let Some((known, first)) = same else {
            let issuer = Arc::new(issuer);
            self.issuers.push((issuer.clone(), key));
            return issuer;
        };
        if !issuer.is_like(&known) {
            let message = format!(
                "this `acme` has the directory and the store of another one ({}), and is not like it otherwise",
                report.files.place(first)
            );
            let help = "they share one account: make them alike, or give this one another `store`";
            report.error_help(Kind::Conflict, key, message, help);
        }
        known
    }

    fn external_account(
        &mut self,
        raw: RawExternalAccount,
        report: &mut Report,
    ) -> Option<ExternalAccount> {
        let (id, file) = (raw.id?, raw.key_file?);
        let (path, text) = self.text(&file, report)?;
        let key = base64url(text.trim());
        let Some(key) = key.filter(|key| (1..=HMAC_KEY_BYTES_MAX).contains(&key.len())) else {
            let message = format!("there is no key in `{path}`: it should hold base64url text");
            report.error(Kind::Certificate, file.span, message);
            return None;
        };
        Some(ExternalAccount {
            id: id.value.0.into(),
            key: key.into(),
        })
    }
}

/// Fills in the names of a listener's routes where none are written.
pub(super) fn fill_domains(
    name: &str,
    key: Span,
    http: Option<&HttpListener>,
    tls: &mut [Option<Arc<ListenerTls>>],
    report: &mut Report,
) {
    for tls in tls.iter_mut().flatten() {
        if tls
            .acme
            .as_ref()
            .is_none_or(|acme| !acme.domains.is_empty())
        {
            continue;
        }
        let domains = http.map_or_else(Vec::new, |http| route_names(name, key, http, tls, report));
        if domains.is_empty() && !report.has_errors() {
            let message = format!("`acme` of `{name}` has no name to get a certificate for");
            let help = "give it `domains`, or the routes a `host`";
            report.error_help(Kind::Missing, key, message, help);
        }
        if let Some(acme) = &mut Arc::make_mut(tls).acme {
            acme.domains = domains;
        }
    }
}

/// Whether a certificate for this name is asked for: where none is written, those of the routes are.
pub(super) fn is_asked_for(acme: &Acme, host: &str) -> bool {
    if acme.domains.is_empty() {
        return why_no_domain(host).is_none();
    }
    acme.domains.iter().any(|domain| **domain == *host)
}

fn route_names(
    name: &str,
    key: Span,
    http: &HttpListener,
    tls: &ListenerTls,
    report: &mut Report,
) -> Vec<Arc<str>> {
    let mut domains: Vec<Arc<str>> = Vec::new();
    for host in http.table.matches().iter().flat_map(|rule| &rule.host) {
        let Some(host) = host.as_exact() else {
            let message = format!(
                "`acme` of `{name}` gets certificates for plain names: a route there is for a pattern of hosts"
            );
            report.warn_once(Kind::Certificate, key, message);
            continue;
        };
        let is_new = !domains.iter().any(|known| **known == *host);
        let borne = tls.certificates.iter().any(|it| it.covers(host));
        if is_new && !borne && why_no_domain(host).is_none() {
            domains.push(host.into());
        }
    }
    domains
}

fn names(written: At<Many<Text>>, report: &mut Report) -> Vec<Arc<str>> {
    let list = written.value.0;
    if list.empty {
        report.error(Kind::Empty, written.key, "`domains` names nothing");
    }
    let mut domains: Vec<Arc<str>> = Vec::new();
    for item in list.items {
        let name = item.value.0.trim_end_matches('.').to_ascii_lowercase();
        if let Some(why) = why_no_domain(&name) {
            report.error(Kind::Value, item.span, why);
        } else if domains.iter().any(|known| **known == *name) {
            report.error(
                Kind::Duplicate,
                item.span,
                format!("`{name}` is given twice"),
            );
        } else {
            domains.push(name.into());
        }
    }
    domains
}

/// Why no certificate can be asked for a name, given in lower case.
fn why_no_domain(name: &str) -> Option<String> {
    if name.starts_with("*.") {
        Some(format!(
            "`{name}`: a wildcard is proved by DNS, which is not supported by this version; name the hosts"
        ))
    } else if name.parse::<IpAddr>().is_ok() {
        Some(format!(
            "`{name}`: certificates are for names, not for addresses"
        ))
    } else if !name.is_ascii() {
        Some(format!("`{name}`: write the name as DNS has it (`xn--…`)"))
    } else if DnsName::try_from(name).is_err() {
        Some(format!("`{name}` is no name that a certificate can bear"))
    } else {
        None
    }
}

fn contacts(written: At<Many<Text>>, report: &mut Report) -> Vec<Arc<str>> {
    let mut contacts = Vec::new();
    for item in written.value.0.items {
        let text = item.value.0.trim_start_matches("mailto:").to_owned();
        let is_address = text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && host.contains('.') && DnsName::try_from(host).is_ok()
        });
        // RFC 8555 §7.3: no further addresses and no header fields in a `mailto:`.
        if !is_address || text.contains([',', '?', ' ', '<']) {
            let message = format!("`{text}` is no address of mail, as `admin@example.com` is");
            report.error(Kind::Value, item.span, message);
        } else {
            contacts.push(format!("mailto:{text}").into());
        }
    }
    contacts
}

/// The URL of a directory, taken apart.
struct Directory {
    url: String,
    host: String,
    port: u16,
    /// A name of its own within a store.
    folder: String,
}

impl Directory {
    fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{url}` is no URL of an ACME directory: {why}, as in `{}`",
                defaults::ACME_DIRECTORY
            )
        };
        let Some(rest) = url.strip_prefix("https://") else {
            return Err(wrong("it begins with `https://`"));
        };
        if rest.bytes().any(|byte| byte <= b' ' || byte >= 127) || rest.contains(['#', '@']) {
            return Err(wrong("it has a host and a path"));
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().map_err(|_| wrong("its port is a number"))?;
                (host, port)
            }
            _ => (authority, 443),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if DnsName::try_from(host).is_err() && host.parse::<IpAddr>().is_err() {
            return Err(wrong("it has a host"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let folder = rest.trim_end_matches('/');
        let folder = folder.chars().map(|c| if plain(c) { c } else { '_' });
        Ok(Self {
            url: url.to_owned(),
            host: host.to_owned(),
            port,
            folder: folder.collect(),
        })
    }
}

/// RFC 4648 §5, with or without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 255).unwrap_or_default());
        }
    }
    // Six bits over are no byte.
    (count < 6).then_some(out)
}

impl Certificate {
    /// Reads a private key and its certificates from one text (PEM), as a store keeps them.
    ///
    /// # Errors
    /// What of it cannot be read.
    pub fn from_pem(text: &str, file: &str, place: &str) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "there is no private key (PEM) in it".to_owned())?;
        let chain: Vec<Arc<[u8]>> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(|found| found.map(|der| Arc::from(der.as_ref())))
            .collect::<Result<_, _>>()
            .map_err(|_| "its certificates (PEM) cannot be read".to_owned())?;
        let leaf = chain.first().ok_or("there is no certificate (PEM) in it")?;
        let facts = facts_of(leaf)?;
        Ok(Self {
            key: PrivateKey {
                form: form_of(&key),
                der: key.secret_der().into(),
            },
            ocsp: None,
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
            chain,
            file: file.into(),
            place: place.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_apart() {
        let check = |url: &str, expected: Option<(&str, u16, &str)>| {
            let found = Directory::parse(url).ok();
            let found = found.as_ref();
            let found = found.map(|it| (it.host.as_str(), it.port, it.folder.as_str()));
            assert_eq!(found, expected, "{url}");
        };
        check(
            defaults::ACME_DIRECTORY,
            Some((
                "acme-v02.api.letsencrypt.org",
                443,
                "acme-v02.api.letsencrypt.org_directory",
            )),
        );
        check(
            "https://127.0.0.1:14000/dir/",
            Some(("127.0.0.1", 14000, "127.0.0.1_14000_dir")),
        );
        check("https://[::1]:9/d", Some(("::1", 9, "___1__9_d")));
        check("https://[::1]/d", Some(("::1", 443, "___1__d")));
        for wrong in [
            "http://a/d",
            "https://",
            "https:///d",
            "https://a:b/",
            "https://a b/",
            "https://u@a/",
            "",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn base64url_of_rfc_4648() {
        let check = |text: &str, expected: Option<&[u8]>| {
            assert_eq!(base64url(text).as_deref(), expected, "{text}");
        };
        check("", Some(b""));
        check("Zg", Some(b"f"));
        check("Zm8=", Some(b"fo"));
        check("Zm9v", Some(b"foo"));
        check("-_8", Some(&[251, 255]));
        check("+/8", None);
        check("Z", None);
    }
}
