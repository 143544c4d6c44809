//! Values that stand in many sections: flags, numbers, text, `off`, lists and maps of names.

use crate::diagnostic::{Kind, Report, Span};
use crate::read::{At, Read, Shape, entries, text, wrong_type};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};

impl Read for bool {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Value::Scalar(Scalar {
            kind: ScalarKind::Bool(value),
            ..
        }) = &node.value
        {
            return Some(*value);
        }
        wrong_type(node, "`true` or `false`", report);
        None
    }

    fn shape() -> Shape {
        Shape::Bool
    }
}

impl<T: Read> Read for Box<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        T::read(node, report).map(Self::new)
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    pub(crate) fn u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Read for Whole<MIN, MAX> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let expected = format!("a whole number from {MIN} to {MAX}");
        let Value::Scalar(Scalar {
            kind: ScalarKind::Int(value),
            ..
        }) = &node.value
        else {
            wrong_type(node, &expected, report);
            return None;
        };
        let value = u64::try_from(*value)
            .ok()
            .filter(|value| (MIN..=MAX).contains(value));
        if value.is_none() {
            report.error(Kind::Value, node.span, format!("expected {expected}"));
        }
        value.map(Self)
    }

    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }
}

/// Any text.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) String);

impl Read for Text {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        text(node, "text", report).map(|text| Self(text.to_owned()))
    }

    fn shape() -> Shape {
        Shape::Text {
            what: "text",
            pattern: None,
        }
    }
}

/// `off`, or a value.
#[derive(Debug, Clone)]
pub(crate) enum Off<T> {
    Off,
    On(T),
}

impl<T> Off<T> {
    pub(crate) fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<T: Read> Read for Off<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar {
                text,
                kind: ScalarKind::Text,
            }) if text == "off" => Some(Self::Off),
            Value::Scalar(Scalar {
                kind: ScalarKind::Bool(false),
                ..
            }) => {
                report.error_help(
                    Kind::Type,
                    node.span,
                    "`false` is not taken here",
                    "write `off`",
                );
                None
            }
            _ => T::read(node, report).map(Self::On),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(&["off"]), T::shape()])
    }
}

/// A list.
#[derive(Debug, Clone)]
pub(crate) struct List<T> {
    /// Those that could be read.
    pub(crate) items: Vec<At<T>>,
    /// Nothing was written between the brackets.
    pub(crate) empty: bool,
}

impl<T: Read> Read for List<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Value::List(items) = &node.value else {
            wrong_type(node, "a list", report);
            return None;
        };
        let read = items
            .iter()
            .filter_map(|item| T::read(item, report).map(|value| At::here(value, item)))
            .collect();
        Some(Self {
            items: read,
            empty: items.is_empty(),
        })
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub(crate) struct Many<T>(pub(crate) List<T>);

impl<T: Read> Read for Many<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Value::List(_) = node.value {
            return List::read(node, report).map(Self);
        }
        let items = vec![T::read(node, report).map(|value| At::here(value, node))?];
        Some(Self(List {
            items,
            empty: false,
        }))
    }

    fn shape() -> Shape {
        Shape::Many(Box::new(T::shape()))
    }
}

/// A map whose keys the user chooses, in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Named<T> {
    /// Those that could be read.
    pub(crate) items: Vec<(String, At<T>)>,
    /// Names of those that could not: they exist, and say no more.
    pub(crate) failed: Vec<String>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            failed: Vec::new(),
        }
    }
}

/// Bytes of a name.
pub(crate) const NAME_BYTES_MAX: usize = 255;

impl<T: Read> Read for Named<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let mut named = Self::default();
        for entry in entries(node, "a map", report)? {
            check_name(&entry.key, entry.key_span, report);
            match At::entry(entry, report) {
                Some(value) => named.items.push((entry.key.clone(), value)),
                None => named.failed.push(entry.key.clone()),
            }
        }
        Some(named)
    }

    fn shape() -> Shape {
        Shape::Map {
            what: "name",
            value: Box::new(T::shape()),
        }
    }
}

/// A name goes into logs, metrics and paths: not empty, not endless, no control characters.
pub(crate) fn check_name(name: &str, span: Span, report: &mut Report) {
    if name.is_empty() {
        report.error(Kind::Value, span, "a name cannot be empty");
    } else if name.len() > NAME_BYTES_MAX {
        report.error(
            Kind::Value,
            span,
            format!("a name has at most {NAME_BYTES_MAX} bytes"),
        );
    } else if name.chars().any(char::is_control) {
        report.error(Kind::Value, span, "a name cannot hold control characters");
    }
}
