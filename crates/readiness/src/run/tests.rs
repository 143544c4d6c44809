//! The runner in virtual time: limits, sharing, keeping, panics, draining.

use super::*;
use std::sync::atomic::AtomicUsize;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

/// A check that takes `takes` and counts its runs.
fn counted(name: &str, takes: Duration) -> (Check, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let check = Check::new(name, move || {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(takes).await;
            Ok::<(), String>(())
        }
    });
    (check, runs)
}

#[tokio::test(start_paused = true)]
async fn checks_run_side_by_side() {
    let (a, _) = counted("a", 300 * MS);
    let (b, _) = counted("b", 400 * MS);
    let readiness = Readiness::builder("1").with(a).with(b).build();
    let started = Instant::now();
    let report = readiness.report().await;
    assert_eq!(started.elapsed().as_millis() / 10, 40);
    assert_eq!(report.status, Status::Healthy);
    assert_eq!(report.checks[0].latency.as_millis() / 10, 30);
}

#[tokio::test(start_paused = true)]
async fn concurrent_probes_share_one_run_and_its_result_is_kept() {
    let (check, runs) = counted("database", 100 * MS);
    let readiness = Readiness::builder("1").with(check).build();
    let probes: Vec<_> = (0..50)
        .map(|_| {
            let readiness = readiness.clone();
            tokio::spawn(async move { readiness.report().await.status })
        })
        .collect();
    for probe in probes {
        assert_eq!(probe.await.unwrap(), Status::Healthy);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);

    sleep(990 * MS).await;
    readiness.report().await;
    assert_eq!(runs.load(Ordering::Relaxed), 1, "still fresh");
    sleep(20 * MS).await;
    readiness.report().await;
    assert_eq!(runs.load(Ordering::Relaxed), 2, "stale after a second");
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_hangs_up_does_not_end_the_run() {
    let (check, runs) = counted("database", 500 * MS);
    let readiness = Readiness::builder("1").with(check).build();
    let gone = tokio::time::timeout(100 * MS, readiness.report()).await;
    assert!(gone.is_err());
    assert_eq!(readiness.report().await.status, Status::Healthy);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_check_is_down_at_its_limit_and_is_dropped() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let readiness = Readiness::builder("1")
        .check("database", move || {
            let guard = Dropped(Arc::clone(&flag));
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok::<(), String>(())
            }
        })
        .build();
    let started = Instant::now();
    let report = readiness.report().await;
    assert_eq!(started.elapsed().as_secs(), 2);
    assert_eq!(report.status, Status::Unhealthy);
    assert_eq!(report.checks[0].down, Some(Cause::TimedOut(2000 * MS)));
    sleep(MS).await;
    assert!(dropped.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_down_and_the_next_run_goes_on() {
    let calls = AtomicUsize::new(0);
    let readiness = Readiness::builder("1")
        .keep(Duration::ZERO)
        .check("database", move || {
            assert!(
                calls.fetch_add(1, Ordering::Relaxed) > 0,
                "at the first call"
            );
            async { Ok::<(), String>(()) }
        })
        .build();
    let report = readiness.report().await;
    assert_eq!(report.checks[0].down, Some(Cause::Panicked));
    assert_eq!(report.http_status(), 503);
    assert_eq!(readiness.report().await.status, Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_optional_check_only_degrades() {
    let readiness = Readiness::builder("1")
        .with(Check::new("cache", || async { Err::<(), _>("refused") }).optional())
        .build();
    let report = readiness.report().await;
    assert_eq!(
        (report.status, report.http_status()),
        (Status::Degraded, 200)
    );
    assert_eq!(report.checks[0].down, Some(Cause::Failed("refused".into())));
}

#[tokio::test(start_paused = true)]
async fn draining_answers_at_once_with_what_was_last_seen() {
    let (check, runs) = counted("database", 500 * MS);
    let readiness = Readiness::builder("1").keep(MS).with(check).build();
    readiness.report().await;
    sleep(10 * MS).await;

    readiness.set_draining(true);
    let started = Instant::now();
    let report = readiness.report().await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(
        (report.status, report.http_status()),
        (Status::Draining, 503)
    );
    assert_eq!(report.checks.len(), 1);
    assert_eq!(runs.load(Ordering::Relaxed), 1);

    readiness.set_draining(false);
    assert_eq!(readiness.report().await.status, Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn draining_while_the_checks_run_is_said_in_that_very_answer() {
    let (check, _) = counted("database", 500 * MS);
    let readiness = Readiness::builder("1").with(check).build();
    let probe = tokio::spawn({
        let readiness = readiness.clone();
        async move { readiness.report().await.status }
    });
    sleep(100 * MS).await;
    readiness.set_draining(true);
    assert_eq!(probe.await.unwrap(), Status::Draining);
}

#[tokio::test(start_paused = true)]
async fn the_later_check_of_a_name_counts() {
    let readiness = Readiness::builder("1")
        .check("database", || async { Err::<(), _>("old") })
        .check("database", || async { Ok::<(), String>(()) })
        .build();
    let report = readiness.report().await;
    assert_eq!((report.checks.len(), report.status), (1, Status::Healthy));
}
