//! What becomes of bound clients: the table of `docs/affinity.md`, row by row, and any story of servers that come and go.

use balance::outlier::Failure;
use balance::{Condition, OnDrain};
use config::{Affinity, AffinityKind, Strength};
use proptest::prelude::*;

use super::*;
use crate::affinity::{Bond, End, Tie};
use crate::decide::{Course, WouldBind, would_bind};
use crate::gate::Lease;
use crate::pick::LocalPool;
use crate::reason::Reason;

/// A pool of `a`, `b` and `c` with further keys for `a`, for all, and for the pool.
fn pool(affinity: &str, first: &str, each: &str, settings: &str) -> String {
    let servers = ["a", "b", "c"].into_iter().enumerate();
    let servers = servers.map(|(at, name)| {
        let keys = if at == 0 { first } else { each };
        format!("{{ name: {name}, address: '10.0.0.{at}:80', {keys} }}")
    });
    let servers: Vec<_> = servers.collect();
    site(&format!(
        "affinity: {affinity}, servers: [{}], {settings}",
        servers.join(", ")
    ))
}

/// A client, as what it carries says.
struct Client {
    /// Of a cookie.
    text: Arc<[u8]>,
    /// Of a hash.
    key: Option<u64>,
}

impl Client {
    fn bond(&self, scene: &Scene) -> Bond {
        if let Some(key) = self.key {
            return Bond::to(Tie::Key(key));
        }
        let view = scene.view();
        let server = view.bound.as_ref().unwrap().of_text(&self.text);
        let mut bond = Bond::to(server.map_or(Tie::Free, |it| Tie::Server(it.member.id)));
        bond.foreign = server.is_none();
        bond
    }
}

impl Scene {
    pub(super) fn affinity(&self) -> Affinity {
        self.world.snapshot.pools[0].affinity.clone().unwrap()
    }

    fn local(&self) -> LocalPool {
        LocalPool::new(&self.world.pools[0], 1)
    }

    /// A client that is bound to this server.
    fn client(&self, server: &str) -> Client {
        let view = self.view();
        let bound = view.bound.as_ref().unwrap();
        let id = self.member(server).id;
        let hashes = matches!(
            self.affinity().kind,
            AffinityKind::Source { .. } | AffinityKind::Hash(_)
        );
        let owns = |key: &u64| {
            bound
                .owners(*key)
                .next()
                .is_some_and(|it| it.member.id == id)
        };
        Client {
            text: bound.of_member(id).unwrap().text.clone(),
            key: hashes.then(|| {
                (0..)
                    .map(|key| balance::hash_key(&u64::to_le_bytes(key)))
                    .find(owns)
                    .unwrap()
            }),
        }
    }

    /// What is picked; `explain` would have said the same.
    pub(super) fn pick(&self, bond: &Bond) -> Result<Lease, Reason> {
        let affinity = self.affinity();
        let would = (!bond.has_given_up()).then(|| self.would(bond, &affinity));
        let picked = self
            .local()
            .pick_bound(&affinity, bond, None, &mut Vec::new(), self.now);
        if let Some(would) = would {
            let said = would.pick.member.as_ref().map(|member| member.id);
            match &picked {
                Ok(lease) => assert_eq!(said, Some(lease.member.id), "{:?}", would.course),
                Err(_) if bond.waits() => {
                    assert!(
                        matches!(would.course, Course::Waits(..)),
                        "{:?}",
                        would.course
                    );
                }
                Err(Reason::AffinityServerUnavailable) => assert_eq!(would.course, Course::Refused),
                Err(_) => assert_eq!(said, None),
            }
            if let (Ok(lease), Course::Stays) = (&picked, would.course) {
                assert_eq!(bond.end(Some(lease.member.id)), End::Kept);
            }
        }
        picked
    }

    fn would(&self, bond: &Bond, affinity: &Affinity) -> WouldBind {
        let pool = &self.world.snapshot.pools[0];
        let local = balance::Local::new(1);
        let of = (pool, affinity);
        let would = would_bind(&self.world.pools[0], &local, of, bond, None, 5, self.now);
        assert_eq!(bond.owner(), None, "it leaves no mark");
        would
    }

