//! What a scalar means: `${NAME}` replaced, then YAML 1.2's core schema.

use crate::Source;

/// A scalar as its readers see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    /// As written, with variables replaced.
    pub(crate) text: String,
    pub(crate) kind: ScalarKind,
}

/// The core schema's types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScalarKind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

impl ScalarKind {
    /// The type of a plain scalar; `off`, `no`, `yes` and `0x` without digits are text.
    pub(crate) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
                return Self::Float(f64::INFINITY);
            }
            "-.inf" | "-.Inf" | "-.INF" => return Self::Float(f64::NEG_INFINITY),
            ".nan" | ".NaN" | ".NAN" => return Self::Float(f64::NAN),
            _ => {}
        }
        if let Some(int) = int(text) {
            return Self::Int(int);
        }
        if is_float(text) {
            return text.parse().map_or(Self::Text, Self::Float);
        }
        Self::Text
    }

    /// For messages: "a number", "text".
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text => "text",
        }
    }
}

fn int(text: &str) -> Option<i64> {
    let radix = |digits: &str, radix, valid: fn(&u8) -> bool| {
        let good = !digits.is_empty() && digits.as_bytes().iter().all(valid);
        good.then(|| i64::from_str_radix(digits, radix).ok())
            .flatten()
    };
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8, |b| (b'0'..=b'7').contains(b));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return radix(hex, 16, u8::is_ascii_hexdigit);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten()
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let good_exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && good_exponent
}

/// Why a variable could not be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VariableError {
    /// Character of the scalar at which `${` stands.
    pub(crate) at: usize,
    /// Characters that it covers.
    pub(crate) length: usize,
    pub(crate) message: String,
}

/// `${NAME}` and `${NAME:-default}` replaced, `$${` made `${`; what comes in is not looked at again.
///
/// As in a shell, the default also stands in for a variable that is set but empty.
pub(crate) fn expand(text: &str, source: &dyn Source) -> Result<String, VariableError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let (before, variable) = rest.split_at(dollar);
        let inner = variable.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = inner;
            continue;
        }
        out.push_str(before);
        let at = text.chars().count() - variable.chars().count();
        let fail = |length: usize, message| {
            Err(VariableError {
                at,
                length,
                message,
            })
        };
        let Some((body, after)) = inner.split_once('}') else {
            return fail(
                2,
                "`${` is never closed; write `$${` for a literal `${`".to_owned(),
            );
        };
        let length = body.chars().count() + 3;
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        if !is_name(name) {
            return fail(
                length,
                format!("`{name}` is not a variable's name; write `$${{` for a literal `${{`"),
            );
        }
        match (source.env(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => {
                return fail(length, format!("`{name}` is not set and has no default"));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Env;
    impl Source for Env {
        fn read(&self, _: &str) -> Result<String, String> {
            Err("none".to_owned())
        }
        fn glob(&self, _: &str) -> Result<Vec<String>, String> {
            Ok(Vec::new())
        }
        fn env(&self, name: &str) -> Option<String> {
            match name {
                "PORT" => Some("80".to_owned()),
                "EMPTY" => Some(String::new()),
                "NESTED" => Some("${PORT}".to_owned()),
                _ => None,
            }
        }
        fn resolves(&self, _: &str) -> Option<bool> {
            None
        }
    }

    #[test]
    fn core_schema() {
        let check = |text, kind| assert_eq!(ScalarKind::of_plain(text), kind, "{text}");
        for text in [
            "off", "on", "no", "NO", "yes", "y", "n", "1_000", "0x", "0o8", "1:30", "e3", ".", "+",
            "-", "1.2.3", "10s", "0b1", "nUll",
        ] {
            check(text, ScalarKind::Text);
        }
        for text in ["", "~", "null", "NULL"] {
            check(text, ScalarKind::Null);
        }
        check("true", ScalarKind::Bool(true));
        check("False", ScalarKind::Bool(false));
        check("012", ScalarKind::Int(12));
        check("-7", ScalarKind::Int(-7));
        check("0x1F", ScalarKind::Int(31));
        check("0o17", ScalarKind::Int(15));
        check("1.", ScalarKind::Float(1.0));
        check(".5", ScalarKind::Float(0.5));
        check("1e3", ScalarKind::Float(1000.0));
        check("99999999999999999999", ScalarKind::Float(1e20));
    }

    #[test]
    fn variables() {
        let check = |text, expected: &str| {
            assert_eq!(expand(text, &Env).as_deref(), Ok(expected), "{text}")
        };
        check("plain", "plain");
        check("${PORT}", "80");
        check(":${PORT}/x", ":80/x");
        check("${NONE:-8080}", "8080");
        check("${PORT:-8080}", "80");
        check("${EMPTY:-x}", "x");
        check("${EMPTY}", "");
        check("${NONE:-}", "");
        check("$${PORT}", "${PORT}");
        check("$$${PORT}", "$${PORT}");
        check("$PORT", "$PORT");
        check("${NESTED}", "${PORT}");
        check("${NONE:-a:-b}", "a:-b");
        let fails = |text, at, length| {
            let error = expand(text, &Env).unwrap_err();
            assert_eq!(
                (error.at, error.length),
                (at, length),
                "{text}: {}",
                error.message
            );
        };
        fails("é${NONE}", 1, 7);
        fails("${PORT", 0, 2);
        fails("a ${}", 2, 3);
        fails("${a b}", 0, 6);
    }
}
