//! Answers that are made here: for faults, and for filters that answer.

use std::sync::Arc;

use config::HttpListener;
use control::reason::Reason;
use rules::On;
use wire::http1::{Method, encode, reason_phrase};

use super::grpc::Call;
use super::log::Log;
use super::{Block, Conn, Next};
use crate::relay;

/// What is to be said.
pub(super) enum Content<'a> {
    /// Why it is answered here; the status follows.
    Reason(Reason),
    /// What a filter said; its header fields are among the edits.
    Filter(rules::Answer<'a>),
    /// What an authority is answered that asks whose the host is (RFC 8555 §8.3).
    Challenge(Arc<[u8]>),
}

/// Sends an answer and says what becomes of the connection. `keep`: the request was read whole, so that the next one
/// can follow.
pub(super) async fn send(
    conn: &Conn,
    http: &HttpListener,
    block: &mut Block,
    content: Content<'_>,
    detail: String,
    keep: bool,
    log: &mut Log,
) -> Next {
    let keep = keep && block.request.keep_alive && !conn.is_leaving();
    let (status, reason) = match &content {
        Content::Reason(reason) => (reason.status(), *reason),
        Content::Filter(answer) => (answer.status, Reason::Filter),
        Content::Challenge(_) => (200, Reason::AcmeChallenge),
    };
    log.note(reason);
    log.status = status;
    if !matches!(reason, Reason::Filter | Reason::AcmeChallenge) {
        let texts = log.texts();
        texts.detail = detail;
        if texts.method.is_empty() {
            take_texts_from_sent_head(block, texts);
        }
        if texts.request_id.is_empty() {
            texts.request_id = String::from_utf8_lossy(&block.request_id).into_owned();
        }
    }
    encode_answer(conn, block, &content, status, keep, log);
    let Block { response_out, .. } = block;
    let (mut taken, mut parts): (_, [&[u8]; 3]) = (0, [response_out, &[], &[]]);
    let written = relay::write_all(
        &conn.stream,
        &mut parts,
        &conn.deadline,
        http.timeouts.write_idle.into(),
        &mut taken,
        crate::net::Push::Now,
    );
    match written.await {
        Err(_) => Next::Close,
        Ok(()) if keep => Next::Keep,
        Ok(()) => Next::Linger,
    }
}

fn encode_answer(
    conn: &Conn,
    block: &mut Block,
    content: &Content<'_>,
    status: u16,
    keep: bool,
    log: &mut Log,
) {
    let mut body = Vec::new();
    let mut content_type: Option<&[u8]> = None;
    match content {
        Content::Filter(answer) => body.extend_from_slice(answer.body),
        Content::Challenge(answer) => {
            body.extend_from_slice(answer);
            content_type = Some(b"application/octet-stream");
        }
        Content::Reason(reason) => {
            if block.wants_json {
                let id = request_id(conn, log);
                body.extend_from_slice(
                    format!(
                        "{{\"status\":{status},\"reason\":\"{reason}\",\"request_id\":\"{id}\"}}\n"
                    )
                    .as_bytes(),
                );
                content_type = Some(b"application/json");
            } else {
                body.extend_from_slice(
                    format!("{status} {}: {reason}\n", reason_phrase(status)).as_bytes(),
                );
                content_type = Some(b"text/plain; charset=utf-8");
            }
        }
    }
    let Block {
        response_out: out,
        edits,
        request,
        retry_after,
        call,
        ..
    } = block;
    out.clear();
    // Whoever calls by gRPC takes any other status for a fault of the way there.
    let is_call = call.is_one() && matches!(content, Content::Reason(_));
    let shown = if is_call { 200 } else { status };
    encode::status_line(out, shown, reason_phrase(shown).as_bytes());
    let own = |out: &mut Vec<u8>, name: &[u8], value: &[u8]| {
        // What a filter of the route says of the field holds, as it does for a server's.
        if edits.field(On::Response, name).is_none() {
            encode::field(out, name, value);
        }
    };
    conn.worker
        .with_date(|date| own(out, b"Date", date.as_bytes()));
    if let Content::Reason(reason) = content
        && call.encode_fields(*reason, out)
    {
        log.grpc = Some(reason.grpc());
        content_type = None;
        body.clear();
    }
    if let Some(content_type) = content_type {
        own(out, b"Content-Type", content_type);
    }
    if let Content::Reason(reason) = content {
        own(out, b"x-evenkeel-reason", reason.name().as_bytes());
        if !retry_after.is_empty() {
            own(out, b"Retry-After", retry_after);
        } else if status == 503 {
            own(out, b"Retry-After", b"1");
        }
        if *reason == Reason::MethodRefused {
            own(
                out,
                b"Allow",
                b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH",
            );
        }
    }
    for edit in edits.fields(On::Response) {
        // How a call ended that ended here is not for the route to say.
        if let Some(value) = edit.value
            && !(is_call && Call::writes(edit.name))
        {
            encode::field(out, edit.name, value);
        }
    }
    if status != 204 && status != 304 {
        encode::content_length(out, body.len() as u64);
    }
    super::encode::connection(out, request.version, keep);
    out.extend_from_slice(encode::CRLF);
    if request.method != Method::Head {
        out.extend_from_slice(&body);
    }
}

fn request_id(conn: &Conn, log: &mut Log) -> String {
    let texts = log.texts();
    if texts.request_id.is_empty() {
        texts.request_id = format!("{:016x}{:016x}", conn.worker.random(), conn.worker.random());
    }
    texts.request_id.clone()
}

/// The request line is still in the head that was made for the server, whatever has become of the client's bytes.
fn take_texts_from_sent_head(block: &Block, texts: &mut super::log::Texts) {
    let line = block
        .request_out
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let mut words = line
        .split(|byte| *byte == b' ')
        .map(|word| String::from_utf8_lossy(word).into_owned());
    texts.method = words.next().unwrap_or_default();
    texts.target = words.next().unwrap_or_default();
}
