//! Files to one tree: reads the main file and what it includes, and merges them.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::Source;
use crate::diagnostic::{Kind, Report, Span};
use crate::read::Read;
use crate::tree::{self, Entry, Node, Value};
use crate::values::{List, Many, Text};

/// Files inside files.
const INCLUDE_DEPTH_MAX: usize = 8;
/// Files in all.
const FILES_MAX: usize = 10_000;
/// The keys of the top whose maps are merged by name.
const MERGED: [&str; 3] = ["routes", "listeners", "pools"];

/// The merged tree, and whether every file could be read whole.
pub(crate) fn read_files(path: &str, source: &dyn Source, report: &mut Report) -> (Node, bool) {
    let mut loader = Loader {
        source,
        report,
        seen: BTreeMap::new(),
        bytes: 0,
        top: Section::default(),
        merged: BTreeMap::new(),
        whole: true,
    };
    loader.file(path, None, 0);
    let (top, merged, whole) = (loader.top, loader.merged, loader.whole);
    let mut entries = top.entries;
    for (key, (key_span, section)) in merged {
        let value = Rc::new(Node::map(section.entries, key_span));
        entries.push(Entry {
            key: key.to_owned(),
            key_span,
            value,
        });
    }
    (Node::map(entries, Span::START), whole)
}

/// Entries by name, in the order in which they came.
#[derive(Default)]
struct Section {
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
}

struct Loader<'a> {
    source: &'a dyn Source,
    report: &'a mut Report,
    /// Every path read, and where it was asked for.
    seen: BTreeMap<String, Span>,
    bytes: usize,
    top: Section,
    merged: BTreeMap<&'static str, (Span, Section)>,
    whole: bool,
}

impl Loader<'_> {
    /// Reads one file; `asked` is where an include names it, `None` for the main file.
    fn file(&mut self, path: &str, asked: Option<Span>, depth: usize) {
        if let (Some(asked), Some(&first)) = (asked, self.seen.get(path)) {
            self.report
                .twice(asked, first, &format!("the file `{path}`"));
            return;
        }
        let text = self.source.read(path);
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let file = asked
                    .is_none()
                    .then(|| self.report.files.push(path, String::new()));
                let span = asked.unwrap_or(Span {
                    file: file.unwrap_or(0),
                    ..Span::default()
                });
                self.fail(Kind::File, span, format!("cannot read `{path}`: {error}"));
                return;
            }
        };
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > tree::FILE_BYTES_MAX {
            let file = self.report.files.push(path, String::new());
            let span = asked.unwrap_or(Span {
                file,
                ..Span::default()
            });
            self.fail(
                Kind::Limit,
                span,
                "a config has at most 16 MiB, its included files counted".to_owned(),
            );
            return;
        }
        let file = self.report.files.push(path, text.clone());
        let start = Span {
            file,
            line: 1,
            column: 1,
            length: 1,
        };
        self.seen.insert(path.to_owned(), asked.unwrap_or(start));
        match tree::parse(&text, file, self.source, self.report) {
            Some(root) => self.root(&root, path, depth),
            None => self.whole = false,
        }
    }

    fn fail(&mut self, kind: Kind, span: Span, message: String) {
        self.report.error(kind, span, message);
        self.whole = false;
    }

    fn root(&mut self, root: &Node, path: &str, depth: usize) {
        let entries = match &root.value {
            Value::Map(entries) => entries,
            _ if root.is_null() => return,
            _ => {
                let message = format!(
                    "a config is a map (`listeners:`, `pools:`), found {}",
                    root.kind_name()
                );
                self.fail(Kind::Type, root.span, message);
                return;
            }
        };
        let mut includes = Vec::new();
        for entry in entries {
            if entry.key == "include" {
                includes.push(entry);
            } else {
                self.top_key(entry);
            }
        }
        for entry in includes {
            self.include(entry, path, depth);
        }
    }

    fn top_key(&mut self, entry: &Entry) {
        let merged = MERGED.into_iter().find(|key| *key == entry.key);
        let (Some(key), Value::Map(entries)) = (merged, &entry.value.value) else {
            insert(&mut self.top, entry, "the key", self.report);
            return;
        };
        let (_, section) = self
            .merged
            .entry(key)
            .or_insert_with(|| (entry.key_span, Section::default()));
        for entry in entries {
            let appended = key == "routes" && append(section, entry);
            if !appended {
                insert(section, entry, "the name", self.report);
            }
        }
    }

    fn include(&mut self, entry: &Entry, path: &str, depth: usize) {
        let Some(Many(List {
            items: patterns, ..
        })) = Many::<Text>::read(&entry.value, self.report)
        else {
            self.whole = false;
            return;
        };
        if depth >= INCLUDE_DEPTH_MAX {
            let message = format!("includes go {INCLUDE_DEPTH_MAX} deep at most");
            self.fail(Kind::Limit, entry.key_span, message);
            return;
        }
        for pattern in patterns {
            let full = beside(path, &pattern.value.0);
            let found = match full.contains(['*', '?', '[']) {
                true => self.source.glob(&full),
                false => Ok(vec![full]),
            };
            let mut found = match found {
                Ok(found) => found,
                Err(error) => {
                    let message = format!("cannot look for `{}`: {error}", pattern.value.0);
                    self.fail(Kind::File, pattern.span, message);
                    continue;
                }
            };
            found.sort();
            for path in found {
                if self.seen.len() >= FILES_MAX {
                    self.fail(
                        Kind::Limit,
                        pattern.span,
                        format!("a config has at most {FILES_MAX} files"),
                    );
                    return;
                }
                self.file(&path, Some(pattern.span), depth + 1);
            }
        }
    }
}

/// Adds a list's items to the list of that name, if there is one already.
fn append(section: &mut Section, entry: &Entry) -> bool {
    let Some(present) = section
        .index
        .get(&entry.key)
        .and_then(|&at| section.entries.get_mut(at))
    else {
        return false;
    };
    let (Value::List(first), Value::List(more)) = (&present.value.value, &entry.value.value) else {
        return false;
    };
    let items = first.iter().chain(more).cloned().collect();
    present.value = Rc::new(Node::list(items, present.value.span));
    true
}

fn insert(section: &mut Section, entry: &Entry, what: &str, report: &mut Report) {
    if let Some(first) = section
        .index
        .get(&entry.key)
        .and_then(|&at| section.entries.get(at))
    {
        report.twice(
            entry.key_span,
            first.key_span,
            &format!("{what} `{}`", entry.key),
        );
        return;
    }
    section
        .index
        .insert(entry.key.clone(), section.entries.len());
    section.entries.push(entry.clone());
}

/// `pattern` as seen from the folder of `path`.
pub(crate) fn beside(path: &str, pattern: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, _)) if !pattern.starts_with('/') => format!("{folder}/{pattern}"),
        _ => pattern.to_owned(),
    }
}
