//! What routes ask of a connection's TLS: the certificate that a client has shown, and the name that it asked for.

use std::sync::Arc;

use rules::{CertMatch, CertPart, HostPattern, Pattern};

use super::acme;
use super::route::patterns;
use crate::diagnostic::{Kind, Report};
use crate::raw::{RawCertMatch, RawFilter, RawRoute};
use crate::read::At;
use crate::snapshot::{Certificate, ListenerTls};
use crate::values::{List, Text};

/// What routes ask of TLS that their listener cannot give. `tls` is that of its addresses; `told`: trusted proxies may
/// say that a client came by HTTPS.
pub(super) fn check_tls(
    raw: &List<RawRoute>,
    listener: &str,
    tls: &[Option<Arc<ListenerTls>>],
    told: bool,
    report: &mut Report,
) {
    let asks = tls.iter().flatten().any(|tls| tls.client.is_some());
    for (at, route) in raw.items.iter().enumerate() {
        let route = &route.value;
        for tls in tls.iter().flatten() {
            warn_uncovered(at, route, listener, tls, report);
        }
        let auth = route.client_auth.as_ref();
        if let Some(auth) = auth.filter(|auth| auth.value.0 == "required" && !asks) {
            let message = format!("no client of `{listener}` can show a certificate");
            let help = "give its `tls` a `client_ca`, and `client_auth: optional`";
            report.error_help(Kind::Missing, auth.key, message, help);
        }
        let matching = route.matching.as_ref().map(|matching| &matching.value);
        let sni = matching.and_then(|matching| matching.sni.as_ref());
        if let Some(sni) = sni.filter(|_| tls.is_empty()) {
            let message = format!("this route can never match: `{listener}` speaks no TLS");
            report.warn(Kind::Unreachable, sni.key, message);
        }
        let cert = matching.and_then(|matching| matching.client_cert.as_ref());
        let wants = |cert: &&At<RawCertMatch>| !matches!(cert.value, RawCertMatch::Present(false));
        if let Some(cert) = cert.filter(wants).filter(|_| !asks) {
            let message = format!(
                "this route can never match: `{listener}` asks no client for a certificate"
            );
            report.warn(Kind::Unreachable, cert.key, message);
        }
        let filters = route.filters.as_ref().map(|filters| &filters.value.items);
        let sent_on = filters
            .into_iter()
            .flatten()
            .find(|filter| matches!(filter.value, RawFilter::HttpsRedirect(_)));
        let leads = ["pool", "split"]
            .iter()
            .any(|to| route.written.contains(to));
        let answers = |filter: &At<RawFilter>| {
            matches!(filter.value, RawFilter::Redirect(_) | RawFilter::Respond(_))
        };
        let leads = leads || filters.into_iter().flatten().any(answers);
        if let Some(filter) = sent_on.filter(|_| !leads && (told || !tls.is_empty())) {
            let message = format!("who comes to `{listener}` by HTTPS is led nowhere");
            let help = "give the route a `pool` or a `split`";
            report.error_help(Kind::Missing, filter.key, message, help);
        }
    }
}

/// Hosts of a route that no certificate bears: clients that ask for them refuse what they are shown.
fn warn_uncovered(
    at: usize,
    route: &RawRoute,
    listener: &str,
    tls: &ListenerTls,
    report: &mut Report,
) {
    let hosts = route
        .matching
        .as_ref()
        .and_then(|it| it.value.host.as_ref());
    for host in hosts.iter().flat_map(|hosts| &hosts.value.0.items) {
        let Ok(pattern) = HostPattern::compile(&host.value.0) else {
            continue;
        };
        let text = pattern.text();
        let bears = |it: &Arc<Certificate>| match (pattern.as_exact(), text.strip_prefix('*')) {
            (Some(exact), _) => it.covers(exact.trim_matches(['[', ']'])),
            // Any name below it will do.
            (None, Some(below)) if below.starts_with('.') && !below.contains('*') => {
                it.names.iter().any(|name| name.ends_with(below))
            }
            _ => true,
        };
        let is_asked_for = |exact| {
            let acme = tls.acme.as_ref();
            acme.is_some_and(|acme| acme::is_asked_for(acme, exact))
        };
        if tls.certificates.iter().any(bears) || pattern.as_exact().is_some_and(is_asked_for) {
            continue;
        }
        let name = route.name.as_ref().map(|name| name.value.0.clone());
        let name = name.unwrap_or_else(|| (at + 1).to_string());
        let message = format!(
            "the route `{name}` of `{listener}` is for `{text}`, which no certificate there bears"
        );
        report.warn_once(Kind::Certificate, host.span, message);
    }
}

/// What a match asks of a client's certificate.
pub(super) fn compile_cert_match(raw: &At<RawCertMatch>, report: &mut Report) -> CertMatch {
    let parts = match &raw.value {
        RawCertMatch::Present(present) => return CertMatch::Present(*present),
        RawCertMatch::Like(parts) => parts,
    };
    if parts.written.is_empty() {
        let message = "no part to match is given";
        let help = "write `true` for any certificate";
        report.error_help(Kind::Empty, raw.span, message, help);
    }
    let given = [
        (CertPart::Subject, &parts.subject),
        (CertPart::Issuer, &parts.issuer),
        (CertPart::Serial, &parts.serial),
        (CertPart::San, &parts.san),
        (CertPart::Fingerprint, &parts.fingerprint),
    ];
    let mut compiled = Vec::new();
    for (part, texts) in given {
        let Some(texts) = texts else { continue };
        for text in &texts.value.0.items {
            check_cert_pattern(part, text, report);
        }
        let texts = patterns(Some(texts), report, |Text(text)| {
            Pattern::compile_text(&cert_pattern(part, text))
        });
        compiled.push((part, texts));
    }
    CertMatch::Like(compiled)
}

/// Kinds of names in a certificate, as they stand before each.
const SAN_KINDS: [&str; 4] = ["DNS:", "URI:", "IP:", "email:"];
/// Hexadecimal digits of a SHA-256.
const FINGERPRINT_DIGITS: usize = 64;

/// Digits in the one spelling that is compared.
fn cert_pattern(part: CertPart, text: &str) -> String {
    match part {
        CertPart::Fingerprint | CertPart::Serial if !text.starts_with('~') => {
            text.replace(':', "").to_ascii_lowercase()
        }
        CertPart::San => match text.strip_prefix("DNS:") {
            Some(name) => format!("DNS:{}", name.to_ascii_lowercase()),
            None => text.to_owned(),
        },
        _ => text.to_owned(),
    }
}

/// What could never match is an error here, and no surprise later.
fn check_cert_pattern(part: CertPart, text: &At<Text>, report: &mut Report) {
    let Text(written) = &text.value;
    let is_free = written.starts_with(['~', '*']);
    if part == CertPart::San && !is_free && !SAN_KINDS.iter().any(|kind| written.starts_with(kind))
    {
        let help = "write its kind before it: `DNS:`, `URI:`, `IP:` or `email:`";
        let message = format!("`{written}` is no name of a certificate");
        report.error_help(Kind::Value, text.span, message, help);
    }
    let digits = cert_pattern(part, written);
    let is_whole =
        digits.len() == FINGERPRINT_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if part == CertPart::Fingerprint && !is_whole && !written.contains(['~', '*']) {
        let message = format!("a SHA-256 has {FINGERPRINT_DIGITS} hexadecimal digits");
        let help = "`openssl x509 -noout -fingerprint -sha256 -in FILE` shows it";
        report.error_help(Kind::Value, text.span, message, help);
    }
}
