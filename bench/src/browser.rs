//! Header fields as browsers behind a few tracing and analytics tools send them.

/// What comes first, as Firefox sends it.
const FIRST: &[(&str, &str)] = &[
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://www.example.com/articles/2026"),
    (
        "Cookie",
        "session=3f2a9c1b7d5e4a60; theme=dark; consent=yes; last=2026-11-20",
    ),
    ("Cache-Control", "max-age=0"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-User", "?1"),
    ("Sec-GPC", "1"),
    ("DNT", "1"),
    ("Priority", "u=0, i"),
];

/// `count` fields without `Host`; past the usual ones they are attributes of a tracing tool.
#[must_use]
pub fn fields(count: usize) -> Vec<(String, String)> {
    let first = FIRST
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let more = (0..).map(|number| {
        let name = format!("X-Trace-Attribute-{number}");
        (name, format!("4bf92f3577b34da6a3ce929d0e0e{number:04}"))
    });
    first.chain(more).take(count).collect()
}
