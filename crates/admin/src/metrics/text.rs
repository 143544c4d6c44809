//! The text format 0.0.4: `# HELP`, `# TYPE`, and one line for each sample.

use std::fmt::{Display, Write};
use std::sync::Arc;

use control::live::Member;
use control::metrics::BUCKETS_US;
use serde_json::Number;

use super::families::{Family, Kind};
use super::{FAMILIES, Totals, total_before};
use crate::carried::add;

/// A text that grows by family.
#[derive(Default)]
pub(crate) struct Text {
    out: String,
    name: String,
    /// Whether the family's samples are totals.
    is_total: bool,
    /// What the process before this one has counted.
    before: Arc<Totals>,
    /// Every total so far, if they are asked for.
    totals: Option<Totals>,
}

impl Text {
    pub(crate) fn new(before: Arc<Totals>, collects: bool) -> Self {
        Self {
            before,
            totals: collects.then(Totals::new),
            ..Self::default()
        }
    }

    /// Begins a family: the samples that follow are its.
    pub(crate) fn family(&mut self, name: &str) {
        name.clone_into(&mut self.name);
        let family: Option<&Family> = FAMILIES.iter().find(|family| family.name == name);
        self.is_total = family.is_some_and(|family| family.kind != Kind::Gauge);
        if let Some(family) = family {
            let (help, kind) = (family.help, family.kind.name());
            self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
    }

    /// A family of one series without labels.
    pub(crate) fn single(&mut self, name: &str, value: impl Display) {
        self.family(name);
        self.sample(&[], value);
    }

    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let series = self.series("", labels, None);
        if self.is_total && (self.totals.is_some() || !self.before.is_empty()) {
            // Whatever a total is, it is written as a number.
            let own = value.to_string().parse().unwrap_or_else(|_| 0.into());
            self.total(series, &own, None);
        } else {
            self.line(format_args!("{series} {value}\n"));
        }
    }

    /// `buckets`: how many fell into each, the last of them past every bound.
    pub(crate) fn histogram(&mut self, labels: &[(&str, &str)], buckets: &[u64], sum_us: u64) {
        let mut count = 0;
        // The version before may have had other bounds: a bucket that it did not know holds at least what the one
        // below held.
        let mut below = Number::from(0);
        for (index, bucket) in buckets.iter().enumerate() {
            count += bucket;
            let bound = BUCKETS_US.get(index).map(|us| seconds(*us).to_string());
            let bound = bound.as_deref().unwrap_or("+Inf");
            let series = self.series("_bucket", labels, Some(bound));
            below = self.before.get(&series).cloned().unwrap_or(below);
            self.total(series, &count.into(), Some(&below));
        }
        let series = self.series("_sum", labels, None);
        let sum = Number::from_f64(seconds(sum_us)).unwrap_or_else(|| 0.into());
        self.total(series, &sum, None);
        let series = self.series("_count", labels, None);
        self.total(series, &count.into(), None);
    }

    /// Writes what this process has counted, and the one before it: `before`, else what is carried of that series.
    fn total(&mut self, series: String, own: &Number, before: Option<&Number>) {
        let sum = match before.or_else(|| self.before.get(&series)) {
            Some(before) => add(own, before),
            None => own.clone(),
        };
        match sum.as_u64() {
            Some(whole) => self.line(format_args!("{series} {whole}\n")),
            None => {
                let sum = sum.as_f64().unwrap_or(0.0);
                self.line(format_args!("{series} {sum}\n"));
            }
        }
        if let Some(totals) = &mut self.totals {
            totals.insert(series, sum);
        }
    }

    /// What the process before this one told of a server.
    pub(crate) fn before(&self, family: &str, member: &Member) -> u64 {
        let labels = [("pool", &*member.pool), ("server", &*member.name)];
        total_before(&self.before, family, &labels)
    }

    /// The text, and every total in it.
    pub(crate) fn finish(self) -> (String, Totals) {
        (self.out, self.totals.unwrap_or_default())
    }

    fn series(&self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>) -> String {
        let bound = bound.map(|bound| ("le", bound));
        let all: Vec<_> = labels.iter().copied().chain(bound).collect();
        series(&format!("{}{suffix}", self.name), &all)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.out.write_fmt(line);
    }
}

/// A series by its name and labels.
pub(crate) fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let mut out = name.to_owned();
    let mut before = '{';
    for (name, value) in labels {
        out.push(before);
        out.push_str(name);
        out.push_str("=\"");
        escape(&mut out, value);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    out
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        let mut text = Text::default();
        text.family("x");
        text.sample(&[("a", "q\"b\\n\nz")], 3);
        let mut buckets = [0; BUCKETS_US.len() + 1];
        buckets[0] = 2;
        buckets[BUCKETS_US.len()] = 1;
        text.histogram(&[("p", "s")], &buckets, 1_500_000);
        let lines: Vec<String> = text.finish().0.lines().map(str::to_owned).collect();
        assert_eq!(lines[0], r#"x{a="q\"b\\n\nz"} 3"#);
        assert_eq!(lines[1], r#"x_bucket{p="s",le="0.0005"} 2"#);
        assert_eq!(lines[15], r#"x_bucket{p="s",le="60"} 2"#);
        assert_eq!(
            lines[16..],
            [
                r#"x_bucket{p="s",le="+Inf"} 3"#,
                r#"x_sum{p="s"} 1.5"#,
                r#"x_count{p="s"} 3"#
            ]
        );
    }

    #[test]
    fn totals_go_on_from_those_of_the_process_before() {
        let mut before = Text::new(Arc::default(), true);
        before.family("evenkeel_picks_total");
        before.sample(&[("pool", "p"), ("server", "a")], u64::MAX - 9);
        before.family("evenkeel_server_usable");
        before.sample(&[("pool", "p"), ("server", "a")], 1);
        before.family("evenkeel_pool_seconds");
        let mut buckets = [0; BUCKETS_US.len() + 1];
        buckets[0] = 2;
        buckets[3] = 1;
        before.histogram(&[("pool", "p")], &buckets, 1_500_000);
        let (_, mut totals) = before.finish();
        assert_eq!(totals.len(), 1 + BUCKETS_US.len() + 1 + 2);
        totals.remove(r#"evenkeel_pool_seconds_bucket{pool="p",le="0.001"}"#);

        let mut text = Text::new(Arc::new(totals), false);
        text.family("evenkeel_picks_total");
        text.sample(&[("pool", "p"), ("server", "a")], 3);
        text.sample(&[("pool", "p"), ("server", "b")], 4);
        text.family("evenkeel_server_usable");
        text.sample(&[("pool", "p"), ("server", "a")], 1);
        text.family("evenkeel_pool_seconds");
        text.histogram(&[("pool", "p")], &buckets, 250_000);
        let (text, _) = text.finish();
        for line in [
            r#"evenkeel_picks_total{pool="p",server="a"} 18446744073709551609"#,
            r#"evenkeel_picks_total{pool="p",server="b"} 4"#,
            r#"evenkeel_server_usable{pool="p",server="a"} 1"#,
            r#"evenkeel_pool_seconds_bucket{pool="p",le="0.0005"} 4"#,
            r#"evenkeel_pool_seconds_bucket{pool="p",le="0.001"} 4"#,
            r#"evenkeel_pool_seconds_bucket{pool="p",le="+Inf"} 6"#,
            r#"evenkeel_pool_seconds_sum{pool="p"} 1.75"#,
            r#"evenkeel_pool_seconds_count{pool="p"} 6"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
    }
}
