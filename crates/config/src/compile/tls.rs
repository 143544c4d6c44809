//! TLS: certificates and keys are read, and looked at as far as that needs no cryptography.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer};

use crate::Source;
use crate::defaults::CERTIFICATE_WARNING;
use crate::diagnostic::{Kind, Report, Span};
use crate::load::beside;
use crate::ocsp::{self, Answer, Fault, Status};
use crate::raw::{RawCertificate, RawPoolTls, RawTls};
use crate::read::At;
use crate::snapshot::{
    Certificate, ClientAuth, Issuer, KeyForm, ListenerTls, PoolTls, PrivateKey, ServerHttp, Staple,
    TlsVersion, Trust,
};
use crate::values::{Off, Text};
use crate::x509::{Facts, facts_of};

/// Bytes of a name in ALPN (RFC 7301 §3.1).
const ALPN_BYTES_MAX: usize = 255;

/// Reads what a config names, each file once.
pub(crate) struct Keys<'s> {
    source: &'s dyn Source,
    texts: BTreeMap<String, Option<Arc<str>>>,
    certificates: BTreeMap<(String, String, Option<String>), Option<Arc<Certificate>>>,
    /// From whom certificates come, and where that is written first.
    pub(super) issuers: Vec<(Arc<Issuer>, Span)>,
    /// Whether an authority can ask for a token by plain HTTP.
    pub(super) has_plain_http: bool,
}

impl<'s> Keys<'s> {
    pub(crate) fn new(source: &'s dyn Source, has_plain_http: bool) -> Self {
        Self {
            source,
            texts: BTreeMap::new(),
            certificates: BTreeMap::new(),
            issuers: Vec::new(),
            has_plain_http,
        }
    }

    /// TLS of a listener. `spoken`: what it speaks inside, best first; nothing: that is not known.
    pub(crate) fn listener(
        &mut self,
        raw: At<RawTls>,
        spoken: &[&str],
        report: &mut Report,
    ) -> Option<Arc<ListenerTls>> {
        let At {
            value: raw, key, ..
        } = raw;
        let has_acme = raw.written.contains(&"acme");
        let is_empty = raw.certificates.as_ref().is_some_and(|it| it.value.empty);
        if is_empty || !(has_acme || raw.written.contains(&"certificates")) {
            let place = raw.certificates.as_ref().map_or(key, |listed| listed.key);
            let message =
                "TLS needs a certificate: `certificates: [{ cert: FILE, key: FILE }]`, or `acme`";
            report.error(Kind::Empty, place, message);
        }
        let listed = raw.certificates.into_iter();
        let certificates: Vec<_> = listed
            .flat_map(|listed| listed.value.items)
            .filter_map(|item| self.certificate(item, report))
            .collect();
        let acme = raw.acme.and_then(|acme| self.acme(acme, report));
        let alpn = match raw.alpn {
            Some(alpn) => compile_alpn(alpn.value.0.items, spoken, report),
            None => spoken.iter().map(|name| (*name).to_owned()).collect(),
        };
        let required = raw
            .client_auth
            .as_ref()
            .is_none_or(|auth| auth.value.0 == "required");
        let client = match (raw.client_ca, raw.client_auth) {
            (Some(ca), _) => self.authorities(&ca, report).map(|authorities| ClientAuth {
                authorities,
                required,
                place: report.files.place(ca.span).to_string().into(),
            }),
            (None, Some(auth)) => {
                let help = "give `client_ca`: the authorities whose certificates clients show";
                let message = "`client_auth` says nothing without `client_ca`";
                report.error_help(Kind::Missing, auth.key, message, help);
                None
            }
            (None, None) => None,
        };
        let misdirected = raw.misdirected.map(|word| word.value.0);
        Some(Arc::new(ListenerTls {
            certificates,
            acme,
            refuses_misdirected: match misdirected {
                Some(word) => word == "refuse",
                None => client.is_some(),
            },
            min_version: version(raw.min_version.map(|word| word.value.0)),
            alpn,
            client,
        }))
    }

