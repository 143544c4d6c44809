//! Which routes of a large table can match at all: a hash look-up for the host and each of its
//! suffixes, then for the path and each of its prefixes, gives lists of candidates in position order.
//!
//! Keys are hashes and nothing else: two that collide only add candidates, and whoever asks tests
//! each one in full. What it does not do is say that a candidate matches.

#![expect(
    clippy::disallowed_types,
    reason = "the hasher is named, and seeded by nothing: keys are hashes"
)]

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use twox_hash::XxHash3_64;

use crate::Match;
use crate::matching::{HostKind, PathKind};
use crate::scratch::Scratch;

/// Beyond this many pairs of host and path a route is listed by its hosts alone.
const PAIRS_MAX: usize = 4096;

/// What stands for "any host" or "any path" among the hashes.
const ANY: u64 = 0;

#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// Ids of exact hosts and of suffixes, by [`host_hash`] and [`suffix_hash`].
    hosts: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    /// Parts of `routes` (from, to), by [`mix`] of a host's id and a path's hash.
    lists: HashMap<u64, (u32, u32), BuildHasherDefault<Identity>>,
    /// The lists, one after the other, each ascending.
    routes: Vec<u32>,
    /// Longest suffix, bytes; 0: none.
    suffix_len_max: usize,
    /// Longest prefix, bytes; 0: none.
    prefix_len_max: usize,
    /// Most slashes in a prefix.
    prefix_slashes_max: usize,
}

