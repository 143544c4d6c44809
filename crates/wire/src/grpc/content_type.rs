//! Which gRPC a message is of, by its `Content-Type`.

/// How gRPC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `application/grpc`: gRPC itself, with trailers of HTTP.
    Grpc,
    /// `application/grpc-web`: trailers are the last frame of the body.
    Web,
    /// `application/grpc-web-text`: the same in base64.
    WebText,
}

impl Dialect {
    /// The media type, without what says how messages are encoded.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }

    /// Whether it is one of gRPC-Web.
    #[must_use]
    pub fn is_web(self) -> bool {
        self != Self::Grpc
    }
}

/// The dialect of a `Content-Type`, and what follows its name: `+proto`, parameters, or nothing. `None`: it is not gRPC.
#[must_use]
pub fn content_type(value: &[u8]) -> Option<(Dialect, &[u8])> {
    [Dialect::WebText, Dialect::Web, Dialect::Grpc]
        .into_iter()
        .find_map(|dialect| {
            let name = dialect.media_type().as_bytes();
            let (start, rest) = value.split_at_checked(name.len())?;
            let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
            (ends && start.eq_ignore_ascii_case(name)).then_some((dialect, rest))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (value, expected) in [
            ("application/grpc", Some((Dialect::Grpc, ""))),
            ("application/grpc+proto", Some((Dialect::Grpc, "+proto"))),
            ("Application/GRPC;x=y", Some((Dialect::Grpc, ";x=y"))),
            ("application/grpc-web", Some((Dialect::Web, ""))),
            ("application/grpc-web+json", Some((Dialect::Web, "+json"))),
            ("application/grpc-web-text", Some((Dialect::WebText, ""))),
            (
                "application/grpc-web-text+proto",
                Some((Dialect::WebText, "+proto")),
            ),
            ("application/grpc-webby", None),
            ("application/grpcx", None),
            ("application/json", None),
            ("application/grp", None),
            ("", None),
        ] {
            let expected = expected.map(|(dialect, rest)| (dialect, rest.as_bytes()));
            assert_eq!(content_type(value.as_bytes()), expected, "{value}");
        }
    }
}
