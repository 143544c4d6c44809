//! The steps of a route: each may edit the request, edit the response, or answer itself.
//!
//! Filters never wait and never do I/O: one that needs to know something from outside asks a
//! [`Question`] and is resumed with the [`Reply`].

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use wire::grpc::{Dialect, content_type};

use crate::edits::{Edits, On};
use crate::path::{self, TargetError};
use crate::template::{PLACEHOLDERS, Template, push_path};
use crate::{Request, fields};

/// A step applied to what matches a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// `grpc_web`: a call of gRPC-Web becomes one of gRPC; any other request stays.
    GrpcWeb,
    /// `strip_prefix`
    StripPrefix(StripPrefix),
    /// `set_header`
    SetHeader(SetHeader),
    /// `remove_header`
    RemoveHeader(RemoveHeader),
    /// `redirect`
    Redirect(Redirect),
    /// `https_redirect`
    HttpsRedirect(HttpsRedirect),
    /// `hsts`
    Hsts(Hsts),
    /// `respond`
    Respond(Respond),
}

/// What a walk over the filters came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<'f> {
    /// All are done: on to the server.
    Continue,
    /// The client gets this, and no server is asked.
    Respond(Answer<'f>),
    /// The client is at fault (400), and no server is asked; why, for the log.
    Refuse(&'static str),
    /// A filter wants to know something; [`Walk::resume`] goes on.
    Ask(Question),
}

/// An answer made by a filter. Its fields stand among the response's [`Edits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'f> {
    /// 200-599.
    pub status: u16,
    /// Empty for a redirect, and for 204 and 304.
    pub body: &'f [u8],
}

/// What a filter may ask. None of today's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {}

/// What a filter may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {}

/// One request's way through the filters of its route.
#[derive(Debug, Clone)]
pub struct Walk<'f> {
    rest: &'f [Filter],
}

impl<'f> Walk<'f> {
    /// At the first filter.
    pub fn new(filters: &'f [Filter]) -> Walk<'f> {
        Walk { rest: filters }
    }

    /// Applies filters until one answers or asks, or all are done. `edits` was cleared by the caller.
    pub fn step(&mut self, request: &Request<'_>, edits: &mut Edits) -> Outcome<'f> {
        while let Some((filter, rest)) = self.rest.split_first() {
            self.rest = rest;
            match filter.apply(request, edits) {
                Outcome::Continue => {}
                outcome => return outcome,
            }
        }
        Outcome::Continue
    }

    /// Tells the filter that asked, and goes on.
    pub fn resume(
        &mut self,
        reply: Reply,
        _request: &Request<'_>,
        _edits: &mut Edits,
    ) -> Outcome<'f> {
        match reply {}
    }
}

/// Takes a prefix off the path: with `/api`, `/api/x` becomes `/x` and `/api` becomes `/`; `/apix`
/// stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripPrefix {
    /// Normalised, without a slash at its end, not empty.
    prefix: Box<[u8]>,
}

/// Gives a field one value, whatever it had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetHeader {
    name: Box<str>,
    value: HeaderValue,
    on: On,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HeaderValue {
    Fixed(Box<str>),
    /// Of each request's own; one that comes out empty takes the field away.
    Made(Template),
    /// The same of a client's certificate: fields that a server might take for this one, since it takes `_` for `-`,
    /// are taken away with it.
    OfCertificate(Template),
}

/// Takes a field away, however often it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveHeader {
    name: Box<str>,
    on: On,
}

/// Answers with another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    status: u16,
    to: Template,
    /// Whether it leads to the host that the request names.
    needs_host: bool,
}

/// Sends a client that came by plain HTTP to the same place by HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsRedirect {
    status: u16,
    /// Where HTTPS is spoken; 443 is not written.
    port: u16,
}

/// Tells clients that came by HTTPS to come by nothing else (RFC 6797).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts {
    value: Box<str>,
}

/// Answers with a fixed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    status: u16,
    headers: Vec<(Box<str>, Box<str>)>,
    body: Box<[u8]>,
}

