//! Times, sizes and percentages as users write them, and back.

use std::time::Duration;

use crate::diagnostic::{Kind, Report};
use crate::read::{Read, Shape, wrong_type};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};

/// The longest time that is taken: ten years of 365 days.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// Units of time, longest first, in microseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
/// Units of size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A time; may be 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Duration);

/// A time above 0: one of 0 would end everything at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait(pub(crate) Duration);

/// A size of at least `MIN` and at most `MAX` bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size<const MIN: u64, const MAX: u64>(pub(crate) u64);

/// A share, 0% to 100%.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(pub(crate) u32);

/// Parses `10s`, `1m30s`, `250ms`, `0`: whole numbers, longest unit first, each unit once.
///
/// # Errors
/// What is wrong with it, in words for the user.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let example = "a time such as `10s`, `250ms` or `1m30s` (us ms s m h d)";
    let fault = || format!("`{text}` is not {example}");
    let (mut rest, mut units, mut micros) = (text, TIME_UNITS.as_slice(), 0_u64);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, after) = after.split_at(letters);
        let at = units
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(fault)?;
        let factor = units.get(at).map_or(1, |(_, factor)| *factor);
        let part = number
            .parse::<u64>()
            .map_err(|_| fault())?
            .checked_mul(factor);
        micros = part
            .and_then(|part| part.checked_add(micros))
            .ok_or_else(fault)?;
        units = units.get(at + 1..).unwrap_or_default();
        rest = after;
    }
    if text.is_empty() {
        return Err(fault());
    }
    let duration = Duration::from_micros(micros);
    if duration > DURATION_MAX {
        return Err(format!(
            "`{text}` is longer than ten years; `off` means no limit"
        ));
    }
    Ok(duration)
}

/// Parses `32KiB`, `512B`, `0`.
fn parse_size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let fault = || format!("`{text}` is not a size such as `32KiB` (B KiB MiB GiB)");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(fault)?
        .1;
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(fault)
}

/// `75s`, in the largest unit that divides it; below a microsecond is dropped.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let divides = |(_, factor): &(&str, u64)| micros >= *factor && micros.is_multiple_of(*factor);
    let (unit, factor) = TIME_UNITS
        .into_iter()
        .find(divides)
        .unwrap_or(("s", 1_000_000));
    format!("{}{unit}", micros / factor)
}

/// `32KiB`, in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// The scalar's text, a bare number other than 0 refused with the unit it lacks.
fn with_unit<'a>(
    node: &'a Node,
    expected: &str,
    unit: &str,
    report: &mut Report,
) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(Scalar {
            text,
            kind: ScalarKind::Text,
        }) => Some(text),
        Value::Scalar(Scalar {
            kind: ScalarKind::Int(0),
            ..
        }) => Some("0"),
        Value::Scalar(Scalar {
            text,
            kind: ScalarKind::Int(_) | ScalarKind::Float(_),
        }) => {
            let help = format!("write `{text}{unit}` if that is meant");
            report.error_help(
                Kind::Type,
                node.span,
                format!("`{text}` lacks its unit"),
                help,
            );
            None
        }
        _ => {
            wrong_type(node, expected, report);
            None
        }
    }
}

fn taken<T>(result: Result<T, String>, node: &Node, report: &mut Report) -> Option<T> {
    result
        .map_err(|message| report.error(Kind::Value, node.span, message))
        .ok()
}

impl Read for Time {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let text = with_unit(node, "a time such as `10s`", "s", report)?;
        taken(parse_duration(text), node, report).map(Self)
    }

    fn shape() -> Shape {
        Shape::Measure {
            what: "time",
            pattern: "^(0|([0-9]+(us|ms|s|m|h|d))+)$",
        }
    }
}

impl Read for Wait {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Time(time) = Time::read(node, report)?;
        if time.is_zero() {
            let message = "a time of 0 would end everything at once";
            report.error_help(
                Kind::Value,
                node.span,
                message,
                "`off`, where it is taken, means no limit",
            );
            return None;
        }
        Some(Self(time))
    }

    fn shape() -> Shape {
        Time::shape()
    }
}

impl<const MIN: u64, const MAX: u64> Read for Size<MIN, MAX> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let text = with_unit(node, "a size such as `32KiB`", "B", report)?;
        let size = taken(parse_size(text), node, report)?;
        if (MIN..=MAX).contains(&size) {
            return Some(Self(size));
        }
        let (min, max) = (show_size(MIN), show_size(MAX));
        report.error(
            Kind::Value,
            node.span,
            format!("expected a size from {min} to {max}"),
        );
        None
    }

    fn shape() -> Shape {
        Shape::Measure {
            what: "size",
            pattern: "^(0|[0-9]+(B|KiB|MiB|GiB))$",
        }
    }
}

impl Read for Percent {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let text = with_unit(node, "a percentage such as `20%`", "%", report)?;
        let number = if text == "0" {
            Some(text)
        } else {
            text.strip_suffix('%')
        };
        let percent = number
            .and_then(|n| n.parse().ok())
            .filter(|percent| *percent <= 100);
        if percent.is_none() {
            let message = format!("`{text}` is not a percentage from 0% to 100%");
            report.error(Kind::Value, node.span, message);
        }
        percent.map(Self)
    }

    fn shape() -> Shape {
        Shape::Measure {
            what: "percentage",
            pattern: "^(0|[0-9]{1,3}%)$",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, micros| {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_micros(micros)),
                "{text}"
            )
        };
        check("0", 0);
        check("0s", 0);
        check("7us", 7);
        check("250ms", 250_000);
        check("1m30s", 90_000_000);
        check("1d2h3m4s5ms6us", 93_784_005_006);
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "1s1m",
            "1s1s",
            "-1s",
            "1 s",
            "1S",
            "99999999999999999999s",
            "4000d",
            "1sec",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_as_read() {
        for text in ["7us", "75s", "2h", "30s", "1d", "0s", "1500ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["32KiB", "8KiB", "1MiB", "1500B", "1GiB"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
        for text in ["32KB", "32", "KiB", "1.5KiB", "-1B", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
