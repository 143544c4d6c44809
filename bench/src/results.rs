//! The figures: rounds as they were measured, medians, and ratios of rounds that ran side by side. How they are shown
//! is the duty of `report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Sample;

/// A kind of figure.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    /// Column head, with the unit.
    pub(crate) head: &'static str,
    /// Decimals.
    pub(crate) digits: usize,
    /// Its least and greatest are shown too.
    pub(crate) spread: bool,
}

/// All of them, in the order of their columns. Times and CPU are per request.
pub(crate) const METRICS: &[Metric] = &[
    metric("cpu_us", "CPU µs", 2, true),
    metric("user_us", "user", 2, false),
    metric("system_us", "system", 2, false),
    metric("machine_us", "machine µs", 1, true),
    metric("syscalls", "system calls", 2, false),
    metric("rate", "requests/s", 0, true),
    metric("fixed_rate", "fixed rate", 0, false),
    metric("fixed_cpu_us", "CPU µs there", 2, true),
    metric("fixed_machine_us", "machine µs there", 1, true),
    metric("p50_us", "p50 µs", 0, true),
    metric("p99_us", "p99 µs", 0, true),
    metric("p999_us", "p99.9 µs", 0, true),
    metric("max_us", "longest µs", 0, true),
    metric("memory_mib", "memory MiB", 1, false),
    metric("idle_bytes", "bytes/connection", 0, true),
    metric("idle_cpu_us", "idle CPU µs/s", 0, true),
    metric("reloads", "reloads", 0, false),
];

const fn metric(name: &'static str, head: &'static str, digits: usize, spread: bool) -> Metric {
    Metric {
        name,
        head,
        digits,
        spread,
    }
}

/// All that was ever measured on this machine, newest figures of each scenario.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) scenarios: Vec<Outcome>,
}

/// One scenario.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) about: String,
    /// What was not measured as its words say, and why; mostly empty.
    #[serde(default)]
    pub(crate) note: String,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    /// The share of this machine that its host gave to others meanwhile, 0 to 1; older records do not know.
    #[serde(default)]
    pub(crate) stolen: Option<f64>,
    /// Of Evenkeel's source, since a run may measure some scenarios only.
    pub(crate) commit: String,
    pub(crate) subjects: Vec<Subject>,
}

/// One that was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) label: String,
    pub(crate) version: String,
    /// The subject that is 1 for this one.
    pub(crate) base: String,
    /// One for each round, so that rounds of two subjects can be paired.
    pub(crate) samples: Vec<Sample>,
    /// Why it has no figures, or not all.
    pub(crate) notes: Vec<String>,
}

/// What many rounds say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self {
            median,
            least,
            greatest,
        })
    }
}

impl Subject {
    pub(crate) fn spread(&self, metric: &str) -> Option<Spread> {
        let values = self.samples.iter().filter_map(|sample| sample.get(metric));
        Spread::of(values.copied().collect())
    }

    /// Requests that were not answered well: any makes the row invalid.
    pub(crate) fn errors(&self) -> f64 {
        let errors = |sample: &Sample| {
            let of = |name| sample.get(name).copied().unwrap_or(0.0);
            of("errors") + of("fixed_errors")
        };
        self.samples.iter().map(errors).sum()
    }
}

impl Outcome {
    pub(crate) fn subject(&self, label: &str) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.label == label)
    }

    /// The median of the ratios of each round, so that what disturbed both of a round cancels. None where either had
    /// errors: what did not do the work has no price.
    pub(crate) fn ratio(&self, of: &str, to: &str, metric: &str) -> Option<Spread> {
        let (of, to) = (self.subject(of)?, self.subject(to)?);
        if of.errors() + to.errors() > 0.0 {
            return None;
        }
        let pairs = of.samples.iter().zip(&to.samples);
        let ratios = pairs.filter_map(|(of, to)| Some(of.get(metric)? / to.get(metric)?));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// What this scenario is about: the figure that targets are for.
    pub(crate) fn main_metric(&self) -> &'static str {
        let known = ["cpu_us", "idle_bytes", "p99_us"];
        let has = |metric: &&str| {
            self.subjects
                .iter()
                .any(|subject| subject.spread(metric).is_some())
        };
        known.into_iter().find(has).unwrap_or("cpu_us")
    }

    /// The columns that any of its subjects has.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        METRICS.iter().filter(|metric| {
            let mut subjects = self.subjects.iter();
            subjects.any(|subject| subject.spread(metric.name).is_some())
        })
    }
}

impl Results {
    /// Puts newer figures in the place of older ones, in the order of `names`; those of another machine go.
    pub(crate) fn merge(mut self, newer: Self, names: &[&str]) -> Self {
        if self.machine.hardware() != newer.machine.hardware() {
            return newer;
        }
        self.machine = newer.machine;
        for outcome in newer.scenarios {
            match self
                .scenarios
                .iter_mut()
                .find(|old| old.name == outcome.name)
            {
                Some(old) => *old = outcome,
                None => self.scenarios.push(outcome),
            }
        }
        let place = |outcome: &Outcome| names.iter().position(|name| *name == outcome.name);
        self.scenarios.sort_by_key(place);
        self
    }

    pub(crate) fn scenario(&self, name: &str) -> Option<&Outcome> {
        self.scenarios.iter().find(|outcome| outcome.name == name)
    }

    /// Every peer and its version.
    pub(crate) fn versions(&self) -> BTreeMap<&str, &str> {
        let subjects = self.scenarios.iter().flat_map(|outcome| &outcome.subjects);
        let versions = subjects.filter(|subject| !subject.version.is_empty());
        versions
            .map(|subject| {
                (
                    subject.label.split('/').next().unwrap_or_default(),
                    &*subject.version,
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(label: &str, cpu: &[f64]) -> Subject {
        let sample = |cpu: &f64| Sample::from([("cpu_us".to_owned(), *cpu)]);
        Subject {
            label: label.into(),
            version: String::new(),
            base: "haproxy".into(),
            samples: cpu.iter().map(sample).collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_of_rounds_side_by_side() {
        let mut outcome = Outcome {
            name: "x".into(),
            about: String::new(),
            note: String::new(),
            seconds: 1.0,
            rounds: 3,
            stolen: None,
            commit: String::new(),
            // The machine was slow in the second round: no concern of the ratio.
            subjects: vec![
                subject("evenkeel", &[6.0, 60.0, 7.0]),
                subject("haproxy", &[10.0, 100.0, 10.0]),
            ],
        };
        let ratio = outcome.ratio("evenkeel", "haproxy", "cpu_us").unwrap();
        assert!((ratio.median - 0.6).abs() < 1e-9 && (ratio.greatest - 0.7).abs() < 1e-9);
        assert_eq!(outcome.ratio("evenkeel", "nginx", "cpu_us"), None);
        outcome.subjects[1].samples[2].insert("errors".into(), 1.0);
        assert_eq!(outcome.ratio("evenkeel", "haproxy", "cpu_us"), None);
    }

    #[test]
    fn medians() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
