//! How values are read from the tree: each type says what it takes, reports what it cannot take,
//! and reading goes on. From the same tables come the JSON Schema and the reference.
//!
//! Whether values fit one another is for `compile`.

use crate::diagnostic::{Kind, Report, Span, listed};
use crate::quoting;
use crate::reference::sections_with;
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Entry, Node, Value};

/// A type that can stand in a config.
pub(crate) trait Read: Sized {
    /// The value, or `None` after a report.
    fn read(node: &Node, report: &mut Report) -> Option<Self>;
    /// What is accepted, for the schema and the reference.
    fn shape() -> Shape;
}

/// What a type accepts.
#[derive(Debug)]
pub(crate) enum Shape {
    Bool,
    Integer {
        min: u64,
        max: u64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// Any text, or (as `what` says) text of one form; numbers count as text.
    Text {
        what: &'static str,
        pattern: Option<&'static str>,
    },
    /// Text of one form, or a bare 0: what has a unit.
    Measure {
        what: &'static str,
        pattern: &'static str,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    List(Box<Shape>),
    /// Keys chosen by the user (`what` they are) to values of one shape.
    Map {
        what: &'static str,
        value: Box<Shape>,
    },
    /// A map with exactly one of these keys.
    OneKey(fn() -> Table),
    /// Nothing, or an empty map.
    Empty,
    /// A map with the keys of a table; lazy, since sections may hold themselves.
    Section(fn() -> Table),
    /// One value, or a list of them.
    Many(Box<Shape>),
    /// One of several.
    Any(Vec<Shape>),
}

/// The keys of one section.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keys: Vec<Key>,
}

/// One key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) default: Absent,
    pub(crate) shape: Shape,
}

/// What holds when a key is absent.
#[derive(Debug)]
pub(crate) enum Absent {
    /// It must be there.
    Required,
    /// In the words of the config, or of the docs.
    Is(String),
    /// Nothing: exactly one key of this table is there.
    Choice,
}

/// For tables: the key must be there.
pub(crate) fn required() -> Absent {
    Absent::Required
}

/// For tables: what holds when the key is absent.
pub(crate) fn or(text: impl std::fmt::Display) -> Absent {
    Absent::Is(text.to_string())
}

/// One choice of a map with exactly one key.
pub(crate) fn choice(name: &'static str, about: &'static str, shape: Shape) -> Key {
    Key {
        name,
        about,
        default: Absent::Choice,
        shape,
    }
}

/// A value, where it is written, and where its key is.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
    /// The key's place; in a list, the value's own.
    pub(crate) key: Span,
}

impl<T: Read> At<T> {
    pub(crate) fn entry(entry: &Entry, report: &mut Report) -> Option<Self> {
        let value = T::read(&entry.value, report)?;
        Some(Self {
            value,
            span: place(&entry.value, entry.key_span),
            key: entry.key_span,
        })
    }
}

impl<T> At<T> {
    /// What a short form stands for: key and value in one place.
    pub(crate) fn here(value: T, node: &Node) -> Self {
        Self {
            value,
            span: node.span,
            key: node.span,
        }
    }
}

/// Where to point for a value: at itself if it is a scalar, else at its key.
fn place(node: &Node, key: Span) -> Span {
    match &node.value {
        Value::Scalar(scalar) if scalar.kind != ScalarKind::Null => node.span,
        _ => key,
    }
}

/// Reports that `node` is not `expected`.
pub(crate) fn wrong_type(node: &Node, expected: &str, report: &mut Report) {
    let found = match &node.value {
        Value::Poison => return,
        Value::Scalar(Scalar {
            kind: ScalarKind::Text,
            text,
        }) => format!("the text `{text}`"),
        Value::Scalar(Scalar {
            kind: ScalarKind::Bool(value),
            ..
        }) => format!("`{value}`"),
        _ => node.kind_name().to_owned(),
    };
    let message = format!("expected {expected}, found {found}");
    let flow = matches!(node.value, Value::List(_) | Value::Map(_)) && expected.contains("text");
    if flow {
        report.error_help(Kind::Type, node.span, message, quoting::HELP_FLOW);
    } else {
        report.error(Kind::Type, node.span, message);
    }
}

/// The keys of a map; nothing at all counts as an empty one.
pub(crate) fn entries<'a>(
    node: &'a Node,
    expected: &str,
    report: &mut Report,
) -> Option<&'a [Entry]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        Value::Scalar(Scalar {
            kind: ScalarKind::Null,
            ..
        }) => Some(&[]),
        _ => {
            wrong_type(node, expected, report);
            None
        }
    }
}

/// The text of a scalar; numbers as written. Nothing, `true` and `false` are not text.
pub(crate) fn text<'a>(node: &'a Node, expected: &str, report: &mut Report) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(Scalar {
            text,
            kind: ScalarKind::Text | ScalarKind::Int(_) | ScalarKind::Float(_),
        }) => Some(text),
        _ => {
            wrong_type(node, expected, report);
            None
        }
    }
}

