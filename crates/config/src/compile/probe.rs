//! What a probe sends, and which probe is meant.

use rules::{Filter, On};

use super::said;
use crate::defaults;
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::RawHealthCheck;
use crate::read::At;
use crate::snapshot::{GrpcProbe, HttpProbe};
use crate::values::{Named, Text};

/// The kinds of probes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    Tcp,
    Http,
    Grpc,
}

/// The kind that is written as a tag, or that the keys tell; a key of another kind is an error.
pub(super) fn kind(raw: &RawHealthCheck, tag: Option<Kinds>, report: &mut Report) -> Kinds {
    let http = [
        raw.path.as_ref().map(|key| key.key),
        raw.method.as_ref().map(|key| key.key),
        raw.status.as_ref().map(|key| key.key),
        raw.body.as_ref().map(|key| key.key),
        raw.drain_status.as_ref().map(|key| key.key),
        raw.drain_header.as_ref().map(|key| key.key),
        raw.maintenance_status.as_ref().map(|key| key.key),
        raw.maintenance_header.as_ref().map(|key| key.key),
    ];
    let http = http.into_iter().flatten().next();
    let asks = raw.host.as_ref().map(|key| key.key);
    let asks = asks.or(raw.headers.as_ref().map(|key| key.key));
    let grpc = raw.service.as_ref().map(|key| key.key);
    let kind = tag.unwrap_or(if grpc.is_some() {
        Kinds::Grpc
    } else if http.is_some() || asks.is_some() {
        Kinds::Http
    } else {
        Kinds::Tcp
    });
    let (wrong, why) = match kind {
        Kinds::Tcp if grpc.is_some() => {
            (grpc, "a TCP probe sends nothing: this key is only for gRPC")
        }
        Kinds::Tcp => (
            http.or(asks),
            "a TCP probe sends nothing: this key is only for HTTP",
        ),
        Kinds::Http => (grpc, "this key is only for a gRPC probe"),
        Kinds::Grpc => (
            http,
            "this key is only for HTTP: a gRPC probe has `service`",
        ),
    };
    if let Some(span) = wrong {
        report.error(Kind::Conflict, span, why);
    }
    kind
}

/// An HTTP probe.
pub(super) fn compile_http(raw: RawHealthCheck, report: &mut Report) -> HttpProbe {
    let path = raw.path.map(|path| probe_path(path, report));
    let method = raw.method.map(|method| probe_method(method, report));
    let host = compile_host(raw.host, report);
    let headers = compile_headers(raw.headers, report);
    let status = raw.status.map(|status| said::ranges(status.value));
    let drain = said::compile_mark(raw.drain_status, raw.drain_header);
    let maintenance = said::compile_mark(raw.maintenance_status, raw.maintenance_header);
    HttpProbe {
        path: path.unwrap_or_else(|| defaults::HEALTH_PATH.to_owned()),
        method: method.unwrap_or_else(|| defaults::HEALTH_METHOD.to_owned()),
        host,
        headers,
        status: status.unwrap_or_else(|| vec![defaults::HEALTH_STATUS]),
        body: raw.body.map(|body| body.value.0),
        drain,
        maintenance,
    }
}

/// A gRPC probe.
pub(super) fn compile_grpc(raw: RawHealthCheck, report: &mut Report) -> GrpcProbe {
    let of_the_call = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("grpc-") || name == "content-type"
    };
    let written = raw.headers.iter().flat_map(|headers| &headers.value.items);
    for (name, value) in written.filter(|(name, _)| of_the_call(name)) {
        let message = format!("{name} belongs to the call; only the probe sets it");
        report.error(Kind::Value, value.span, message);
    }
    GrpcProbe {
        service: raw
            .service
            .map(|service| service.value.0)
            .unwrap_or_default(),
        host: compile_host(raw.host, report),
        headers: compile_headers(raw.headers, report),
    }
}

fn compile_host(raw: Option<At<Text>>, report: &mut Report) -> Option<String> {
    let host = raw?;
    check_header("host", &host.value.0, host.span, report);
    Some(host.value.0)
}

fn compile_headers(raw: Option<At<Named<Text>>>, report: &mut Report) -> Vec<(String, String)> {
    let items = raw.map(|headers| headers.value.items).unwrap_or_default();
    let headers = items.into_iter().map(|(name, value)| {
        check_header(&name, &value.value.0, value.span, report);
        (name, value.value.0)
    });
    headers.collect()
}

fn check_header(name: &str, value: &str, span: Span, report: &mut Report) {
    if let Err(error) = Filter::set_header(name, value, On::Request) {
        report.error(Kind::Value, span, error.to_string());
    }
}

fn probe_path(raw: At<Text>, report: &mut Report) -> String {
    let Text(path) = raw.value;
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        let message = "the path of a probe begins with `/` and holds no blank";
        report.error(Kind::Value, raw.span, message);
    }
    path
}

fn probe_method(raw: At<Text>, report: &mut Report) -> String {
    let method = raw.value.0.to_ascii_uppercase();
    let letters = method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if method.is_empty() || !letters || method == "CONNECT" {
        let message = format!("`{}` is no method of a probe", raw.value.0);
        report.error(Kind::Value, raw.span, message);
    }
    method
}
