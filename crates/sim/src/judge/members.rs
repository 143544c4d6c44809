//! Every member that there ever was, in the order of their numbers, which grow.

use super::known::Known;

#[derive(Default)]
pub(super) struct Members(Vec<(u32, Known)>);

impl Members {
    /// One that may be new.
    pub(super) fn add(&mut self, id: u32, known: impl FnOnce() -> Known) {
        if let Err(at) = self.place(id) {
            self.0.insert(at, (id, known()));
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&Known> {
        let at = self.place(id).ok()?;
        self.0.get(at).map(|(_, known)| known)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Known> {
        let at = self.place(id).ok()?;
        self.0.get_mut(at).map(|(_, known)| known)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Known)> {
        self.0.iter().map(|(id, known)| (*id, known))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Known> {
        self.0.iter().map(|(_, known)| known)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        self.0.iter_mut().map(|(_, known)| known)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id)
    }
}
