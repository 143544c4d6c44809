//! Chromium from Debian without a window: a browser that nobody watches, in a profile of its own.

use crate::dir::TempDir;
use crate::process::Process;
use anyhow::Result;
use rustix::process::Signal;
use std::process::Command;
use std::time::Duration;

/// Cookies of other sites are sent where their attributes allow it.
const PREFERENCES: &str =
    r#"{ "profile": { "cookie_controls_mode": 0, "block_third_party_cookies": false } }"#;
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A running browser. What it finds its pages have to tell, by requests; it ends with its value.
#[derive(Debug)]
pub struct Chromium {
    process: Process,
    _profile: TempDir,
}

impl Chromium {
    /// Opens a page. Every name is at 127.0.0.1; certificates are believed, whatever they say, whose public key (as DER)
    /// has this SHA-256.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn open(url: &str, key_sha256: &[u8]) -> Result<Self> {
        let profile = TempDir::new("chromium")?;
        profile.write("Default/Preferences", PREFERENCES)?;
        let path = profile.path();
        let mut command = Command::new("chromium");
        // Neither the user's settings nor the world have a part in a test. Its pages are the test's own, and in a
        // container there often is no sandbox to be had.
        command
            .env("HOME", path)
            .arg(format!("--user-data-dir={}", path.display()))
            .arg(format!(
                "--ignore-certificate-errors-spki-list={}",
                base64(key_sha256)
            ))
            .args(["--host-resolver-rules=MAP * 127.0.0.1", "--no-proxy-server"])
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--disable-extensions"])
            .args(["--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable"])
            .args(["--enable-logging=stderr", url]);
        Ok(Self {
            process: Process::spawn("chromium", command)?,
            _profile: profile,
        })
    }

    /// All that it has said so far: also what pages wrote to their console.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It ends its own processes; where it does not, they end without it.
        if self.process.signal(Signal::TERM).is_ok() {
            self.process.wait_exit(ENDS_WITHIN).ok();
        }
        self.process.kill();
    }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | usize::from(group.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            match place <= group.len() {
                true => text.push(char::from(ALPHABET[bits >> (18 - 6 * place) & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_any_length() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
