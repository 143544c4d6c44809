//! What the command line asks for.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::peers::Peer;
use crate::scenario::{self, Scenario, Subjects};

pub(crate) const USAGE: &str = "\
cargo xtask bench [--quick] [--scenario NAME,…] [--peer NAME,…] [--rounds N[,M]] [--seconds S] [--no-record]
cargo xtask bench --scale [--no-record]

  --quick       keep-alive 1 KB beside HAProxy and the floor, five rounds, nothing recorded
  --scenario    only these; those not measured keep their last figures
  --peer        only these: evenkeel, floor, haproxy, nginx, envoy, traefik, caddy. Recorded only if none is missing
                that a scenario has of itself: figures of two runs make no ratio
  --rounds      how often each is measured, in turn with the others: scenarios with a target, and the rest (9,3)
  --seconds     how long each time (2)
  --scale       how cost grows with servers, routes and idle connections; Evenkeel alone
  --no-record   leave bench/results and docs/performance.md as they are
  --list        the scenarios
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) scenarios: Vec<Scenario>,
    /// None: those that a scenario has of itself.
    peers: Option<Vec<Peer>>,
    /// Of scenarios with a target, and of the rest.
    rounds: (usize, usize),
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
                "--scenario" => {
                    for name in value()?.split(',') {
                        scenarios.push(find(name)?);
                    }
                }
                "--peer" => {
                    for name in value()?.split(',') {
                        peers.push(Peer::parse(name)?);
                    }
                }
                "--rounds" => {
                    let value = value()?;
                    let (many, few) = value.split_once(',').unwrap_or((value, value));
                    rounds = Some((many.parse()?, few.parse()?));
                }
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
        }
        let rounds = rounds.unwrap_or(if quick { (5, 5) } else { (9, 3) });
        ensure!(
            rounds.0 > 0 && rounds.1 > 0 && seconds > 0.0,
            "nothing to measure"
        );
        let options = Self {
            quick,
            scenarios,
            peers: (!peers.is_empty()).then_some(peers),
            rounds,
            measure: Duration::from_secs_f64(seconds),
            warm: Duration::from_secs(1),
            record: record && !quick,
        };
        options.ensure_recordable()?;
        Ok(options)
    }

    /// Figures are recorded a scenario at a time, so that all of its rows come from one run.
    fn ensure_recordable(&self) -> Result<()> {
        for scenario in self.scenarios.iter().filter(|_| self.record) {
            let asked = self.peers(scenario);
            let left_out = |peer: &&Peer| !asked.contains(peer);
            let missing: Vec<_> = scenario.default_peers().iter().filter(left_out).collect();
            ensure!(
                missing.is_empty(),
                "{} would be recorded without {}: name all of its peers, or none, or say --no-record",
                scenario.name,
                missing
                    .iter()
                    .map(|it| it.name())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        Ok(())
    }

    /// Who takes part in a scenario.
    pub(crate) fn peers(&self, scenario: &Scenario) -> &[Peer] {
        match &self.peers {
            Some(peers) if scenario.subjects == Subjects::Peers => peers,
            _ => scenario.default_peers(),
        }
    }

    pub(crate) fn rounds(&self, scenario: &Scenario) -> usize {
        match scenario.many_rounds {
            true => self.rounds.0,
            false => self.rounds.1,
        }
    }

    /// How long it should take, without installing peers.
    pub(crate) fn expected(&self) -> Duration {
        self.scenarios.iter().map(|it| self.expected_of(it)).sum()
    }

    /// The same of one scenario.
    pub(crate) fn expected_of(&self, scenario: &Scenario) -> Duration {
        let start_and_end = Duration::from_millis(700);
        let legs = if self.quick { 1 } else { scenario.legs() };
        let legs = u32::try_from(legs).unwrap_or(1);
        // At the fixed rate the proxy is warm already.
        let round = self.measure * legs + self.warm + WARM_AGAIN * (legs - 1) + start_and_end;
        let counting = self.warm + start_and_end;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let subjects = count(scenario.subjects_count(self.peers(scenario).len()));
        (round * count(self.rounds(scenario)) + counting) * subjects
    }
}

/// Before the load at a fixed rate, after that at full speed.
pub(crate) const WARM_AGAIN: Duration = Duration::from_millis(300);

fn find(name: &str) -> Result<Scenario> {
    let mut all = scenario::all();
    let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
    let at = names.iter().position(|known| *known == name);
    let at = at.with_context(|| format!("no scenario {name:?}; there are {}", names.join(", ")))?;
    Ok(all.swap_remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mix_figures_of_two_runs_is_refused() {
        let parse = |text: &str| Options::parse(&text.split(' ').collect::<Vec<_>>());
        let error = parse("--scenario 1m --peer evenkeel,haproxy").unwrap_err();
        assert!(
            error.to_string().contains("without floor, nginx"),
            "{error}"
        );
        parse("--scenario 1m --peer evenkeel,haproxy --no-record").unwrap();
        parse("--scenario 1m,reload --peer evenkeel,haproxy,nginx,floor").unwrap();
        parse("--scenario ka-1k --peer evenkeel,haproxy,nginx,floor").unwrap_err();
        parse("--scenario nonsense").unwrap_err();
    }

    #[test]
    fn rounds_are_many_where_a_target_is_for_cpu() {
        let options = Options::parse(&["--rounds", "7,2"]).unwrap();
        let rounds = |name: &str| options.rounds(&find(name).unwrap());
        assert_eq!(
            (rounds("tcp-1m"), rounds("idle-5000"), rounds("64k")),
            (7, 2, 2)
        );
    }

    #[test]
    fn a_whole_run_with_the_main_peers_takes_no_longer_than_promised() {
        let mut options = Options::parse(&[]).unwrap();
        options.peers = Some(Peer::MAIN.to_vec());
        assert!(
            options.expected() < Duration::from_secs(55 * 60),
            "{:?}",
            options.expected()
        );
    }
}