    /// What becomes of a client of `a`, in the words of the table.
    fn outcome(&self, client: &Client) -> String {
        let bond = client.bond(self);
        let mut waited = "";
        let mut picked = self.pick(&bond);
        if bond.waits() {
            assert!(picked.is_err());
            waited = "waits, then ";
            bond.give_up();
            picked = self.pick(&bond);
        }
        match picked {
            Ok(lease) if &*lease.member.name == "a" => {
                assert_eq!(bond.end(Some(lease.member.id)), End::Kept);
                format!("{waited}stays")
            }
            Ok(lease) => {
                let end = bond.end(Some(lease.member.id));
                assert!(end.binds() || client.key.is_some(), "{end:?}");
                format!("{waited}moves")
            }
            Err(reason) => {
                assert_eq!(reason, Reason::AffinityServerUnavailable);
                assert_eq!(bond.end(None), End::Refused);
                format!("{waited}503")
            }
        }
    }
}

/// A client that was bound to `a` while that was like the others.
fn bound_to_a(alike: &str, config: &str) -> (Scene, Client) {
    let mut scene = Scene::running(alike);
    let client = scene.client("a");
    scene.reload(config);
    scene.pass(1000);
    (scene, client)
}

/// Brings `a` into the state that a row names; the client was bound to it before. What is returned is held meanwhile.
fn bring(row: &str, affinity: &str) -> Option<(Scene, Client, Option<Lease>)> {
    let http = "health_check: { path: / }";
    let (first, each, settings) = match row {
        "a backup that is not wanted" => ("backup: true", "", ""),
        "of a lower priority that is not wanted" => ("priority: 1", "", ""),
        "of another zone, while the own one suffices" => {
            ("zone: far", "zone: near", "zones: prefer_own")
        }
        "at its connection limit" => ("max_connections: 1", "", ""),
        "in slow start" => ("", "", "slow_start: 60s"),
        "bad, but used in panic" | "silent, while others are used in panic" => ("", "", http),
        _ => ("", "", ""),
    };
    let config = format!("zone: near\n{}", pool(affinity, first, each, settings));
    let without = config.replace("{ name: a, address: '10.0.0.0:80',  }, ", "");
    let alike = format!("zone: near\n{}", pool(affinity, each, each, settings));
    let (mut scene, client) = bound_to_a(&alike, &config);
    let mut held = None;
    match row {
        "healthy"
        | "a backup that is not wanted"
        | "of a lower priority that is not wanted"
        | "of another zone, while the own one suffices" => {}
        "degraded" => {
            for _ in 0..10 {
                for server in ["b", "c"] {
                    scene.count(server, 100, 0);
                }
                scene.count("a", 80, 20);
                scene.pass(1000);
            }
            assert!(
                scene.health("a").starts_with("degraded"),
                "{}",
                scene.health("a")
            );
        }
        "not yet probed" => {
            scene.fate("a", None);
            scene.reload(&without);
            scene.reload(&config);
            scene.pass(50);
            assert!(
                scene.health("a").starts_with("unknown"),
                "{}",
                scene.health("a")
            );
        }
        "in slow start" => {
            scene.fate("a", refused());
            scene.pass(60_000);
            scene.fate("a", Outcome::Success);
            let warms = |scene: &Scene| {
                let view = scene.view();
                let mut standings = view.standings.iter();
                standings.any(|it| it.note.contains("slow start"))
            };
            let mut turns = 0..600;
            while !warms(&scene) {
                assert!(turns.next().is_some(), "it never warms up");
                scene.pass(100);
            }
        }
        "of weight 0" => scene.set("a", None, 0),
        "draining" => drop(scene.drain("a", 30_000)),
        "drained: the drain is over" => {
            drop(scene.drain("a", 30_000));
            scene.pass(6000);
        }
        "disabled" => scene.set("a", State::Disabled, None),
        "unhealthy" => {
            scene.fate("a", refused());
            scene.pass(60_000);
        }
        "ejected" => scene.fail("a", 5, Failure::Closed),
        "bad, but used in panic" | "silent, while others are used in panic" => {
            for server in ["a", "b", "c"] {
                scene.fate(server, bad_status());
            }
            if row.starts_with("silent") {
                scene.fate("a", refused());
            }
            scene.pass(60_000);
            assert!(scene.view().panic);
        }
        "at its connection limit" => held = Lease::take(&scene.member("a")).ok(),
        "removed by a reload" => {
            scene.reload(&without);
        }
        "back after a reload" => {
            scene.reload(&without);
            scene.reload(&config);
            scene.pass(1000);
        }
        _ => return None,
    }
    scene.pass(20);
    Some((scene, client, held))
}

