//! What is wrong or odd in a config, where, and what would be right.
//!
//! [`Report`] collects while reading goes on; [`Diagnostic`] is what a user sees. Nothing here
//! decides what is wrong.

use std::fmt::{self, Write as _};

use crate::suggest::nearest;

/// Findings of one severity in one load; what comes after is counted, not kept.
pub(crate) const FINDINGS_MAX: usize = 1_000;
/// Known words that are compared with a misspelt one.
const COMPARED_MAX: usize = 2_000;
/// Characters of a source line that are shown.
const LINE_SHOWN_MAX: usize = 160;

/// A stretch of one line of a config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// Index of the file, in the order in which files were read.
    pub file: u32,
    /// From 1; 0 when the file itself could not be read.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In characters, at least 1, never past the end of the line when rendered.
    pub length: u32,
}

impl Span {
    /// The first character of the main file.
    pub(crate) const START: Self = Self {
        file: 0,
        line: 1,
        column: 1,
        length: 1,
    };
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The config is not taken.
    Error,
    /// Taken, but surely not what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// As printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What sort of thing was found; the word in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file could not be read, or is too large.
    File,
    /// Not YAML, or YAML of a kind that is not used here.
    Syntax,
    /// A bound of the reader (depth, aliases, include depth) was passed.
    Limit,
    /// `${NAME}` that is unset or badly written.
    Variable,
    /// A key, name or address given twice.
    Duplicate,
    /// A key that does not exist here.
    UnknownKey,
    /// A key or value that a later version will take.
    Unsupported,
    /// The wrong type: a list where text is expected.
    Type,
    /// The right type with a value that cannot be.
    Value,
    /// A key that must be there is not.
    Missing,
    /// A name that nothing bears.
    UnknownName,
    /// An address that cannot be one, or lacks its port.
    Address,
    /// Binds of which one would take the other's traffic, or keys that exclude each other.
    Conflict,
    /// A pool without servers, a split without weight.
    Empty,
    /// A route that can never match.
    Unreachable,
    /// A pool that no route leads to.
    Unused,
    /// Weights that leave nothing to pick.
    Weight,
    /// A name that does not resolve now.
    Resolve,
    /// A pool whose health is judged by TCP connect alone.
    TcpOnly,
    /// Requests that may be done twice.
    Repeats,
    /// A certificate or key that cannot be used, is out of date, or does not fit what it is for.
    Certificate,
    /// A secret that is none.
    Secret,
}

impl Kind {
    /// As printed in brackets; stable, for tools.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Syntax => "syntax",
            Self::Limit => "limit",
            Self::Variable => "variable",
            Self::Duplicate => "duplicate",
            Self::UnknownKey => "unknown_key",
            Self::Unsupported => "unsupported",
            Self::Type => "type",
            Self::Value => "value",
            Self::Missing => "missing",
            Self::UnknownName => "unknown_name",
            Self::Address => "address",
            Self::Conflict => "conflict",
            Self::Empty => "empty",
            Self::Unreachable => "unreachable",
            Self::Unused => "unused",
            Self::Weight => "weight",
            Self::Resolve => "resolve",
            Self::TcpOnly => "tcp_only",
            Self::Repeats => "repeats",
            Self::Certificate => "certificate",
            Self::Secret => "secret",
        }
    }
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As the user named the file, or as an `include` found it.
    pub file: String,
    /// From 1; 0 when the file itself could not be read.
    pub line: u32,
    /// From 1, in characters; 0 when `line` is.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One finding, with everything needed to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What sort of thing.
    pub kind: Kind,
    /// Where it starts.
    pub place: Place,
    /// The same, as a stretch of the line.
    pub span: Span,
    /// What is wrong, one line.
    pub message: String,
    /// What would be right, if that is known.
    pub help: Option<String>,
    /// The line of the file, empty when `place.line` is 0.
    pub source_line: String,
}

