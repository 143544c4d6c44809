//! Programs from Debian as clients: curl and wrk; and what happens when one is missing.

use crate::http::Response;
use crate::process::run;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CURL_LIMIT: Duration = Duration::from_secs(30);

/// Where a program is; also looks where Debian keeps servers, which is not on every PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places = folders.chain(servers).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// Python with the packages that the tests speak to (`python/requirements.txt`): `./test` installs it in `target`.
pub(crate) fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python");
    let installed = std::fs::read_to_string(venv.join("installed.txt")).ok()?;
    let wanted = include_str!("../python/requirements.txt");
    (installed == wanted).then(|| venv.join("bin/python"))
}

/// Where packages of npm are that the tests speak to (`node/package-lock.json`): `./test` installs them in `target`.
pub(crate) fn node_modules() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/node");
    let installed = std::fs::read_to_string(folder.join("installed.json")).ok()?;
    let wanted = include_str!("../node/package-lock.json");
    (installed == wanted && program("node").is_some()).then(|| folder.join("node_modules"))
}

/// Whether a program is there, or one of Python's or npm's packages.
fn is_there(name: &str) -> bool {
    match name {
        "grpcio" | "websockets" => python().is_some(),
        "grpc-js" | "ws" => node_modules().is_some(),
        program_name => program(program_name).is_some(),
    }
}

/// For the top of a test: `if missing("nginx") { return; }`. With `CI=true` a missing program
/// fails the test; elsewhere the skip is said loudly, past the test harness's capture. Programs
/// that `./test` could not install are listed in `EVENKEEL_TEST_MISSING`.
///
/// # Panics
///
/// With `CI=true`, when the program is missing.
pub fn missing(name: &str) -> bool {
    let listed = std::env::var("EVENKEEL_TEST_MISSING").unwrap_or_default();
    if is_there(name) && !listed.split_whitespace().any(|other| other == name) {
        return false;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !ci,
        "{name} is missing, and with CI=true no test is skipped"
    );
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("\nSKIPPED {test}: {name} is missing (./test installs it)\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
    true
}

/// Runs `curl` with these arguments and gives the response, 1xx included. It follows no redirect
/// and no proxy setting, reads no `.curlrc`, and takes 20 s at most.
///
/// # Errors
///
/// When curl itself fails (its exit code and message are in the error), or the answer is no HTTP.
pub fn curl(args: &[&str]) -> Result<Response> {
    let mut command = Command::new("curl");
    command
        .args(["-q", "-sS", "-i", "--max-time", "20", "--noproxy", "*"])
        .args(args);
    let finished = run(command, CURL_LIMIT)?;
    if finished.code != Some(0) {
        bail!(
            "curl {args:?} ended with {:?}: {}",
            finished.code,
            finished.stderr.trim()
        );
    }
    Response::from_printed(&finished.stdout).with_context(|| format!("curl {args:?}"))
}

/// What wrk counted.
#[derive(Clone, Debug, PartialEq)]
pub struct WrkReport {
    /// Responses of any status.
    pub requests: u64,
    /// Those that were not 2xx or 3xx.
    pub bad_status: u64,
    /// Connections or requests that failed: connect, read, write and timeout together.
    pub socket_errors: u64,
    /// Per second.
    pub rate: f64,
    /// All that it printed.
    pub text: String,
}

/// Runs `wrk` with these arguments, for at most `limit`.
///
/// # Errors
///
/// When it fails, or prints no counts.
pub fn wrk(args: &[&str], limit: Duration) -> Result<WrkReport> {
    let mut command = Command::new("wrk");
    command.args(args);
    let finished = run(command, limit)?;
    if finished.code != Some(0) {
        bail!(
            "wrk {args:?} ended with {:?}: {}{}",
            finished.code,
            finished.text(),
            finished.stderr
        );
    }
    parse_wrk(&finished.text()).with_context(|| format!("wrk {args:?} said:\n{}", finished.text()))
}

fn parse_wrk(text: &str) -> Option<WrkReport> {
    let line = |start: &str| {
        text.lines()
            .map(str::trim)
            .find_map(|line| line.strip_prefix(start))
    };
    let counted = text
        .lines()
        .map(str::trim)
        .find_map(|line| line.split_once(" requests in "))?;
    let errors = line("Socket errors:").unwrap_or_default();
    let socket_errors = errors
        .split([' ', ','])
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    Some(WrkReport {
        requests: counted.0.parse().ok()?,
        bad_status: line("Non-2xx or 3xx responses:")
            .map_or(Some(0), |count| count.trim().parse().ok())?,
        socket_errors,
        rate: line("Requests/sec:")?.trim().parse().ok()?,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  2 threads and 10 connections\n\
            \x20 31337 requests in 1.00s, 25.1MB read\n\
            \x20 Socket errors: connect 1, read 2, write 0, timeout 4\n\
            \x20 Non-2xx or 3xx responses: 12\nRequests/sec:  31000.25\nTransfer/sec:  25.0MB\n";
        let report = parse_wrk(text).unwrap();
        assert_eq!(report.requests, 31337);
        assert_eq!(report.socket_errors, 7);
        assert_eq!(report.bad_status, 12);
        assert_eq!(report.rate, 31000.25);
        assert_eq!(parse_wrk("unable to connect"), None);
    }
}
