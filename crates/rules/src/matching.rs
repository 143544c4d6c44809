//! One request against one match: every key that is given must hold.
//!
//! Which match is tried, and in which order, is the table's matter.

use std::fmt;

use crate::path;
use crate::pattern::{Glob, Pattern, PatternError};
use crate::read;
use crate::scratch::Scratch;
use crate::tls::CertMatch;
use crate::trace::Key;
use crate::why::Why;
use crate::{Cidr, Request};

/// What a request has to be like. A key without patterns is a key that is not given.
///
/// Within one key any pattern suffices; among the named ones (`header`, `cookie`, `query`) every
/// name must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Match {
    /// The host, whatever its case and port.
    pub host: Vec<HostPattern>,
    /// The normalised path.
    pub path: Vec<PathPattern>,
    /// The method; see [`Pattern::compile_method`].
    pub method: Vec<Pattern>,
    /// By name, whose case does not matter; a repeated header matches if any of it does.
    pub header: Vec<(String, Vec<Pattern>)>,
    /// By name.
    pub cookie: Vec<(String, Vec<Pattern>)>,
    /// By name, both decoded.
    pub query: Vec<(String, Vec<Pattern>)>,
    /// The client's address.
    pub source: Vec<Cidr>,
    /// The name that the client asked for by TLS; without one none matches.
    pub sni: Vec<HostPattern>,
    /// The client's certificate.
    pub client_cert: Option<CertMatch>,
    /// What must not match as a whole.
    pub not: Option<Box<Match>>,
}

/// A pattern for hosts: exact, `*.example.com` (any depth below), another glob, `~regex`.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPattern {
    pattern: Pattern,
    pub(crate) kind: HostKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HostKind {
    Exact(Box<[u8]>),
    /// With its leading dot.
    Suffix(Box<[u8]>),
    /// Whatever else the pattern says.
    Other,
}

/// A pattern for paths: exact, `/prefix/*`, another glob, `~regex`.
#[derive(Debug, Clone, PartialEq)]
pub struct PathPattern {
    text: Box<str>,
    pub(crate) kind: PathKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PathKind {
    Exact(Box<[u8]>),
    /// Without the `/*`: itself and what follows a slash behind it.
    Prefix(Box<[u8]>),
    /// `bare`: without the `/*` at its end, which may be missing from a path as it may after a prefix.
    Glob {
        glob: Glob,
        bare: Option<Pattern>,
    },
    Regex(Pattern),
}

impl HostPattern {
    /// Compiles `text`; its case does not matter, and neither does a dot at its end.
    ///
    /// # Errors
    /// [`PatternError`], for a port or a byte that no host has as well.
    pub fn compile(text: &str) -> Result<HostPattern, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.starts_with('~') {
            return Ok(HostPattern {
                pattern: Pattern::ignoring_case(text)?,
                kind: HostKind::Other,
            });
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let name = if name.starts_with('[') {
            canonical_ipv6(&name)?
        } else {
            checked_host(name)?
        };
        let pattern = Pattern::ignoring_case(&name)?;
        let kind = match pattern.as_exact() {
            Some(name) => HostKind::Exact(name.into()),
            None => match name.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') && !suffix.contains('*') => {
                    HostKind::Suffix(suffix.as_bytes().into())
                }
                _ => HostKind::Other,
            },
        };
        Ok(HostPattern { pattern, kind })
    }

    /// As written, in lower case.
    pub fn text(&self) -> &str {
        self.pattern.text()
    }

    /// The one host that it is for, in lower case; `None` when there may be several.
    pub fn as_exact(&self) -> Option<&str> {
        match &self.kind {
            HostKind::Exact(name) => std::str::from_utf8(name).ok(),
            HostKind::Suffix(_) | HostKind::Other => None,
        }
    }

    /// Whether a host matches, given in lower case, without port and trailing dot.
    pub fn matches(&self, host: &[u8], scratch: &mut Scratch) -> bool {
        match &self.kind {
            HostKind::Exact(name) => **name == *host,
            // Not a dot alone before it: a host has no empty label.
            HostKind::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            HostKind::Other => self.pattern.matches_value(host, &mut scratch.caches),
        }
    }

    /// Whether every host is taken, none at all too.
    pub(crate) fn takes_all(&self) -> bool {
        self.pattern.takes_all()
    }

    /// Whether some host may match both. It may say yes where there is none, never the reverse.
    pub fn may_meet(&self, other: &HostPattern, scratch: &mut Scratch) -> bool {
        match (&self.kind, &other.kind) {
            (HostKind::Exact(host), _) => other.matches(host, scratch),
            (_, HostKind::Exact(host)) => self.matches(host, scratch),
            (HostKind::Suffix(one), HostKind::Suffix(other)) => {
                one.ends_with(other) || other.ends_with(one)
            }
            _ => true,
        }
    }

    pub(crate) fn contains(&self, other: &HostPattern, scratch: &mut Scratch) -> bool {
        match (&self.kind, &other.kind) {
            (_, HostKind::Exact(host)) => self.matches(host, scratch),
            (HostKind::Suffix(wide), HostKind::Suffix(narrow)) => narrow.ends_with(wide),
            _ => self.pattern.contains(&other.pattern, scratch),
        }
    }
}

