//! A limit of requests that follows latency, with its defaults.

use balance::adaptive::Settings;

use crate::diagnostic::{Kind, Report};
use crate::raw::{RawAdaptive, RawAdaptiveMap};
use crate::read::At;
use crate::values::Off;

/// `None` is `off`, which is the default.
pub(super) fn compile_adaptive(
    raw: Option<At<Off<RawAdaptive>>>,
    report: &mut Report,
) -> Option<Settings> {
    let RawAdaptive(RawAdaptiveMap {
        min,
        max,
        tolerance,
        measure_every,
        ..
    }) = raw?.value.on()?;
    let mut settings = Settings::default();
    let least = min.as_ref().map_or(settings.min, |min| min.value.u32());
    let most = max
        .as_ref()
        .map_or(settings.max.max(least), |max| max.value.u32());
    if most < least
        && let Some(written) = max.or(min)
    {
        let message = format!("`max` ({most}) is less than `min` ({least})");
        report.error(Kind::Conflict, written.span, message);
    }
    (settings.min, settings.max) = (least, most);
    if let Some(tolerance) = tolerance {
        settings.tolerance = f64::from(tolerance.value.0) / 100.0;
    }
    if let Some(every) = measure_every {
        settings.measure_every = every.value.0;
    }
    Some(settings)
}