/// The single key of a tagged choice, which must be one of `known`.
pub(crate) fn one_key<'a>(
    node: &'a Node,
    what: &str,
    known: &[&'static str],
    report: &mut Report,
) -> Option<(&'static str, &'a Entry)> {
    let Value::Map(found) = &node.value else {
        wrong_type(node, what, report);
        return None;
    };
    let [entry] = found.as_slice() else {
        let message = format!(
            "{what} is a map with exactly one key, found {}",
            found.len()
        );
        report.error_help(
            Kind::Type,
            node.span,
            message,
            format!("known: {}", listed(known)),
        );
        return None;
    };
    if let Some(name) = known.iter().find(|name| **name == entry.key) {
        return Some((name, entry));
    }
    let message = format!("unknown key `{}` in {what}", entry.key);
    report.not_among(
        Kind::UnknownKey,
        entry.key_span,
        message,
        &entry.key,
        known.iter().copied(),
    );
    None
}

/// One of a closed list of words.
pub(crate) fn word(
    node: &Node,
    what: &str,
    known: &[&'static str],
    report: &mut Report,
) -> Option<&'static str> {
    let found = text(node, &format!("{what} (one of {})", listed(known)), report)?;
    if let Some(name) = known.iter().find(|name| **name == found) {
        return Some(name);
    }
    let message = format!("`{found}` is not {what}");
    report.not_among(
        Kind::Value,
        node.span,
        message,
        found,
        known.iter().copied(),
    );
    None
}

/// A key of a section that is not in its table.
pub(crate) fn unknown_key(
    entry: &Entry,
    section: &str,
    known: &[&str],
    later: &[&str],
    report: &mut Report,
) {
    let key = entry.key.as_str();
    if later.contains(&key) {
        unsupported(entry.key_span, key, report);
        return;
    }
    let message = format!("unknown key `{key}` in {section}");
    report.not_among_but(
        Kind::UnknownKey,
        entry.key_span,
        message,
        key,
        known.iter().copied(),
        elsewhere(key),
    );
}

/// Where a key can stand that has no place here, if those are few.
fn elsewhere(key: &str) -> Option<String> {
    let sections = sections_with(key);
    let few = (1..=3).contains(&sections.len());
    few.then(|| format!("it is a key of {}", listed(&sections)))
}

/// What SPEC's config has and this version does not.
pub(crate) fn unsupported(span: Span, what: &str, report: &mut Report) {
    report.error(
        Kind::Unsupported,
        span,
        format!("`{what}` is not supported by this version"),
    );
}

/// Defines a section: its struct, its reader and its table of keys, all from one list.
///
/// Every field is an `Option<At<T>>`; required ones have been reported when they are `None`.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident $title:literal {
            $( $(#[doc = $doc:literal])+ $key:literal $field:ident : $type:ty = $default:expr, )*
        } later [ $($later:literal),* ]
    ) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub(crate) struct $name {
            /// The keys that are there, even if their values could not be read.
            pub(crate) written: Vec<&'static str>,
            $( $(#[doc = $doc])+ pub(crate) $field: Option<$crate::read::At<$type>>, )*
        }

        impl $name {
            /// The section as if nothing were written.
            pub(crate) fn absent() -> Self {
                Self { written: Vec::new(), $($field: None,)* }
            }

            fn table() -> $crate::read::Table {
                let keys = vec![ $( $crate::read::Key {
                    name: $key,
                    about: concat!($($doc),+),
                    default: $default,
                    shape: <$type as $crate::read::Read>::shape(),
                }, )* ];
                $crate::read::Table { name: $title, about: concat!($($about),+), keys }
            }
        }

        impl $crate::read::Read for $name {
            fn read(node: &$crate::tree::Node, report: &mut $crate::diagnostic::Report) -> Option<Self> {
                const KEYS: &[&str] = &[$($key),*];
                const LATER: &[&str] = &[$($later),*];
                let title = concat!("`", $title, "`");
                let expected = concat!("a map for `", $title, "`");
                let mut section = Self::absent();
                for entry in $crate::read::entries(node, expected, report)? {
                    match entry.key.as_str() {
                        $( $key => {
                            section.written.push($key);
                            section.$field = $crate::read::At::entry(entry, report);
                        } )*
                        _ => $crate::read::unknown_key(entry, title, KEYS, LATER, report),
                    }
                }
                $( $crate::read::check_required(&$default, $key, &section.written, node.span, title, report); )*
                Some(section)
            }

            fn shape() -> $crate::read::Shape {
                $crate::read::Shape::Section(Self::table)
            }
        }
    };
}
pub(crate) use section;

/// Reports a required key that is not among those written.
pub(crate) fn check_required(
    default: &Absent,
    key: &str,
    written: &[&str],
    span: Span,
    section: &str,
    report: &mut Report,
) {
    if matches!(default, Absent::Required) && !written.contains(&key) {
        report.error(Kind::Missing, span, format!("{section} lacks `{key}`"));
    }
}
