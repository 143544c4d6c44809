//! The field names that something in Evenkeel depends on, found once while a
//! head is decoded, so that nobody compares strings afterwards.
//!
//! What follows from a name is decided elsewhere.

/// A field name that matters, or [`Known::Other`]. Fewer than 64, so that a set
/// of them is one word ([`KnownSet`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the field name that it spells")]
pub enum Known {
    #[default]
    Other = 0,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    Upgrade,
    Http2Settings,
    ProxyAuthenticate,
    ProxyAuthorization,
    Expect,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XRealIp,
    XRequestId,
    Forwarded,
    Via,
    Cookie,
    SetCookie,
    Date,
    Server,
    Accept,
    AcceptEncoding,
    RetryAfter,
    EarlyData,
    Authorization,
    WwwAuthenticate,
    CacheControl,
    ContentType,
    ContentEncoding,
    ContentRange,
    MaxForwards,
    Range,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfRange,
    Location,
    Age,
    Expires,
    Vary,
    Pragma,
    UserAgent,
    Origin,
    Referer,
    GrpcStatus,
    GrpcTimeout,
}

impl Known {
    /// The name's meaning, whatever its case.
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        let Some(&first) = name.first() else {
            return Known::Other;
        };
        // Length and first letter leave one candidate, rarely two.
        let (same, known) = match (name.len(), first | 0x20) {
            (2, b't') => (is(name, b"te"), Known::Te),
            (3, b'a') => (is(name, b"age"), Known::Age),
            (3, b'v') => (is(name, b"via"), Known::Via),
            (4, b'd') => (is(name, b"date"), Known::Date),
            (4, b'h') => (is(name, b"host"), Known::Host),
            (4, b'v') => (is(name, b"vary"), Known::Vary),
            (5, b'r') => (is(name, b"range"), Known::Range),
            (6, b'a') => (is(name, b"accept"), Known::Accept),
            (6, b'c') => (is(name, b"cookie"), Known::Cookie),
            (6, b'e') => (is(name, b"expect"), Known::Expect),
            (6, b'o') => (is(name, b"origin"), Known::Origin),
            (6, b'p') => (is(name, b"pragma"), Known::Pragma),
            (6, b's') => (is(name, b"server"), Known::Server),
            (7, b'e') => (is(name, b"expires"), Known::Expires),
            (7, b'r') => (is(name, b"referer"), Known::Referer),
            (7, b't') => (is(name, b"trailer"), Known::Trailer),
            (7, b'u') => (is(name, b"upgrade"), Known::Upgrade),
            (8, b'i') if ends(name, b'h') => (is(name, b"if-match"), Known::IfMatch),
            (8, b'i') => (is(name, b"if-range"), Known::IfRange),
            (8, b'l') => (is(name, b"location"), Known::Location),
            (9, b'f') => (is(name, b"forwarded"), Known::Forwarded),
            (9, b'x') => (is(name, b"x-real-ip"), Known::XRealIp),
            (10, b'c') => (is(name, b"connection"), Known::Connection),
            (10, b'e') => (is(name, b"early-data"), Known::EarlyData),
            (10, b'k') => (is(name, b"keep-alive"), Known::KeepAlive),
            (10, b's') => (is(name, b"set-cookie"), Known::SetCookie),
            (10, b'u') => (is(name, b"user-agent"), Known::UserAgent),
            (11, b'g') => (is(name, b"grpc-status"), Known::GrpcStatus),
            (11, b'r') => (is(name, b"retry-after"), Known::RetryAfter),
            (12, b'c') => (is(name, b"content-type"), Known::ContentType),
            (12, b'g') => (is(name, b"grpc-timeout"), Known::GrpcTimeout),
            (12, b'm') => (is(name, b"max-forwards"), Known::MaxForwards),
            (12, b'x') => (is(name, b"x-request-id"), Known::XRequestId),
            (13, b'a') => (is(name, b"authorization"), Known::Authorization),
            (13, b'c') if ends(name, b'l') => (is(name, b"cache-control"), Known::CacheControl),
            (13, b'c') => (is(name, b"content-range"), Known::ContentRange),
            (13, b'i') => (is(name, b"if-none-match"), Known::IfNoneMatch),
            (14, b'c') => (is(name, b"content-length"), Known::ContentLength),
            (14, b'h') => (is(name, b"http2-settings"), Known::Http2Settings),
            (15, b'a') => (is(name, b"accept-encoding"), Known::AcceptEncoding),
            (15, b'x') => (is(name, b"x-forwarded-for"), Known::XForwardedFor),
            (16, b'c') => (is(name, b"content-encoding"), Known::ContentEncoding),
            (16, b'p') => (is(name, b"proxy-connection"), Known::ProxyConnection),
            (16, b'w') => (is(name, b"www-authenticate"), Known::WwwAuthenticate),
            (16, b'x') => (is(name, b"x-forwarded-host"), Known::XForwardedHost),
            (17, b'i') => (is(name, b"if-modified-since"), Known::IfModifiedSince),
            (17, b't') => (is(name, b"transfer-encoding"), Known::TransferEncoding),
            (17, b'x') => (is(name, b"x-forwarded-proto"), Known::XForwardedProto),
            (18, b'p') => (is(name, b"proxy-authenticate"), Known::ProxyAuthenticate),
            (19, b'i') => (is(name, b"if-unmodified-since"), Known::IfUnmodifiedSince),
            (19, b'p') => (is(name, b"proxy-authorization"), Known::ProxyAuthorization),
            _ => return Known::Other,
        };
        if same { known } else { Known::Other }
    }
}

