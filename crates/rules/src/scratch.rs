//! What matching writes to: one for each worker, given in, so that nothing is locked or shared.

use std::sync::{Arc, Weak};

use regex_automata::Input;
use regex_automata::meta::{Cache, Regex};

/// Recycled memory of [`crate::RouteTable::find`] and [`crate::Pattern::matches`].
///
/// Keep one for each worker and table. Used with another table it is still right, but the regex
/// caches are built anew.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) caches: Caches,
    /// A decoded query value.
    pub(crate) value: Vec<u8>,
    /// Lists of candidates that are being merged: from, to.
    pub(crate) lists: Vec<(u32, u32)>,
    /// Hashes of the path and its prefixes.
    pub(crate) paths: Vec<u64>,
}

impl Scratch {
    /// An empty one; it grows with use.
    pub fn new() -> Scratch {
        Scratch::default()
    }
}

/// Regexes with a cache of their own in one scratch; further ones share, and build it anew each time.
const CACHES_MAX: usize = 1024;

/// The mutable half of each regex, at the slot which the table gave it.
///
/// A weak reference names the regex for which a cache was made: it keeps the address from being
/// used again, and leaves the freeing of the regex to whoever compiled it.
#[derive(Debug, Default)]
pub(crate) struct Caches(Vec<Option<(Weak<Regex>, Cache)>>);

impl Caches {
    pub(crate) fn is_match(&mut self, slot: u32, regex: &Arc<Regex>, value: &[u8]) -> bool {
        let slot = slot as usize % CACHES_MAX;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        let Some(entry) = self.0.get_mut(slot) else {
            return false;
        };
        let (_, cache) = match entry {
            Some(entry) if std::ptr::eq(entry.0.as_ptr(), Arc::as_ptr(regex)) => entry,
            _ => entry.insert((Arc::downgrade(regex), regex.create_cache())),
        };
        regex
            .search_half_with(cache, &Input::new(value).earliest(true))
            .is_some()
    }
}
