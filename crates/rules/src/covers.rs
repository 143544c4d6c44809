//! Whether one match takes everything that another does. It may say no where it is so, never the reverse.

use crate::Cidr;
use crate::matching::{HostPattern, Match, PathPattern};
use crate::pattern::Pattern;
use crate::scratch::Scratch;

/// Whether every request that `narrow` matches is matched by `wide`.
pub(crate) fn covers(wide: &Match, narrow: &Match, scratch: &mut Scratch) -> bool {
    let hosts = wide.host.iter().any(HostPattern::takes_all)
        || each_in(&wide.host, &narrow.host, |wide, narrow| {
            wide.contains(narrow, scratch)
        });
    let paths = wide.path.iter().any(PathPattern::takes_all)
        || each_in(&wide.path, &narrow.path, |wide, narrow| {
            wide.contains(narrow, scratch)
        });
    if !(hosts && paths) {
        return false;
    }
    let methods = wide.method.iter().any(Pattern::takes_all)
        || each_in(&wide.method, &narrow.method, |wide, narrow| {
            wide.contains(narrow, scratch)
        });
    let not = match (&wide.not, &narrow.not) {
        (None, _) => true,
        (Some(_), None) => false,
        // What the wide one excludes has to be excluded by the narrow one too.
        (Some(wide), Some(narrow)) => covers(narrow, wide, scratch),
    };
    let certs = match (&wide.client_cert, &narrow.client_cert) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => wide.covers(narrow, scratch),
    };
    methods
        && not
        && certs
        && each_in(&wide.sni, &narrow.sni, |wide, narrow| {
            wide.contains(narrow, scratch)
        })
        && each_in(&wide.source, &narrow.source, Cidr::contains_range)
        && names_in(
            &wide.header,
            &narrow.header,
            str::eq_ignore_ascii_case,
            scratch,
        )
        && names_in(&wide.cookie, &narrow.cookie, str::eq, scratch)
        && names_in(&wide.query, &narrow.query, str::eq, scratch)
}

/// A key that the wide one does not give asks for nothing; one that only it gives asks for more.
pub(crate) fn each_in<T>(
    wide: &[T],
    narrow: &[T],
    mut contains: impl FnMut(&T, &T) -> bool,
) -> bool {
    wide.is_empty()
        || (!narrow.is_empty()
            && narrow
                .iter()
                .all(|narrow| wide.iter().any(|wide| contains(wide, narrow))))
}

type Named = [(String, Vec<Pattern>)];

fn names_in(
    wide: &Named,
    narrow: &Named,
    same: fn(&str, &str) -> bool,
    scratch: &mut Scratch,
) -> bool {
    wide.iter().all(|(name, wide)| {
        wide.is_empty()
            || narrow.iter().any(|(other, narrow)| {
                same(name, other)
                    && each_in(wide, narrow, |wide, narrow| wide.contains(narrow, scratch))
            })
    })
}