/// The host of a request, or the key under which a host pattern is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostKey<'a> {
    Exact(&'a [u8]),
    /// With its leading dot.
    Suffix(&'a [u8]),
    Any,
}

/// The path of a request, or the key under which a path pattern is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKey<'a> {
    Exact(&'a [u8]),
    Prefix(&'a [u8]),
    Any,
}

impl Index {
    pub(crate) fn build(matches: &[Match]) -> Index {
        let mut index = Index::default();
        let mut lists: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (route, rule) in matches.iter().enumerate() {
            let Ok(route) = u32::try_from(route) else {
                break;
            };
            let hosts: Vec<u32> = host_keys(rule).map(|key| index.host_id(key)).collect();
            let mut paths: Vec<u64> = path_keys(rule).map(|key| index.path_hash(key)).collect();
            if hosts.len().saturating_mul(paths.len()) > PAIRS_MAX {
                paths = vec![ANY];
            }
            for host in &hosts {
                for path in &paths {
                    let list = lists.entry(mix(*host, *path)).or_default();
                    if list.last() != Some(&route) {
                        list.push(route);
                    }
                }
            }
        }
        for (key, list) in lists {
            let from = index.len();
            index.routes.extend(list);
            index.lists.insert(key, (from, index.len()));
        }
        index
    }

    fn len(&self) -> u32 {
        u32::try_from(self.routes.len()).unwrap_or(u32::MAX)
    }

    fn host_id(&mut self, key: HostKey<'_>) -> u32 {
        let hash = match key {
            HostKey::Any => return 0,
            HostKey::Exact(host) => host_hash(host),
            HostKey::Suffix(suffix) => {
                self.suffix_len_max = self.suffix_len_max.max(suffix.len());
                suffix_hash(suffix)
            }
        };
        let next = u32::try_from(self.hosts.len() + 1).unwrap_or(u32::MAX);
        *self.hosts.entry(hash).or_insert(next)
    }

    fn path_hash(&mut self, key: PathKey<'_>) -> u64 {
        match key {
            PathKey::Any => ANY,
            PathKey::Exact(path) => exact_hash(path),
            PathKey::Prefix(prefix) => {
                self.prefix_len_max = self.prefix_len_max.max(prefix.len());
                let slashes = memchr::memchr_iter(b'/', prefix).count();
                self.prefix_slashes_max = self.prefix_slashes_max.max(slashes);
                prefix_hash(prefix)
            }
        }
    }

    /// Fills `scratch.lists` with the lists of all routes that may take `host` and `path`.
    pub(crate) fn look_up(&self, host: HostKey<'_>, path: PathKey<'_>, scratch: &mut Scratch) {
        scratch.lists.clear();
        scratch.paths.clear();
        self.push_paths(path, &mut scratch.paths);
        self.push_lists(0, scratch);
        if let HostKey::Exact(host) = host
            && let Some(id) = self.hosts.get(&host_hash(host))
        {
            self.push_lists(*id, scratch);
        }
        if let HostKey::Exact(host) | HostKey::Suffix(host) = host
            && self.suffix_len_max > 0
        {
            let skipped = host.len().saturating_sub(self.suffix_len_max);
            for dot in memchr::memchr_iter(b'.', host).skip_while(|dot| *dot < skipped) {
                let suffix = host.get(dot..).unwrap_or_default();
                if let Some(id) = self.hosts.get(&suffix_hash(suffix)) {
                    self.push_lists(*id, scratch);
                }
            }
        }
    }

    fn push_paths(&self, key: PathKey<'_>, hashes: &mut Vec<u64>) {
        hashes.push(ANY);
        let (PathKey::Exact(path) | PathKey::Prefix(path)) = key else {
            return;
        };
        if let PathKey::Exact(path) = key {
            hashes.push(exact_hash(path));
        }
        if self.prefix_len_max == 0 {
            return;
        }
        // `/a/b` lies under `/a` and under `/a/b`; the root, before the first slash, is ANY.
        let ends = memchr::memchr_iter(b'/', path).skip(1).chain([path.len()]);
        for end in ends
            .take(self.prefix_slashes_max)
            .take_while(|end| *end <= self.prefix_len_max)
        {
            hashes.push(prefix_hash(path.get(..end).unwrap_or_default()));
        }
    }

    fn push_lists(&self, host: u32, scratch: &mut Scratch) {
        let Scratch { lists, paths, .. } = scratch;
        lists.extend(
            paths
                .iter()
                .filter_map(|path| self.lists.get(&mix(host, *path))),
        );
    }

    /// The lowest route in `lists`, which is taken off all of them.
    pub(crate) fn next(&self, lists: &mut Vec<(u32, u32)>) -> Option<usize> {
        let head = |list: &(u32, u32)| self.routes.get(list.0 as usize).copied();
        let lowest = lists.iter().filter_map(head).min()?;
        lists.retain_mut(|list| {
            if head(list) == Some(lowest) {
                list.0 += 1;
            }
            list.0 < list.1
        });
        Some(lowest as usize)
    }
}

/// The keys under which a match is listed; a request that it takes finds one of them.
pub(crate) fn host_keys(rule: &Match) -> impl Iterator<Item = HostKey<'_>> {
    let none = rule.host.is_empty().then_some(HostKey::Any);
    let keys = rule.host.iter().map(|host| match &host.kind {
        HostKind::Exact(name) => HostKey::Exact(name),
        HostKind::Suffix(suffix) => HostKey::Suffix(suffix),
        HostKind::Other => HostKey::Any,
    });
    none.into_iter().chain(keys)
}

/// The same for paths.
pub(crate) fn path_keys(rule: &Match) -> impl Iterator<Item = PathKey<'_>> {
    let none = rule.path.is_empty().then_some(PathKey::Any);
    let keys = rule
        .path
        .iter()
        .map(|path| match (&path.kind, path.literal_prefix()) {
            (PathKind::Exact(path), _) => PathKey::Exact(path),
            (_, Some(prefix)) => PathKey::Prefix(prefix),
            (_, None) => PathKey::Any,
        });
    none.into_iter().chain(keys)
}

fn host_hash(host: &[u8]) -> u64 {
    XxHash3_64::oneshot(host)
}

/// A suffix begins with a dot, which no host does: the two never meet.
fn suffix_hash(suffix: &[u8]) -> u64 {
    XxHash3_64::oneshot(suffix)
}

fn exact_hash(path: &[u8]) -> u64 {
    XxHash3_64::oneshot(path)
}

fn prefix_hash(prefix: &[u8]) -> u64 {
    !XxHash3_64::oneshot(prefix)
}

fn mix(host: u32, path: u64) -> u64 {
    path ^ u64::from(host).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Passes on what is a hash already.
#[derive(Debug, Clone, Copy, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