fn canonical_ipv6(text: &str) -> Result<String, PatternError> {
    if !text.ends_with(']') {
        return Err(PatternError::HostPort);
    }
    let mut scratch = Vec::new();
    match crate::host::normalise(text.as_bytes(), &mut scratch) {
        Ok(authority) => Ok(String::from_utf8_lossy(authority.host).into_owned()),
        Err(_) => Err(PatternError::Host('[')),
    }
}

fn checked_host(name: String) -> Result<String, PatternError> {
    let is_part =
        |found: char| found.is_ascii_alphanumeric() || matches!(found, '-' | '.' | '_' | '*');
    match name.chars().find(|found| !is_part(*found)) {
        Some(':') => Err(PatternError::HostPort),
        Some(found) => Err(PatternError::Host(found)),
        None if name.is_empty() => Err(PatternError::Empty),
        None => Ok(name),
    }
}

impl PathPattern {
    /// Compiles `text`, normalised as the paths of requests are.
    ///
    /// `/api/*` takes `/api` and `/api/…`, not `/apix`; `/api*` takes all three.
    ///
    /// # Errors
    /// [`PatternError`], for what can be no path as well.
    pub fn compile(text: &str) -> Result<PathPattern, PatternError> {
        if text.starts_with('~') {
            return Ok(PathPattern {
                text: text.into(),
                kind: PathKind::Regex(Pattern::compile_text(text)?),
            });
        }
        if !text.starts_with(['/', '*']) {
            return Err(if text.is_empty() {
                PatternError::Empty
            } else {
                PatternError::PathStart
            });
        }
        if text.contains('?') {
            return Err(PatternError::PathQuery);
        }
        let mut bytes = Vec::new();
        path::rewrite(text.as_bytes(), &mut bytes).map_err(PatternError::Path)?;
        // Also bounds the length. Normalised bytes are ASCII.
        let whole = Pattern::compile_text(&String::from_utf8_lossy(&bytes))?;
        let kind = match (whole.as_glob(), bytes.strip_suffix(b"/*")) {
            (None, _) => PathKind::Exact(bytes.into()),
            (Some(_), Some(bare)) if !bare.contains(&b'*') => PathKind::Prefix(bare.into()),
            (Some(glob), bare) => PathKind::Glob {
                glob: glob.clone(),
                bare: bare
                    .map(|bare| Pattern::compile_text(&String::from_utf8_lossy(bare)))
                    .transpose()?,
            },
        };
        Ok(PathPattern {
            text: text.into(),
            kind,
        })
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn matches(&self, path: &[u8], scratch: &mut Scratch) -> bool {
        match &self.kind {
            PathKind::Exact(exact) => **exact == *path,
            PathKind::Prefix(prefix) => is_under(path, prefix),
            PathKind::Glob { glob, bare } => {
                glob.matches(path)
                    || bare
                        .as_ref()
                        .is_some_and(|bare| bare.matches_value(path, &mut scratch.caches))
            }
            PathKind::Regex(pattern) => pattern.matches_value(path, &mut scratch.caches),
        }
    }

    /// Whether every path is taken, `*` too.
    pub(crate) fn takes_all(&self) -> bool {
        matches!(&self.kind, PathKind::Glob { glob, .. } if glob.takes_all())
    }

    pub(crate) fn contains(&self, other: &PathPattern, scratch: &mut Scratch) -> bool {
        match (&self.kind, &other.kind) {
            (_, PathKind::Exact(path)) => self.matches(path, scratch),
            (PathKind::Prefix(wide), PathKind::Prefix(narrow)) => is_under(narrow, wide),
            (PathKind::Prefix(wide), PathKind::Glob { .. }) => {
                // The literal start of a glob is all that is known of what it takes.
                other
                    .literal_prefix()
                    .is_some_and(|narrow| is_under(narrow, wide))
            }
            _ if self.takes_all() => true,
            _ => self.kind == other.kind,
        }
    }

    /// A prefix, ending where a segment ends, under which every path lies that this pattern takes;
    /// `None` when there is none but the root.
    pub(crate) fn literal_prefix(&self) -> Option<&[u8]> {
        let start = match &self.kind {
            PathKind::Exact(path) => return Some(path),
            PathKind::Prefix(prefix) => {
                return Some(prefix)
                    .filter(|prefix| !prefix.is_empty())
                    .map(|prefix| &**prefix);
            }
            PathKind::Glob { glob, .. } => glob.start(),
            PathKind::Regex(pattern) => regex_start(pattern.text()),
        };
        let slash = memchr::memrchr(b'/', start).filter(|at| *at > 0)?;
        start.get(..slash)
    }

    fn number(&mut self, next: &mut u32) {
        match &mut self.kind {
            PathKind::Regex(pattern) => pattern.number(next),
            PathKind::Exact(_) | PathKind::Prefix(_) | PathKind::Glob { .. } => {}
        }
    }
}

/// What each match of a path regex surely begins with; empty when that is not plain to see.
fn regex_start(text: &str) -> &[u8] {
    let Some(body) = text.strip_prefix("~^") else {
        return &[];
    };
    // Alternatives and flags may change what the letters before them mean.
    if !body.starts_with('/') || body.contains('|') || body.contains("(?") {
        return &[];
    }
    let is_literal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'%');
    let bytes = body.as_bytes();
    let end = bytes
        .iter()
        .position(|byte| !is_literal(*byte))
        .unwrap_or(bytes.len());
    // A quantifier makes the last letter uncertain.
    let certain = match bytes.get(end) {
        Some(b'?' | b'*' | b'+' | b'{') => end.saturating_sub(1),
        _ => end,
    };
    bytes.get(..certain).unwrap_or_default()
}

