//! What filters changed about a request and about its response, in recycled memory.
//!
//! It holds the changes; applying them is the head encoder's matter.

use std::ops::Range;

use wire::grpc::Dialect;

/// Whose fields a filter edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum On {
    /// What goes to the server.
    #[default]
    Request,
    /// What goes to the client.
    Response,
}

/// The changes that the filters of a route made; recycled between requests.
///
/// A name is edited at most once on each side: the last filter wins.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    path: Option<Vec<u8>>,
    /// Memory for the next path or value.
    spare: Vec<u8>,
    fields: Vec<FieldEdit>,
    /// Names and values of `fields`.
    bytes: Vec<u8>,
    web: Option<Dialect>,
}

#[derive(Debug, Clone)]
struct FieldEdit {
    on: On,
    name: Range<usize>,
    value: Option<Range<usize>>,
    /// Whether names that differ by `_` for `-` alone are meant too.
    guarded: bool,
}

/// One edited field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderEdit<'e> {
    /// As the user wrote it.
    pub name: &'e [u8],
    /// The only value that the field has from now on; `None`: it is removed.
    pub value: Option<&'e [u8]>,
}

impl Edits {
    /// No changes.
    pub fn new() -> Edits {
        Edits::default()
    }

    /// Forgets all changes and keeps the memory.
    pub fn clear(&mut self) {
        if let Some(path) = self.path.take() {
            self.spare = path;
        }
        self.fields.clear();
        self.bytes.clear();
        self.web = None;
    }

    /// What a call of gRPC-Web, whose head is edited to be one of gRPC, is written in.
    pub fn web(&self) -> Option<Dialect> {
        self.web
    }

    /// Says that the request is a call of gRPC-Web, and is to become one of gRPC.
    pub(crate) fn translate(&mut self, from: Dialect) {
        self.web = Some(from);
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.path.is_none() && self.fields.is_empty()
    }

    /// The path that the server gets, if it is another one.
    pub fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }

    /// Edits of one side: each says that incoming fields of its name are dropped, and one with a
    /// value is then written.
    pub fn fields(&self, on: On) -> impl Iterator<Item = HeaderEdit<'_>> {
        self.fields
            .iter()
            .filter(move |edit| edit.on == on)
            .map(|edit| HeaderEdit {
                name: self.text(&edit.name),
                value: edit.value.as_ref().map(|value| self.text(value)),
            })
    }

    /// What happens to the field `name`, whose case does not matter.
    pub fn field(&self, on: On, name: &[u8]) -> Option<HeaderEdit<'_>> {
        let edit = self.fields.iter().find(|edit| {
            let own = self.text(&edit.name);
            edit.on == on
                && (own.eq_ignore_ascii_case(name) || (edit.guarded && is_alike(own, name)))
        })?;
        Some(HeaderEdit {
            name: self.text(&edit.name),
            value: edit.value.as_ref().map(|value| self.text(value)),
        })
    }

    /// Has an edit of this name take away fields whose names differ by `_` for `-` alone, which servers with an
    /// environment (CGI) take for the same.
    pub(crate) fn guard(&mut self, on: On, name: &[u8]) {
        if let Some(at) = self.position(on, name)
            && let Some(edit) = self.fields.get_mut(at)
        {
            edit.guarded = true;
        }
    }

    fn position(&self, on: On, name: &[u8]) -> Option<usize> {
        self.fields
            .iter()
            .position(|edit| edit.on == on && self.text(&edit.name).eq_ignore_ascii_case(name))
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Gives the field a value, or (`None`) removes it.
    pub(crate) fn edit(&mut self, on: On, name: &[u8], value: Option<&[u8]>) {
        let known = self.position(on, name);
        let value = value.map(|value| self.push(value));
        match known.and_then(|at| self.fields.get_mut(at)) {
            Some(edit) => edit.value = value,
            None => {
                let name = self.push(name);
                self.fields.push(FieldEdit {
                    on,
                    name,
                    value,
                    guarded: false,
                });
            }
        }
    }

    fn push(&mut self, text: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(text);
        from..self.bytes.len()
    }

    /// Writes a value with `write` and gives it to the field; an empty one removes it.
    pub(crate) fn edit_with(
        &mut self,
        on: On,
        name: &[u8],
        write: impl FnOnce(&Edits, &mut Vec<u8>),
    ) {
        let mut value = std::mem::take(&mut self.spare);
        value.clear();
        write(self, &mut value);
        let made = Some(value.as_slice()).filter(|value| !value.is_empty());
        self.edit(on, name, made);
        self.spare = value;
    }

    /// Takes `count` bytes off the front of the path, which is `path` unless it was changed before.
    pub(crate) fn strip_path(&mut self, path: &[u8], count: usize) {
        // The prefix ended where a segment does, so that what lacks the slash is an empty rest.
        let mut next = std::mem::take(&mut self.spare);
        next.clear();
        let kept = self.path().unwrap_or(path).get(count..).unwrap_or_default();
        if kept.first() != Some(&b'/') {
            next.push(b'/');
        }
        next.extend_from_slice(kept);
        self.spare = self.path.replace(next).unwrap_or_default();
    }
}

/// Whether names are the same for whoever takes `_` for `-`.
fn is_alike(one: &[u8], other: &[u8]) -> bool {
    let fold = |byte: &u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    one.len() == other.len() && one.iter().map(fold).eq(other.iter().map(fold))
}
