//! `GET /metrics`: every number in the text format of Prometheus (0.0.4).
//!
//! It only reads cells; nothing is counted here. No series carries both a route and a server.

mod capacity;
mod certificates;
mod families;
mod learnt;
mod queues;
mod text;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use balance::outlier::Cause;
use control::crew::WorkerLoad;
use control::live::{Member, PoolState};
use control::metrics::{
    BUCKETS_US, Classes, Counter, PauseCause, PerWorker, PoolCells, RetryCause, WorkerCells,
};
use control::reason::Reason;
use control::world::World;

pub use families::{FAMILIES, Family, Kind, reference};

use crate::carried::{Carried, Totals};
use crate::error::ApiError;
use crate::ledger::{Ledger, RouteTotals};
use crate::process::Process;
use crate::{Admin, Shared, shape};
use text::Text;

/// What a server holds. No total, and yet the process before adds to it while it drains.
pub(crate) const ACTIVE: &str = "evenkeel_active_connections";
/// Buckets of a histogram, the one without bound included.
const BUCKETS: usize = BUCKETS_US.len() + 1;

pub(crate) async fn metrics(State(admin): Shared) -> Result<Response, ApiError> {
    // Thousands of series take milliseconds, in which this runtime has probes to send.
    let text = tokio::task::spawn_blocking(move || build(&admin))
        .await
        .map_err(|_| ApiError::new(500, "the metrics could not be built"))?;
    let headers = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((headers, text).into_response())
}

/// What a scrape is shown.
fn build(admin: &Arc<Admin>) -> String {
    // Held until the text is there: what a scrape shows is no more than what is handed over.
    let carried = lock(&admin.carried);
    match &carried.frozen {
        Some(text) => text.clone(),
        None => collect(admin, &carried, false).0,
    }
}

pub(crate) fn totals(admin: &Arc<Admin>) -> Totals {
    collect(admin, &lock(&admin.carried), true).1
}

pub(crate) fn freeze(admin: &Arc<Admin>) -> Totals {
    let mut carried = lock(&admin.carried);
    let (text, totals) = collect(admin, &carried, true);
    carried.frozen = Some(text);
    totals
}

pub(crate) fn thaw(admin: &Arc<Admin>) {
    lock(&admin.carried).frozen = None;
}

pub(crate) fn carry(admin: &Arc<Admin>, totals: Totals) {
    lock(&admin.carried).before = Arc::new(totals);
}

/// Of each server that holds something.
pub(crate) fn active(admin: &Admin) -> Totals {
    let world = admin.hub.world();
    let mut active = Totals::new();
    for pool in &world.pools {
        for standing in &pool.view().standings {
            let member = &standing.member;
            let labels = [("pool", &*member.pool), ("server", &*member.name)];
            let in_use = member.cell.in_use();
            if in_use > 0 {
                active.insert(text::series(ACTIVE, &labels), in_use.into());
            }
        }
    }
    active
}

pub(crate) fn forget_active(admin: &Admin) {
    let before = &mut lock(&admin.carried).before;
    Arc::make_mut(before).retain(|series, _| !series.starts_with(ACTIVE));
}

/// What the process before this one has counted.
pub(crate) fn before(admin: &Admin) -> Arc<Totals> {
    lock(&admin.carried).before.clone()
}

