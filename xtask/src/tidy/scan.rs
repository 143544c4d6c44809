//! Rust source as far as the rules need it: code apart from comments and strings, words, and the
//! length of functions by their braces. It is no parser, and need not be one.

/// The source with comments and the insides of strings and chars blanked out; every byte of code
/// and every line break stays where it was.
pub(super) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end > at {
            let blanked = bytes[at..end]
                .iter()
                .map(|byte| if *byte == b'\n' { '\n' } else { ' ' });
            code.extend(blanked);
            at = end;
        } else {
            let byte = bytes[at];
            code.push(if byte.is_ascii() {
                char::from(byte)
            } else {
                ' '
            });
            at += 1;
        }
    }
    code
}

/// The end of the comment, string or char that starts at `at`, or `at` if none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => {
            at + rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len())
        }
        [b'/', b'*', ..] => at + block_comment(rest),
        [b'"', ..] => at + string(rest),
        [b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => at + raw_string(rest).unwrap_or(0),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => {
            at + raw_string(&rest[1..]).map_or(0, |length| length + 1)
        }
        [b'\'', ..] => at + char_literal(rest),
        _ => at,
    }
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Block comments nest.
fn block_comment(bytes: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#`; `None` for a raw identifier such as `r#type`.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    let open = 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let inside = &bytes[open + 1..];
    let end = inside
        .windows(close.len())
        .position(|window| window == close);
    Some(end.map_or(bytes.len(), |end| open + 1 + end + close.len()))
}

/// The length of `'x'`, `'\n'`, `'é'`; 0 for a lifetime.
fn char_literal(bytes: &[u8]) -> usize {
    if bytes.get(1) == Some(&b'\\') {
        let end = bytes.iter().skip(3).position(|byte| *byte == b'\'');
        return end.map_or(0, |end| end + 4);
    }
    // One character of up to four bytes, then the quote.
    let end = bytes.iter().skip(2).take(4).position(|byte| *byte == b'\'');
    match end {
        Some(0) => 3,
        Some(more) if !bytes[1].is_ascii() => more + 3,
        _ => 0,
    }
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// From 1.
    pub(super) line: usize,
    /// From the line of `fn` to that of the closing brace.
    pub(super) lines: usize,
}

/// Every function with a body, in order; those within functions too.
pub(super) fn functions(code: &str) -> Vec<Function<'_>> {
    words(code, "fn")
        .filter_map(|at| function(code, at))
        .collect()
}

fn function(code: &str, at: usize) -> Option<Function<'_>> {
    let bytes = code.as_bytes();
    let name_at = at
        + 2
        + bytes[at + 2..]
            .iter()
            .position(|byte| !byte.is_ascii_whitespace())?;
    let length = bytes[name_at..]
        .iter()
        .take_while(|byte| is_word(**byte))
        .count();
    if length == 0 {
        return None; // a type such as fn(u8), or a macro's $name
    }
    let mut nested = 0;
    let open = bytes[name_at..].iter().position(|byte| {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested -= 1,
            _ => {}
        }
        nested == 0 && matches!(byte, b'{' | b';')
    })?;
    let open = name_at + open;
    if bytes[open] == b';' {
        return None;
    }
    let end = open + matching(&bytes[open..])?;
    let lines_of = |range: &str| range.matches('\n').count();
    Some(Function {
        name: &code[name_at..name_at + length],
        line: lines_of(&code[..at]) + 1,
        lines: lines_of(&code[at..end]) + 1,
    })
}

/// Where the bracket that `bytes` starts with is closed.
fn matching(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0;
    bytes.iter().position(|byte| {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// Where `word` stands alone, not as a part of a longer one.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let after = bytes.get(at + word.len());
            !follows_word(bytes, *at) && !after.is_some_and(|byte| is_word(*byte))
        })
}

/// The attributes (`#[…]`, `#![…]`): where they start and what stands between the brackets.
pub(super) fn attributes(code: &str) -> Vec<(usize, &str)> {
    let starts = code.match_indices('#').map(|(at, _)| at);
    let attribute = |at: usize| {
        let rest = &code[at + 1..];
        let open = at + 1 + usize::from(rest.starts_with('!'));
        if !code[open..].starts_with('[') {
            return None;
        }
        let end = open + matching(&code.as_bytes()[open..])?;
        Some((at, &code[open + 1..end]))
    };
    starts.filter_map(attribute).collect()
}

/// The line of a place, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_in_place() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x\"y{", 'z')"#, r#"f(       ,    )"#),
            (r##"r#"a"b"# r#type"##, "         r#type"),
            ("br\"{\" b'\\'' x", "      b     x"),
            ("&'a str '{' '\\u{1f}'", "&'a str             "),
            ("'é' x", "     x"),
        ];
        for (source, expected) in cases {
            let code = code_only(source);
            assert_eq!(code.trim_end(), expected.trim_end(), "{source}");
            assert_eq!(code.len(), source.len(), "{source}");
        }
    }

    #[test]
    fn functions_by_their_braces() {
        let source = "fn a() {}\ntrait T { fn b(&self); }\nfn c(x: [u8; 3], f: fn(u8)) -> u8\nwhere\n{\n  \
            fn d() { \"}\"; }\n  1\n}\n";
        let code = code_only(source);
        let found: Vec<_> = functions(&code)
            .iter()
            .map(|f| (f.name, f.line, f.lines))
            .collect();
        assert_eq!(found, [("a", 1, 1), ("c", 3, 6), ("d", 6, 1)]);
    }

    #[test]
    fn words_and_attributes() {
        assert_eq!(
            words("unsafe_code unsafe { not_unsafe }", "unsafe").collect::<Vec<_>>(),
            [12]
        );
        let code = code_only("#![forbid(x)] #[expect(a, reason = \"]\")] #x");
        let found: Vec<_> = attributes(&code)
            .into_iter()
            .map(|(_, inside)| inside.trim())
            .collect();
        assert_eq!(found, ["forbid(x)", "expect(a, reason =    )"]);
    }
}
