//! What the screen shows: from the state to lines, and nothing else. Knows no terminal.

use std::time::Duration;

use super::controls::grouped;
use super::stats::{Recent, Totals};
use super::story::Told;
use crate::terminal::{Line, Style, cut};

/// Everything that is shown.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) url: String,
    pub(super) admin: String,
    pub(super) elapsed: Duration,
    pub(super) servers: Vec<Row>,
    pub(super) totals: Totals,
    /// Answers in a second.
    pub(super) rate: f64,
    /// Requests that the balancer sent to another server after a first one failed them.
    pub(super) retried: u64,
    pub(super) story: Vec<Told>,
    /// Whether the terminal shows more than ASCII.
    pub(super) unicode: bool,
}

/// One server.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) recent: Recent,
    /// Good, Warn or Bad.
    pub(super) style: Style,
    /// Its state and the cause, in words.
    pub(super) words: String,
}

const KEYS: [(&str, &str); 8] = [
    ("1 2 3", "kill/revive"),
    ("s", "slow"),
    ("e", "errors"),
    ("d", "drain"),
    ("r", "reload"),
    ("y", "why"),
    ("c", "config"),
    ("q", "quit"),
];
/// The columns of a server's line beside its bar.
const BESIDE_BAR: usize = 50;
const NAME_WIDTH: usize = 10;
const BAR_MAX: usize = 60;
/// The time before an event.
const STAMP_WIDTH: usize = 8;

/// The lines for a terminal of this size: at most `height`, each narrower than `width`.
pub(super) fn frame(scene: &Scene, width: usize, height: usize) -> Vec<Line> {
    // The last column stays free: some terminals wrap when it is written to.
    let width = width.saturating_sub(1);
    let mut top = vec![title(scene), Line::new()];
    for row in &scene.servers {
        top.extend(server(row, width, scene.unicode));
    }
    top.extend([Line::new(), totals(scene), Line::new()]);
    let keys = keys(width);
    let room = height.saturating_sub(top.len() + keys.len() + 1);
    let events: Vec<Line> = scene
        .story
        .iter()
        .flat_map(|told| event(told, width))
        .collect();
    let skipped = events.len().saturating_sub(room);
    let blank = room.saturating_sub(events.len()) + 1;
    let mut lines = top;
    lines.extend(events.into_iter().skip(skipped));
    lines.extend(std::iter::repeat_n(Line::new(), blank));
    lines.extend(keys);
    lines.truncate(height);
    lines.into_iter().map(|line| cut(line, width)).collect()
}

fn title(scene: &Scene) -> Line {
    vec![
        (Style::Bold, "Evenkeel demo".to_owned()),
        (Style::Plain, format!("   {}", scene.url)),
        (Style::Plain, format!("   admin {}", scene.admin)),
        (Style::Dim, format!("   {}", clock(scene.elapsed))),
    ]
}

/// The bar with its numbers, and below it the state.
fn server(row: &Row, width: usize, unicode: bool) -> [Line; 2] {
    let Recent { share, rate, p99 } = row.recent;
    let cells = width.saturating_sub(BESIDE_BAR).min(BAR_MAX);
    let filled = ((share * cells as f64).round() as usize).min(cells);
    let (full, empty) = if unicode { ("█", "░") } else { ("#", ".") };
    let p99 = p99.map_or_else(|| "-".to_owned(), millis);
    let bar = vec![
        (Style::Bold, format!("{:<NAME_WIDTH$}", row.name)),
        (row.style, full.repeat(filled)),
        (Style::Dim, empty.repeat(cells - filled)),
        (
            Style::Plain,
            format!(" {:>4.0}% {rate:>6.1} req/s   p99 {p99:>8}", share * 100.0),
        ),
    ];
    let state = vec![
        (Style::Plain, " ".repeat(NAME_WIDTH)),
        (row.style, row.words.clone()),
    ];
    [bar, state]
}

fn totals(scene: &Scene) -> Line {
    let Totals {
        requests,
        failed,
        on_purpose,
    } = scene.totals;
    let style = if failed == 0 { Style::Good } else { Style::Bad };
    let mut line = vec![
        (
            Style::Plain,
            format!("{:.0} req/s   {} requests, ", scene.rate, grouped(requests)),
        ),
        (style, format!("{} failed", grouped(failed))),
    ];
    if scene.retried > 0 {
        let text = format!(", {} retried on another server", grouped(scene.retried));
        line.push((Style::Plain, text));
    }
    if on_purpose > 0 {
        let text = format!(", {} errors you asked for", grouped(on_purpose));
        line.push((Style::Warn, text));
    }
    line
}

/// The keys, on as many lines as they take.
fn keys(width: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![Line::new()];
    let mut used = 0;
    for (key, does) in KEYS {
        let cells = key.len() + does.len() + 3;
        if used > 0 && used + cells > width + 2 {
            lines.push(Line::new());
            used = 0;
        }
        used += cells;
        if let Some(line) = lines.last_mut() {
            line.push((Style::Bold, key.to_owned()));
            line.push((Style::Plain, format!(" {does}  ")));
        }
    }
    lines
}

