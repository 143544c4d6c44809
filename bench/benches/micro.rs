//! The time that a piece of our own work takes, by criterion: `cargo bench -p evenkeel-bench [NAME]`. The same pieces as
//! `cargo xtask count` counts instructions of; times wobble with the machine, instructions do not.

#![forbid(unsafe_code)]

use criterion::Criterion;
use evenkeel_bench::cases::{self, Runner};

struct Timed<'a> {
    criterion: &'a mut Criterion,
    name: &'a str,
}

impl Runner for Timed<'_> {
    fn run(&mut self, mut work: impl FnMut()) {
        self.criterion
            .bench_function(self.name, |bencher| bencher.iter(&mut work));
    }
}

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    for name in cases::names() {
        let criterion = &mut criterion;
        let mut timed = Timed {
            criterion,
            name: &name,
        };
        cases::run(&name, &mut timed)?;
    }
    criterion.final_summary();
    Ok(())
}