fn is_under(path: &[u8], prefix: &[u8]) -> bool {
    matches!(path.strip_prefix(prefix), Some([] | [b'/', ..])) && !path.is_empty()
}

/// The first thing of a match that did not hold: which key, and which of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Miss {
    pub(crate) key: Key,
    /// Which name of the key, by index.
    pub(crate) item: usize,
}

impl Match {
    /// Whether `request` is like this.
    pub fn matches(&self, request: &Request<'_>, scratch: &mut Scratch) -> bool {
        self.test(request, scratch).is_ok()
    }

    pub(crate) fn test(&self, request: &Request<'_>, scratch: &mut Scratch) -> Result<(), Miss> {
        let held = |holds: bool, key: Key| {
            if holds {
                Ok(())
            } else {
                Err(Miss { key, item: 0 })
            }
        };
        held(
            any(&self.host, |host| host.matches(request.host, scratch)),
            Key::Host,
        )?;
        held(
            any(&self.path, |path| path.matches(request.path, scratch)),
            Key::Path,
        )?;
        held(
            any(&self.method, |method| {
                method.matches_value(request.method, &mut scratch.caches)
            }),
            Key::Method,
        )?;
        held(
            any(&self.source, |range| range.contains(request.source)),
            Key::Source,
        )?;
        if !self.sni.is_empty() {
            let sni = request.tls.and_then(|tls| tls.sni.as_deref());
            let holds = sni.is_some_and(|name| {
                let name = name.as_bytes();
                self.sni.iter().any(|sni| sni.matches(name, scratch))
            });
            held(holds, Key::Sni)?;
        }
        if let Some(wanted) = &self.client_cert {
            let shown = request.tls.and_then(|tls| tls.client.as_deref());
            held(wanted.matches(shown, &mut scratch.caches), Key::ClientCert)?;
        }
        for (item, (name, patterns)) in self.header.iter().enumerate() {
            if !any_value(patterns, request.headers(name), scratch) {
                return Err(Miss {
                    key: Key::Header,
                    item,
                });
            }
        }
        for (item, (name, patterns)) in self.cookie.iter().enumerate() {
            if !any_value(patterns, request.cookies(name), scratch) {
                return Err(Miss {
                    key: Key::Cookie,
                    item,
                });
            }
        }
        for (item, (name, patterns)) in self.query.iter().enumerate() {
            if !any_param(patterns, name, request.query.unwrap_or_default(), scratch) {
                return Err(Miss {
                    key: Key::Query,
                    item,
                });
            }
        }
        match &self.not {
            Some(not) => held(not.test(request, scratch).is_err(), Key::Not),
            None => Ok(()),
        }
    }

