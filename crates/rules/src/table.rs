//! The routes of a listener: the first that matches wins.
//!
//! What happens to a request that a route took is the caller's matter, by the route's index.

use crate::Match;
use crate::Request;
use crate::covers::covers;
use crate::index::{self, HostKey, Index, PathKey};
use crate::scratch::Scratch;
use crate::trace::Trace;

/// Up to this many routes a scan is as fast as an index.
const SCAN_ROUTES_MAX: usize = 16;

/// After this many comparisons no more unreachable routes are looked for.
const COMPARISONS_MAX: usize = 2_000_000;

/// Finds the route of a request.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    matches: Vec<Match>,
    /// For tables of more than [`SCAN_ROUTES_MAX`] routes.
    index: Option<Index>,
}

/// A route that can never match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    /// Its index.
    pub route: usize,
    /// The first earlier route that takes everything it would.
    pub taken_by: usize,
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &RouteTable) -> bool {
        self.matches == other.matches
    }
}

impl RouteTable {
    /// Takes the matches of the routes, in order; an empty match takes every request.
    pub fn build(mut matches: Vec<Match>) -> RouteTable {
        let mut slot = 0;
        matches.iter_mut().for_each(|rule| rule.number(&mut slot));
        let index = (matches.len() > SCAN_ROUTES_MAX).then(|| Index::build(&matches));
        RouteTable { matches, index }
    }

    /// The first route that matches.
    pub fn find<T: Trace>(
        &self,
        request: &Request<'_>,
        scratch: &mut Scratch,
        trace: &mut T,
    ) -> Option<usize> {
        match &self.index {
            Some(index) if !T::COLLECTS => self.find_indexed(index, request, scratch),
            _ => self.scan(request, scratch, trace),
        }
    }

    fn scan<T: Trace>(
        &self,
        request: &Request<'_>,
        scratch: &mut Scratch,
        trace: &mut T,
    ) -> Option<usize> {
        for (route, rule) in self.matches.iter().enumerate() {
            match rule.test(request, scratch) {
                Ok(()) => return Some(route),
                Err(miss) if T::COLLECTS => {
                    trace.rejected(route, miss.key, format_args!("{}", rule.why(miss, request)));
                }
                Err(_) => {}
            }
        }
        None
    }

    fn find_indexed(
        &self,
        index: &Index,
        request: &Request<'_>,
        scratch: &mut Scratch,
    ) -> Option<usize> {
        index.look_up(
            HostKey::Exact(request.host),
            PathKey::Exact(request.path),
            scratch,
        );
        // The lists are taken out while the candidates use the rest of the scratch.
        let mut lists = std::mem::take(&mut scratch.lists);
        let found = loop {
            let Some(route) = index.next(&mut lists) else {
                break None;
            };
            if self
                .matches
                .get(route)
                .is_some_and(|rule| rule.matches(request, scratch))
            {
                break Some(route);
            }
        };
        scratch.lists = lists;
        found
    }

    /// The matches, in order.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.matches.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// Routes that can never match because one earlier route takes all that they match. What it
    /// lists is so; that it lists all is not promised.
    pub fn unreachable(&self) -> Vec<Unreachable> {
        let own;
        let index = match &self.index {
            Some(index) => index,
            None => {
                own = Index::build(&self.matches);
                &own
            }
        };
        let mut scratch = Scratch::new();
        let mut left = COMPARISONS_MAX;
        let find = |(route, rule)| {
            let taken_by = self.taker(index, route, rule, &mut left, &mut scratch)?;
            Some(Unreachable { route, taken_by })
        };
        self.matches.iter().enumerate().filter_map(find).collect()
    }

    /// The first route before `route` that takes all of `rule`; each comparison takes one from `left`.
    fn taker(
        &self,
        index: &Index,
        route: usize,
        rule: &Match,
        left: &mut usize,
        scratch: &mut Scratch,
    ) -> Option<usize> {
        // Who takes everything also takes what goes by the first host and the first path.
        let host = index::host_keys(rule).next()?;
        let path = index::path_keys(rule).next()?;
        index.look_up(host, path, scratch);
        let mut lists = std::mem::take(&mut scratch.lists);
        let found = loop {
            let Some(earlier) = index.next(&mut lists).filter(|earlier| *earlier < route) else {
                break None;
            };
            let Some(rest) = left.checked_sub(1) else {
                break None;
            };
            *left = rest;
            if self
                .matches
                .get(earlier)
                .is_some_and(|wide| covers(wide, rule, scratch))
            {
                break Some(earlier);
            }
        };
        scratch.lists = lists;
        found
    }
}

#[cfg(test)]
mod tests;
