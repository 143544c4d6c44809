//! The JSON Schema for editors, from the same tables as the readers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::raw::RawConfig;
use crate::read::{Absent, Read, Shape, Table};

/// The JSON Schema (2020-12) of a config; it lists only what works in this version.
///
/// A `${NAME}` may stand wherever a value does, so every scalar also takes a text that holds one.
pub fn schema() -> Value {
    let mut sections = BTreeMap::new();
    let root = shape(&RawConfig::shape(), &mut sections);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Evenkeel",
        "allOf": [root],
        "$defs": sections.into_iter().collect::<Map<_, _>>(),
    })
}

type Sections = BTreeMap<String, Value>;

/// What a variable looks like inside a text.
const VARIABLE: &str = r"\$\{";

fn shape(shape_: &Shape, sections: &mut Sections) -> Value {
    match shape_ {
        Shape::Bool => or_variable(json!({ "type": "boolean" })),
        Shape::Integer { min, max } => {
            or_variable(json!({ "type": "integer", "minimum": min, "maximum": max }))
        }
        Shape::Number { min, max } => {
            or_variable(json!({ "type": "number", "minimum": min, "maximum": max }))
        }
        Shape::Text { pattern: None, .. } => json!({ "type": ["string", "number"] }),
        Shape::Text {
            pattern: Some(pattern),
            what,
        } => or_variable(
            json!({ "type": ["string", "number"], "pattern": pattern, "description": what }),
        ),
        Shape::Words(words) => or_variable(json!({ "enum": words })),
        Shape::List(item) => json!({ "type": "array", "items": shape(item, sections) }),
        Shape::Map { value, .. } => {
            json!({ "type": "object", "additionalProperties": shape(value, sections) })
        }
        Shape::OneKey(keys) => {
            let properties: Map<String, Value> = keys
                .iter()
                .map(|(name, value)| ((*name).to_owned(), shape(value, sections)))
                .collect();
            json!({
                "type": "object",
                "properties": properties,
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            })
        }
        Shape::Empty => json!({ "type": ["object", "null"], "maxProperties": 0 }),
        Shape::Section(table) => section(&table(), sections),
        Shape::Any(shapes) => {
            let shapes: Vec<Value> = shapes.iter().map(|one| shape(one, sections)).collect();
            json!({ "anyOf": shapes })
        }
    }
}

fn or_variable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": VARIABLE }] })
}

/// A section stands once among the definitions, however often it is used, even by itself.
fn section(table: &Table, sections: &mut Sections) -> Value {
    let name = table.name.replace(' ', "_");
    let reference = json!({ "$ref": format!("#/$defs/{name}") });
    if sections.contains_key(&name) {
        return reference;
    }
    sections.insert(name.clone(), Value::Null);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in &table.keys {
        let mut value = shape(&key.shape, sections);
        let description = match &key.default {
            Absent::Required => {
                required.push(key.name);
                key.about.trim().to_owned()
            }
            Absent::Is(default) => format!("{} Default: {default}.", key.about.trim()),
        };
        if let Value::Object(value) = &mut value {
            value.insert("description".to_owned(), Value::String(description));
        }
        properties.insert(key.name.to_owned(), value);
    }
    let definition = json!({
        "type": "object",
        "description": table.about.trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    sections.insert(name, definition);
    reference
}
