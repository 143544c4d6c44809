//! HAProxy from Debian, in the foreground: one process, one thread. Its counters are always on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Mode, Setup};
use crate::door::{COOKIE, Secure};

pub(super) fn find() -> Result<(PathBuf, String)> {
    let program = crate::process::which("haproxy").context("apt-get install haproxy")?;
    let version = super::version(&program, &["-v"])?;
    Ok((program, version))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    let (mode, http) = match setup.mode {
        Mode::Http => ("http", "  option forwardfor\n  http-reuse always\n"),
        Mode::Tcp => ("tcp", ""),
    };
    let splice = if setup.bulk {
        "  option splice-response\n  option splice-request\n"
    } else {
        ""
    };
    // It refuses to start where the file limit does not hold twice this and its pipes.
    let maxconn = setup.connections * 11 / 10 + 500;
    let port = setup.port;
    let bind = match setup.secure {
        None if setup.grpc => " proto h2".to_owned(),
        None => String::new(),
        Some(secure) => format!(
            " ssl crt {} alpn {}",
            setup.keys.bundle.display(),
            match secure {
                Secure::Http1 => "http/1.1",
                Secure::Http2 => "h2,http/1.1",
            }
        ),
    };
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {maxconn}\n\
         defaults\n  mode {mode}\n{http}{splice}  maxconn {maxconn}\n  timeout connect 2s\n  timeout client 75s\n  \
         timeout server 60s\n  timeout http-request 10s\n  timeout http-keep-alive 75s\n\
         frontend main\n  bind 127.0.0.1:{port}{bind}\n"
    );
    if setup.routes > 0 {
        let map: String = setup
            .prefixes()
            .map(|prefix| format!("{prefix} main\n"))
            .collect();
        let map = setup.write("routes.map", &map)?;
        text += &format!("  use_backend %[path,map_beg({},main)]\n", map.display());
    }
    text += "  default_backend main\nbackend main\n  balance roundrobin\n";
    if setup.cookie {
        text += &format!("  cookie {COOKIE} insert indirect nocache\n");
    }
    text += &setup.lines(|at, server| {
        let cookie = setup.cookie.then(|| format!(" cookie s{at}"));
        let cookie = cookie.unwrap_or_default();
        let proto = if setup.grpc { " proto h2" } else { "" };
        format!("  server s{at} {server} check inter 10s{cookie}{proto}\n")
    });
    let config = setup.write("haproxy.cfg", &text)?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(config);
    Ok(command)
}
