//! Labels: what servers are marked with, and by which routes choose a part of a pool.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Names with their values, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(BTreeMap<Arc<str>, Arc<str>>);

impl Labels {
    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a server with the labels `of` is meant: it has each of these.
    #[must_use]
    pub fn are_among(&self, of: &Self) -> bool {
        self.iter()
            .all(|(name, value)| of.0.get(name) == Some(value))
    }
}

impl FromIterator<(Arc<str>, Arc<str>)> for Labels {
    fn from_iter<T: IntoIterator<Item = (Arc<str>, Arc<str>)>>(labels: T) -> Self {
        Self(labels.into_iter().collect())
    }
}

/// `tier=gold,version=v2`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split_whitespace().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.into(), value.into())
        });
        pairs.collect()
    }

    #[test]
    fn a_server_is_meant_that_has_them_all() {
        for (wanted, of, meant) in [
            ("", "", true),
            ("", "v=2", true),
            ("v=2", "", false),
            ("v=2", "v=1", false),
            ("v=2", "v=2 tier=gold", true),
            ("v=2 tier=gold", "v=2", false),
            ("tier=gold v=2", "v=2 zone=a tier=gold", true),
        ] {
            let found = labels(wanted).are_among(&labels(of));
            assert_eq!(found, meant, "{wanted} of {of}");
        }
        assert_eq!(labels("v=2 tier=gold").to_string(), "tier=gold,v=2");
    }
}
