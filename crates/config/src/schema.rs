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
        Shape::Measure { what, pattern } => json!({
            "anyOf": [
                { "type": "string", "pattern": pattern, "description": what },
                { "const": 0 },
                { "type": "string", "pattern": VARIABLE },
            ],
        }),
        Shape::Words(words) => or_variable(json!({ "enum": words })),
        Shape::List(item) => json!({ "type": "array", "items": shape(item, sections) }),
        Shape::Map { value, .. } => {
            json!({ "type": "object", "additionalProperties": shape(value, sections) })
        }
        Shape::OneKey(table) | Shape::Section(table) => section(&table(), sections),
        Shape::Empty => json!({ "type": ["object", "null"], "maxProperties": 0 }),
        Shape::Many(item) => {
            let item = shape(item, sections);
            json!({ "anyOf": [item, { "type": "array", "items": item }] })
        }
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
            Absent::Choice => key.about.trim().to_owned(),
            Absent::Is(default) => format!("{} Default: {default}.", key.about.trim()),
        };
        if let Value::Object(value) = &mut value {
            value.insert("description".to_owned(), Value::String(description));
        }
        properties.insert(key.name.to_owned(), value);
    }
    let is_choice = table
        .keys
        .iter()
        .all(|key| matches!(key.default, Absent::Choice));
    let mut definition = json!({
        "type": "object",
        "description": table.about.trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if let (true, Value::Object(definition)) = (is_choice, &mut definition) {
        definition.insert("minProperties".to_owned(), json!(1));
        definition.insert("maxProperties".to_owned(), json!(1));
    }
    sections.insert(name, definition);
    reference
}
