//! Which part of its weight a server has for now: less than all of it while it fails now and then, or while it warms
//! up.

use std::fmt;
use std::ops::Mul;

/// A part of a server's weight, in sixteenths: 1/16 to all of it.
///
/// Sixteenths, so that a view is built anew, and keys move, only at steps that matter. The least is 1/16 and never
/// nothing: a server that gets no traffic cannot show that it has recovered. Factors combine by multiplication, and a
/// product is rounded once more to a sixteenth: a server at 8/16 that warms up at 4/16 has 2/16 of its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

impl Share {
    /// All of the weight.
    pub const FULL: Self = Self(16);
    /// The least that there is: 1/16.
    pub const MIN: Self = Self(1);

    /// The sixteenth nearest to `factor`, at least 1/16 and at most all. What is no number is all.
    pub fn new(factor: f64) -> Self {
        let sixteenths = (factor * 16.0).round();
        if sixteenths.is_nan() {
            return Self::FULL;
        }
        Self(sixteenths.clamp(1.0, 16.0) as u8)
    }

    /// 1 to 16.
    pub fn sixteenths(self) -> u32 {
        u32::from(self.0)
    }

    /// 1/16 to 1.
    pub fn factor(self) -> f64 {
        f64::from(self.0) / 16.0
    }

    /// Whether it is all of the weight.
    pub fn is_full(self) -> bool {
        self == Self::FULL
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::FULL
    }
}

impl Mul for Share {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self::new(self.factor() * other.factor())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (self.sixteenths() * 100).div_ceil(16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_rounded_to_a_sixteenth_and_never_nothing() {
        for (factor, sixteenths) in [
            (-1.0, 1),
            (0.0, 1),
            (0.5, 8),
            (0.52, 8),
            (0.54, 9),
            (0.99, 16),
            (2.0, 16),
            (f64::NAN, 16),
        ] {
            assert_eq!(Share::new(factor).sixteenths(), sixteenths, "{factor}");
        }
    }

    #[test]
    fn factors_multiply() {
        assert_eq!(Share::new(0.5) * Share::new(0.25), Share::new(0.125));
        assert_eq!(Share::MIN * Share::MIN, Share::MIN);
        assert_eq!(Share::FULL * Share::new(0.3), Share::new(0.3));
    }
}
