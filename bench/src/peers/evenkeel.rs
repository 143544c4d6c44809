//! Evenkeel, with what it does by default: metrics, timeouts, limits, retries and health checks are on.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Mode, Setup};
use crate::door::{COOKIE, Secure};

/// The config's name in its folder.
const CONFIG: &str = "evenkeel.yaml";

pub(super) fn find() -> Result<(PathBuf, String)> {
    let program = super::sibling("evenkeel")?;
    let version = super::version(&program, &["--version"])?;
    Ok((program, version))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    let config = setup.write(CONFIG, &config(setup, 0)?)?;
    let mut command = Command::new(program);
    command.arg("run").arg(config);
    Ok(command)
}

/// Writes another config that does the same, by a rename, so that no half of it is ever read.
pub(crate) fn rewrite(setup: &Setup, edition: u64) -> Result<()> {
    let path = setup.folder.join(CONFIG);
    let new = path.with_extension("new");
    std::fs::write(&new, config(setup, edition)?)?;
    Ok(std::fs::rename(&new, &path)?)
}

/// The config; each `edition` is another one that does the same.
fn config(setup: &Setup, edition: u64) -> Result<String> {
    let Setup {
        port,
        admin_port,
        algorithm,
        workers,
        ..
    } = setup;
    let protocol = match setup.mode {
        Mode::Http => "http",
        Mode::Tcp => "tcp",
    };
    let mut text = format!(
        "workers: {workers}\nadmin: {{ bind: \"127.0.0.1:{admin_port}\" }}\naccess_log: off\n\
         shutdown: {{ idle_wait: 0s, timeout: 500ms }}\n\
         listeners:\n  main:\n    bind: \"127.0.0.1:{port}\"\n    protocol: {protocol}\n"
    );
    if let Some(secure) = setup.secure {
        writeln!(
            text,
            "    tls: {{ certificates: [{{ cert: {}, key: {} }}], alpn: {} }}",
            setup.keys.certificate.display(),
            setup.keys.key.display(),
            match secure {
                Secure::Http1 => "[http/1.1]",
                Secure::Http2 => "[h2, http/1.1]",
            }
        )?;
    }
    if setup.routes == 0 {
        text += "    pool: main\n";
    } else {
        text += "    routes:\n";
        for prefix in setup.prefixes() {
            writeln!(
                text,
                "      - {{ match: {{ path: \"{prefix}*\" }}, pool: main }}"
            )?;
        }
        text += "      - { pool: main }\n";
    }
    let affinity = if setup.cookie {
        format!("    affinity: {{ cookie: {COOKIE} }}\n")
    } else {
        String::new()
    };
    let http = if setup.grpc { "    http: 2\n" } else { "" };
    write!(
        text,
        "pools:\n  main:\n    balance: {algorithm}\n{affinity}{http}    timeouts: {{ connect: {}ms }}\n    servers:\n",
        2000 + edition
    )?;
    text += &setup.lines(|_, server| format!("      - {server}\n"));
    Ok(text)
}
