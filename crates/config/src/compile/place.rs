//! Servers' places in their pools: zones, backups, slow start.

use std::sync::Arc;

use balance::SlowStart;

use crate::defaults;
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::{RawSlowStart, RawZones};
use crate::read::At;
use crate::snapshot::{PreferZone, Server};
use crate::units::Percent;
use crate::values::Off;

/// The zone that a pool prefers; it must be known, and some server should be in it.
pub(super) fn compile_zones(
    raw: Option<At<RawZones>>,
    own: Option<&Arc<str>>,
    servers: &[Server],
    report: &mut Report,
) -> Option<PreferZone> {
    let At { value, span, .. } = raw?;
    let RawZones::PreferOwn(options) = value else {
        return None;
    };
    let traffic = options
        .traffic
        .and_then(|it| above_zero(it, "traffic", report));
    let Some(own) = own else {
        report.error_help(
            Kind::Missing,
            span,
            "the own zone is not known",
            "name it at the top: `zone: eu-1a`, or `zone: ${ZONE}`",
        );
        return None;
    };
    if !servers.is_empty() && servers.iter().all(|it| it.zone.as_ref() != Some(own)) {
        let message = format!("no server of this pool is in the zone `{own}`: all are used alike");
        report.warn(Kind::Unused, span, message);
    }
    Some(PreferZone {
        zone: own.clone(),
        traffic,
    })
}

/// Warns where a word of the config makes no difference.
pub(super) fn warn_all_backups(servers: &[Server], key: Span, report: &mut Report) {
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        let message = "every server of the pool is a backup: they are used as any others";
        report.warn(Kind::Unused, key, message);
    }
}

pub(super) fn compile_slow_start(
    raw: Option<At<Off<RawSlowStart>>>,
    report: &mut Report,
) -> Option<SlowStart> {
    let RawSlowStart(raw) = raw?.value.on()?;
    let floor = raw.floor.and_then(|it| above_zero(it, "floor", report));
    let duration = raw.duration?.value.0;
    let aggression = raw.aggression.map(|aggression| aggression.value.0);
    (!duration.is_zero()).then_some(SlowStart {
        duration,
        aggression: aggression.unwrap_or(defaults::SLOW_START_AGGRESSION),
        floor: f64::from(floor.unwrap_or(defaults::SLOW_START_FLOOR)) / 100.0,
    })
}

/// A share that may not be nothing.
fn above_zero(raw: At<Percent>, name: &str, report: &mut Report) -> Option<u32> {
    let Percent(percent) = raw.value;
    if percent == 0 {
        let message = format!("`{name}` is 1% to 100%");
        report.error(Kind::Value, raw.span, message);
    }
    Some(percent)
}