/// Why a filter cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterError {
    /// `strip_prefix` without a `/` at its start.
    PrefixStart,
    /// `strip_prefix` with nothing but slashes.
    PrefixEmpty,
    /// `strip_prefix` with a `*` or `?`.
    PrefixPattern,
    /// `strip_prefix` with what no request's path holds.
    Prefix(TargetError),
    /// Not a field name.
    Name(String),
    /// A control character in a value, or a blank at either end.
    Value(String),
    /// A field that only the proxy may write.
    Reserved(String),
    /// `Host` cannot be removed, nor set on a response.
    Host,
    /// A redirect with another status than 301, 302, 303, 307, 308.
    RedirectStatus(u16),
    /// A redirect to nowhere.
    RedirectEmpty,
    /// A `{…}` that means nothing, or is not closed.
    Placeholder(String),
    /// `hsts` with `preload`, and without what browsers' lists ask for.
    HstsPreload,
    /// A response with a status outside 200-599.
    Status(u16),
    /// A body where the status allows none.
    Body(u16),
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilterError::PrefixStart => f.write_str("a prefix begins with `/`"),
            FilterError::PrefixEmpty => f.write_str("the prefix `/` strips nothing"),
            FilterError::PrefixPattern => f.write_str(
                "a prefix is plain text and ends at a `/` by itself: write `/api`, not `/api/*`",
            ),
            FilterError::Prefix(error) => write!(f, "no request has this path: {error}"),
            FilterError::Name(name) => write!(f, "{name:?} is no header name"),
            FilterError::Value(name) => {
                write!(
                    f,
                    "the value of {name} holds a control character, or a blank at one end"
                )
            }
            FilterError::Reserved(name) => {
                write!(
                    f,
                    "{name} belongs to the connection or the framing; only the proxy sets it"
                )
            }
            FilterError::Host => {
                f.write_str("host can be set on a request, and neither removed nor set elsewhere")
            }
            FilterError::RedirectStatus(status) => {
                write!(
                    f,
                    "{status} is no redirect; expected 301, 302, 303, 307 or 308"
                )
            }
            FilterError::RedirectEmpty => f.write_str("a redirect needs to know where to"),
            FilterError::Placeholder(found) => {
                let (last, others) = PLACEHOLDERS.split_last().unwrap_or((&"", &[]));
                let others = others.join(", ");
                write!(f, "unknown placeholder {found}; expected {others} or {last}")
            }
            FilterError::HstsPreload => f.write_str(
                "lists of browsers take a host only with `include_subdomains: true` and a `max_age` of 365d or more",
            ),
            FilterError::Status(status) => {
                write!(f, "{status} is no final status; expected 200-599")
            }
            FilterError::Body(status) => write!(f, "a response with status {status} has no body"),
        }
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Status of a redirect that states none.
    pub const REDIRECT_STATUS: u16 = 302;
    /// Status of an `https_redirect` that states none: the method stays.
    pub const HTTPS_REDIRECT_STATUS: u16 = 308;
    /// Where HTTPS is spoken, for an `https_redirect` that does not say.
    pub const HTTPS_PORT: u16 = 443;
    /// The least `max_age` of an `hsts` with `preload`.
    pub const HSTS_PRELOAD_AGE_MIN: Duration = Duration::from_secs(365 * 24 * 3600);
    /// Status of a `respond` that states none.
    pub const RESPOND_STATUS: u16 = 200;

    /// See [`StripPrefix`].
    ///
    /// # Errors
    /// [`FilterError`]: `Prefix…`.
    pub fn strip_prefix(prefix: &str) -> Result<Filter, FilterError> {
        if !prefix.starts_with('/') {
            return Err(FilterError::PrefixStart);
        }
        if prefix.contains(['*', '?']) {
            return Err(FilterError::PrefixPattern);
        }
        let mut bytes = Vec::new();
        path::rewrite(prefix.as_bytes(), &mut bytes).map_err(FilterError::Prefix)?;
        while bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(FilterError::PrefixEmpty);
        }
        Ok(Filter::StripPrefix(StripPrefix {
            prefix: bytes.into(),
        }))
    }

    /// See [`SetHeader`]. `host` may be set on a request. The value may hold the [placeholders](PLACEHOLDERS); when it
    /// then comes out empty the field is taken away.
    ///
    /// # Errors
    /// [`FilterError`]: a bad name or value, a field that only the proxy writes, an unknown placeholder.
    pub fn set_header(name: &str, value: &str, on: On) -> Result<Filter, FilterError> {
        check_name(name)?;
        check_value(name, value)?;
        if on == On::Response && is_host(name) {
            return Err(FilterError::Host);
        }
        if is_host(name) && crate::host::check(value.as_bytes()).is_err() {
            return Err(FilterError::Value(name.to_owned()));
        }
        let made = Template::lenient(value);
        let made = made.map_err(|found| FilterError::Placeholder(found.to_owned()))?;
        let value = match made {
            None => HeaderValue::Fixed(value.into()),
            Some(made) if made.tells_of_client_cert() => HeaderValue::OfCertificate(made),
            Some(made) => HeaderValue::Made(made),
        };
        Ok(Filter::SetHeader(SetHeader {
            name: name.into(),
            value,
            on,
        }))
    }

    /// See [`RemoveHeader`].
    ///
    /// # Errors
    /// [`FilterError`]: a bad name, a field that only the proxy writes, `host`.
    pub fn remove_header(name: &str, on: On) -> Result<Filter, FilterError> {
        check_name(name)?;
        if is_host(name) {
            return Err(FilterError::Host);
        }
        Ok(Filter::RemoveHeader(RemoveHeader {
            name: name.into(),
            on,
        }))
    }

    /// See [`Redirect`]. `to` may hold the [placeholders](PLACEHOLDERS): `{host}` has no port, `{path}` is as the filters
    /// before left it; a `?` or `&` before an absent `{query}` goes away with it. A request that names no host is refused
    /// where `{host}` says where it leads.
    ///
    /// # Errors
    /// [`FilterError`]: another status, an unknown placeholder, a value that no field can have.
    pub fn redirect(status: u16, to: &str) -> Result<Filter, FilterError> {
        check_redirect(status)?;
        if to.is_empty() {
            return Err(FilterError::RedirectEmpty);
        }
        check_value("location", to)?;
        let to = Template::strict(to);
        let to = to.map_err(|found| FilterError::Placeholder(found.to_owned()))?;
        let needs_host = to.has_host_in_authority();
        Ok(Filter::Redirect(Redirect {
            status,
            to,
            needs_host,
        }))
    }

    /// See [`HttpsRedirect`].
    ///
    /// # Errors
    /// [`FilterError`]: another status.
    pub fn https_redirect(status: u16, port: u16) -> Result<Filter, FilterError> {
        check_redirect(status)?;
        Ok(Filter::HttpsRedirect(HttpsRedirect { status, port }))
    }

    /// See [`Hsts`]. A `max_age` of 0 takes back what was said before.
    ///
    /// # Errors
    /// [`FilterError`]: `preload` without what it asks for.
    pub fn hsts(
        max_age: Duration,
        include_subdomains: bool,
        preload: bool,
    ) -> Result<Filter, FilterError> {
        if preload && !(include_subdomains && max_age >= Self::HSTS_PRELOAD_AGE_MIN) {
            return Err(FilterError::HstsPreload);
        }
        let mut value = format!("max-age={}", max_age.as_secs());
        if include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if preload {
            value.push_str("; preload");
        }
        Ok(Filter::Hsts(Hsts {
            value: value.into(),
        }))
    }

    /// See [`Respond`]. A body without a `content-type` among the headers is `text/plain`.
    ///
    /// # Errors
    /// [`FilterError`]: a status that is none, a body with 204, 205 or 304, a bad header.
    pub fn respond(
        status: u16,
        body: &str,
        headers: &[(String, String)],
    ) -> Result<Filter, FilterError> {
        if !(200..=599).contains(&status) {
            return Err(FilterError::Status(status));
        }
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            return Err(FilterError::Body(status));
        }
        let mut kept: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, value) in headers {
            check_name(name)?;
            check_value(name, value)?;
            if is_host(name) {
                return Err(FilterError::Host);
            }
            kept.push((name.as_str().into(), value.as_str().into()));
        }
        if !body.is_empty()
            && !kept
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            kept.push(("content-type".into(), "text/plain; charset=utf-8".into()));
        }
        Ok(Filter::Respond(Respond {
            status,
            headers: kept,
            body: body.as_bytes().into(),
        }))
    }

    fn apply<'f>(&'f self, request: &Request<'_>, edits: &mut Edits) -> Outcome<'f> {
        match self {
            Filter::GrpcWeb => {
                translate(request, edits);
                Outcome::Continue
            }
            Filter::StripPrefix(filter) => filter.apply(request, edits),
            Filter::SetHeader(filter) => {
                filter.apply(request, edits);
                Outcome::Continue
            }
            Filter::RemoveHeader(filter) => {
                edits.edit(filter.on, filter.name.as_bytes(), None);
                Outcome::Continue
            }
            Filter::Redirect(filter) => filter.apply(request, edits),
            Filter::HttpsRedirect(filter) => filter.apply(request, edits),
            Filter::Hsts(filter) => {
                // A browser ignores it by plain HTTP, and must not be told there (RFC 6797 §7.2).
                if request.https {
                    let value = Some(filter.value.as_bytes());
                    edits.edit(On::Response, b"strict-transport-security", value);
                }
                Outcome::Continue
            }
            Filter::Respond(filter) => filter.apply(edits),
        }
    }
}