    /// The sentence for a miss that [`Match::test`] gave for the same request.
    pub(crate) fn why<'m>(
        &'m self,
        miss: Miss,
        request: &'m Request<'_>,
    ) -> impl fmt::Display + 'm {
        Why {
            rule: self,
            miss,
            request,
        }
    }

    /// Gives each regex a slot of its own in a scratch.
    pub(crate) fn number(&mut self, next: &mut u32) {
        let hosts = self.host.iter_mut().chain(&mut self.sni);
        hosts.for_each(|host| host.pattern.number(next));
        if let Some(wanted) = &mut self.client_cert {
            wanted.number(next);
        }
        self.path.iter_mut().for_each(|path| path.number(next));
        self.method
            .iter_mut()
            .for_each(|method| method.number(next));
        let named = self
            .header
            .iter_mut()
            .chain(&mut self.cookie)
            .chain(&mut self.query);
        named
            .flat_map(|(_, patterns)| patterns)
            .for_each(|pattern| pattern.number(next));
        if let Some(not) = &mut self.not {
            not.number(next);
        }
    }
}

/// A key without patterns is not given, and holds.
fn any<T>(patterns: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    patterns.is_empty() || patterns.iter().any(holds)
}

fn any_value<'a>(
    patterns: &[Pattern],
    values: impl Iterator<Item = &'a [u8]>,
    scratch: &mut Scratch,
) -> bool {
    let mut found = false;
    for value in values {
        found = true;
        if any(patterns, |pattern| {
            pattern.matches_value(value, &mut scratch.caches)
        }) {
            return true;
        }
    }
    !found && any(patterns, Pattern::wants_absence)
}

fn any_param(patterns: &[Pattern], name: &str, query: &[u8], scratch: &mut Scratch) -> bool {
    let Scratch {
        caches,
        value: decoded,
        ..
    } = scratch;
    let mut found = false;
    for (raw_name, raw_value) in read::params(query) {
        if !read::is_name(raw_name, name.as_bytes(), decoded) {
            continue;
        }
        found = true;
        let value = read::decode(raw_value, decoded);
        if any(patterns, |pattern| pattern.matches_value(value, caches)) {
            return true;
        }
    }
    !found && any(patterns, Pattern::wants_absence)
}

#[cfg(test)]
mod tests;