    /// TLS to a pool's servers. `http`: what is agreed on inside.
    pub(crate) fn pool(
        &mut self,
        raw: Option<At<Off<RawPoolTls>>>,
        http: ServerHttp,
        report: &mut Report,
    ) -> Option<Arc<PoolTls>> {
        let At { value, key, .. } = raw?;
        let RawPoolTls(raw) = value.on()?;
        let insecure = raw.insecure.as_ref().filter(|flag| flag.value);
        if let (Some(insecure), Some(_)) = (insecure, &raw.ca) {
            let message = "`insecure: true` believes everybody: a `ca` would say nothing";
            report.error(Kind::Conflict, insecure.key, message);
        }
        let trust = match (insecure, &raw.ca) {
            (Some(insecure), _) => {
                let message = "servers are not verified: whoever is in between can read and change everything";
                report.warn(Kind::Certificate, insecure.key, message);
                Trust::Anyone
            }
            (None, Some(ca)) => {
                Trust::Authorities(self.authorities(ca, report).unwrap_or_default())
            }
            (None, None) => Trust::System,
        };
        let server_name = raw.server_name.and_then(|name| {
            let text = name.value.0.to_ascii_lowercase();
            let is_name =
                DnsName::try_from(text.as_str()).is_ok() || text.parse::<IpAddr>().is_ok();
            if !is_name {
                let message = format!("`{text}` is no name that a certificate can bear");
                report.error(Kind::Value, name.span, message);
            }
            is_name.then(|| Arc::from(text))
        });
        let client = raw
            .client
            .and_then(|client| self.certificate(client, report));
        Some(Arc::new(PoolTls {
            trust,
            server_name,
            client,
            min_version: version(raw.min_version.map(|word| word.value.0)),
            http,
            place: report.files.place(key).to_string().into(),
        }))
    }

    fn certificate(
        &mut self,
        raw: At<RawCertificate>,
        report: &mut Report,
    ) -> Option<Arc<Certificate>> {
        let (cert, key) = (raw.value.cert?, raw.value.key?);
        let ocsp = raw.value.ocsp;
        let path = |file: &At<Text>, report: &Report| {
            beside(&report.files.place(file.span).file, &file.value.0)
        };
        let names = (
            path(&cert, report),
            path(&key, report),
            ocsp.as_ref().map(|file| path(file, report)),
        );
        if let Some(known) = self.certificates.get(&names) {
            return known.clone();
        }
        let made = self.read_certificate(&cert, &key, ocsp.as_ref(), &names.0, report);
        let made = made.map(Arc::new);
        self.certificates.insert(names, made.clone());
        made
    }

    fn read_certificate(
        &mut self,
        cert: &At<Text>,
        key: &At<Text>,
        ocsp: Option<&At<Text>>,
        path: &str,
        report: &mut Report,
    ) -> Option<Certificate> {
        let chain = self.chain(cert, "a certificate", report);
        let key = self.private_key(key, report);
        let staple = ocsp.and_then(|file| Some((file, self.bytes(file, report)?)));
        let (chain, key) = (chain?, key?);
        let leaf = chain.first()?;
        let facts = match facts_of(leaf) {
            Ok(facts) => facts,
            Err(why) => {
                let message = format!("the certificate in `{path}` cannot be read: {why}");
                report.error(Kind::Certificate, cert.span, message);
                return None;
            }
        };
        self.warn_of_time(&facts, path, cert.span, report);
        let staple = staple.and_then(|(file, der)| self.staple(file, der, &facts.serial, report));
        Some(Certificate {
            key,
            ocsp: staple,
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
            chain,
            file: path.into(),
            place: report.files.place(cert.span).to_string().into(),
        })
    }

    /// The authority's word, if it is one to show. One that is out of date or of another certificate is left out with a
    /// warning: it must not keep a new certificate from being taken up.
    fn staple(
        &self,
        file: &At<Text>,
        der: Arc<[u8]>,
        serial: &[u8],
        report: &mut Report,
    ) -> Option<Staple> {
        let path = beside(&report.files.place(file.span).file, &file.value.0);
        let now = self.source.wall();
        let left_out = match ocsp::read(&der, serial) {
            Err(Fault::Malformed) => {
                let message = format!("there is no answer of an authority (OCSP, DER) in `{path}`");
                let help = "`openssl ocsp -respout FILE` writes one";
                report.error_help(Kind::Certificate, file.span, message, help);
                return None;
            }
            Err(Fault::Refused(number)) => {
                format!("in `{path}` the authority refuses an answer (status {number})")
            }
            Err(Fault::OfAnother) => {
                format!("the answer in `{path}` is about another certificate than `cert`")
            }
            Ok(answer) if answer.status == Status::Revoked => {
                format!("by the answer in `{path}` the certificate is revoked: clients refuse it")
            }
            Ok(answer) if answer.status == Status::Unknown => {
                format!("by the answer in `{path}` the authority does not know the certificate")
            }
            Ok(Answer {
                until: Some(until), ..
            }) if now.is_some_and(|now| now > until) => {
                let ago = now.unwrap_or_default().saturating_sub(until).as_secs() / 3600;
                format!("the answer in `{path}` is out of date since {ago} hours")
            }
            Ok(answer) if now.is_some_and(|now| now < answer.from) => {
                format!("the answer in `{path}` is not good yet")
            }
            Ok(answer) => {
                return Some(Staple {
                    der,
                    until: answer.until,
                });
            }
        };
        let help = "it is not shown to clients";
        report.warn_help(Kind::Certificate, file.span, left_out, help);
        None
    }