/// `docs/affinity.md` has the table: each of its rows is held here, for a cookie and for a hash.
#[test]
fn the_table_in_docs_is_what_happens() {
    let text = include_str!("../../../../../docs/affinity.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| its server is "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 18);
    for row in rows {
        let [state, preferred, required] = row[..] else {
            panic!("{row:?}")
        };
        let state = state.strip_prefix("its server is ").unwrap();
        for (strength, cell) in [("preferred", preferred), ("required", required)] {
            // "stays; with `on_drain: move`: moves"
            let (keep, moving) = cell
                .split_once("; with `on_drain: move`: ")
                .unwrap_or((cell, cell));
            for (on_drain, expected) in [("keep", keep), ("move", moving)] {
                for kind in ["cookie: {", "hash: { key: path,"] {
                    let affinity =
                        format!("{{ {kind} strength: {strength}, on_drain: {on_drain} }} }}");
                    let (scene, client, held) =
                        bring(state, &affinity).unwrap_or_else(|| panic!("{state}"));
                    // Whose keys are whose hangs on weights: the docs say so below the table.
                    let expected = match (kind.starts_with("hash"), state) {
                        (true, "of weight 0")
                        | (true, "a backup that is not wanted")
                        | (true, "of a lower priority that is not wanted")
                        | (true, "of another zone, while the own one suffices") => "moves",
                        (true, "in slow start") => continue,
                        _ => expected,
                    };
                    assert_eq!(scene.outcome(&client), expected, "{state}: {affinity}");
                    drop(held);
                }
            }
        }
    }
}

/// As the notes below the table have it: a removed server is a name like any other that there is not.
#[test]
fn a_header_that_names_a_removed_server_names_none() {
    for (strength, expected) in [("preferred", End::Foreign), ("required", End::Refused)] {
        let affinity = format!("{{ header: {{ name: X-Server, strength: {strength} }} }}");
        let (scene, client, _) = bring("removed by a reload", &affinity).unwrap();
        assert_eq!(&*client.text, b"a");
        let view = scene.view();
        assert!(view.bound.as_ref().unwrap().of_text(&client.text).is_none());
        let bond = Bond::to(Tie::Lost);
        let picked = scene.pick(&bond).ok();
        assert_eq!(bond.end(picked.map(|lease| lease.member.id)), expected);
    }
}

#[test]
fn a_drain_lasts_until_no_bound_client_has_come_for_a_while() {
    let mut scene = Scene::running(&pool("cookie", "", "", ""));
    let client = scene.client("a");
    let answers = scene.drain("a", 30_000);
    for _ in 0..4 {
        scene.pass(4000);
        assert_eq!(scene.outcome(&client), "stays");
        assert!(answers.try_recv().is_err(), "it goes on");
    }
    scene.pass(5100);
    let receipt = receipt(&answers);
    assert_eq!(
        (receipt.new_picks, receipt.affinity_picks, receipt.finished),
        (0, 4, 4)
    );
    assert_eq!(scene.outcome(&client), "moves");
    // However often they come it closes on them before its deadline, so that what they asked last is not cut.
    scene.set("a", State::Ready, None);
    scene.pass(20);
    assert_eq!(scene.outcome(&client), "stays");
    let answers = scene.drain("a", 10_000);
    for _ in 0..4 {
        scene.pass(1800);
        assert_eq!(scene.outcome(&client), "stays");
    }
    let a = scene.member("a");
    a.cell.acquire_by_affinity(None, OnDrain::Keep).unwrap();
    scene.pass(400);
    assert_eq!(scene.outcome(&client), "moves");
    assert!(answers.try_recv().is_err(), "what runs has its time yet");
    a.cell.release();
    scene.pass(100);
    let receipt = super::receipt(&answers);
    assert_eq!((receipt.affinity_picks, receipt.cut.len()), (5, 0));
    // A short one, too.
    scene.set("a", State::Ready, None);
    scene.drain("a", 400);
    scene.pass(200);
    assert_eq!(scene.outcome(&client), "stays");
    scene.pass(140);
    assert_eq!(scene.outcome(&client), "moves");
}

