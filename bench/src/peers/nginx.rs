//! nginx from Debian: a master and one worker, both counted. It has no active health checks; its passive ones are on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Mode, Setup};
use crate::door::Secure;

const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn find() -> Result<(PathBuf, String)> {
    let program = crate::process::which("nginx").context("apt-get install nginx-light")?;
    let version = super::version(&program, &["-v"])?;
    let version = version.trim_start_matches("nginx version: ").to_owned();
    Ok((program, version))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    let connections = setup.connections * 22 / 10 + 1000;
    let mut text = format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile {};\npid {}/nginx.pid;\nerror_log stderr;\n",
        connections + 100,
        setup.folder.display()
    );
    let servers = setup.lines(|_, server| format!("    server {server};\n"));
    let events = format!("events {{ worker_connections {connections}; }}\n");
    match setup.mode {
        Mode::Http => text += &(events + &http(setup, &servers)),
        Mode::Tcp => {
            ensure!(
                Path::new(STREAM).is_file(),
                "no TCP without its stream module: apt-get install libnginx-mod-stream"
            );
            text = format!("load_module {STREAM};\n{text}{events}");
            text += &format!(
                "stream {{\n  upstream main {{\n{servers}  }}\n  server {{\n    listen 127.0.0.1:{};\n    \
                 proxy_pass main;\n    proxy_connect_timeout 2s;\n  }}\n}}\n",
                setup.port
            );
        }
    }
    let config = setup.write("nginx.conf", &text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&setup.folder).arg("-c").arg(config);
    Ok(command)
}

fn http(setup: &Setup, servers: &str) -> String {
    let port = setup.port;
    let keys = &setup.keys;
    let (ssl, certificate) = match setup.secure {
        None if setup.grpc => (" http2", String::new()),
        None => ("", String::new()),
        Some(secure) => (
            match secure {
                Secure::Http1 => " ssl",
                Secure::Http2 => " ssl http2",
            },
            format!(
                "    ssl_certificate {};\n    ssl_certificate_key {};\n    ssl_protocols TLSv1.2 TLSv1.3;\n",
                keys.certificate.display(),
                keys.key.display()
            ),
        ),
    };
    let pass = if setup.grpc {
        "grpc_pass grpc"
    } else {
        "proxy_pass http"
    };
    let folder = setup.folder.display();
    let routes: String = setup
        .prefixes()
        .map(|prefix| format!("    location {prefix} {{ proxy_pass http://main; }}\n"))
        .collect();
    format!(
        "http {{\n  access_log off;\n  tcp_nodelay on;\n  keepalive_requests 100000000;\n  keepalive_timeout 75s;\n  \
         client_max_body_size 0;\n  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  \
         fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n  \
         proxy_http_version 1.1;\n  proxy_request_buffering off;\n  proxy_max_temp_file_size 0;\n  \
         proxy_connect_timeout 2s;\n  proxy_set_header Connection \"\";\n  proxy_set_header Host $http_host;\n  \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n  \
         upstream main {{\n{servers}    keepalive 256;\n    keepalive_requests 100000000;\n  }}\n  \
         server {{\n    listen 127.0.0.1:{port}{ssl} backlog=4096;\n{certificate}{routes}    location / {{ {pass}://main; }}\n  }}\n}}\n"
    )
}
