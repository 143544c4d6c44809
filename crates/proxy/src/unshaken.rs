//! Why there was no session with servers that were reached, in words, for who reads the log: a reason says that it was
//! the certificate, and not which name that bears.
//!
//! Each worker knows of its own connections. Only those that come to nothing write here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use control::live::Member;

/// Servers whose words are kept; past that all are forgotten.
const SERVERS_MAX: usize = 1024;
/// Characters that are kept: a certificate may bear any number of names.
const WORDS_MAX: usize = 240;

/// What the last connection to each server came to, where that was no session; by member.
#[derive(Default)]
pub(crate) struct Unshaken(RefCell<BTreeMap<u32, Arc<str>>>);

impl Unshaken {
    /// There was none, for this.
    #[cold]
    pub(crate) fn note(&self, member: &Member, words: &str) {
        let words: String = words.chars().take(WORDS_MAX).collect();
        let mut all = self.0.borrow_mut();
        if all.len() >= SERVERS_MAX && !all.contains_key(&member.id) {
            all.clear();
        }
        all.insert(member.id, words.into());
    }

    /// A later connection came to something else.
    pub(crate) fn forget(&self, member: &Member) {
        let mut all = self.0.borrow_mut();
        if !all.is_empty() {
            all.remove(&member.id);
        }
    }

    /// Why there was none.
    pub(crate) fn of(&self, member: u32) -> Option<Arc<str>> {
        self.0.borrow().get(&member).cloned()
    }
}