#[test]
fn a_drain_that_moves_clients_is_over_at_once() {
    let mut scene = Scene::running(&pool("{ cookie: { on_drain: move } }", "", "", ""));
    let client = scene.client("a");
    let answers = scene.drain("a", 30_000);
    assert_eq!(receipt(&answers).affinity_picks, 0);
    assert_eq!(scene.outcome(&client), "moves");
}

#[test]
fn a_failed_try_leaves_the_bond_and_a_refused_connection_does_not() {
    let scene = Scene::running(&pool("cookie", "", "", ""));
    let client = scene.client("a");
    let affinity = scene.affinity();
    for refused in [false, true] {
        let bond = client.bond(&scene);
        let mut tried = Vec::new();
        let mut local = scene.local();
        let lease = local
            .pick_bound(&affinity, &bond, None, &mut tried, scene.now)
            .unwrap();
        tried.push(lease.member.id);
        if refused {
            bond.note_refused(lease.member.id);
        }
        let lease = local
            .pick_bound(&affinity, &bond, None, &mut tried, scene.now)
            .unwrap();
        assert_ne!(&*lease.member.name, "a");
        let end = bond.end(Some(lease.member.id));
        assert_eq!(end, if refused { End::Moved } else { End::Strayed });
    }
    let scene = Scene::running(&pool("{ cookie: { strength: required } }", "", "", ""));
    let bond = scene.client("a").bond(&scene);
    let mut tried = vec![scene.member("a").id];
    let picked = scene
        .local()
        .pick_bound(&scene.affinity(), &bond, None, &mut tried, scene.now);
    assert_eq!(picked.err(), Some(Reason::AffinityServerUnavailable));
}

