//! The line of HAProxy's agent check: what a server says of itself over TCP.
//!
//! One line of words, separated by blanks, tabs or commas, in any order, up to the first CR or LF (HAProxy's
//! configuration manual, `agent-check`): `ready drain maint`, `up down fail stopped` with a description after `#`,
//! `75%` and `maxconn:30`. What is not said is not changed. What these words do to a server is not decided here.

use std::fmt;

/// Bytes of a line that are read; a longer one is cut there.
pub const LINE_BYTES_MAX: usize = 4096;
/// Characters of a description that are kept.
const DESCRIPTION_MAX: usize = 128;
/// The highest percentage of a weight.
pub const PERCENT_MAX: u32 = 10_000;

/// What one line says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentLine {
    /// Whether it wants traffic; the last word of this kind counts.
    pub admin: Option<AgentAdmin>,
    /// Whether it works; the last word of this kind counts.
    pub service: Option<AgentService>,
    /// The percentage of its weight that it wants; at most [`PERCENT_MAX`].
    pub percent: Option<u32>,
    /// Requests that it takes at once; 0 is not taken.
    pub connections_max: Option<u32>,
    /// Words that mean nothing here.
    pub unknown: u32,
}

/// Whether a server wants traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentAdmin {
    /// `ready`: it does; ends the other two.
    Ready,
    /// `drain`: nothing new.
    Drain,
    /// `maint`: nothing at all.
    Maint,
}

/// Whether a server works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentService {
    /// `up`.
    Up,
    /// `down`, `fail` or `stopped`: the word, and what it says behind `#`, controls taken out.
    Down {
        /// Which of the three words.
        word: &'static str,
        /// Possibly empty.
        description: String,
    },
}

/// Where a line ends, its end mark not counted; `None` while none has come.
#[must_use]
pub fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Reads a line. Any bytes are a line: what is not understood is counted.
#[must_use]
pub fn decode_agent_line(bytes: &[u8]) -> AgentLine {
    let line = bytes.get(..line_end(bytes).unwrap_or(bytes.len()));
    let text = String::from_utf8_lossy(line.unwrap_or_default());
    let mut said = AgentLine::default();
    let (words, description) = match text.split_once('#') {
        Some((words, description)) => (words, description),
        None => (&*text, ""),
    };
    let separators = [' ', '\t', ','];
    for word in words.split(separators).filter(|word| !word.is_empty()) {
        said.take(word, description);
    }
    said
}

impl AgentLine {
    /// Whether it says nothing that is understood.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.admin.is_none()
            && self.service.is_none()
            && self.percent.is_none()
            && self.connections_max.is_none()
    }

    fn take(&mut self, word: &str, description: &str) {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        let down = ["down", "fail", "stopped"]
            .into_iter()
            .find(|name| is(name));
        if is("ready") {
            self.admin = Some(AgentAdmin::Ready);
        } else if is("drain") {
            self.admin = Some(AgentAdmin::Drain);
        } else if is("maint") {
            self.admin = Some(AgentAdmin::Maint);
        } else if is("up") {
            self.service = Some(AgentService::Up);
        } else if let Some(word) = down {
            self.service = Some(AgentService::Down {
                word,
                description: shown(description),
            });
        } else if let Some(percent) = word.strip_suffix('%').and_then(number) {
            self.percent = Some(percent.min(PERCENT_MAX));
        } else if let Some(max) = connections_max(word) {
            self.connections_max = Some(max);
        } else {
            self.unknown = self.unknown.saturating_add(1);
        }
    }
}

fn connections_max(word: &str) -> Option<u32> {
    let (key, value) = word.split_once(':')?;
    let max = number(value).filter(|max| *max > 0)?;
    key.eq_ignore_ascii_case("maxconn").then_some(max)
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

/// Fit for a log line.
fn shown(description: &str) -> String {
    let plain = description.chars().filter(|c| !c.is_control());
    let kept: String = plain.take(DESCRIPTION_MAX).collect();
    kept.trim().to_owned()
}

impl fmt::Display for AgentAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        })
    }
}

impl fmt::Display for AgentService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Down { word, description } if description.is_empty() => f.write_str(word),
            Self::Down { word, description } => write!(f, "{word}: {description}"),
        }
    }
}

/// As an agent would write it.
impl fmt::Display for AgentLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.admin.map(|admin| admin.to_string()));
        words.extend(self.percent.map(|percent| format!("{percent}%")));
        words.extend(self.connections_max.map(|max| format!("maxconn:{max}")));
        match &self.service {
            None => {}
            Some(AgentService::Up) => words.push("up".to_owned()),
            Some(AgentService::Down { word, description }) if description.is_empty() => {
                words.push((*word).to_owned());
            }
            Some(AgentService::Down { word, description }) => {
                words.push(format!("{word} #{description}"));
            }
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str, unknown: u32) {
        let said = decode_agent_line(line.as_bytes());
        assert_eq!(
            (said.to_string().as_str(), said.unknown),
            (expected, unknown),
            "{line:?}"
        );
    }

    #[test]
    fn words_of_the_manual() {
        check("75%\n", "75%", 0);
        check("ready\r\n", "ready", 0);
        check("drain", "drain", 0);
        check("MAINT\n", "maint", 0);
        check("up\n", "up", 0);
        check("maxconn:30\n", "maxconn:30", 0);
        check("down #disk full \n", "down #disk full", 0);
        check("fail#see log\n", "fail #see log", 0);
        check("stopped\n", "stopped", 0);
        check(
            "up, ready\t50%  maxconn:7\nmaint\n",
            "ready 50% maxconn:7 up",
            0,
        );
        check("up 100% # down\n", "100% up", 0);
    }

    #[test]
    fn the_last_word_of_a_kind_counts_and_what_means_nothing_is_counted() {
        check("drain ready maint\n", "maint", 0);
        check("down up\n", "up", 0);
        check("", "", 0);
        check("\nup\n", "", 0);
        check(
            "hello -5% % +3% 1.5% maxconn: maxconn:0 maxconn:-1 maxconn:x readyish\n",
            "",
            10,
        );
        check("99999999999999%\n", "10000%", 0);
        check("maxconn:99999999999\n", "maxconn:4294967295", 0);
        check("down #a\u{7}b\u{0}c\n", "down #abc", 0);
    }
}