impl Diagnostic {
    /// `FILE:LINE:COLUMN: error[kind]: message`, the line, its underline, and the help.
    ///
    /// Several lines, each ended by a line feed. `color` adds ANSI colours.
    pub fn render(&self, color: bool) -> String {
        let (strong, tint, end) = match (color, self.severity) {
            (false, _) => ("", "", ""),
            (true, Severity::Error) => ("\x1b[1m", "\x1b[1;31m", "\x1b[0m"),
            (true, Severity::Warning) => ("\x1b[1m", "\x1b[1;33m", "\x1b[0m"),
            (true, Severity::Note) => ("\x1b[1m", "\x1b[1;36m", "\x1b[0m"),
        };
        let (severity, kind) = (self.severity.as_str(), self.kind.as_str());
        let mut out = format!(
            "{strong}{}:{end} {tint}{severity}[{kind}]{end}: {strong}{}{end}\n",
            self.place,
            printable(&self.message),
        );
        if let Some((line, marks)) = self.excerpt() {
            let _ = writeln!(out, "    {line}\n    {tint}{marks}{end}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "    {}", printable(help));
        }
        out
    }

    /// The line as shown and the marks under it; a window of a very long line.
    fn excerpt(&self) -> Option<(String, String)> {
        if self.place.line == 0 || self.source_line.is_empty() {
            return None;
        }
        let at = self.span.column.max(1) as usize - 1;
        let from = at.saturating_sub(LINE_SHOWN_MAX / 2);
        let shown: String = self
            .source_line
            .chars()
            .skip(from)
            .take(LINE_SHOWN_MAX)
            .collect();
        let before = at - from;
        let room = shown.chars().count().saturating_sub(before).max(1);
        let marks = " ".repeat(before) + &"^".repeat((self.span.length.max(1) as usize).min(room));
        Some((printable(&shown), marks))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Control characters become spaces: a config must not drive the terminal, and columns stay.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// One file as read.
#[derive(Debug)]
struct File {
    path: String,
    text: String,
    /// Byte at which each line starts.
    lines: Vec<usize>,
}

/// The files of one load, in the order in which they were read.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<File>);

impl Files {
    /// Adds a file and returns its index.
    pub(crate) fn push(&mut self, path: &str, text: String) -> u32 {
        let mut lines = line_starts(&text);
        // Behind the last line break there is no line.
        lines.pop_if(|start| *start == text.len() && *start > 0);
        self.0.push(File {
            path: path.to_owned(),
            text,
            lines,
        });
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.iter().map(|file| file.path.clone()).collect()
    }

    /// A line from 1, without its break; empty when there is none.
    pub(crate) fn line(&self, file: u32, line: u32) -> &str {
        let Some(file) = self.0.get(file as usize) else {
            return "";
        };
        let index = (line as usize).wrapping_sub(1);
        let Some(&start) = file.lines.get(index) else {
            return "";
        };
        let end = file
            .lines
            .get(index + 1)
            .copied()
            .unwrap_or(file.text.len());
        file.text
            .get(start..end)
            .unwrap_or_default()
            .trim_end_matches(['\r', '\n'])
    }

    /// Held to the file's lines: a fault at its end points at the last character.
    pub(crate) fn inside(&self, span: Span) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let lines = self
            .0
            .get(span.file as usize)
            .map_or(0, |file| number(file.lines.len()));
        if lines == 0 || span.line == 0 {
            return span;
        }
        let line = span.line.clamp(1, lines);
        let width = number(self.line(span.file, line).chars().count()).max(1);
        let column = if line == span.line {
            span.column.clamp(1, width)
        } else {
            width
        };
        Span {
            file: span.file,
            line,
            column,
            length: span.length.clamp(1, width - column + 1),
        }
    }

    pub(crate) fn place(&self, span: Span) -> Place {
        let file = self.0.get(span.file as usize).map_or("", |file| &file.path);
        Place {
            file: file.to_owned(),
            line: span.line,
            column: span.column,
        }
    }
}

/// YAML's line breaks: LF, CR LF and a lone CR.
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = bytes.iter().enumerate().filter(|&(at, &byte)| match byte {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 1))
        .collect()
}

/// One finding while reading goes on.
#[derive(Debug)]
struct Finding {
    severity: Severity,
    kind: Kind,
    span: Span,
    message: String,
    help: Option<String>,
}

/// Collects findings; everyone reports and goes on.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) files: Files,
    findings: Vec<Finding>,
    /// Findings by severity; those past the bound are only counted.
    counts: [usize; 3],
}

