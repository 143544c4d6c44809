//! `cargo xtask stress NAME`: a test that passes alone may fail on a busy machine. This runs it
//! again and again while every core spins, bounds each run, and shows the runs that failed.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Message;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

struct Options<'a> {
    name: &'a str,
    package: Option<&'a str>,
    runs: u32,
    limit: Duration,
}

/// A test binary that holds the test.
struct Holder {
    binary: PathBuf,
    /// The folder of its manifest, where cargo would run it.
    folder: PathBuf,
    tests: Vec<String>,
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let holders = find(&options)?;
    for holder in &holders {
        println!("{}: {}", holder.binary.display(), holder.tests.join(", "));
    }
    ensure!(
        !holders.is_empty(),
        "no test's name holds {:?}",
        options.name
    );

    let hog = Hog::start();
    let mut failed = 0;
    for number in 1..=options.runs {
        for holder in &holders {
            failed += u32::from(!run_once(holder, &options, number)?);
        }
    }
    drop(hog);
    ensure!(
        failed == 0,
        "{failed} of {} runs failed",
        options.runs as usize * holders.len()
    );
    Ok(())
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self {
            name: "",
            package: None,
            runs: 20,
            limit: Duration::from_secs(120),
        };
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg {
                "-p" => options.package = Some(value()?),
                "--runs" => options.runs = value()?.parse()?,
                "--limit" => options.limit = Duration::from_secs(value()?.parse()?),
                name if options.name.is_empty() => options.name = name,
                other => bail!("one test at a time, not also {other:?}"),
            }
        }
        ensure!(!options.name.is_empty(), "which test?");
        Ok(options)
    }
}

/// Builds the tests and asks each binary for its list.
fn find(options: &Options<'_>) -> Result<Vec<Holder>> {
    let mut build = shell::cargo();
    build.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    match options.package {
        Some(package) => build.args(["-p", package]),
        None => build.arg("--workspace"),
    };
    let mut child = build.stdout(Stdio::piped()).spawn()?;
    let said = child.stdout.take().context("cargo has no output")?;
    let mut holders = Vec::new();
    for message in Message::parse_stream(BufReader::new(said)) {
        let Message::CompilerArtifact(artifact) = message? else {
            continue;
        };
        let (Some(binary), true) = (artifact.executable, artifact.profile.test) else {
            continue;
        };
        let folder = artifact
            .manifest_path
            .parent()
            .context("a manifest without a folder")?;
        let tests = list(binary.as_std_path(), options.name)?;
        if !tests.is_empty() {
            holders.push(Holder {
                binary: binary.into(),
                folder: folder.into(),
                tests,
            });
        }
    }
    ensure!(child.wait()?.success(), "the tests do not build");
    Ok(holders)
}

fn list(binary: &std::path::Path, name: &str) -> Result<Vec<String>> {
    let text = shell::output(Command::new(binary).args([name, "--list", "--format=terse"]))?;
    let tests = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.map(str::to_owned).collect())
}

fn run_once(holder: &Holder, options: &Options<'_>, number: u32) -> Result<bool> {
    let path = shell::root().join("target/stress.log");
    let log = File::create(&path)?;
    let mut command = Command::new(&holder.binary);
    command
        .arg(options.name)
        .current_dir(&holder.folder)
        .env("CARGO_MANIFEST_DIR", &holder.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own, so that a run that hangs ends together with the servers it started.
        .process_group(0);
    let started = Instant::now();
    let ended = wait(&mut command.spawn()?, options.limit)?;
    let took = started.elapsed().as_secs_f64();
    let verdict = match ended {
        Some(status) if status.success() => {
            println!("run {number:>2}: ok, {took:.1} s");
            return Ok(true);
        }
        Some(status) => format!("{status}"),
        None => format!("still ran after {:?}", options.limit),
    };
    println!("run {number:>2}: FAILED, {took:.1} s: {verdict}");
    println!("{}", std::fs::read_to_string(&path)?);
    Ok(false)
}

/// `None` when it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Still our child, so the id is that of its group and of nothing else.
    Command::new("kill")
        .args(["-KILL", "--", &format!("-{}", child.id())])
        .status()?;
    child.wait()?;
    Ok(None)
}

/// Threads that spin on every core until dropped.
struct Hog(Arc<AtomicBool>);

impl Hog {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
