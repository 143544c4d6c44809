//! Where routes lead: pools by name, subsets of them by label, arms of a split.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::PoolNames;
use crate::diagnostic::{Kind, Report, Span};
use crate::labels::Labels;
use crate::raw::{RawArm, RawDestination, RawSplit};
use crate::read::At;
use crate::snapshot::{Arm, Destination, Pool, Target};
use crate::values::{Named, Text, check_name};

/// Labels of one server, and of one subset.
const LABELS_MAX: usize = 64;
/// Subsets of one pool: each has tables of its own.
const SUBSETS_MAX: usize = 256;
/// Labels that an error names.
const SHOWN_MAX: usize = 8;

/// `pool` or `split`; `None` when neither is written, or what is written is reported.
pub(crate) fn compile_target(
    pool: Option<&At<RawDestination>>,
    split: Option<&At<RawSplit>>,
    pools: &[Pool],
    names: &mut PoolNames,
    report: &mut Report,
) -> Option<Target> {
    if let (Some(pool), Some(split)) = (pool, split) {
        report.error(
            Kind::Conflict,
            split.key.max(pool.key),
            "`pool` and `split` exclude each other",
        );
    }
    if let Some(pool) = pool {
        return compile_destination(&pool.value, pools, names, report).map(Target::Pool);
    }
    let split = split?;
    let (arms, written, whole): (Vec<Arm>, Vec<u32>, bool) = match &split.value {
        RawSplit::Pools(named) => {
            let arms = named.items.iter().filter_map(|(name, weight)| {
                let pool = names.find(name, weight.key, report)?;
                Some(Arm {
                    to: Destination::whole(pool),
                    weight: weight.value.u32(),
                })
            });
            let arms = arms.collect();
            let weights = named.items.iter().map(|(_, weight)| weight.value.u32());
            (arms, weights.collect(), named.failed.is_empty())
        }
        RawSplit::Arms(list) => {
            let weight = |arm: &RawArm| arm.weight.as_ref().map_or(1, |it| it.value.u32());
            let arms = list.items.iter().filter_map(|arm| {
                let to = &arm.value.pool.as_ref()?.value;
                let to = compile_destination(to, pools, names, report)?;
                Some(Arm {
                    to,
                    weight: weight(&arm.value),
                })
            });
            let arms = arms.collect();
            let weights = list.items.iter().map(|arm| weight(&arm.value));
            // Another arm may be there that could not be read.
            (arms, weights.collect(), list.empty || !report.has_errors())
        }
    };
    if whole && written.iter().all(|weight| *weight == 0) {
        let message = if written.is_empty() {
            "the split has no arms"
        } else {
            "all arms of the split are 0"
        };
        report.error(Kind::Empty, split.key, message);
    }
    Some(Target::Split(arms))
}

fn compile_destination(
    raw: &RawDestination,
    pools: &[Pool],
    names: &mut PoolNames,
    report: &mut Report,
) -> Option<Destination> {
    let pool = names.find(&raw.name.value.0, raw.name.span, report)?;
    let Some(written) = &raw.labels else {
        return Some(Destination::whole(pool));
    };
    let labels = compile_labels(Some(written), report);
    if labels.is_empty() {
        if written.value.failed.is_empty() {
            let message = "no label is given: without `labels` all servers of the pool are meant";
            report.error(Kind::Empty, written.key, message);
        }
        return None;
    }
    let config = pools.get(pool)?;
    let servers = &config.servers;
    // One without servers is reported.
    if !servers.is_empty() && !servers.iter().any(|it| labels.are_among(&it.labels)) {
        no_such_server(config, &labels, written.key, report);
        return None;
    }
    let subset = names.subset(pool, labels)?;
    if subset >= SUBSETS_MAX {
        let message = format!(
            "routes choose more than {SUBSETS_MAX} parts of the pool `{}` by label",
            config.name
        );
        report.error(Kind::Limit, written.key, message);
        return None;
    }
    Some(Destination {
        pool,
        subset: u32::try_from(subset).ok(),
    })
}

fn no_such_server(pool: &Pool, labels: &Labels, span: Span, report: &mut Report) {
    let message = format!(
        "no server of the pool `{}` has the labels {labels}",
        pool.name
    );
    let pairs = pool.servers.iter().flat_map(|server| server.labels.iter());
    let there: BTreeSet<String> = pairs
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let help = if there.is_empty() {
        "none of its servers has any: `{ address: …, labels: { … } }`".to_owned()
    } else {
        let more = if there.len() > SHOWN_MAX { " …" } else { "" };
        let shown: Vec<&str> = there.iter().take(SHOWN_MAX).map(String::as_str).collect();
        format!("labels of its servers: {}{more}", shown.join(" "))
    };
    report.error_help(Kind::UnknownName, span, message, help);
}

/// Labels as written, none if they are not.
pub(super) fn compile_labels(raw: Option<&At<Named<Text>>>, report: &mut Report) -> Labels {
    let Some(raw) = raw else {
        return Labels::default();
    };
    if raw.value.items.len() > LABELS_MAX {
        let message = format!("there are more than {LABELS_MAX} labels");
        report.error(Kind::Limit, raw.key, message);
    }
    let label = |(name, value): &(String, At<Text>)| {
        check_name(&value.value.0, value.span, report);
        (Arc::from(name.as_str()), Arc::from(value.value.0.as_str()))
    };
    raw.value.items.iter().map(label).collect()
}
