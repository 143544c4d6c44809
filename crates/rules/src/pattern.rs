//! One value against one pattern: exact, `*` as glob, `~regex`, present or absent.
//!
//! It does not know where a value comes from; hosts and paths have kinds of their own in `matching`.

use std::fmt;
use std::sync::Arc;

use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;

use crate::Scratch;
use crate::path::TargetError;
use crate::scratch::Caches;

/// Longest text of a pattern, bytes.
pub const PATTERN_BYTES_MAX: usize = 8 * 1024;
/// Memory of one compiled regex, bytes.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Memory of one regex's lazy DFA in one worker, bytes.
const REGEX_CACHE_BYTES_MAX: usize = 128 * 1024;
/// Nesting of groups in a regex.
const REGEX_NEST_MAX: u32 = 64;

/// What a value has to be like.
///
/// Two are equal if they were written alike and mean the same.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As written, for messages.
    text: Box<str>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Whether there is a value at all.
    Present(bool),
    Exact(Box<[u8]>),
    Glob(Glob),
    /// The slot is where a scratch keeps this regex's cache.
    Regex {
        regex: Arc<Regex>,
        slot: u32,
    },
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternError {
    /// Empty, or `~` with nothing behind it.
    Empty,
    /// Over [`PATTERN_BYTES_MAX`].
    TooLong,
    /// What the regex parser says.
    Regex(String),
    /// Compiled, the regex is over [`REGEX_BYTES_MAX`].
    RegexTooLarge,
    /// A host with a port.
    HostPort,
    /// A byte that no host has.
    Host(char),
    /// A path that begins with none of `/`, `*`, `~`.
    PathStart,
    /// A path with a `?`.
    PathQuery,
    /// A path that a request cannot have.
    Path(TargetError),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Empty => f.write_str("the pattern is empty"),
            PatternError::TooLong => {
                write!(f, "the pattern is longer than {PATTERN_BYTES_MAX} bytes")
            }
            PatternError::Regex(message) => write!(f, "bad regex: {message}"),
            PatternError::RegexTooLarge => {
                write!(
                    f,
                    "the regex needs more than {} KiB when compiled",
                    REGEX_BYTES_MAX / 1024
                )
            }
            PatternError::HostPort => {
                f.write_str("a host matches without its port; leave the port out")
            }
            PatternError::Host(found) => write!(
                f,
                "no host holds {found:?}; write letters, digits, `-`, `.`, `*`, an address, or ~regex"
            ),
            PatternError::PathStart => f.write_str("a path begins with `/`, `*` or `~`"),
            PatternError::PathQuery => {
                f.write_str("a path holds no `?`; match what follows it with `query`")
            }
            PatternError::Path(error) => write!(f, "no request has this path: {error}"),
        }
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Any spelling: `true` (present), `false` (absent), `~regex`, a glob if it holds `*`, else exact.
    ///
    /// A regex is unanchored and works on bytes: `\d` and `\w` are ASCII unless it says `(?u)`.
    ///
    /// # Errors
    /// [`PatternError`] for an empty or too long text and for what is wrong in a regex.
    pub fn compile(text: &str) -> Result<Pattern, PatternError> {
        match text {
            "true" => Ok(Pattern::present(true)),
            "false" => Ok(Pattern::present(false)),
            _ => Pattern::compile_text(text),
        }
    }

    /// The same for a string that the user quoted: `true` and `false` are only text here, and an
    /// empty one is an empty value.
    ///
    /// # Errors
    /// As [`Pattern::compile`].
    pub fn compile_text(text: &str) -> Result<Pattern, PatternError> {
        check_length(text)?;
        let kind = match text.strip_prefix('~') {
            Some(regex) => Kind::Regex {
                regex: compile_regex(regex, false)?,
                slot: 0,
            },
            None => plain(text),
        };
        Ok(Pattern {
            text: text.into(),
            kind,
        })
    }

    /// For methods: what is no regex is taken in upper case.
    ///
    /// # Errors
    /// As [`Pattern::compile`].
    pub fn compile_method(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.starts_with('~') {
            Pattern::compile_text(text)
        } else {
            Pattern::compile_text(&text.to_ascii_uppercase())
        }
    }

    /// Whether there is a value (`true`) or none (`false`).
    pub fn present(present: bool) -> Pattern {
        Pattern {
            text: if present { "true" } else { "false" }.into(),
            kind: Kind::Present(present),
        }
    }

    /// For values that are lower case, such as hosts: text is lowered, a regex ignores case.
    pub(crate) fn ignoring_case(text: &str) -> Result<Pattern, PatternError> {
        check_length(text)?;
        let kind = match text.strip_prefix('~') {
            Some(regex) => Kind::Regex {
                regex: compile_regex(regex, true)?,
                slot: 0,
            },
            None => plain(&text.to_ascii_lowercase()),
        };
        Ok(Pattern {
            text: text.into(),
            kind,
        })
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `value` (`None`: there is none) is as this pattern wants it.
    pub fn matches(&self, value: Option<&[u8]>, scratch: &mut Scratch) -> bool {
        match value {
            Some(value) => self.matches_value(value, &mut scratch.caches),
            None => self.wants_absence(),
        }
    }

    pub(crate) fn matches_value(&self, value: &[u8], caches: &mut Caches) -> bool {
        match &self.kind {
            Kind::Present(present) => *present,
            Kind::Exact(text) => **text == *value,
            Kind::Glob(glob) => glob.matches(value),
            Kind::Regex { regex, slot } => caches.is_match(*slot, regex, value),
        }
    }

    pub(crate) fn wants_absence(&self) -> bool {
        matches!(self.kind, Kind::Present(false))
    }

    /// Whether every value that `other` takes is taken by this one. May say no where it is so.
    pub(crate) fn contains(&self, other: &Pattern, scratch: &mut Scratch) -> bool {
        if self == other {
            return true;
        }
        match (&self.kind, &other.kind) {
            (_, kind) if self.takes_all() => !matches!(kind, Kind::Present(false)),
            (_, Kind::Exact(value)) => self.matches(Some(value), scratch),
            _ => false,
        }
    }

    /// Whether there is no value that this pattern does not take.
    pub(crate) fn takes_all(&self) -> bool {
        match &self.kind {
            Kind::Present(present) => *present,
            Kind::Glob(glob) => glob.takes_all(),
            Kind::Exact(_) | Kind::Regex { .. } => false,
        }
    }

    /// Gives the regex, if it is one, a slot of its own in a scratch.
    pub(crate) fn number(&mut self, next: &mut u32) {
        if let Kind::Regex { slot, .. } = &mut self.kind {
            *slot = *next;
            *next = next.saturating_add(1);
        }
    }

    /// If this pattern takes one value only.
    pub(crate) fn as_exact(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Exact(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_glob(&self) -> Option<&Glob> {
        match &self.kind {
            Kind::Glob(glob) => Some(glob),
            _ => None,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        let same_kind = match (&self.kind, &other.kind) {
            (Kind::Present(a), Kind::Present(b)) => a == b,
            (Kind::Exact(a), Kind::Exact(b)) => a == b,
            (Kind::Glob(a), Kind::Glob(b)) => a == b,
            (Kind::Regex { .. }, Kind::Regex { .. }) => true,
            _ => false,
        };
        same_kind && self.text == other.text
    }
}

fn check_length(text: &str) -> Result<(), PatternError> {
    match text {
        "~" => Err(PatternError::Empty),
        _ if text.len() > PATTERN_BYTES_MAX => Err(PatternError::TooLong),
        _ => Ok(()),
    }
}

fn plain(text: &str) -> Kind {
    if text.contains('*') {
        Kind::Glob(Glob::new(text.as_bytes()))
    } else {
        Kind::Exact(text.as_bytes().into())
    }
}

fn compile_regex(text: &str, ignore_case: bool) -> Result<Arc<Regex>, PatternError> {
    let options = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(REGEX_BYTES_MAX))
        .hybrid_cache_capacity(REGEX_CACHE_BYTES_MAX);
    let syntax = syntax::Config::new()
        .utf8(false)
        .unicode(false)
        .nest_limit(REGEX_NEST_MAX)
        .case_insensitive(ignore_case);
    match Regex::builder()
        .configure(options)
        .syntax(syntax)
        .build(text)
    {
        Ok(regex) => Ok(Arc::new(regex)),
        Err(error) if error.size_limit().is_some() => Err(PatternError::RegexTooLarge),
        Err(error) => {
            let message = error
                .syntax_error()
                .map_or_else(|| error.to_string(), ToString::to_string);
            // The parser draws a picture first; its last line says what is wrong.
            let line = message.lines().last().unwrap_or_default();
            Err(PatternError::Regex(
                line.trim_start_matches("error: ").to_owned(),
            ))
        }
    }
}

/// Literal pieces with anything between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Glob {
    start: Box<[u8]>,
    middle: Vec<Box<[u8]>>,
    end: Box<[u8]>,
}

impl Glob {
    /// Without a `*` in it, `text` has to be there twice; callers do not ask for that.
    pub(crate) fn new(text: &[u8]) -> Glob {
        let mut pieces = text.split(|byte| *byte == b'*');
        let start = pieces.next().unwrap_or_default().into();
        let end = pieces.next_back().unwrap_or_default().into();
        let middle = pieces
            .filter(|piece| !piece.is_empty())
            .map(Into::into)
            .collect();
        Glob { start, middle, end }
    }

    /// Each piece is looked for once from where the last one ended: linear in the value.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        let Some(rest) = value.strip_prefix(&*self.start) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(&*self.end) else {
            return false;
        };
        for piece in &self.middle {
            let Some(at) = memchr::memmem::find(rest, piece) else {
                return false;
            };
            rest = rest.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }

    /// What every matching value begins with.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    pub(crate) fn takes_all(&self) -> bool {
        self.start.is_empty() && self.middle.is_empty() && self.end.is_empty()
    }
}

#[cfg(test)]
mod tests;
