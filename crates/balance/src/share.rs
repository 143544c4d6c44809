//! Which part of its weight a server has for now: less than all of it while it fails now and then, while it warms up,
//! or while other servers are to take more.

use std::fmt;
use std::ops::Mul;

/// A part of a server's weight: 1/720720 to all of it.
///
/// 720720 is the least number that 1 to 16 divide, so that tenths, thirds and sixteenths are all exact, and round robin
/// over them has a short period. Never nothing: a server that gets no traffic cannot show that it has recovered.
/// Factors combine by multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// All of the weight.
    pub const FULL: Self = Self(720_720);
    /// The least that [`Share::new`] gives: 1/16.
    pub const MIN: Self = Self(720_720 / 16);

    /// The sixteenth nearest to `factor`, at least 1/16 and at most all: for factors that are measured, so that a view
    /// is built anew, and keys move, only at steps that matter. What is no number is all.
    pub fn new(factor: f64) -> Self {
        Self::exact((factor * 16.0).round() / 16.0).max(Self::MIN)
    }

    /// The share nearest to `factor`, at least 1/720720 and at most all. What is no number is all.
    pub fn exact(factor: f64) -> Self {
        let full = f64::from(Self::FULL.0);
        let units = (factor * full).round();
        if units.is_nan() {
            return Self::FULL;
        }
        Self(units.clamp(1.0, full) as u32)
    }

    /// How many parts of 720720.
    pub(crate) fn units(self) -> u32 {
        self.0
    }

    /// 1/720720 to 1.
    pub fn factor(self) -> f64 {
        f64::from(self.0) / f64::from(Self::FULL.0)
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
        Self::exact(self.factor() * other.factor())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A factor of whole percents is shown as it was given; anything else is rounded up, never to 0.
        write!(f, "{} %", (self.factor() * 100.0 - 1e-3).ceil().max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_rounded_to_a_sixteenth_and_never_nothing() {
        for (factor, sixteenths) in [
            (-1.0, 1.0),
            (0.0, 1.0),
            (0.5, 8.0),
            (0.52, 8.0),
            (0.54, 9.0),
            (0.99, 16.0),
            (2.0, 16.0),
            (f64::NAN, 16.0),
        ] {
            assert_eq!(Share::new(factor).factor() * 16.0, sixteenths, "{factor}");
        }
    }

    #[test]
    fn simple_fractions_are_exact() {
        assert_eq!(Share::exact(1.0 / 3.0).units(), 240_240);
        assert_eq!(Share::exact(0.35).units(), 252_252);
        assert_eq!(Share::exact(0.0).units(), 1);
        assert_eq!(Share::exact(f64::NAN), Share::FULL);
    }

    #[test]
    fn factors_multiply() {
        assert_eq!(Share::new(0.5) * Share::new(0.25), Share::new(0.125));
        assert_eq!(Share::MIN * Share::MIN, Share::exact(1.0 / 256.0));
        assert_eq!(Share::FULL * Share::new(0.3), Share::new(0.3));
    }

    #[test]
    fn it_is_shown_in_percent() {
        for (factor, shown) in [
            (0.35, "35 %"),
            (0.0625, "7 %"),
            (0.0, "1 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(Share::exact(factor).to_string(), shown);
        }
    }
}