/// What that process has counted in a family, as it was told: the sum of the series whose labels begin with these.
pub(crate) fn total_before(before: &Totals, family: &str, labels: &[(&str, &str)]) -> u64 {
    if before.is_empty() {
        return 0;
    }
    let all = text::series(family, labels);
    let some = format!("{},", all.strip_suffix('}').unwrap_or(&all));
    let more = before.range(some.clone()..);
    let more = more.take_while(|(series, _)| series.starts_with(&some));
    let numbers = before
        .get(&all)
        .into_iter()
        .chain(more.map(|(_, number)| number));
    numbers
        .filter_map(serde_json::Number::as_u64)
        .fold(0, u64::saturating_add)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(admin: &Arc<Admin>, carried: &Carried, totals: bool) -> (String, Totals) {
    let world = admin.hub.world();
    let mut ledger = lock(&admin.ledger);
    let mut text = Text::new(carried.before.clone(), totals);
    routes(&mut text, &mut ledger, &world);
    servers(&mut text, &mut ledger, &world);
    let rows = pool_rows(&mut ledger, &world);
    pools(&mut text, &rows, &world);
    capacity::capacity(&mut text, &world);
    queues::queues(&mut text, &rows, &world);
    learnt::learnt(&mut text, &world);
    learnt::fairness(&mut text, &world);
    ledger.servers.prune(server_totals);
    ledger.pools.prune(pool_totals);
    drop(ledger);
    listeners(&mut text, &world);
    workers(&mut text, admin);
    process(&mut text, admin, &world);
    text.finish()
}

fn routes(text: &mut Text, ledger: &mut Ledger, world: &World) {
    let labels = ledger.routes(world);
    text.family("evenkeel_requests_total");
    for ((listener, route), totals) in &labels {
        for (class, label) in Classes::LABELS.iter().enumerate() {
            let one = |totals: &RouteTotals| totals.cells().sum(|cells| cells.classes.get(class));
            let labels = [
                ("listener", &**listener),
                ("route", route),
                ("class", label),
            ];
            text.sample(&labels, totals.iter().map(one).sum::<u64>());
        }
    }
    text.family("evenkeel_request_seconds");
    for ((listener, route), totals) in &labels {
        let mut buckets = [0; BUCKETS];
        let mut sum_us = 0;
        for totals in totals {
            for (index, bucket) in buckets.iter_mut().enumerate() {
                *bucket += totals.cells().sum(|cells| cells.seconds.bucket(index));
            }
            sum_us += totals.cells().sum(|cells| cells.seconds.sum_us());
        }
        text.histogram(
            &[("listener", listener), ("route", route)],
            &buckets,
            sum_us,
        );
    }
}

/// One server's numbers for its families.
struct ServerRow {
    pool: Arc<str>,
    name: Arc<str>,
    /// Of [`server_totals`].
    totals: Vec<u64>,
    active: u64,
    sockets: u32,
    limit: u32,
    half_open: bool,
    usable: bool,
    weight: u32,
    traffic: f64,
    effective_weight: f64,
}

/// By class, then its picks, then what failed.
fn server_totals(member: &Member) -> Vec<u64> {
    let classes = 0..Classes::LABELS.len();
    classes
        .map(|class| member.stats.sum(|cells| cells.classes.get(class)))
        .chain([
            member.cell.picks(),
            member.stats.sum(|cells| cells.failed.get()),
        ])
        .collect()
}

fn servers(text: &mut Text, ledger: &mut Ledger, world: &World) {
    let mut rows = Vec::new();
    for pool in &world.pools {
        let view = pool.view();
        let members = view.standings.iter().map(|standing| &standing.member);
        let sockets = control::sockets::counts(members);
        for (standing, sockets) in view.standings.iter().zip(sockets) {
            let member = &standing.member;
            let key = (member.pool.clone(), member.name.clone());
            rows.push(ServerRow {
                pool: member.pool.clone(),
                name: member.name.clone(),
                totals: ledger.servers.read(key, member, server_totals),
                active: u64::from(member.cell.in_use()) + text.before(ACTIVE, member),
                sockets,
                limit: member.connections_max().unwrap_or(0),
                half_open: member.is_half_open(),
                usable: shape::is_usable(standing, &view),
                weight: standing.weight,
                traffic: standing.traffic,
                effective_weight: shape::effective_weight(standing),
            });
        }
    }
    text.family("evenkeel_server_requests_total");
    for row in &rows {
        for (label, total) in Classes::LABELS.iter().zip(&row.totals) {
            text.sample(
                &[("pool", &row.pool), ("server", &row.name), ("class", label)],
                total,
            );
        }
    }
    let mut each = |family: &str, number: &dyn Fn(&ServerRow) -> u64| {
        text.family(family);
        for row in &rows {
            text.sample(&[("pool", &row.pool), ("server", &row.name)], number(row));
        }
    };
    each("evenkeel_picks_total", &|row| {
        row.totals.get(Classes::LABELS.len()).copied().unwrap_or(0)
    });
    each(ACTIVE, &|row| row.active);
    each("evenkeel_server_sockets", &|row| row.sockets.into());
    each("evenkeel_server_limit", &|row| row.limit.into());
    each("evenkeel_server_half_open", &|row| row.half_open.into());
    each("evenkeel_server_usable", &|row| row.usable.into());
    each("evenkeel_server_weight", &|row| row.weight.into());
    text.family("evenkeel_server_traffic_ratio");
    for row in &rows {
        text.sample(&[("pool", &row.pool), ("server", &row.name)], row.traffic);
    }
    text.family("evenkeel_server_effective_weight");
    for row in &rows {
        text.sample(
            &[("pool", &row.pool), ("server", &row.name)],
            row.effective_weight,
        );
    }
    text.family("evenkeel_server_failed_total");
    for row in &rows {
        let failed = row.totals.last().copied().unwrap_or(0);
        text.sample(&[("pool", &row.pool), ("server", &row.name)], failed);
    }
}

/// One pool's numbers for its families.
struct PoolRow {
    pool: Arc<str>,
    /// Of its queue and bounds, as [`queues::read`] gives them.
    queue: Vec<u64>,
    /// The histogram, then retries, ejections, agent checks, and what failed.
    totals: Vec<u64>,
}

/// All of them, those of the queue first.
fn pool_totals(cells: &PerWorker<PoolCells>) -> Vec<u64> {
    let buckets = (0..BUCKETS).map(|index| cells.sum(|cells| cells.seconds.bucket(index)));
    let sum_us = cells.sum(|cells| cells.seconds.sum_us());
    let retries = (0..RetryCause::ALL.len())
        .map(|cause| cells.sum(|cells| cells.retries.get(cause).map_or(0, Counter::get)));
    let ejections = (0..Cause::LABELS.len())
        .map(|cause| cells.sum(|cells| cells.ejections.get(cause).map_or(0, Counter::get)));
    let agents: [fn(&PoolCells) -> u64; 3] = [
        |cells| cells.agent_answers.get(),
        |cells| cells.agent_failures.get(),
        |cells| cells.agent_unknown_words.get(),
    ];
    let agents = agents.into_iter().map(|number| cells.sum(number));
    queues::read(cells)
        .into_iter()
        .chain(buckets)
        .chain([sum_us])
        .chain(retries)
        .chain(ejections)
        .chain(agents)
        .chain([cells.sum(|cells| cells.failed.get())])
        .collect()
}

fn pool_rows(ledger: &mut Ledger, world: &World) -> Vec<PoolRow> {
    let row = |pool: &Arc<PoolState>| {
        let pool_name = pool.name.clone();
        let mut queue = ledger
            .pools
            .read(pool_name.clone(), &pool.stats, pool_totals);
        let totals = queue.split_off(queues::NUMBERS.min(queue.len()));
        PoolRow {
            pool: pool_name,
            queue,
            totals,
        }
    };
    world.pools.iter().map(row).collect()
}

fn pools(text: &mut Text, rows: &[PoolRow], world: &World) {
    text.family("evenkeel_pool_seconds");
    for PoolRow { pool, totals, .. } in rows {
        let (buckets, rest) = totals.split_at(BUCKETS);
        text.histogram(
            &[("pool", pool)],
            buckets,
            rest.first().copied().unwrap_or(0),
        );
    }
    text.family("evenkeel_pool_failed_total");
    for PoolRow { pool, totals, .. } in rows {
        text.sample(&[("pool", pool)], totals.last().unwrap_or(&0));
    }
    text.family("evenkeel_retries_total");
    for PoolRow { pool, totals, .. } in rows {
        for (cause, total) in RetryCause::ALL.iter().zip(totals.iter().skip(BUCKETS + 1)) {
            text.sample(&[("pool", pool), ("cause", cause.name())], total);
        }
    }
    text.family("evenkeel_ejections_total");
    for PoolRow { pool, totals, .. } in rows {
        let ejections = totals.iter().skip(BUCKETS + 1 + RetryCause::ALL.len());
        for (cause, total) in Cause::LABELS.iter().zip(ejections) {
            text.sample(&[("pool", pool), ("cause", cause)], total);
        }
    }
    let agents = BUCKETS + 1 + RetryCause::ALL.len() + Cause::LABELS.len();
    text.family("evenkeel_agent_checks_total");
    for PoolRow { pool, totals, .. } in rows {
        for (result, total) in ["answered", "failed"]
            .iter()
            .zip(totals.iter().skip(agents))
        {
            text.sample(&[("pool", pool), ("result", result)], total);
        }
    }
    text.family("evenkeel_agent_unknown_words_total");
    for PoolRow { pool, totals, .. } in rows {
        text.sample(&[("pool", pool)], totals.get(agents + 2).unwrap_or(&0));
    }
    text.family("evenkeel_pool_panic");
    for pool in &world.pools {
        text.sample(&[("pool", &pool.name)], u8::from(pool.view().panic));
    }
}

fn listeners(text: &mut Text, world: &World) {
    text.family("evenkeel_listener_connections");
    for listener in &world.listeners {
        let open = listener.connections.load(Relaxed);
        text.sample(&[("listener", &listener.name)], open);
    }
    type Number = fn(&control::metrics::ListenerCells) -> u64;
    let totals: [(&str, Number); 3] = [
        ("evenkeel_listener_accepted_total", |cells| {
            cells.accepted.get()
        }),
        ("evenkeel_listener_bytes_in_total", |cells| {
            cells.bytes_in.get()
        }),
        ("evenkeel_listener_bytes_out_total", |cells| {
            cells.bytes_out.get()
        }),
    ];
    for (family, number) in totals {
        text.family(family);
        for listener in &world.listeners {
            text.sample(&[("listener", &listener.name)], listener.stats.sum(number));
        }
    }
    text.family("evenkeel_listener_paused_total");
    for listener in &world.listeners {
        for cause in PauseCause::ALL {
            let count = |cells: &control::metrics::ListenerCells| {
                cells.paused.get(cause as usize).map_or(0, Counter::get)
            };
            let labels = [("listener", &*listener.name), ("cause", cause.name())];
            text.sample(&labels, listener.stats.sum(count));
        }
    }
}

fn workers(text: &mut Text, admin: &Admin) {
    let cells = &admin.hub.workers;
    text.family("evenkeel_errors_total");
    for (index, reason) in Reason::ALL.iter().enumerate() {
        let total = cells.sum(|cells| cells.errors.get(index).map_or(0, Counter::get));
        text.sample(&[("reason", reason.name())], total);
    }
    // What has ended is read first: a request that begins and ends between the two looks never counts below zero.
    let ended = cells.sum(|cells| cells.ended.get());
    let begun = cells.sum(|cells| cells.begun.get());
    text.single("evenkeel_requests_in_flight", begun.saturating_sub(ended));
    type Number = fn(&WorkerCells) -> u64;
    let totals: [(&str, Number); 4] = [
        ("evenkeel_server_connections_opened_total", |cells| {
            cells.opened.get()
        }),
        ("evenkeel_server_connections_reused_total", |cells| {
            cells.reused.get()
        }),
        ("evenkeel_log_dropped_total", |cells| {
            cells.log_dropped.get()
        }),
        ("evenkeel_panics_total", |cells| cells.panics.get()),
    ];
    for (family, number) in totals {
        text.single(family, cells.sum(number));
    }
    text.single("evenkeel_buffer_bytes", admin.hub.memory.held());
    if let Some(max) = admin.hub.memory.max() {
        text.single("evenkeel_buffer_bytes_max", max);
    }
    text.single("evenkeel_workers", admin.hub.worker_count);
    type Load = fn(&WorkerLoad) -> u64;
    let loads: [(&str, Load); 4] = [
        ("evenkeel_worker_connections", |load| {
            load.connections().into()
        }),
        ("evenkeel_worker_away", |load| load.is_away().into()),
        ("evenkeel_worker_stalls_total", |load| load.stalls.get()),
        ("evenkeel_worker_deaths_total", |load| load.deaths.get()),
    ];
    for (family, number) in loads {
        text.family(family);
        for (worker, load) in admin.hub.crew.iter().enumerate() {
            text.sample(&[("worker", &worker.to_string())], number(load));
        }
    }
    text.family("evenkeel_worker_handed_total");
    for (worker, cells) in cells.iter().enumerate() {
        text.sample(&[("worker", &worker.to_string())], cells.handed.get());
    }
}

fn process(text: &mut Text, admin: &Admin, world: &World) {
    certificates::certificates(text, world, &admin.hub.certificates);
    text.single("evenkeel_config_generation", world.generation);
    text.family("evenkeel_build_info");
    text.sample(&[("version", admin.version)], 1);
    text.single("evenkeel_uptime_seconds", admin.started.elapsed().as_secs());
    let process = Process::now();
    text.single(
        "process_start_time_seconds",
        admin.hub.started.as_secs_f64(),
    );
    if let Some(seconds) = process.cpu_seconds {
        text.single("process_cpu_seconds_total", seconds);
    }
    for (family, number) in [
        ("process_resident_memory_bytes", process.resident_bytes),
        ("process_virtual_memory_bytes", process.virtual_bytes),
        ("process_open_fds", process.open_fds),
        ("process_max_fds", process.max_fds),
        ("process_threads", process.threads),
    ] {
        if let Some(number) = number {
            text.single(family, number);
        }
    }
}