/// Whether `name` is `text` (which is in lower case), whatever its case: in words, which
/// may overlap, with the text in the instructions, since a comparison byte by byte costs
/// as much as all the rest of reading a head.
#[inline(always)]
fn is<const N: usize>(name: &[u8], text: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    match N {
        ..4 => name.eq_ignore_ascii_case(text),
        4..8 => [0, N - 4]
            .into_iter()
            .all(|at| is_same_at::<4>(name, text, at)),
        // No known name is longer than three words.
        _ => [0, (N - 8).min(8), N - 8]
            .into_iter()
            .all(|at| is_same_at::<8>(name, text, at)),
    }
}

#[inline(always)]
fn is_same_at<const BYTES: usize>(name: &[u8], text: &[u8], at: usize) -> bool {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        let (start, _) = word.split_first_chunk_mut::<BYTES>()?;
        *start = *bytes.get(at..)?.first_chunk()?;
        Some(u64::from_ne_bytes(word))
    };
    let (Some(name), Some(text)) = (word(name), word(text)) else {
        return false;
    };
    // The case bit is of no interest where `text` has a letter; of the bytes in
    // known names only letters have the bit 0x40.
    let case = (text & 0x4040_4040_4040_4040) >> 1;
    name | case == text
}

fn ends(name: &[u8], letter: u8) -> bool {
    name.last().is_some_and(|last| last | 0x20 == letter)
}

/// A set of [`Known`] names in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KnownSet(pub u64);

impl KnownSet {
    /// Nothing.
    pub const EMPTY: KnownSet = KnownSet(0);

    /// What is meant for one connection and never forwarded (RFC 9110 §7.6.1).
    /// `Trailer` is not among them, since trailers are passed on.
    pub const HOP_BY_HOP: KnownSet = KnownSet::of(&[
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::Te,
        Known::TransferEncoding,
        Known::Upgrade,
        Known::Http2Settings,
        Known::ProxyAuthenticate,
        Known::ProxyAuthorization,
    ]);

