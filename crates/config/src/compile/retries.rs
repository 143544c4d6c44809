//! Retries and hedging, of pools and of the routes that override them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::raw::{
    HedgeAfter as RawHedgeAfter, RawBackoff, RawHedge, RawHedgeMap, RawRetries, RawRetryOn,
    RawRouteRetries, RawStatus, RetryMethod,
};
use crate::read::At;
use crate::snapshot::{Backoff, Hedge, HedgeAfter, Measured, Pool, Retries, Target};
use crate::units::{Wait, show_duration};
use crate::values::{Many, Off};

/// Statuses after which another server may be tried.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

/// The shared keys of either section.
macro_rules! written {
    ($raw:ident) => {
        Written {
            attempts: $raw.attempts.as_ref().map(|attempts| attempts.value.u32()),
            per_try_timeout: $raw.per_try_timeout.as_ref().map(|time| &time.value),
            on: $raw.on.as_ref().map(|on| &on.value),
            backoff: $raw.backoff.as_ref().map(|backoff| &backoff.value),
            methods: $raw.methods.as_ref().map(|methods| &methods.value),
        }
    };
}
/// The policy of a pool.
pub(crate) fn compile_retries(
    retries: Option<&At<Off<RawRetries>>>,
    hedge: Option<&At<Off<RawHedge>>>,
    report: &mut Report,
) -> Retries {
    let mut policy = Retries {
        attempts: defaults::RETRY_ATTEMPTS,
        budget_percent: defaults::RETRY_BUDGET,
        per_try_timeout: None,
        statuses: Vec::new(),
        codes: 0,
        backoff: None,
        repeats_post: false,
        repeats_patch: false,
        hedge: None,
    };
    match retries.map(|retries| &retries.value) {
        None => {}
        Some(Off::Off) => turn_off(&mut policy),
        Some(Off::On(RawRetries(raw))) => {
            if let Some(budget) = &raw.budget {
                policy.budget_percent = budget.value.0;
            }
            let written = written!(raw);
            written.check(report);
            written.apply(&mut policy);
        }
    }
    policy.hedge = hedge.and_then(|hedge| compile_hedge(&hedge.value, false, report));
    policy
}

/// The policies of a route, one for each pool that it leads to; empty where the pools' own hold.
pub(crate) fn compile_route_retries(
    retries: Option<&At<Off<RawRouteRetries>>>,
    hedge: Option<&At<Off<RawHedge>>>,
    target: &Target,
    pools: &[Pool],
    report: &mut Report,
) -> Vec<(usize, Retries)> {
    let written = match retries.map(|retries| &retries.value) {
        Some(Off::On(RawRouteRetries(raw))) => Some(written!(raw)),
        _ => None,
    };
    if let Some(written) = &written {
        written.check(report);
    }
    if retries.is_none() && hedge.is_none() {
        return Vec::new();
    }
    let own_hedge = hedge.map(|hedge| compile_hedge(&hedge.value, true, report));
    let led_to: BTreeSet<usize> = target.destinations().iter().map(|to| to.pool).collect();
    let policy = |index: usize| {
        let mut policy = pools.get(index)?.retries.clone();
        match (&written, retries) {
            (Some(written), _) => written.apply(&mut policy),
            (None, Some(_)) => turn_off(&mut policy),
            (None, None) => {}
        }
        if let Some(hedge) = own_hedge {
            policy.hedge = hedge;
        }
        Some((index, policy))
    };
    led_to.into_iter().filter_map(policy).collect()
}

/// `retries: off`: nothing that a server took is sent to another one.
fn turn_off(policy: &mut Retries) {
    policy.attempts = 0;
    policy.per_try_timeout = None;
    policy.statuses.clear();
    policy.codes = 0;
    policy.hedge = None;
}

/// The keys that pools and routes share, as far as they are written.
struct Written<'a> {
    attempts: Option<u32>,
    per_try_timeout: Option<&'a Off<Wait>>,
    on: Option<&'a Many<RawRetryOn>>,
    backoff: Option<&'a Off<RawBackoff>>,
    methods: Option<&'a Many<RetryMethod>>,
}