    fn warn_of_time(&self, facts: &Facts, path: &str, span: Span, report: &mut Report) {
        let Some(now) = self.source.wall() else {
            return;
        };
        let days = |span: Duration| span.as_secs() / (24 * 3600);
        let message = if now > facts.not_after {
            let ago = days(now.saturating_sub(facts.not_after));
            format!("the certificate in `{path}` expired {ago} days ago: clients refuse it")
        } else if now < facts.not_before {
            let left = days(facts.not_before.saturating_sub(now));
            format!("the certificate in `{path}` is not good yet, but in {left} days")
        } else if facts.not_after.saturating_sub(now) < CERTIFICATE_WARNING {
            let left = days(facts.not_after.saturating_sub(now));
            format!("the certificate in `{path}` expires in {left} days")
        } else {
            return;
        };
        report.warn(Kind::Certificate, span, message);
    }

    fn private_key(&mut self, file: &At<Text>, report: &mut Report) -> Option<PrivateKey> {
        let (path, text) = self.text(file, report)?;
        let key = match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(key) => key,
            Err(_) => {
                let message = format!("there is no private key (PEM) in `{path}`");
                let help = if text.contains("ENCRYPTED") {
                    "it is encrypted: nobody could enter its passphrase; decrypt it with `openssl pkey`"
                } else {
                    "it should hold a block `-----BEGIN PRIVATE KEY-----`"
                };
                report.error_help(Kind::Certificate, file.span, message, help);
                return None;
            }
        };
        if self.source.is_open_to_others(&path) {
            let message =
                format!("the private key in `{path}` can be read by every user of this machine");
            report.warn(Kind::Certificate, file.span, message);
        }
        Some(PrivateKey {
            form: form_of(&key),
            der: key.secret_der().into(),
        })
    }

    pub(super) fn authorities(
        &mut self,
        file: &At<Text>,
        report: &mut Report,
    ) -> Option<Vec<Arc<[u8]>>> {
        self.chain(file, "a certificate of an authority", report)
    }

    fn chain(
        &mut self,
        file: &At<Text>,
        what: &str,
        report: &mut Report,
    ) -> Option<Vec<Arc<[u8]>>> {
        let (path, text) = self.text(file, report)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(|found| found.map(|der| Arc::from(der.as_ref())))
            .collect();
        match found {
            Ok(found) if !found.is_empty() => Some(found),
            _ => {
                let message =
                    format!("there is no certificate (PEM) in `{path}`, where {what} should be");
                let help = "it should hold a block `-----BEGIN CERTIFICATE-----`";
                report.error_help(Kind::Certificate, file.span, message, help);
                None
            }
        }
    }

    /// A file's path as seen from the config, and its text.
    pub(super) fn text(
        &mut self,
        file: &At<Text>,
        report: &mut Report,
    ) -> Option<(String, Arc<str>)> {
        let path = beside(&report.files.place(file.span).file, &file.value.0);
        let source = self.source;
        let known = self.texts.entry(path.clone()).or_insert_with(|| {
            let text = source.read(&path);
            let text = text.map_err(|error| cannot_read(&path, &error, file.span, report));
            text.ok().map(Arc::from)
        });
        known.clone().map(|text| (path, text))
    }

    fn bytes(&self, file: &At<Text>, report: &mut Report) -> Option<Arc<[u8]>> {
        let path = beside(&report.files.place(file.span).file, &file.value.0);
        let bytes = self.source.read_bytes(&path);
        let bytes = bytes.map_err(|error| cannot_read(&path, &error, file.span, report));
        bytes.ok().map(Arc::from)
    }
}

fn cannot_read(path: &str, error: &str, span: Span, report: &mut Report) {
    report.error(Kind::File, span, format!("cannot read `{path}`: {error}"));
}

fn version(word: Option<&str>) -> TlsVersion {
    match word {
        Some("1.3") => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    }
}

fn compile_alpn(items: Vec<At<Text>>, spoken: &[&str], report: &mut Report) -> Vec<String> {
    let mut names = Vec::new();
    for At {
        value: Text(name),
        span,
        ..
    } in items
    {
        if name.is_empty() || name.len() > ALPN_BYTES_MAX {
            report.error(Kind::Value, span, "a protocol's name has 1-255 bytes");
        } else if !spoken.is_empty() && !spoken.contains(&name.as_str()) {
            let message = match name.as_str() {
                "h2" => "this listener does not speak `h2`: its `http2` is off".to_owned(),
                _ => format!("an HTTP listener does not speak `{name}`"),
            };
            let help = format!("known: `{}`", spoken.join("`, `"));
            report.error_help(Kind::Value, span, message, help);
        } else if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// How a key is written.
pub(super) fn form_of(key: &PrivateKeyDer<'_>) -> KeyForm {
    match key {
        PrivateKeyDer::Pkcs1(_) => KeyForm::Pkcs1,
        PrivateKeyDer::Sec1(_) => KeyForm::Sec1,
        _ => KeyForm::Pkcs8,
    }
}
