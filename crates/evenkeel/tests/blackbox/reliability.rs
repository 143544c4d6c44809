//! Faults under load, in the short form of the scenarios that `cargo xtask reliability` runs whole;
//! those that another module has in its own words are left out.

use testkit::missing;
use testkit::reliability::{Scenario, Stage, line};

use crate::command::BINARY;

fn check(name: &str) {
    let scenario = Scenario::named(name).expect("a scenario");
    if scenario.programs.iter().any(|program| missing(program)) {
        return;
    }
    let stage = Stage {
        binary: BINARY.into(),
        quick: true,
        in_own_network: false,
    };
    let outcome = scenario.run(&stage).expect("it could be carried through");
    println!("{}", line(scenario, &outcome));
    assert!(outcome.broken.is_empty(), "{}", line(scenario, &outcome));
}

#[test]
fn what_is_reset_is_retried_before_its_first_byte_and_cut_after_it() {
    check("reset");
}

#[test]
fn answers_that_trickle_come_whole() {
    check("trickle");
}

#[test]
fn checks_that_all_fail_at_once_empty_no_pool() {
    check("all-checks-fail");
}

#[test]
fn a_server_with_a_full_queue_costs_no_request() {
    check("full-queue");
}

#[test]
fn a_rolling_deploy_loses_nothing() {
    check("deploy");
}

#[test]
fn slow_heads_do_not_stop_the_honest() {
    check("slow-header");
}

#[test]
fn slow_bodies_do_not_stop_the_honest() {
    check("slow-body");
}

#[test]
fn slow_readers_do_not_stop_the_honest() {
    check("slow-read");
}

#[test]
fn servers_that_come_and_go_leave_no_memory_behind() {
    check("memory");
}
