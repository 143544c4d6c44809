//! `cargo xtask fuzz`: the targets of `fuzz/`, a workspace of its own, built and run with libFuzzer on the stable
//! toolchain. What must hold for each decoder is written there, and also tested over the corpus by the crates themselves.

use crate::shell;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

const MANIFEST: [&str; 2] = ["--manifest-path", "fuzz/Cargo.toml"];
/// What tells libFuzzer where an input has led: the passes that `cargo fuzz` asks for, without a sanitizer, since nothing
/// that is fuzzed here has `unsafe` code.
const FLAGS: &str = "--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
const SECONDS: &str = "60";
/// Bytes of an input.
const INPUT_MAX: &str = "8192";

/// That every target builds, with what the workspace has built already. It needs no C++ compiler: nothing is linked.
pub(crate) fn check() -> Result<()> {
    let mut check = shell::cargo();
    check
        .args(["check", "--locked"])
        .args(MANIFEST)
        .args(["--target-dir", "target"]);
    check.env("CUSTOM_LIBFUZZER_PATH", "target/libFuzzer.a");
    ensure!(check.status()?.success(), "a fuzz target does not build");
    Ok(())
}

/// `[NAME]… [--seconds 60]`: runs these targets, or all, one after another.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut names, mut seconds) = (Vec::new(), SECONDS);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--seconds" => seconds = args.next().context("--seconds of what?")?,
            name => names.push(name.to_owned()),
        }
    }
    let root = shell::root();
    if names.is_empty() {
        for entry in fs::read_dir(root.join("fuzz/targets"))? {
            let path = entry?.path();
            let stem = path.file_stem().context("a target has a name")?;
            names.push(stem.to_string_lossy().into_owned());
        }
        names.sort();
    }
    let host = host()?;
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked", "--target", &host]);
    build
        .args(MANIFEST)
        .args(["--target-dir", "target/fuzz"])
        .env("RUSTFLAGS", FLAGS);
    for name in &names {
        build.args(["--bin", name]);
    }
    ensure!(build.status()?.success(), "a fuzz target does not build");
    for name in &names {
        println!("\n==== {name}");
        // Finds that only widen what is reached stay out of the repository.
        let found = root.join("target/fuzz/corpus").join(name);
        let artifacts = root.join("fuzz/artifacts");
        fs::create_dir_all(&found)?;
        fs::create_dir_all(&artifacts)?;
        let mut target = Command::new(root.join(format!("target/fuzz/{host}/release/{name}")));
        target.arg(format!("-max_total_time={seconds}"));
        target.arg(format!("-max_len={INPUT_MAX}"));
        target.arg(format!("-artifact_prefix={}/{name}-", artifacts.display()));
        target.arg("-print_final_stats=1").arg(found);
        let known = root.join("fuzz/corpus").join(name);
        if known.is_dir() {
            target.arg(known);
        }
        let well = target.status()?.success();
        ensure!(
            well,
            "{name}: the input lies in fuzz/artifacts; mend what it shows and keep it in fuzz/corpus/{name}"
        );
    }
    Ok(())
}

/// Named, so that build scripts and macros are left as they are.
fn host() -> Result<String> {
    let text = shell::output(Command::new("rustc").arg("-vV"))?;
    let mut lines = text.lines();
    let host = lines.find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}
