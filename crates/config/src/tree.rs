//! YAML text to a tree in which each key and value knows where it is written.
//!
//! Anchors, aliases and `<<` are resolved here, variables replaced, duplicate keys refused, and
//! every bound held. What a key means is for `read` and the sections.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::Source;
use crate::diagnostic::{Kind, Report, Span};
use crate::quoting;
use crate::scalar::{Scalar, ScalarKind, expand};

/// Bytes of one file.
pub(crate) const FILE_BYTES_MAX: usize = 16 << 20;
/// Lists and maps inside one another.
pub(crate) const DEPTH_MAX: usize = 64;
/// Nodes that aliases may bring in, in one file.
pub(crate) const ALIAS_NODES_MAX: usize = 10_000;

/// A value and where it is written.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
    /// Nodes in it, itself included.
    size: usize,
    /// Levels in it, itself included.
    depth: usize,
}

/// A YAML value.
#[derive(Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
    /// Already reported; whoever meets it says nothing more.
    Poison,
}

/// One key of a map.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Rc<Node>,
}

impl Node {
    fn new(value: Value, span: Span) -> Self {
        let (mut size, mut depth) = (0_usize, 0);
        let mut count = |child: &Node| {
            size = size.saturating_add(child.size);
            depth = depth.max(child.depth);
        };
        match &value {
            Value::List(items) => items.iter().for_each(|item| count(item)),
            Value::Map(entries) => entries.iter().for_each(|entry| count(&entry.value)),
            Value::Scalar(_) | Value::Poison => {}
        }
        Self {
            value,
            span,
            size: size + 1,
            depth: depth + 1,
        }
    }

    fn null(span: Span) -> Self {
        let (text, kind) = (String::new(), ScalarKind::Null);
        Self::new(Value::Scalar(Scalar { text, kind }), span)
    }

    /// A map made by merging files.
    pub(crate) fn map(entries: Vec<Entry>, span: Span) -> Self {
        Self::new(Value::Map(entries), span)
    }

    /// A list made by merging files.
    pub(crate) fn list(items: Vec<Rc<Self>>, span: Span) -> Self {
        Self::new(Value::List(items), span)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// For messages: "a list", "a number".
    pub(crate) fn kind_name(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) => scalar.kind.name(),
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Poison => "nothing",
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(
            &self.value,
            Value::Scalar(Scalar {
                kind: ScalarKind::Null,
                ..
            })
        )
    }
}

/// Reads one file's text. `None` after a fault that leaves no tree, which is then reported.
pub(crate) fn parse(
    text: &str,
    file: u32,
    source: &dyn Source,
    report: &mut Report,
) -> Option<Rc<Node>> {
    let builder = Builder {
        file,
        source,
        report,
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        alias_nodes: 0,
        root: None,
    };
    builder.run(text)
}

/// A list or map that is still open.
struct Frame {
    span: Span,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Rc<Node>>),
    /// Keys and values take turns: `key` waits for its value.
    Map {
        pairs: Vec<(Key, Rc<Node>)>,
        key: Option<Key>,
    },
}

struct Key {
    /// `None` when it is already reported; its value is dropped.
    name: Option<String>,
    span: Span,
    /// A plain `<<`: its value's keys are merged in.
    merge: bool,
}

struct Builder<'a> {
    file: u32,
    source: &'a dyn Source,
    report: &'a mut Report,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Rc<Node>>,
    alias_nodes: usize,
    root: Option<Rc<Node>>,
}

/// A fault after which the rest of the file means nothing; it is already reported.
struct Stop;

/// A plain `<<` among a map's keys.
const MERGE_KEY: &str = "<<";

