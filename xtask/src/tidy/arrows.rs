//! Which room may use which, and what the pure rooms may not use at all, even by way of others.

use super::{Findings, PURE};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};

/// Each room and the rooms that it may use. ARCHITECTURE.md draws the same picture.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("balance", &[]),
    ("readiness", &[]),
    ("testkit", &[]),
    ("xtask", &[]),
    ("bench", &["wire", "balance", "rules", "control"]),
    ("rules", &["wire"]),
    ("config", &["wire", "balance", "rules"]),
    ("control", &["wire", "balance", "rules", "config"]),
    ("sim", &["wire", "balance", "config", "control"]),
    ("proxy", &["wire", "balance", "rules", "config", "control"]),
    ("agents", &["wire", "balance", "rules", "config", "control"]),
    ("admin", &["wire", "balance", "rules", "config", "control"]),
    (
        "evenkeel",
        &[
            "wire",
            "balance",
            "rules",
            "config",
            "control",
            "proxy",
            "agents",
            "admin",
            "readiness",
        ],
    ),
];

/// What brings I/O with it.
const NOT_PURE: &[&str] = &["tokio", "mio", "hyper", "axum", "rustix", "socket2"];

pub(super) fn check(metadata: &Metadata, findings: &mut Findings) {
    let members: BTreeSet<&PackageId> = metadata.workspace_members.iter().collect();
    let packages: Vec<&Package> = metadata.workspace_packages();
    for package in &packages {
        let room = room(package);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            findings.fail(format!(
                "room {room} has no place yet: draw its arrows in xtask/src/tidy/arrows.rs"
            ));
            continue;
        };
        check_arrows(package, room, allowed, &packages, findings);
        if PURE.contains(&room) {
            check_pure(metadata, &members, package, room, findings);
        }
    }
}

/// `evenkeel-wire` is the room `wire`.
fn room(package: &Package) -> &str {
    let name = package.name.as_str();
    name.strip_prefix("evenkeel-").unwrap_or(name)
}

fn check_arrows(
    package: &Package,
    from: &str,
    allowed: &[&str],
    rooms: &[&Package],
    findings: &mut Findings,
) {
    for dependency in &package.dependencies {
        let Some(used) = rooms.iter().find(|other| *other.name == dependency.name) else {
            continue;
        };
        let to = room(used);
        let for_tests = dependency.kind == DependencyKind::Development && to == "testkit";
        if !for_tests && !allowed.contains(&to) {
            findings.fail(format!(
                "room {from} must not use room {to} (ARCHITECTURE.md: the way dependencies run)"
            ));
        }
    }
}

/// Follows the dependencies that are built into the room, tests aside.
fn check_pure(
    metadata: &Metadata,
    members: &BTreeSet<&PackageId>,
    package: &Package,
    room: &str,
    findings: &mut Findings,
) {
    let Some(resolve) = &metadata.resolve else {
        findings.fail("cargo metadata resolved nothing");
        return;
    };
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![&package.id];
    while let Some(id) = waiting.pop() {
        // Other rooms are judged by themselves.
        if !seen.insert(id) || (members.contains(id) && *id != package.id) {
            continue;
        }
        let name = metadata
            .packages
            .iter()
            .find(|other| other.id == *id)
            .map(|other| other.name.as_str());
        found.extend(name.filter(|name| NOT_PURE.contains(name)));
        let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let built = edges.filter(|edge| {
            edge.dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
        });
        waiting.extend(built.map(|edge| &edge.pkg));
    }
    for name in found {
        findings.fail(format!("room {room} is pure and must not use {name}"));
    }
}
