//! Makes a YAML fault say what to do: nearly always, something wants quotes.

use crate::diagnostic::Span;

/// For text that YAML took for a list or a map.
pub(crate) const HELP_FLOW: &str =
    "quote text that starts with `[` or `{`, or holds one: \"[::1]:8080\"";

/// The message and help for the scanner's complaint `info` about `line`.
pub(crate) fn explain(info: &str, line: &str, span: Span) -> (String, Option<String>) {
    if let Some(value) = suspect(line, span) {
        let quoted = format!("{:?}", value.trim_end());
        let why = match value.chars().next() {
            Some(first @ ('[' | '*' | ':' | '{' | '&' | '!' | '%' | '@' | '`')) => {
                format!("starts with `{first}`")
            }
            _ => "holds `{` or `[`".to_owned(),
        };
        return (
            format!("not YAML: {info}"),
            Some(format!("quote what {why}: {quoted}")),
        );
    }
    let help = if line.trim_start_matches(' ').starts_with('\t') {
        Some("indent with spaces, not tabs".to_owned())
    } else if info.contains("anchor") {
        Some("quote what starts with `*` or `&`".to_owned())
    } else if info.contains("mapping values are not allowed") {
        Some("a `: ` inside a value must be quoted; or is the line indented wrongly?".to_owned())
    } else if info.contains("did not find expected") || info.contains("indentation") {
        Some("is the line indented like its neighbours, and every bracket closed?".to_owned())
    } else {
        None
    };
    (format!("not YAML: {info}"), help)
}

/// The unquoted value of `line` that most likely broke it: one that YAML reads as something else.
fn suspect(line: &str, span: Span) -> Option<&str> {
    let fault = (span.column as usize).saturating_sub(1);
    let mut best = None;
    for (start, value) in values(line) {
        if line.get(..start)?.chars().count() > fault && best.is_some() {
            break;
        }
        let first = value.chars().next()?;
        let bad = match first {
            '*' | '&' | '!' | '%' | '@' | '`' => true,
            '[' => value.contains("]:") || value.contains("::"),
            ':' => true,
            '"' | '\'' | '{' | '|' | '>' | '#' => false,
            _ => value
                .split(' ')
                .next()
                .is_some_and(|word| word.contains(['{', '['])),
        };
        if bad {
            best = Some(value);
        }
    }
    best
}

/// What follows `: `, `- `, `, `, `[` or `{`, up to the next `, `, ` }`, ` ]`, ` #` or the end.
fn values(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut starts = vec![line.len() - line.trim_start().len()];
    let bytes = line.as_bytes();
    for (at, pair) in bytes.windows(2).enumerate() {
        match pair {
            [b':' | b'-' | b',', b' '] => starts.push(at + 2),
            [b'[' | b'{', next] if !matches!(next, b'[' | b':') => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().filter_map(move |start| {
        let rest = line.get(start..)?;
        let value = rest.trim_start();
        let start = start + rest.len() - value.len();
        let end = [", ", " }", " ]", " #"]
            .iter()
            .filter_map(|stop| value.find(stop))
            .min();
        let value = value.get(..end.unwrap_or(value.len()))?;
        (!value.is_empty()).then_some((start, value))
    })
}
