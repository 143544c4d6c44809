//! `cargo xtask count`: instructions of our own work by callgrind, which do not wobble with the machine, beside a
//! stored baseline. What is counted is in `bin/count.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::peers::sibling;
use crate::process::which;

/// Two runs, so that what does not depend on their number cancels.
const TIMES: (u64, u64) = (1_000, 3_000);
/// A rise above the first is reported, above the second fails.
const RISE: (f64, f64) = (0.02, 0.05);
const BASELINE: &str = "bench/counts.json";

const USAGE: &str = "\
cargo xtask count [NAME]… [--bless]

  NAME      only what begins so: decode, encode, record, route, pick/maglev …
  --bless   what was counted becomes the baseline; say in the commit what was bought for it
";

pub(crate) fn run(args: &[&str], root: &Path) -> Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        args.iter().partition(|arg| arg.starts_with('-'));
    let bless = options == ["--bless"];
    ensure!(bless || options.is_empty(), "{USAGE}");
    which("valgrind").context("valgrind is missing: apt-get install valgrind")?;
    let path = root.join(BASELINE);
    let mut baseline: BTreeMap<String, f64> = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).context(BASELINE)?,
        Err(_) => BTreeMap::new(),
    };
    let list = Command::new(sibling("count")?).arg("--list").output()?;
    let list = String::from_utf8(list.stdout)?;
    let asked = |name: &&str| names.is_empty() || names.iter().any(|start| name.starts_with(start));
    let mut failed = Vec::new();
    println!(
        "{:<34}{:>12}{:>12}{:>9}",
        "", "instructions", "baseline", ""
    );
    for name in list.lines().filter(asked) {
        let count = instructions(name)?;
        let before = baseline.get(name).copied();
        let rise = before.map_or(0.0, |before| count / before - 1.0);
        let verdict = match rise {
            rise if rise > RISE.1 => "  TOO MUCH",
            rise if rise > RISE.0 => "  more",
            _ => "",
        };
        let known = before.map_or("-".into(), |before| format!("{before:.1}"));
        println!(
            "{name:<34}{count:>12.1}{known:>12}{:>8.1}%{verdict}",
            rise * 100.0
        );
        if rise > RISE.1 {
            failed.push(name.to_owned());
        }
        if bless {
            baseline.insert(name.to_owned(), (count * 10.0).round() / 10.0);
        }
    }
    if bless {
        std::fs::write(&path, serde_json::to_string_pretty(&baseline)? + "\n")?;
        println!("wrote {BASELINE}");
    } else if !failed.is_empty() {
        bail!(
            "over {:.0} % more: {}; if it is worth it: cargo xtask count --bless",
            RISE.1 * 100.0,
            failed.join(", ")
        );
    }
    Ok(())
}

/// Instructions of one turn.
fn instructions(name: &str) -> Result<f64> {
    let (few, many) = (total(name, TIMES.0)?, total(name, TIMES.1)?);
    Ok(many.saturating_sub(few) as f64 / (TIMES.1 - TIMES.0) as f64)
}

fn total(name: &str, times: u64) -> Result<u64> {
    let mut valgrind = Command::new(which("valgrind").context("valgrind is missing")?);
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind
        .arg(sibling("count")?)
        .arg(name)
        .arg(times.to_string());
    // The environment lies on the stack and moves it.
    let output = valgrind.env_clear().output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {said}");
    let line = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = line.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(count.trim().parse()?)
}