#[test]
fn while_some_wait_for_their_server_others_are_served_elsewhere() {
    let scene = Scene::running(&pool(
        "cookie",
        "max_connections: 1",
        "",
        "balance: round_robin",
    ));
    let client = scene.client("a");
    let held = Lease::take(&scene.member("a")).unwrap();
    let bond = client.bond(&scene);
    assert_eq!(scene.pick(&bond).err(), Some(Reason::ServerLimit));
    assert!(bond.waits());
    let gate = &scene.world.pools[0].gate;
    let owner = scene.local().owner(&bond);
    // `pick` was asked of another half of the pool: the owner is the bond's.
    let owner = owner.unwrap_or_else(|| scene.member("a"));
    let ticket = gate.enter_bound(5, &owner, OnDrain::Keep, 10).unwrap();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(ticket.poll(&mut context).is_pending());
    for _ in 0..6 {
        let lease = scene.pick(&Bond::default()).unwrap();
        assert_ne!(&*lease.member.name, "a", "its slot is for those who wait");
    }
    drop(held);
    match ticket.poll(&mut context) {
        std::task::Poll::Ready(balance::queue::Ended::Granted(lease)) => {
            assert_eq!(&*lease.member.name, "a");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_waits_for_a_server_waits_no_longer_when_its_drain_is_over() {
    let mut scene = Scene::running(&pool("cookie", "max_connections: 1", "", ""));
    let member = scene.member("a");
    let held = Lease::take(&member).unwrap();
    let gate = scene.world.pools[0].gate.clone();
    let ticket = gate.enter_bound(5, &member, OnDrain::Keep, 10).unwrap();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    drop(scene.drain("a", 1000));
    scene.pass(500);
    assert!(ticket.poll(&mut context).is_pending());
    scene.pass(600);
    // The slot that is cut, or given back, is nobody's.
    drop(held);
    match ticket.poll(&mut context) {
        std::task::Poll::Ready(balance::queue::Ended::Unservable) => {}
        other => panic!("{other:?}"),
    }
}

/// What may happen to a server.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Ready,
    Drain,
    Disable,
    Weight(u32),
    Down,
    Up,
    Fail,
    Remove,
    Bring,
    Time(u64),
}

fn turn() -> impl Strategy<Value = (usize, Turn)> {
    let turn = prop_oneof![
        Just(Turn::Ready),
        Just(Turn::Drain),
        Just(Turn::Disable),
        (0_u32..3).prop_map(Turn::Weight),
        Just(Turn::Down),
        Just(Turn::Up),
        Just(Turn::Fail),
        Just(Turn::Remove),
        Just(Turn::Bring),
        (0_u64..12_000).prop_map(Turn::Time),
    ];
    (0_usize..3, turn)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens to servers: a client goes to the server that it is bound to whenever that may serve it, by what is
    /// known of it in words; else, if it may move, its new bond holds likewise.
    #[test]
    fn who_is_bound_to_a_server_that_may_serve_goes_there(
        turns in prop::collection::vec(turn(), 1..25),
        required: bool,
        moves: bool,
    ) {
        let strength = if required { "required" } else { "preferred" };
        let on_drain = if moves { "move" } else { "keep" };
        let affinity = format!("{{ cookie: {{ strength: {strength}, on_drain: {on_drain} }} }}");
        let mut there = [true; 3];
        let config = |there: [bool; 3]| {
            let servers = there.iter().zip(["a", "b", "c"]).enumerate();
            let servers: Vec<_> = servers
                .filter(|(_, (there, _))| **there)
                .map(|(at, (_, name))| format!("{{ name: {name}, address: '10.0.0.{at}:80' }}"))
                .collect();
            site(&format!("affinity: {affinity}, servers: [{}]", servers.join(", ")))
        };
        let mut scene = Scene::running(&config(there));
        let mut clients = ["a", "b", "c"].map(|name| scene.client(name));
        for (at, turn) in turns {
            let name = ["a", "b", "c"][at];
            match turn {
                Turn::Remove if there.iter().filter(|there| **there).count() > 1 => {
                    there[at] = false;
                    scene.reload(&config(there));
                }
                Turn::Bring => {
                    there[at] = true;
                    scene.reload(&config(there));
                }
                Turn::Time(millis) => scene.pass(millis),
                Turn::Down => scene.fate(name, refused()),
                Turn::Up => scene.fate(name, Outcome::Success),
                _ if !there[at] => continue,
                Turn::Remove => continue,
                Turn::Ready => scene.set(name, State::Ready, None),
                Turn::Drain => drop(scene.drain(name, 8000)),
                Turn::Disable => scene.set(name, State::Disabled, None),
                Turn::Weight(weight) => scene.set(name, None, weight),
                Turn::Fail => scene.fail(name, 5, Failure::Closed),
            }
            scene.pass(20);
            for client in &mut clients {
                follow(&scene, client);
            }
        }
    }
}

/// Asks for one request of a client, and sees that it went where it had to.
fn follow(scene: &Scene, client: &mut Client) {
    let view = scene.view();
    let bound = view.bound.as_ref().unwrap();
    let affinity = scene.affinity();
    let owner = bound.of_text(&client.text).map(|it| it.member.clone());
    let bond = client.bond(scene);
    let picked = scene.pick(&bond);
    let may_serve = owner.as_ref().is_some_and(|owner| {
        let standing = view
            .standings
            .iter()
            .find(|it| it.member.id == owner.id)
            .unwrap();
        let well = !matches!(
            standing.condition,
            Condition::Unhealthy | Condition::Ejected
        ) || standing.traffic > 0.0;
        let is_open = match owner.cell.state() {
            State::Ready => standing.weight > 0 || affinity.on_drain == OnDrain::Keep,
            State::Drain => affinity.on_drain == OnDrain::Keep && !owner.is_drained(),
            State::Disabled => false,
        };
        well && is_open
    });
    match (picked, owner) {
        (Ok(lease), Some(owner)) if may_serve => assert_eq!(lease.member.id, owner.id),
        (Err(reason), Some(owner)) if may_serve => panic!("{}: {reason:?}", owner.name),
        (Ok(lease), owner) => {
            assert_ne!(Some(lease.member.id), owner.map(|owner| owner.id));
            assert!(bond.end(Some(lease.member.id)).binds());
            client.text = bound.of_member(lease.member.id).unwrap().text.clone();
        }
        (Err(reason), _) => assert!(
            reason == Reason::NoUsableServer
                || affinity.strength == Strength::Required
                    && reason == Reason::AffinityServerUnavailable,
            "{reason:?}"
        ),
    }
}
