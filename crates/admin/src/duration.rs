//! Times in a query, in the spelling of the config: `30s`, `1m30s`, `250ms`.

use std::time::Duration;

/// Longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// The longest time that is taken.
const MAX: Duration = Duration::from_secs(365 * 86_400);

/// Whole numbers with a unit each, longest unit first.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as `30s`, `250ms` or `1m30s`");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut units, mut millis) = (text, UNITS.as_slice(), 0_u64);
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let at = units
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        let factor = units.get(at).map_or(1, |(_, factor)| *factor);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        millis = number
            .checked_mul(factor)
            .and_then(|part| part.checked_add(millis))
            .ok_or_else(wrong)?;
        units = units.get(at + 1..).unwrap_or_default();
        rest = after;
    }
    let duration = Duration::from_millis(millis);
    if duration > MAX {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_config_reads_them() {
        for (text, millis) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1d", Some(86_400_000)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1s1m", None),
            ("1s1s", None),
            ("1.5s", None),
            ("off", None),
            ("99999999999999999999d", None),
            ("366d", None),
        ] {
            assert_eq!(
                parse(text).ok(),
                millis.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }
}