/// The head of a call of gRPC-Web; its body and its answer are translated by whoever relays them.
fn translate(request: &Request<'_>, edits: &mut Edits) {
    let value = request.header("content-type");
    let Some((dialect, suffix)) = value.and_then(content_type) else {
        return;
    };
    if request.method != b"POST" || !dialect.is_web() {
        return;
    }
    edits.translate(dialect);
    edits.edit_with(On::Request, b"content-type", |_, to| {
        to.extend_from_slice(Dialect::Grpc.media_type().as_bytes());
        to.extend_from_slice(suffix);
    });
    if dialect == Dialect::WebText {
        // Of the text, not of what it stands for.
        edits.edit(On::Request, b"content-length", None);
    }
}

impl StripPrefix {
    fn apply<'f>(&self, request: &Request<'_>, edits: &mut Edits) -> Outcome<'f> {
        let path = edits.path().unwrap_or(request.path);
        if matches!(path.strip_prefix(&*self.prefix), Some([] | [b'/', ..])) {
            edits.strip_path(request.path, self.prefix.len());
        }
        Outcome::Continue
    }
}

impl SetHeader {
    fn apply(&self, request: &Request<'_>, edits: &mut Edits) {
        let name = self.name.as_bytes();
        let (template, is_guarded) = match &self.value {
            HeaderValue::Fixed(value) => {
                edits.edit(self.on, name, Some(value.as_bytes()));
                return;
            }
            HeaderValue::Made(template) => (template, false),
            HeaderValue::OfCertificate(template) => (template, true),
        };
        edits.edit_with(self.on, name, |edits, to| {
            template.write(edits.path().unwrap_or(request.path), request, to);
            // A field's value ends in no blank, whatever was empty there.
            while to.pop_if(|last| matches!(last, b' ' | b'\t')).is_some() {}
        });
        if is_guarded {
            edits.guard(self.on, name);
        }
    }
}

