//! How servers are judged by their traffic, with its defaults.

use balance::outlier::{Comparison, Settings};

use crate::diagnostic::{Kind, Report};
use crate::raw::{Deviations, RawLatency, RawOutlier, RawSuccessRate};
use crate::read::At;
use crate::units::show_duration;
use crate::values::{Off, Whole};

/// `None` is `off`.
pub(super) fn compile_outlier(
    raw: Option<At<Off<RawOutlier>>>,
    report: &mut Report,
) -> Option<Settings> {
    let raw = match raw.map(|raw| raw.value) {
        Some(Off::Off) => return None,
        Some(Off::On(raw)) => raw,
        None => RawOutlier::absent(),
    };
    let mut settings = Settings::default();
    if let Some(count) = raw.consecutive_gateway_errors {
        settings.gateway_errors = count.value.on().map(Whole::u32);
    }
    if let Some(count) = raw.consecutive_5xx {
        settings.server_errors = count.value.on().map(Whole::u32);
    }
    settings.success_rate = match raw.success_rate.map(|raw| raw.value) {
        Some(Off::Off) => None,
        Some(Off::On(raw)) => {
            let RawSuccessRate {
                deviations,
                min_servers,
                min_requests,
                ..
            } = raw;
            compare(settings.success_rate, deviations, min_servers, min_requests)
        }
        None => settings.success_rate,
    };
    settings.latency = match raw.latency.map(|raw| raw.value) {
        Some(Off::Off) => None,
        Some(Off::On(raw)) => {
            let RawLatency {
                deviations,
                min_servers,
                min_requests,
                ..
            } = raw;
            compare(settings.latency, deviations, min_servers, min_requests)
        }
        None => settings.latency,
    };
    settings.degrade = raw.degrade.map_or(settings.degrade, |on| on.value);
    settings.interval = raw.interval.map_or(settings.interval, |time| time.value.0);
    let longest = raw.max_ejection_time.as_ref();
    settings.ejection_max = longest.map_or(settings.ejection_max, |time| time.value.0);
    if let Some(first) = raw.ejection_time {
        settings.ejection = first.value.0;
        if longest.is_none() {
            settings.ejection_max = settings.ejection_max.max(settings.ejection);
        }
    }
    if let Some(longest) = longest
        && settings.ejection_max < settings.ejection
    {
        let message = format!(
            "the longest ejection is shorter than the first, `ejection_time`: {}",
            show_duration(settings.ejection)
        );
        report.error(Kind::Conflict, longest.span, message);
    }
    settings.ejected_max = raw
        .max_ejected
        .map_or(settings.ejected_max, |share| share.value.0);
    settings.half_open = raw
        .half_open_requests
        .map_or(settings.half_open, |count| count.value.u32());
    Some(settings)
}

fn compare(
    standard: Option<Comparison>,
    deviations: Option<At<Deviations>>,
    min_servers: Option<At<Whole<2, 10_000>>>,
    min_requests: Option<At<Whole<1, 1_000_000>>>,
) -> Option<Comparison> {
    let standard = standard?;
    Some(Comparison {
        deviations: deviations.map_or(standard.deviations, |it| it.value.0),
        servers_min: min_servers.map_or(standard.servers_min, |it| it.value.u32()),
        requests_min: min_requests.map_or(standard.requests_min, |it| it.value.u32()),
    })
}