impl Written<'_> {
    fn apply(&self, policy: &mut Retries) {
        if let Some(attempts) = self.attempts {
            policy.attempts = attempts;
        }
        if let Some(time) = self.per_try_timeout {
            policy.per_try_timeout = time.clone().on().map(|time| time.0);
        }
        if let Some(on) = self.on {
            (policy.statuses, policy.codes) = (Vec::new(), 0);
            for item in &on.0.items {
                match item.value {
                    RawRetryOn::Status(RawStatus(from, to)) => policy.statuses.push((from, to)),
                    RawRetryOn::Code(code) => policy.codes |= 1 << code.number(),
                }
            }
        }
        if let Some(backoff) = self.backoff {
            policy.backoff = match backoff {
                Off::Off => None,
                Off::On(raw) => Some(compile_backoff(raw)),
            };
        }
        if let Some(methods) = self.methods {
            let names = |name| methods.0.items.iter().any(|method| method.value.0 == name);
            (policy.repeats_post, policy.repeats_patch) = (names("POST"), names("PATCH"));
        }
    }

    fn check(&self, report: &mut Report) {
        for status in self.on.iter().flat_map(|on| &on.0.items) {
            if let RawRetryOn::Status(RawStatus(from, to)) = status.value
                && !(STATUSES.contains(&from) && STATUSES.contains(&to))
            {
                let message = "only after statuses from 400 to 599 another server is tried";
                report.error(Kind::Value, status.span, message);
            }
        }
        if let Some(Off::On(RawBackoff {
            base: Some(base),
            max: Some(max),
            ..
        })) = self.backoff
            && max.value.0 < base.value.0
        {
            let base = show_duration(base.value.0);
            let message = format!("`max` is below `base`, which is {base}");
            report.error(Kind::Conflict, max.span, message);
        }
        for method in self.methods.iter().flat_map(|methods| &methods.0.items) {
            let name = method.value.0;
            let message = format!(
                "a {name} whose answer is lost may be done twice: right only where that does no harm"
            );
            report.note(Kind::Repeats, method.span, message);
        }
    }
}

fn compile_backoff(raw: &RawBackoff) -> Backoff {
    let time = |key: &Option<At<Wait>>, default: Duration| {
        key.as_ref().map_or(default, |time| time.value.0)
    };
    let base = match &raw.max {
        Some(max) => time(&raw.base, defaults::BACKOFF_BASE.min(max.value.0)),
        None => time(&raw.base, defaults::BACKOFF_BASE),
    };
    Backoff {
        base,
        max: time(&raw.max, defaults::BACKOFF_MAX.max(base)),
    }
}

fn compile_hedge(raw: &Off<RawHedge>, of_route: bool, report: &mut Report) -> Option<Hedge> {
    let Off::On(RawHedge(raw)) = raw else {
        return None;
    };
    let max = raw.max.as_ref();
    Some(Hedge {
        after: compile_after(raw, of_route, report)?,
        max: max.map_or(defaults::HEDGE_MAX, |max| max.value.u32()),
    })
}

fn compile_after(raw: &RawHedgeMap, of_route: bool, report: &mut Report) -> Option<HedgeAfter> {
    let percentile = match raw.after.as_ref()?.value {
        RawHedgeAfter::Percentile(percentile) => percentile,
        RawHedgeAfter::Time(time) => {
            let least = raw.at_least.as_ref().map(|time| time.span);
            let most = raw.at_most.as_ref().map(|time| time.span);
            for span in [least, most].into_iter().flatten() {
                let message = "only with a percentile: this `after` is a time";
                report.error(Kind::Conflict, span, message);
            }
            return Some(HedgeAfter::Time(time.0));
        }
    };
    let at_most = raw.at_most.as_ref();
    let most = at_most.and_then(|time| time.value.clone().on().map(|time| time.0));
    let by_default = most.map_or(defaults::HEDGE_AT_LEAST, |most| {
        most.min(defaults::HEDGE_AT_LEAST)
    });
    let at_least = raw.at_least.as_ref();
    let least = at_least.map_or(by_default, |time| time.value.0);
    if let (Some(written), Some(most)) = (at_most, most)
        && most < least
    {
        let least = show_duration(least);
        let message = format!("`at_most` is below `at_least`, which is {least}");
        report.error(Kind::Conflict, written.span, message);
    }
    Some(HedgeAfter::Measured(Measured {
        percentile,
        at_least: least,
        at_most: most,
        of_route,
    }))
}
