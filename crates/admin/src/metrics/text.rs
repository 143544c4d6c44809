//! The text format 0.0.4: `# HELP`, `# TYPE`, and one line for each sample.

use std::fmt::{Display, Write};

use control::metrics::BUCKETS_US;

use super::FAMILIES;

/// A text that grows by family.
#[derive(Default)]
pub(crate) struct Text {
    out: String,
    name: String,
}

impl Text {
    /// Begins a family: the samples that follow are its.
    pub(crate) fn family(&mut self, name: &str) {
        name.clone_into(&mut self.name);
        if let Some(family) = FAMILIES.iter().find(|family| family.name == name) {
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
        self.series("", labels, None);
        self.line(format_args!(" {value}\n"));
    }

    /// `buckets`: how many fell into each, the last of them past every bound.
    pub(crate) fn histogram(&mut self, labels: &[(&str, &str)], buckets: &[u64], sum_us: u64) {
        let mut count = 0;
        for (index, bucket) in buckets.iter().enumerate() {
            count += bucket;
            let bound = BUCKETS_US.get(index).map(|us| seconds(*us).to_string());
            self.series("_bucket", labels, Some(bound.as_deref().unwrap_or("+Inf")));
            self.line(format_args!(" {count}\n"));
        }
        self.series("_sum", labels, None);
        self.line(format_args!(" {}\n", seconds(sum_us)));
        self.series("_count", labels, None);
        self.line(format_args!(" {count}\n"));
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }

    fn series(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>) {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        let all = labels
            .iter()
            .copied()
            .chain(bound.map(|bound| ("le", bound)));
        let mut before = '{';
        for (name, value) in all {
            self.out.push(before);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.out.write_fmt(line);
    }
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
        let lines: Vec<String> = text.finish().lines().map(str::to_owned).collect();
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
}
