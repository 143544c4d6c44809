//! Bar plots by hand: CPU per request of each peer, user and system apart.

use std::fmt::Write;

use crate::results::Outcome;

const WIDTH: f64 = 640.0;
const BARS: f64 = 400.0;
const LEFT: f64 = 110.0;
const ROW: f64 = 26.0;
const TOP: f64 = 52.0;
const USER: &str = "#2a6f97";
const SYSTEM: &str = "#a9d6e5";

/// The plot of one scenario; none where no CPU per request was measured.
pub(crate) fn plot(outcome: &Outcome) -> Option<String> {
    let mut bars: Vec<(&str, f64, f64)> = outcome
        .subjects
        .iter()
        .filter_map(|subject| {
            let part = |metric| subject.spread(metric).map(|spread| spread.median);
            Some((&*subject.label, part("user_us")?, part("system_us")?))
        })
        .collect();
    bars.sort_by(|a, b| (a.1 + a.2).total_cmp(&(b.1 + b.2)));
    let (_, user, system) = bars.last()?;
    let scale = BARS / (user + system).max(f64::MIN_POSITIVE);
    let height = TOP + ROW * bars.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">{}: CPU of the proxy per request, µs</text>\n\
         <rect x=\"{LEFT}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{USER}\"/>\
         <text x=\"{}\" y=\"41\" font-size=\"11\">user</text>\n\
         <rect x=\"{}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{SYSTEM}\"/>\
         <text x=\"{}\" y=\"41\" font-size=\"11\">system</text>\n",
        outcome.about,
        LEFT + 14.0,
        LEFT + 60.0,
        LEFT + 74.0,
    );
    for (at, (label, user, system)) in bars.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let (wide, wider) = (user * scale, system * scale);
        let text = y + 15.0;
        // Writing to text cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{wide:.1}\" height=\"20\" fill=\"{USER}\"/>\
             <rect x=\"{:.1}\" y=\"{y:.0}\" width=\"{wider:.1}\" height=\"20\" fill=\"{SYSTEM}\"/>\
             <text x=\"{:.1}\" y=\"{text:.0}\">{:.1}</text>",
            LEFT - 8.0,
            LEFT + wide,
            LEFT + wide + wider + 6.0,
            user + system,
        );
    }
    svg += "</svg>\n";
    Some(svg)
}
