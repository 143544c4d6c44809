//! Networks that swallow packets, and servers that do not accept.

use super::stage::{CLIENTS, FIRST_BYTE, SOON, Trial, addresses, config, nginxes};
use super::{Outcome, Scenario, Stage};
use crate::process::run;
use crate::{Load, Origin, reply, wait_until};
use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "black-hole",
        fault: "packets to and from one server in three vanish without a word, and come back",
        promise: "a connect that hangs is tried elsewhere; those that wait for an answer get a 504 after `first_byte` (1 s), at most one for each client and turn",
        programs: &["nginx", "ip", "unshare"],
        own_network: true,
        run: black_hole,
    },
    Scenario {
        name: "full-queue",
        fault: "a server whose accept queue is full is added again and again, taken for healthy at first",
        promise: "a connect that hangs is tried elsewhere after `connect` (200 ms), whatever the method: nothing is lost",
        programs: &["nginx"],
        own_network: false,
        run: full_queue,
    },
];

/// Reached over `lo` while it is one of our addresses; else routed into [`HOLE`].
const FAR: [u8; 4] = [10, 99, 0, 2];
/// A tunnel whose other end nobody reads.
const HOLE: &str = "hole";

fn ip(line: &str) -> Result<()> {
    let mut command = Command::new(crate::program("ip").context("ip is not installed")?);
    command.args(line.split(' '));
    let finished = run(command, SOON)?;
    ensure!(finished.code == Some(0), "ip {line}: {}", finished.stderr);
    Ok(())
}

fn black_hole(stage: &Stage) -> Result<Outcome> {
    ensure!(stage.in_own_network, "needs a network of its own");
    ip(&format!("tuntap add dev {HOLE} mode tun"))?;
    ip(&format!("addr add 10.99.0.1/24 dev {HOLE}"))?;
    ip(&format!("link set {HOLE} up"))?;
    ip("addr add 10.99.0.2/32 dev lo")?;
    let servers = nginxes(["a", "b"])?;
    let far = Origin::start_at(SocketAddr::from((FAR, 0)), |conn| {
        while conn.read_request()?.is_some() {
            conn.write(reply(200, "far"))?;
        }
        Ok(())
    })?;
    let all: Vec<SocketAddr> = addresses(&servers)
        .into_iter()
        .chain([far.address()])
        .collect();
    let site = stage.start_site(&all, "timeouts: { connect: 200ms, first_byte: 1s },")?;
    let plan = Load::to(site.web()?).clients(CLIENTS);
    let trial = Trial::with(plan, &["first_byte_timeout"]);
    let turns = stage.pick(1, 5);
    for _ in 0..turns {
        trial.traffic(stage)?;
        ip("addr del 10.99.0.2/32 dev lo")?;
        site.wait_usable(far.address(), false)?;
        // For those that wait for it to be told.
        std::thread::sleep(FIRST_BYTE + FIRST_BYTE / 2);
        trial.traffic(stage)?;
        ip("addr add 10.99.0.2/32 dev lo")?;
        site.wait_usable(far.address(), true)?;
    }
    trial.traffic(stage)?;
    let mut outcome = trial.end(&site, format!("{turns} times"))?;
    let (told, most) = (outcome.told, CLIENTS * turns);
    outcome.promise(told <= most as u64, || {
        format!("{told} were told of the fault, more than {most}")
    });
    Ok(outcome.kept(CLIENTS).within(Duration::from_secs(4)))
}

/// A listening socket whose queue is full, so that connects to it hang, with what fills it.
struct Full {
    address: SocketAddr,
    _listener: TcpListener,
    _fillers: Vec<JoinHandle<Option<TcpStream>>>,
}

impl Full {
    fn start() -> Result<Self> {
        let held = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
        listen(&held, 0)?;
        let listener = TcpListener::from(held);
        let address = listener.local_addr()?;
        // The handles keep what connected; the rest keeps trying, which is what a full queue is.
        let fill = move || TcpStream::connect_timeout(&address, Duration::from_secs(60)).ok();
        let fillers = (0..4).map(|_| std::thread::spawn(fill)).collect();
        wait_until("the queue is full", SOON, || {
            TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err()
        })?;
        Ok(Self {
            address,
            _listener: listener,
            _fillers: fillers,
        })
    }
}

fn full_queue(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b"])?;
    let good = addresses(&servers);
    let full = Full::start()?;
    let with_full = [good.as_slice(), &[full.address]].concat();
    let pool = "timeouts: { connect: 200ms }, health_check: { tcp: { interval: 200ms, timeout: 300ms, unhealthy_threshold: 2, initial: healthy } },";
    let site = stage.start(&config(&good, "", pool))?;
    let plan = Load::to(site.web()?)
        .clients(CLIENTS)
        .request("POST", "/")
        .body("a body");
    let trial = Trial::with(plan, &[]);
    let turns = stage.pick(2, 10);
    for _ in 0..turns {
        trial.traffic(stage)?;
        site.evenkeel.write_config(&config(&with_full, "", pool))?;
        site.ask(&["reload"])?;
        site.wait_usable(full.address, false)?;
        trial.traffic(stage)?;
        site.evenkeel.write_config(&config(&good, "", pool))?;
        site.ask(&["reload"])?;
    }
    trial.traffic(stage)?;
    let mut outcome = trial.end(&site, format!("{turns} times added"))?;
    let retried = outcome.retried;
    outcome.promise(retried > 0, || {
        "the full server was never picked".to_owned()
    });
    Ok(outcome.kept(CLIENTS).within(Duration::from_secs(3)))
}
