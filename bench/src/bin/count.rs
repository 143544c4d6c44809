//! What is counted by callgrind: one piece of our own work, again and again. `count NAME TIMES`, or `count --list`.
//! What a run costs beside the work is taken out by running it twice with different TIMES.

#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use evenkeel_bench::cases::{self, Runner};

/// So many turns.
struct Times(u64);

impl Runner for Times {
    fn run(&mut self, mut work: impl FnMut()) {
        for _ in 0..self.0 {
            work();
        }
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--list"] => {
            cases::names().iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        [name, times] => cases::run(name, &mut Times(times.parse()?)),
        _ => bail!("count NAME TIMES, or count --list"),
    }
}
