//! Reader, schema and reference are one: what one knows, the others know.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Given;
use crate::Source;
use crate::diagnostic::Report;
use crate::raw::RawConfig;
use crate::read::{Absent, Read, Shape, Table};
use crate::tree::{Node, Value as Yaml, parse};
use crate::{Kind, reference, schema};

/// Every table that the config can reach.
fn tables() -> Vec<Table> {
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    collect(&RawConfig::shape(), &mut names, &mut found);
    found
}

fn collect(shape: &Shape, names: &mut BTreeSet<&'static str>, found: &mut Vec<Table>) {
    match shape {
        Shape::Section(table) | Shape::OneKey(table) => {
            let table = table();
            if names.insert(table.name) {
                table
                    .keys
                    .iter()
                    .for_each(|key| collect(&key.shape, names, found));
                found.push(table);
            }
        }
        Shape::List(item) | Shape::Many(item) | Shape::Map { value: item, .. } => {
            collect(item, names, found)
        }
        Shape::Any(shapes) => shapes.iter().for_each(|shape| collect(shape, names, found)),
        _ => {}
    }
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let schema = schema();
    for table in tables() {
        let section = &schema["$defs"][table.name.replace(' ', "_")]["properties"];
        let expected: BTreeSet<&str> = table.keys.iter().map(|key| key.name).collect();
        let found: BTreeSet<&str> = section
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(found, expected, "{}", table.name);
    }
    let text = schema.to_string();
    for later in ["\"discovery\"", "\"sites\""] {
        assert!(!text.contains(later), "{later} does not work yet");
    }
}

#[test]
fn the_reference_has_every_key() {
    let text = reference();
    for table in tables() {
        assert!(
            text.contains(&format!("## {}\n", table.name)),
            "{}",
            table.name
        );
        for key in table.keys {
            assert!(!key.about.trim().is_empty());
            assert!(
                text.contains(&format!("| `{}` |", key.name)),
                "{}",
                key.name
            );
        }
    }
    assert!(
        text.lines()
            .all(|line| !line.starts_with('|') || line.ends_with('|'))
    );
}

/// The samples use every key of every table, the reader takes them, and so does the schema.
#[test]
fn samples_fit_both() {
    let whole = include_str!("whole.yaml");
    let schema = schema();
    let mut used = BTreeSet::new();
    for sample in [whole, include_str!("example.yaml")] {
        let given = Given::main(sample);
        assert!(given.load().snapshot.is_some());
        let mut report = Report::default();
        let node = parse(sample, 0, &given as &dyn Source, &mut report).unwrap();
        fits(&node, &schema, &schema, &mut used).unwrap();
    }
    for table in tables() {
        for key in table.keys {
            let choice = matches!(key.default, Absent::Choice);
            assert!(
                choice || used.contains(key.name),
                "no sample uses `{}`",
                key.name
            );
        }
    }
}

/// What the reader does not know, the schema does not know either.
#[test]
fn strangers_fit_neither() {
    let schema = schema();
    let whole = include_str!("whole.yaml");
    let inserts = ["{ ", "{ http: { "];
    let mut tried = 0;
    for (at, _) in whole.match_indices(inserts[0]) {
        let (before, after) = whole.split_at(at + 2);
        let strange = format!("{before}strange_key: 1, {after}");
        let given = Given::main(&strange);
        let unknown = given
            .load()
            .diagnostics
            .iter()
            .any(|d| d.kind == Kind::UnknownKey);
        let node = parse(&strange, 0, &given as &dyn Source, &mut Report::default()).unwrap();
        let fit = fits(&node, &schema, &schema, &mut BTreeSet::new());
        let one_key = given
            .load()
            .diagnostics
            .iter()
            .any(|d| d.message.contains("exactly one key"));
        assert_eq!(
            unknown || one_key,
            fit.is_err(),
            "{}",
            before.lines().last().unwrap_or_default()
        );
        tried += 1;
    }
    assert!(tried > 20);
}

/// As much of JSON Schema as ours uses; says where a value does not fit.
fn fits(
    node: &Node,
    schema: &Value,
    root: &Value,
    used: &mut BTreeSet<String>,
) -> Result<(), String> {
    if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
        return all.iter().try_for_each(|one| fits(node, one, root, used));
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return fits(node, target, root, used);
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let mut faults = Vec::new();
        for one in any {
            match fits(node, one, root, used) {
                Ok(()) => return Ok(()),
                Err(fault) => faults.push(fault),
            }
        }
        return Err(faults.join("; "));
    }
    let fault = |what: &str| Err(format!("{:?}: {what}", node.span));
    let of_type = |name: &str| match schema.get("type") {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(names)) => names.iter().any(|one| one == name),
        _ => true,
    };
    match &node.value {
        Yaml::Map(entries) if of_type("object") && schema.get("enum").is_none() => {
            for entry in entries {
                let known = schema.get("properties").and_then(|p| p.get(&entry.key));
                match known.or(schema.get("additionalProperties")) {
                    Some(Value::Bool(false)) | None => {
                        return fault(&format!("unknown {}", entry.key));
                    }
                    Some(schema) => {
                        if known.is_some() {
                            used.insert(entry.key.clone());
                        }
                        fits(&entry.value, schema, root, used)?;
                    }
                }
            }
            let limit = |name| schema.get(name).and_then(Value::as_u64);
            if limit("maxProperties").is_some_and(|max| entries.len() as u64 > max) {
                return fault("too many keys");
            }
            let required = schema
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            match required
                .filter_map(Value::as_str)
                .find(|key| node.get(key).is_none())
            {
                Some(key) => fault(&format!("lacks {key}")),
                None => Ok(()),
            }
        }
        Yaml::List(items) if of_type("array") && schema.get("items").is_some() => items
            .iter()
            .try_for_each(|item| fits(item, &schema["items"], root, used)),
        Yaml::Scalar(scalar) => {
            use crate::scalar::ScalarKind;
            let word = |words: &Value| {
                words
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|word| word == scalar.text.as_str())
            };
            let good = match scalar.kind {
                _ if schema.get("const").is_some() => {
                    scalar.text.parse().ok() == schema["const"].as_u64()
                }
                _ if schema.get("enum").is_some() => schema.get("enum").is_some_and(word),
                ScalarKind::Null => of_type("null"),
                ScalarKind::Bool(_) => of_type("boolean"),
                ScalarKind::Int(_) => of_type("integer") || of_type("number"),
                ScalarKind::Float(_) => of_type("number"),
                ScalarKind::Text => {
                    of_type("string") && schema.get("pattern").is_none_or(|p| p != r"\$\{")
                }
            };
            if good { Ok(()) } else { fault(&scalar.text) }
        }
        _ => fault("another type"),
    }
}
