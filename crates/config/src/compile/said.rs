//! What servers may say of themselves.

use super::pool::INTERVAL_MIN;
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::raw::{RawAgent, RawMark, RawStatus};
use crate::read::At;
use crate::snapshot::{Address, AgentCheck, Mark, Server};
use crate::units::show_duration;
use crate::values::{Many, Off};

/// Bytes that an agent is sent.
const SEND_BYTES_MAX: usize = 1024;

pub(super) fn ranges(raw: Many<RawStatus>) -> Vec<(u16, u16)> {
    let items = raw.0.items.into_iter();
    items.map(|item| (item.value.0, item.value.1)).collect()
}

pub(super) fn compile_mark(
    status: Option<At<Many<RawStatus>>>,
    headers: Option<At<Many<RawMark>>>,
) -> Box<Mark> {
    let headers = headers.into_iter().flat_map(|raw| raw.value.0.items);
    Box::new(Mark {
        status: status.map(|raw| ranges(raw.value)).unwrap_or_default(),
        headers: headers
            .map(|item| (item.value.name, item.value.value))
            .collect(),
    })
}

pub(super) fn compile_agent(
    raw: Option<At<Off<RawAgent>>>,
    servers: &[Server],
    report: &mut Report,
) -> Option<AgentCheck> {
    let At { value, key, .. } = raw?;
    let RawAgent(raw) = value.on()?;
    if let Some(server) = servers
        .iter()
        .find(|server| matches!(server.address, Address::Unix(_)))
    {
        let message = format!(
            "the server `{}` is a Unix socket, which has no port for an agent",
            server.name
        );
        report.error(Kind::Conflict, key, message);
    }
    if let Some(interval) = raw
        .interval
        .as_ref()
        .filter(|interval| interval.value.0 < INTERVAL_MIN)
    {
        let message = format!(
            "agents are asked at most every {}",
            show_duration(INTERVAL_MIN)
        );
        report.error(Kind::Value, interval.span, message);
    }
    if let Some(send) = raw
        .send
        .as_ref()
        .filter(|send| send.value.0.len() > SEND_BYTES_MAX)
    {
        let message = format!("an agent is sent at most {SEND_BYTES_MAX} bytes");
        report.error(Kind::Value, send.span, message);
    }
    Some(AgentCheck {
        port: raw.port?.value.u16(),
        interval: raw
            .interval
            .map_or(defaults::AGENT_INTERVAL, |time| time.value.0),
        timeout: raw
            .timeout
            .map_or(defaults::AGENT_TIMEOUT, |time| time.value.0),
        send: raw.send.map(|send| send.value.0).unwrap_or_default(),
    })
}