impl Builder<'_> {
    fn run(mut self, text: &str) -> Option<Rc<Node>> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        loop {
            let (event, span) = match parser.next_event() {
                None => break,
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    self.scan_error(&error);
                    return None;
                }
            };
            let span = self.span(span.start, span.end);
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
                if documents > 1 {
                    self.report.error(
                        Kind::Syntax,
                        span,
                        "a config is one YAML document; this starts a second",
                    );
                    return None;
                }
            }
            if self.handle_event(event, span).is_err() {
                return None;
            }
        }
        let start = Span {
            file: self.file,
            line: 1,
            column: 1,
            length: 1,
        };
        Some(self.root.unwrap_or_else(|| Rc::new(Node::null(start))))
    }

    fn handle_event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), span)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::SequenceStart(anchor, tag) => {
                self.open(FrameKind::List(Vec::new()), anchor, tag.as_deref(), span)
            }
            Event::MappingStart(anchor, tag) => {
                let kind = FrameKind::Map {
                    pairs: Vec::new(),
                    key: None,
                };
                self.open(kind, anchor, tag.as_deref(), span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(
        &mut self,
        kind: FrameKind,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Stop> {
        self.tag(tag, span);
        self.check_depth(self.stack.len() + 1, span)?;
        self.stack.push(Frame { span, anchor, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let value = match frame.kind {
            FrameKind::List(items) => Value::List(items),
            FrameKind::Map { pairs, .. } => Value::Map(self.finish_map(pairs)),
        };
        self.add(Rc::new(Node::new(value, frame.span)), frame.anchor, false)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Stop> {
        let plain = style == ScalarStyle::Plain;
        let is_text = self.tag(tag, span);
        let value = match expand(text, self.source) {
            Ok(text) => {
                let kind = if plain && !is_text {
                    ScalarKind::of_plain(&text)
                } else {
                    ScalarKind::Text
                };
                Value::Scalar(Scalar { text, kind })
            }
            Err(error) => {
                let offset = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let exact = plain && !text.contains('\n') && offset(error.at) < span.length;
                let place = if exact {
                    Span {
                        column: span.column + offset(error.at),
                        length: offset(error.length),
                        ..span
                    }
                } else {
                    span
                };
                self.report.error(Kind::Variable, place, error.message);
                Value::Poison
            }
        };
        let merge = plain && text == MERGE_KEY;
        self.add(Rc::new(Node::new(value, span)), anchor, merge)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            self.report
                .error(Kind::Syntax, span, "an alias inside of what it stands for");
            return Err(Stop);
        };
        self.alias_nodes = self.alias_nodes.saturating_add(node.size);
        if self.alias_nodes > ALIAS_NODES_MAX {
            let message = format!("aliases bring in more than {ALIAS_NODES_MAX} values");
            self.report.error(Kind::Limit, span, message);
            return Err(Stop);
        }
        self.check_depth(self.stack.len() + node.depth, span)?;
        self.add(node, 0, false)
    }

    /// Hangs a finished node under what is open; in a map, keys and values take turns.
    fn add(&mut self, node: Rc<Node>, anchor: usize, merge: bool) -> Result<(), Stop> {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.stack.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(FrameKind::List(items)) => items.push(node),
            Some(FrameKind::Map { pairs, key }) => match key.take() {
                Some(key) => {
                    // Nothing written has no place of its own.
                    let absent = node.is_null() && node.span.length <= 1;
                    let node = if absent {
                        Rc::new(Node::null(key.span))
                    } else {
                        node
                    };
                    pairs.push((key, node));
                }
                None if matches!(node.value, Value::Poison) => {
                    *key = Some(Key {
                        name: None,
                        span: node.span,
                        merge,
                    });
                }
                None => {
                    let Value::Scalar(Scalar { text, .. }) = &node.value else {
                        let help = quoting::HELP_FLOW;
                        let message = format!("a key must be text, not {}", node.kind_name());
                        self.report
                            .error_help(Kind::Syntax, node.span, message, help);
                        return Err(Stop);
                    };
                    *key = Some(Key {
                        name: Some(text.clone()),
                        span: node.span,
                        merge,
                    });
                }
            },
        }
        Ok(())
    }

    /// Duplicates reported, merges done: explicit keys win, then earlier merges.
    fn finish_map(&mut self, pairs: Vec<(Key, Rc<Node>)>) -> Vec<Entry> {
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        let mut entries = Vec::with_capacity(pairs.len());
        let mut merges = Vec::new();
        for (key, value) in pairs {
            if key.merge {
                merges.push(value);
                continue;
            }
            let Some(name) = key.name else { continue };
            if let Some(&first) = seen.get(&name) {
                self.report
                    .twice(key.span, first, &format!("the key `{name}`"));
                continue;
            }
            seen.insert(name.clone(), key.span);
            entries.push(Entry {
                key: name,
                key_span: key.span,
                value,
            });
        }
        for merge in merges {
            self.merge(&merge, &mut entries, &mut seen);
        }
        entries
    }

    fn merge(&mut self, merge: &Node, entries: &mut Vec<Entry>, seen: &mut BTreeMap<String, Span>) {
        match &merge.value {
            Value::Map(from) => {
                for entry in from {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.key_span);
                        entries.push(entry.clone());
                    }
                }
            }
            Value::List(maps) if maps.iter().all(|map| matches!(map.value, Value::Map(_))) => {
                for map in maps {
                    self.merge(map, entries, seen);
                }
            }
            Value::Poison => {}
            _ => {
                let message = format!(
                    "`<<` takes a map or a list of maps, not {}",
                    merge.kind_name()
                );
                self.report.error(Kind::Type, merge.span, message);
            }
        }
    }

    /// Whether the tag makes a scalar text; tags beyond YAML's own are errors.
    fn tag(&mut self, tag: Option<&Tag>, span: Span) -> bool {
        let Some(tag) = tag else { return false };
        let core = tag.is_yaml_core_schema();
        let verbatim = tag.handle.is_empty() && tag.suffix == "!";
        if !core && !verbatim {
            self.report.error(
                Kind::Syntax,
                span,
                format!("the tag `{tag}` means nothing here"),
            );
        }
        verbatim || (core && tag.suffix == "str")
    }

    fn check_depth(&mut self, depth: usize, span: Span) -> Result<(), Stop> {
        if depth <= DEPTH_MAX {
            return Ok(());
        }
        let message = format!("lists and maps inside one another are deeper than {DEPTH_MAX}");
        self.report.error(Kind::Limit, span, message);
        Err(Stop)
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let length = match end.line() == start.line() {
            true => end.col().saturating_sub(start.col()).max(1),
            false => usize::MAX,
        };
        Span {
            file: self.file,
            line: number(start.line()),
            column: number(start.col() + 1),
            length: number(length),
        }
    }

    fn scan_error(&mut self, error: &ScanError) {
        let span = self.span(*error.marker(), *error.marker());
        let span = self.report.files.inside(span);
        let line = self.report.files.line(span.file, span.line);
        let (message, help) = quoting::explain(error.info(), line, span);
        match help {
            Some(help) => self.report.error_help(Kind::Syntax, span, message, help),
            None => self.report.error(Kind::Syntax, span, message),
        }
    }
}
