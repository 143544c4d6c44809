//! The load: wrk or, for HTTP/2, h2load at full speed, and the generator of `bin/load` at a fixed rate, silent, or with
//! sessions of TLS used again.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evenkeel_bench::browser;
use serde_json::Value;

use crate::door::{Door, Secure};
use crate::grpc;
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
    pub(crate) fn full(&self, door: &Door, shape: &Shape, time: Duration) -> Result<Served> {
        match door.secure {
            _ if door.grpc => self.h2load(door, shape, time),
            Some(Secure::Http2) => self.h2load(door, shape, time),
            // wrk begins each session anew.
            Some(_) if shape.resume => {
                let running = self.fixed(door, shape, 0.0, time)?;
                let served = self.end(running, time)?;
                let share = served.get("resumed") / served.get("requests").max(1.0);
                ensure!(
                    share > 0.9,
                    "only {share:.2} of the sessions were used again"
                );
                Ok(served)
            }
            _ => self.wrk(door, shape, time),
        }
    }

    fn wrk(&self, door: &Door, shape: &Shape, time: Duration) -> Result<Served> {
        let script = self.folder.join("wrk.lua");
        std::fs::write(&script, script_of(shape, door.cookie.as_deref())?)?;
        let mut wrk = Command::new(&self.wrk);
        // It takes whole seconds only.
        let seconds = time.as_secs_f64().ceil();
        wrk.args(["-t1", "--timeout", "5s", &format!("-d{seconds}s")]);
        wrk.arg(format!("-c{}", shape.connections))
            .arg("-s")
            .arg(&script);
        wrk.arg(door.url(shape.path));
        let running = Running::start_piped(&wrk, self.core, &self.folder.join("wrk.log"))?;
        let said = running.finish(time + GRACE).context("wrk")?;
        let line = said.lines().rev().find(|line| line.starts_with('{'));
        Ok(Served(serde_json::from_str(
            line.context("wrk said nothing")?,
        )?))
    }

    fn h2load(&self, door: &Door, shape: &Shape, time: Duration) -> Result<Served> {
        let h2load =
            which("h2load").context("h2load is missing: apt-get install nghttp2-client")?;
        let seconds = time.as_secs_f64().ceil();
        let mut load = Command::new(h2load);
        load.args(["-t1", &format!("-D{seconds}")]);
        load.arg(format!("-c{}", shape.connections));
        load.arg(format!("-m{}", shape.streams));
        if door.grpc {
            grpc::dress(&mut load, &self.folder)?;
        }
        load.arg(door.url(shape.path));
        let running = Running::start_piped(&load, self.core, &self.folder.join("h2load.log"))?;
        let said = running.finish(time + GRACE).context("h2load")?;
        let counts = said.lines().find(|line| line.starts_with("requests: "));
        let count = |of: &str| -> Option<f64> {
            let (before, _) = counts?.split_once(of)?;
            before
                .rsplit([' ', ','])
                .find(|word| !word.is_empty())?
                .parse()
                .ok()
        };
        let succeeded = count(" succeeded").context("h2load said nothing")?;
        let lost = count(" failed").unwrap_or(0.0);
        ensure!(succeeded > 0.0, "not one answer over HTTP/2: {said}");
        Ok(Served(serde_json::json!({
            "requests": succeeded, "us": seconds * 1e6, "errors": lost,
        })))
    }

    /// `rate` requests per second; to be ended by [`Loads::end`].
    pub(crate) fn fixed(
        &self,
        door: &Door,
        shape: &Shape,
        rate: f64,
        time: Duration,
    ) -> Result<Running> {
        let mut load = Command::new(&self.own);
        load.args(["rate", &door.address.to_string(), shape.path]);
        load.args([rate, time.as_secs_f64()].map(|number| number.to_string()));
        load.arg(shape.connections.to_string());
        if shape.headers > 0 {
            load.args(["--headers", &shape.headers.to_string()]);
        }
        if shape.upload > 0 {
            load.args(["--upload", &shape.upload.to_string()]);
        }
        load.args(shape.close.then_some("--close"));
        load.args(shape.resume.then_some("--resume"));
        dress(&mut load, door);
        Running::start_piped(&load, self.core, &self.folder.join("load.log"))
    }

    /// Connections that ask once; returns when all are open.
    pub(crate) fn idle(&self, door: &Door, connections: usize) -> Result<Running> {
        let mut load = Command::new(&self.own);
        let address = door.address.to_string();
        load.args(["idle", &address, "/1k", &connections.to_string()]);
        dress(&mut load, door);
        let mut running = Running::start_piped(&load, self.core, &self.folder.join("load.log"))?;
        running.line()?;
        Ok(running)
    }

    /// The head of one small answer, if it is a good one.
    pub(crate) fn ask(&self, door: &Door) -> Option<String> {
        if door.grpc {
            return grpc::ask(door, &self.folder);
        }
        let mut load = Command::new(&self.own);
        load.args(["ask", &door.address.to_string(), "/1k"]);
        dress(&mut load, door);
        let said = String::from_utf8(load.output().ok()?.stdout).ok()?;
        said.starts_with("HTTP/1.1 200").then_some(said)
    }

    /// What a load of ours reports at its end.
    pub(crate) fn end(&self, running: Running, time: Duration) -> Result<Served> {
        let said = running.finish(time + GRACE)?;
        Ok(Served(serde_json::from_str(said.trim())?))
    }
}

/// What the generator of ours needs to know of a door.
fn dress(load: &mut Command, door: &Door) {
    if door.secure.is_some() {
        load.arg("--tls").arg(&door.certificate);
    }
    if let Some(cookie) = &door.cookie {
        load.args(["--cookie", cookie]);
    }
}

/// What wrk sends, and a report that is one line of JSON.
fn script_of(shape: &Shape, cookie: Option<&str>) -> Result<String> {
    let mut script = String::new();
    if let Some(cookie) = cookie {
        writeln!(script, "wrk.headers[\"Cookie\"] = {cookie:?}")?;
    }
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
