//! The reference of every key in Markdown, from the same tables as the readers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::raw::RawConfig;
use crate::read::{Absent, Read, Shape, Table};

/// Markdown: for each section every key, its type, its default and its meaning.
pub fn reference() -> String {
    let mut out = String::from(INTRODUCTION);
    each_table(|table| write_table(table, &mut out));
    out
}

/// The sections, and the choices, that have a key, in the order of the reference.
pub(crate) fn sections_with(key: &str) -> Vec<&'static str> {
    static SECTIONS: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
        let mut sections: BTreeMap<_, Vec<_>> = BTreeMap::new();
        each_table(|table| {
            for key in &table.keys {
                sections.entry(key.name).or_default().push(table.name);
            }
        });
        sections
    });
    SECTIONS.get(key).cloned().unwrap_or_default()
}

/// Shows every table once, those of a section after it.
fn each_table(mut show: impl FnMut(&Table)) {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![RawConfig::shape()];
    while let Some(shape) = waiting.pop() {
        for table in tables(&shape) {
            if seen.insert(table.name) {
                show(&table);
                waiting.extend(table.keys.into_iter().rev().map(|key| key.shape));
            }
        }
    }
}

const INTRODUCTION: &str = "\
# Config reference

Every key with its type, its default and its meaning, generated from the tables that the reader uses
(`evenkeel reference-config`). `evenkeel check` tells every mistake of a file at once; `evenkeel schema` prints a JSON
Schema for editors.

One YAML file (YAML 1.2: `off` and `NO` are text; duplicate keys are errors; anchors and `<<` work). Quote what starts
with `[`, `*` or `:` or holds `{`. `${NAME}` and `${NAME:-default}` are replaced inside scalars; `$${` is a literal `${`.
Times: `us ms s m h d`, also `1m30s`; sizes: `B KiB MiB GiB`; a bare number other than 0 is an error there; `off` means
no limit. Every tagged choice has two spellings: a bare name (`balance: random`) or one key with options
(`balance: { consistent_hash: { key: { header: x-user } } }`).

";

/// The sections that a shape mentions directly.
fn tables(shape: &Shape) -> Vec<Table> {
    match shape {
        Shape::Section(table) | Shape::OneKey(table) => vec![table()],
        Shape::List(item) | Shape::Many(item) | Shape::Map { value: item, .. } => tables(item),
        Shape::Any(shapes) => shapes.iter().flat_map(tables).collect(),
        _ => Vec::new(),
    }
}

fn write_table(table: &Table, out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "## {}\n\n{}\n", table.name, table.about.trim());
    out.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in &table.keys {
        let default = match &key.default {
            Absent::Required => "**required**",
            Absent::Is(default) => default,
            Absent::Choice => "",
        };
        let row = [
            &format!("`{}`", key.name),
            &type_name(&key.shape),
            default,
            key.about.trim(),
        ];
        let _ = writeln!(
            out,
            "| {} |",
            row.map(|cell| cell.replace('|', "\\|")).join(" | ")
        );
    }
}

fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Bool => "`true`, `false`".to_owned(),
        Shape::Integer { min, max } if min == max => format!("`{min}`"),
        Shape::Integer { min, max } => format!("{min}-{max}"),
        Shape::Number { min, max } => format!("number, {min}-{max}"),
        Shape::Text { what, .. } | Shape::Measure { what, .. } => (*what).to_owned(),
        Shape::Words(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Shape::List(item) => format!("list of {}", type_name(item)),
        Shape::Map { what, value } => format!("map of {what} to {}", type_name(value)),
        Shape::Section(table) | Shape::OneKey(table) => {
            let name = table().name;
            format!("[{name}](#{})", name.replace(' ', "-"))
        }
        Shape::Many(item) => format!("{}, or a list of such", type_name(item)),
        Shape::Empty => "no options".to_owned(),
        Shape::Any(shapes) => shapes
            .iter()
            .map(type_name)
            .collect::<Vec<_>>()
            .join(", or "),
    }
}