impl Report {
    fn count(&self, severity: Severity) -> usize {
        self.counts.get(severity as usize).copied().unwrap_or(0)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    pub(crate) fn error(&mut self, kind: Kind, span: Span, message: impl Into<String>) {
        self.add(Severity::Error, kind, span, message.into(), None);
    }

    pub(crate) fn error_help(
        &mut self,
        kind: Kind,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(
            Severity::Error,
            kind,
            span,
            message.into(),
            Some(help.into()),
        );
    }

    pub(crate) fn warn(&mut self, kind: Kind, span: Span, message: impl Into<String>) {
        self.add(Severity::Warning, kind, span, message.into(), None);
    }

    pub(crate) fn warn_help(
        &mut self,
        kind: Kind,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (message, help) = (message.into(), Some(help.into()));
        self.add(Severity::Warning, kind, span, message, help);
    }

    /// As [`Report::warn`], unless the same was said of the same place.
    pub(crate) fn warn_once(&mut self, kind: Kind, span: Span, message: String) {
        let said = |finding: &Finding| finding.span == span && finding.message == message;
        if !self.findings.iter().any(said) {
            self.warn(kind, span, message);
        }
    }

    pub(crate) fn note(&mut self, kind: Kind, span: Span, message: impl Into<String>) {
        self.add(Severity::Note, kind, span, message.into(), None);
    }

    /// A word that is none of `known`, with the nearest of them as help.
    pub(crate) fn not_among<'a>(
        &mut self,
        kind: Kind,
        span: Span,
        message: String,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        self.not_among_but(kind, span, message, word, known, None);
    }

    /// The same, with what else the word could be as help where none of `known` is near.
    pub(crate) fn not_among_but<'a>(
        &mut self,
        kind: Kind,
        span: Span,
        message: String,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
        elsewhere: Option<String>,
    ) {
        // What is not kept needs no help either: comparing is the dear part.
        let compared = if self.count(Severity::Error) < FINDINGS_MAX {
            COMPARED_MAX
        } else {
            0
        };
        let known: Vec<&str> = known.into_iter().take(compared).collect();
        let help = match nearest(word, &known) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if elsewhere.is_some() => elsewhere,
            None if (1..=12).contains(&known.len()) => Some(format!("known: {}", listed(&known))),
            None => None,
        };
        self.add(Severity::Error, kind, span, message, help);
    }

    /// The same thing twice; names both places.
    pub(crate) fn twice(&mut self, span: Span, first: Span, what: &str) {
        let place = self.files.place(first);
        self.error(
            Kind::Duplicate,
            span,
            format!("{what} is given twice; first at {place}"),
        );
    }

    fn add(
        &mut self,
        severity: Severity,
        kind: Kind,
        span: Span,
        message: String,
        help: Option<String>,
    ) {
        if let Some(count) = self.counts.get_mut(severity as usize) {
            *count += 1;
        }
        if self.count(severity) <= FINDINGS_MAX {
            let span = self.files.inside(span);
            self.findings.push(Finding {
                severity,
                kind,
                span,
                message,
                help,
            });
        }
    }

    /// In the order of the files, notes only where nothing is wrong; what an alias made appear twice is shown once.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        let wrong = self.has_errors();
        self.findings
            .retain(|finding| !wrong || finding.severity != Severity::Note);
        self.findings.sort_by(|a, b| {
            let key = |finding: &Finding| (finding.span, finding.severity, finding.kind);
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        self.findings
            .dedup_by(|a, b| a.span == b.span && a.kind == b.kind && a.message == b.message);
        let files = &self.files;
        let diagnostic = |finding: Finding| Diagnostic {
            severity: finding.severity,
            kind: finding.kind,
            place: files.place(finding.span),
            span: finding.span,
            message: finding.message,
            help: finding.help,
            source_line: files.line(finding.span.file, finding.span.line).to_owned(),
        };
        self.findings.into_iter().map(diagnostic).collect()
    }
}

/// `a`, `b`, `c`.
pub(crate) fn listed(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
