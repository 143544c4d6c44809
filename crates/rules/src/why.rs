//! Sentences for people: why a match did not hold. Nothing of it runs in traffic.

use std::fmt;

use crate::matching::{HostPattern, Match, Miss, PathPattern};
use crate::trace::Key;
use crate::{Pattern, Request};

/// Why `rule` does not match `request`, of which `miss` is what it gave.
pub(crate) struct Why<'m> {
    pub(crate) rule: &'m Match,
    pub(crate) miss: Miss,
    pub(crate) request: &'m Request<'m>,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Why {
            rule,
            miss: Miss { key, item },
            request,
        } = *self;
        let named = match key {
            Key::Host => {
                write!(f, "host {} does not match ", Shown(request.host))?;
                return list(f, rule.host.iter().map(HostPattern::text));
            }
            Key::Path => {
                write!(f, "path {} does not match ", Shown(request.path))?;
                return list(f, rule.path.iter().map(PathPattern::text));
            }
            Key::Method => {
                write!(f, "method {} does not match ", Shown(request.method))?;
                return list(f, rule.method.iter().map(Pattern::text));
            }
            Key::Source => {
                write!(f, "source {} is not in ", request.source)?;
                return list(f, rule.source.iter());
            }
            Key::Sni => {
                match request.tls.and_then(|tls| tls.sni.as_deref()) {
                    Some(sni) => write!(f, "sni {} does not match ", Shown(sni.as_bytes()))?,
                    None => f.write_str("sni is absent, which does not match ")?,
                }
                return list(f, rule.sni.iter().map(HostPattern::text));
            }
            Key::ClientCert => {
                let wanted = rule.client_cert.as_ref();
                let shown = request.tls.and_then(|tls| tls.client.as_deref());
                let wanted = wanted.map(ToString::to_string).unwrap_or_default();
                let what = match shown {
                    Some(_) => "the client certificate does not match",
                    None => "no client certificate was shown, which does not match",
                };
                return write!(f, "{what} {wanted}");
            }
            Key::Not => return f.write_str("what `not` excludes matches"),
            Key::Header => &rule.header,
            Key::Cookie => &rule.cookie,
            Key::Query => &rule.query,
        };
        let Some((name, patterns)) = named.get(item) else {
            return Ok(());
        };
        // Values are left out: they may be secrets.
        let found = match key {
            Key::Header => request.header(name).is_some(),
            Key::Cookie => request.cookie(name).is_some(),
            _ => request.query_value(name, &mut Vec::new()).is_some(),
        };
        let there = if found {
            "does not match"
        } else {
            "is absent, which does not match"
        };
        write!(f, "{} {name} {there} ", key.as_str())?;
        list(f, patterns.iter().map(Pattern::text))
    }
}

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
) -> fmt::Result {
    for (at, item) in items.enumerate() {
        if at > 0 {
            f.write_str(" or ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// Bytes of a client on one line.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("(none)")
        } else {
            self.0.escape_ascii().fmt(f)
        }
    }
}
