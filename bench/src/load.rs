//! The load: wrk at full speed, and the generator of `bin/load` at a fixed rate or silent.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use evenkeel_bench::browser;
use serde_json::Value;

use crate::peers::sibling;
use crate::process::{Running, which};
use crate::scenario::Shape;

/// How long a load may outlive its time.
const GRACE: Duration = Duration::from_secs(8);

/// What a load reports.
#[derive(Debug)]
pub(crate) struct Served(Value);

impl Served {
    /// A number by its name, 0 if there is none.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }
}

pub(crate) struct Loads {
    wrk: PathBuf,
    own: PathBuf,
    core: usize,
    folder: PathBuf,
}

impl Loads {
    pub(crate) fn find(core: usize, folder: &Path) -> Result<Self> {
        Ok(Self {
            wrk: which("wrk").context("wrk is missing: apt-get install wrk")?,
            own: sibling("load")?,
            core,
            folder: folder.to_owned(),
        })
    }

    /// As fast as the answers come.
    pub(crate) fn full(&self, target: SocketAddr, shape: &Shape, time: Duration) -> Result<Served> {
        let script = self.folder.join("wrk.lua");
        std::fs::write(&script, script_of(shape)?)?;
        let mut wrk = Command::new(&self.wrk);
        // It takes whole seconds only.
        let seconds = time.as_secs_f64().ceil();
        wrk.args(["-t1", "--timeout", "5s", &format!("-d{seconds}s")]);
        wrk.arg(format!("-c{}", shape.connections))
            .arg("-s")
            .arg(&script);
        wrk.arg(format!("http://{target}{}", shape.path));
        let running = Running::start_piped(&wrk, self.core, &self.folder.join("wrk.log"))?;
        let said = running.finish(time + GRACE).context("wrk")?;
        let line = said.lines().rev().find(|line| line.starts_with('{'));
        Ok(Served(serde_json::from_str(
            line.context("wrk said nothing")?,
        )?))
    }

    /// `rate` requests per second; to be ended by [`Loads::end`].
    pub(crate) fn fixed(
        &self,
        target: SocketAddr,
        shape: &Shape,
        rate: f64,
        time: Duration,
    ) -> Result<Running> {
        let mut load = Command::new(&self.own);
        load.args(["rate", &target.to_string(), shape.path]);
        load.args([rate, time.as_secs_f64()].map(|number| number.to_string()));
        load.arg(shape.connections.to_string());
        if shape.headers > 0 {
            load.args(["--headers", &shape.headers.to_string()]);
        }
        if shape.upload > 0 {
            load.args(["--upload", &shape.upload.to_string()]);
        }
        load.args(shape.close.then_some("--close"));
        Running::start_piped(&load, self.core, &self.folder.join("load.log"))
    }

    /// Connections that ask once; returns when all are open.
    pub(crate) fn idle(&self, target: SocketAddr, connections: usize) -> Result<Running> {
        let mut load = Command::new(&self.own);
        load.args(["idle", &target.to_string(), "/1k", &connections.to_string()]);
        let mut running = Running::start_piped(&load, self.core, &self.folder.join("load.log"))?;
        running.line()?;
        Ok(running)
    }

    /// What a load of ours reports at its end.
    pub(crate) fn end(&self, running: Running, time: Duration) -> Result<Served> {
        let said = running.finish(time + GRACE)?;
        Ok(Served(serde_json::from_str(said.trim())?))
    }
}

/// What wrk sends, and a report that is one line of JSON.
fn script_of(shape: &Shape) -> Result<String> {
    let mut script = String::new();
    for (name, value) in browser::fields(shape.headers) {
        writeln!(script, "wrk.headers[{name:?}] = {value:?}")?;
    }
    if shape.close {
        script += "wrk.headers[\"Connection\"] = \"close\"\n";
    }
    if shape.upload > 0 {
        writeln!(script, "wrk.method = \"POST\"")?;
        writeln!(script, "wrk.body = string.rep(\"x\", {})", shape.upload)?;
    }
    script += "\
done = function(s, latency, r)
  local e = s.errors
  io.write(string.format('{\"requests\":%d,\"us\":%d,\"errors\":%d}\\n',
    s.requests, s.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
";
    Ok(script)
}