    /// What may not stand among trailers (RFC 9110 §6.5.1): framing, routing,
    /// who asks, what is asked for, how the content is to be read. Who merges
    /// trailers into the head would else be told something new after deciding.
    pub const NEVER_TRAILERS: KnownSet = KnownSet(
        KnownSet::HOP_BY_HOP.0
            | KnownSet::of(&[
                Known::Host,
                Known::ContentLength,
                Known::Trailer,
                Known::Expect,
                Known::XForwardedFor,
                Known::XForwardedProto,
                Known::XForwardedHost,
                Known::XRealIp,
                Known::XRequestId,
                Known::Forwarded,
                Known::Via,
                Known::Cookie,
                Known::SetCookie,
                Known::Date,
                Known::RetryAfter,
                Known::EarlyData,
                Known::Authorization,
                Known::WwwAuthenticate,
                Known::CacheControl,
                Known::ContentType,
                Known::ContentEncoding,
                Known::ContentRange,
                Known::MaxForwards,
                Known::Range,
                Known::IfMatch,
                Known::IfNoneMatch,
                Known::IfModifiedSince,
                Known::IfUnmodifiedSince,
                Known::IfRange,
                Known::Location,
                Known::Age,
                Known::Expires,
                Known::Vary,
                Known::Pragma,
                Known::Origin,
            ])
            .0,
    );

    /// The set of these.
    #[expect(
        clippy::indexing_slicing,
        reason = "a `while` within the length, since a const fn has no iterators"
    )]
    pub const fn of(names: &[Known]) -> KnownSet {
        let mut bits = 0;
        let mut i = 0;
        while i < names.len() {
            bits |= 1 << names[i] as u8;
            i += 1;
        }
        KnownSet(bits)
    }

    /// Whether `known` is in it.
    #[inline]
    pub const fn contains(self, known: Known) -> bool {
        self.0 & (1 << known as u8) != 0
    }

    /// Adds `known`.
    #[inline]
    pub const fn insert(&mut self, known: Known) {
        self.0 |= 1 << known as u8;
    }

    /// Whether the two have a name in common.
    #[inline]
    pub const fn intersects(self, other: KnownSet) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether `name` differs from `Content-Length` or `Transfer-Encoding` only by
/// what stands between the letters. Some servers map `-` and `_` to one (CGI,
/// WSGI), and would take the length from it.
#[inline]
pub(super) fn is_framing_look_alike(name: &[u8]) -> bool {
    name.len() >= b"contentlength".len()
        && name.first().is_some_and(|first| {
            matches!(first | 0x20, b'c' | b't') || !first.is_ascii_alphanumeric()
        })
        && (spells(name, b"contentlength") || spells(name, b"transferencoding"))
}

fn spells(name: &[u8], letters: &[u8]) -> bool {
    name.iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(u8::to_ascii_lowercase)
        .eq(letters.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name once, in the order of the enum.
    const NAMES: &[&str] = &[
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Expect",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "X-Request-ID",
        "Forwarded",
        "Via",
        "Cookie",
        "Set-Cookie",
        "Date",
        "Server",
        "Accept",
        "Accept-Encoding",
        "Retry-After",
        "Early-Data",
        "Authorization",
        "WWW-Authenticate",
        "Cache-Control",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Max-Forwards",
        "Range",
        "If-Match",
        "If-None-Match",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "If-Range",
        "Location",
        "Age",
        "Expires",
        "Vary",
        "Pragma",
        "User-Agent",
        "Origin",
        "Referer",
        "Grpc-Status",
        "Grpc-Timeout",
    ];

    #[test]
    fn every_name_is_found_in_any_case_and_nothing_else_is() {
        assert_eq!(NAMES.len(), Known::GrpcTimeout as usize);
        const { assert!((Known::GrpcTimeout as u8) < 64) };
        for (i, name) in NAMES.iter().enumerate() {
            for name in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Known::of(name.as_bytes()) as usize, i + 1, "{name}");
                assert_eq!(
                    Known::of(name.replace(['e', 'E'], "3").as_bytes()) as usize,
                    if name.contains(['e', 'E']) { 0 } else { i + 1 }
                );
                assert_eq!(Known::of(format!("{name}x").as_bytes()), Known::Other);
            }
        }
        assert_eq!(Known::of(b""), Known::Other);
    }

    #[test]
    fn sets() {
        let mut set = KnownSet::EMPTY;
        set.insert(Known::Te);
        set.insert(Known::Referer);
        assert!(set.contains(Known::Te) && set.contains(Known::Referer));
        assert!(!set.contains(Known::Host));
        assert!(set.intersects(KnownSet::HOP_BY_HOP));
        assert!(!KnownSet::of(&[Known::Trailer]).intersects(KnownSet::HOP_BY_HOP));
    }
}
