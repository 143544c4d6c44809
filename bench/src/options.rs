//! What the command line asks for.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::peers::Peer;
use crate::scenario::{self, Scenario};

pub(crate) const USAGE: &str = "\
cargo xtask bench [--quick] [--scenario NAME]… [--peer NAME]… [--rounds N] [--seconds S] [--no-record]

  --quick       keep-alive 1 KB beside HAProxy and the floor, five rounds, nothing recorded
  --scenario    only this one; those not measured keep their last figures
  --peer        only this one: evenkeel, floor, haproxy, nginx, envoy, traefik, caddy
  --rounds      how often each is measured, in turn with the others (9)
  --seconds     how long each time (2)
  --no-record   leave bench/results and docs/performance.md as they are
  --list        the scenarios
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
    pub(crate) warm: Duration,
    pub(crate) record: bool,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let (mut quick, mut record) = (false, true);
        let (mut scenarios, mut peers) = (Vec::new(), Vec::new());
        let (mut rounds, mut seconds) = (None, 2.0);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match *arg {
                "--quick" => quick = true,
                "--no-record" => record = false,
                "--scenario" => scenarios.push(find(value()?)?),
                "--peer" => peers.push(Peer::parse(value()?)?),
                "--rounds" => rounds = Some(value()?.parse()?),
                "--seconds" => seconds = value()?.parse()?,
                other => bail!("what is {other:?}?\n\n{USAGE}"),
            }
        }
        if scenarios.is_empty() {
            scenarios = scenario::all();
            scenarios.truncate(if quick { 1 } else { usize::MAX });
        }
        if peers.is_empty() && quick {
            peers = vec![Peer::Evenkeel, Peer::Haproxy, Peer::Floor];
        } else if peers.is_empty() {
            peers = Peer::ALL.to_vec();
        }
        let rounds = rounds.unwrap_or(if quick { 5 } else { 9 });
        ensure!(rounds > 0 && seconds > 0.0, "nothing to measure");
        Ok(Self {
            quick,
            scenarios,
            peers,
            rounds,
            measure: Duration::from_secs_f64(seconds),
            warm: Duration::from_secs(1),
            record: record && !quick,
        })
    }

    /// How long it should take, without installing peers.
    pub(crate) fn expected(&self) -> Duration {
        let start_and_end = Duration::from_millis(700);
        let once = self.measure + self.warm + start_and_end;
        let all = self.scenarios.iter().map(|scenario| {
            let legs = if self.quick { 1 } else { scenario.legs() };
            let subjects = scenario.subjects_count(self.peers.len());
            // Beside the rounds: system calls are counted once for each.
            once * u32::try_from(subjects * (legs * self.rounds + 1)).unwrap_or(u32::MAX)
        });
        all.sum()
    }
}

fn find(name: &str) -> Result<Scenario> {
    let mut all = scenario::all();
    let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
    let at = names.iter().position(|known| *known == name);
    let at = at.with_context(|| format!("no scenario {name:?}; there are {}", names.join(", ")))?;
    Ok(all.swap_remove(at))
}