/// An event on as many lines as it takes.
fn event(told: &Told, width: usize) -> Vec<Line> {
    let room = width.saturating_sub(STAMP_WIDTH).max(1);
    let mut stamp = told.at.map_or_else(String::new, clock);
    let mut text = told.text.clone();
    if told.times > 1 {
        text.push_str(&format!(" ({} times)", grouped(told.times)));
    }
    let pieces = wrap(&text, room).into_iter();
    pieces
        .map(|piece| {
            let stamp = std::mem::take(&mut stamp);
            vec![
                (Style::Dim, format!("{stamp:<STAMP_WIDTH$}")),
                (Style::Plain, piece),
            ]
        })
        .collect()
}

/// Cuts a text into pieces of at most `room` characters, at a blank where there is one in the latter half.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut rest: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    while rest.len() > room {
        let blank = rest
            .iter()
            .take(room + 1)
            .rposition(|letter| *letter == ' ');
        let at = blank.filter(|at| *at > room / 2).unwrap_or(room);
        let after = rest.split_off(at);
        pieces.push(rest.into_iter().collect());
        rest = after
            .into_iter()
            .skip_while(|letter| *letter == ' ')
            .collect();
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, share: f64, style: Style, words: &str) -> Row {
        let p99 = (share > 0.0).then(|| Duration::from_micros(2340));
        let rate = share * 60.0;
        Row {
            name: name.to_owned(),
            recent: Recent { share, rate, p99 },
            style,
            words: words.to_owned(),
        }
    }

    fn scene(story: &[&str]) -> Scene {
        let told = |text: &&str| Told {
            at: Some(Duration::from_secs(61)),
            text: (*text).to_owned(),
            times: 1,
        };
        Scene {
            url: "http://127.0.0.1:8080/".to_owned(),
            admin: "http://127.0.0.1:9900".to_owned(),
            elapsed: Duration::from_secs(65),
            servers: vec![
                row("server-1", 0.5, Style::Good, "healthy: 200"),
                row("server-2", 0.5, Style::Good, "healthy: 200"),
                row("server-3", 0.0, Style::Bad, "unhealthy: connection refused"),
            ],
            totals: Totals {
                requests: 3900,
                failed: 0,
                on_purpose: 0,
            },
            rate: 60.0,
            retried: 2,
            story: story.iter().map(told).collect(),
            unicode: false,
        }
    }

    fn text(scene: &Scene, width: usize, height: usize) -> Vec<String> {
        let lines = frame(scene, width, height).into_iter();
        lines
            .map(|line| line.into_iter().map(|(_, text)| text).collect::<String>())
            .map(|line: String| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_usual_terminal_shows_it_all() {
        let mut expected = vec![
            "Evenkeel demo   http://127.0.0.1:8080/   admin http://127.0.0.1:9900   1:05",
            "",
            "server-1  ###############..............   50%   30.0 req/s   p99   2.3 ms",
            "          healthy: 200",
            "server-2  ###############..............   50%   30.0 req/s   p99   2.3 ms",
            "          healthy: 200",
            "server-3  .............................    0%    0.0 req/s   p99        -",
            "          unhealthy: connection refused",
            "",
            "60 req/s   3,900 requests, 0 failed, 2 retried on another server",
            "",
            "1:01    server-3 is unhealthy: connection refused",
        ];
        expected.extend(std::iter::repeat_n("", 11));
        expected.push(
            "1 2 3 kill/revive  s slow  e errors  d drain  r reload  y why  c config  q quit",
        );
        let scene = scene(&["server-3 is unhealthy: connection refused"]);
        assert_eq!(text(&scene, 80, 24), expected);
    }

    #[test]
    fn every_size_is_kept_to() {
        let long = "word ".repeat(60);
        let mut scene = scene(&["first", &long, "last"]);
        scene.totals.failed = 1;
        scene.totals.on_purpose = 7;
        for unicode in [false, true] {
            scene.unicode = unicode;
            for width in 0..140 {
                for height in [0, 1, 5, 12, 24, 60] {
                    let lines = text(&scene, width, height);
                    assert_eq!(lines.len(), height, "{width}x{height}");
                    let widest = lines.iter().map(|line| line.chars().count()).max();
                    assert!(widest.unwrap_or(0) <= width, "{width}x{height}");
                }
            }
        }
    }

    #[test]
    fn the_last_events_are_shown_and_wrap_at_blanks() {
        let events: Vec<String> = (0..30).map(|number| format!("event {number}")).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let lines = text(&scene(&events), 80, 24);
        assert_eq!(lines[11], "1:01    event 19");
        assert_eq!(lines[21], "1:01    event 29");
        let mut scene = scene(&["again"]);
        scene.story[0].times = 1200;
        assert_eq!(text(&scene, 80, 24)[11], "1:01    again (1,200 times)");
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn failures_are_red_and_wished_errors_are_not() {
        let mut scene = scene(&[]);
        scene.totals.failed = 1;
        scene.totals.on_purpose = 7;
        let styles: Vec<Style> = totals(&scene).iter().map(|(style, _)| *style).collect();
        assert_eq!(
            styles,
            [Style::Plain, Style::Bad, Style::Plain, Style::Warn]
        );
    }

    #[test]
    fn a_narrow_terminal_has_its_keys_on_more_lines() {
        assert_eq!(keys(79).len(), 1);
        assert_eq!((keys(60).len(), keys(40).len()), (2, 3));
    }
}
