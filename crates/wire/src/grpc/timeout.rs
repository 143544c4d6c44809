//! `grpc-timeout`: how long a client waits for the end of a call.
//!
//! ```text
//! Timeout      = "grpc-timeout" TimeoutValue TimeoutUnit
//! TimeoutValue = 1*8DIGIT, as long as it is positive
//! TimeoutUnit  = "H" / "M" / "S" / "m" / "u" / "n"
//! ```

use std::time::Duration;

/// Digits of a value.
pub const TIMEOUT_DIGITS_MAX: usize = 8;

/// The time that a value of `grpc-timeout` gives; `None` if it is none. Zero, which the document does not allow, is a
/// time that is over: that is how the libraries take it.
#[must_use]
pub fn decode_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The value of `grpc-timeout` for a time: rounded up, as exact as eight digits allow, at least one nanosecond.
#[must_use]
pub fn encode_timeout(time: Duration) -> String {
    const LIMIT: u128 = 10_u128.pow(TIMEOUT_DIGITS_MAX as u32);
    let nanos = time.as_nanos().max(1);
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let mut fits = units
        .into_iter()
        .map(|(of, unit)| (nanos.div_ceil(of), unit));
    let (number, unit) = fits
        .find(|(number, _)| *number < LIMIT)
        .unwrap_or((LIMIT - 1, 'H'));
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_document_and_what_is_none() {
        for (value, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("00000001n", Some(Duration::from_nanos(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("1h", None),
            ("-1S", None),
            ("+1S", None),
            ("1 S", None),
            (" 1S", None),
            ("1.5S", None),
            ("100000000n", None),
            ("\u{661}S", None),
        ] {
            assert_eq!(decode_timeout(value.as_bytes()), expected, "{value:?}");
        }
    }

    #[test]
    fn times_as_values() {
        for (time, expected) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(encode_timeout(time), expected);
        }
    }
}