impl Redirect {
    fn apply<'f>(&self, request: &Request<'_>, edits: &mut Edits) -> Outcome<'f> {
        if self.needs_host && request.host.is_empty() {
            return Outcome::Refuse(NO_HOST);
        }
        edits.edit_with(On::Response, b"location", |edits, to| {
            let path = edits.path().unwrap_or(request.path);
            self.to.write(path, request, to);
        });
        Outcome::Respond(Answer {
            status: self.status,
            body: &[],
        })
    }
}

/// Requests of HTTP/1.0 need not name one.
const NO_HOST: &str = "it names no host, and is to be sent to another place there";

impl HttpsRedirect {
    fn apply<'f>(&self, request: &Request<'_>, edits: &mut Edits) -> Outcome<'f> {
        if request.https {
            return Outcome::Continue;
        }
        if request.host.is_empty() {
            return Outcome::Refuse(NO_HOST);
        }
        edits.edit_with(On::Response, b"location", |_, to| {
            to.extend_from_slice(b"https://");
            to.extend_from_slice(request.host);
            if self.port != Filter::HTTPS_PORT {
                // Writing to a Vec cannot fail.
                let _ = write!(to, ":{}", self.port);
            }
            // The client's own path: whatever filters made of it is for servers.
            push_path(request.path, false, to);
            if let Some(query) = request.query {
                to.push(b'?');
                to.extend_from_slice(query);
            }
        });
        Outcome::Respond(Answer {
            status: self.status,
            body: &[],
        })
    }
}

impl Respond {
    fn apply(&self, edits: &mut Edits) -> Outcome<'_> {
        for (name, value) in &self.headers {
            edits.edit(On::Response, name.as_bytes(), Some(value.as_bytes()));
        }
        Outcome::Respond(Answer {
            status: self.status,
            body: &self.body,
        })
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}

fn check_name(name: &str) -> Result<(), FilterError> {
    if !fields::is_name(name) {
        return Err(FilterError::Name(name.to_owned()));
    }
    if fields::is_reserved(name) {
        Err(FilterError::Reserved(name.to_owned()))
    } else {
        Ok(())
    }
}

fn check_value(name: &str, value: &str) -> Result<(), FilterError> {
    if fields::is_value(value) {
        Ok(())
    } else {
        Err(FilterError::Value(name.to_owned()))
    }
}

fn check_redirect(status: u16) -> Result<(), FilterError> {
    match status {
        301 | 302 | 303 | 307 | 308 => Ok(()),
        _ => Err(FilterError::RedirectStatus(status)),
    }
}

#[cfg(test)]
mod tests;
