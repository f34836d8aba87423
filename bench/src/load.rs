//! The load generator: an HTTP/1.1 client on one thread that does as little work as possible.
//!
//! [`peak`] is the closed loop: each connection sends its next request after its answer. [`paced`] is the open loop:
//! requests are due at a fixed rate, and their latency counts from the due time. If a server stalls, the requests due
//! meanwhile count as late. They are not postponed.

mod connection;
mod ticker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Failure;
use crate::workload::Script;
use connection::Connection;
use ticker::Ticker;

/// The largest number of wake-ups per second for due requests. At a higher rate several requests become due together.
/// A wake-up for each request would use most of a core, which the server then lacks.
const BURSTS: u32 = 4_000;

/// How long a run at a fixed rate may continue after its end, for requests that were due before.
const LATENESS: Duration = Duration::from_secs(10);

/// The number of requests of a run, and its duration.
#[derive(Clone, Copy, Debug)]
pub struct RunTotals {
    pub requests: u64,
    pub time: Duration,
}

impl RunTotals {
    /// The rate in requests per second.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    pub fn rate(self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

/// Percentiles of the latencies from the due time of a request, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// A point in time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// All connections are open, and each has had one answer.
    Begin,
    /// The duration of the run is over.
    End,
    /// The run is over and no request is in progress. The connections are still open.
    Idle,
}

/// Measures the highest rate, with one connection per script. `at` is called at each edge of the run.
pub fn peak(
    to: SocketAddr,
    scripts: Vec<Script>,
    time: Duration,
    mut at: impl FnMut(Edge) -> Result<(), Failure>,
) -> Result<RunTotals, Failure> {
    on_one_thread(async {
        let connections = open(to, scripts).await?;
        let over = Arc::new(AtomicBool::new(false));
        at(Edge::Begin)?;
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for connection in connections {
            workers.spawn(ask_on(connection, over.clone()));
        }
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
        let time = started.elapsed();
        at(Edge::End)?;
        let (mut requests, mut still_open) = (0, Vec::new());
        while let Some(worked) = workers.join_next().await {
            let (connection, answered) = worked??;
            requests += answered;
            still_open.push(connection);
        }
        at(Edge::Idle)?;
        if requests == 0 { Err("no answer came in time".into()) } else { Ok(RunTotals { requests, time }) }
    })
}

/// Sends requests until `over` is set. A later answer does not count.
async fn ask_on(mut connection: Connection, over: Arc<AtomicBool>) -> Result<(Connection, u64), Failure> {
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        connection.ask().await?;
        answered += u64::from(!over.load(Ordering::Relaxed));
    }
    Ok((connection, answered))
}

/// Measures the latencies at `rate` requests per second, with one connection per script.
pub fn paced(to: SocketAddr, scripts: Vec<Script>, rate: u32, time: Duration) -> Result<Latency, Failure> {
    let rate = rate.max(1);
    let at_once = u64::from(rate.div_ceil(BURSTS));
    let interval = Duration::from_secs(at_once) / rate;
    let total = u64::try_from(time.as_nanos() / interval.as_nanos())?.max(1) * at_once;
    on_one_thread(async {
        let connections = open(to, scripts).await?;
        let crowd = connections.len();
        let due = Arc::new(Semaphore::new(0));
        let next = Arc::new(AtomicU64::new(0));
        let schedule = Schedule { started: Instant::now(), interval, at_once, total };
        let ticker = Ticker::every(interval)?;
        let mut workers = JoinSet::new();
        for connection in connections {
            workers.spawn(ask_when_due(connection, due.clone(), next.clone(), schedule));
        }
        let mut given = 0;
        while given < total {
            let now_due = (ticker.ticked().await? * at_once).min(total - given);
            due.add_permits(usize::try_from(now_due)?);
            given += now_due;
        }
        // Every task must learn that no request is due any more.
        due.add_permits(crowd);
        let mut latencies = Vec::new();
        let all = async {
            while let Some(worked) = workers.join_next().await {
                latencies.extend(worked??);
            }
            Ok::<_, Failure>(())
        };
        let late =
            |_| format!("{rate} requests per second are too many: some have no answer {LATENESS:?} later");
        tokio::time::timeout(LATENESS, all).await.map_err(late)??;
        percentiles(latencies)
    })
}

/// The schedule of a run: a fixed number of requests is due after each interval.
#[derive(Clone, Copy)]
struct Schedule {
    started: Instant,
    interval: Duration,
    at_once: u64,
    total: u64,
}

impl Schedule {
    /// The due time of a request in seconds from the start. The first request has number 0.
    fn due(self, number: u64) -> f64 {
        self.interval.as_secs_f64() * precise(number / self.at_once + 1)
    }
}

/// Sends a request whenever one is due. The result is the latencies in microseconds.
async fn ask_when_due(
    mut connection: Connection,
    due: Arc<Semaphore>,
    next: Arc<AtomicU64>,
    schedule: Schedule,
) -> Result<Vec<f64>, Failure> {
    let mut latencies = Vec::new();
    loop {
        due.acquire().await?.forget();
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= schedule.total {
            return Ok(latencies);
        }
        connection.ask().await?;
        let late = schedule.started.elapsed().as_secs_f64() - schedule.due(number);
        latencies.push(late.max(0.0) * 1e6);
    }
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
const fn precise(number: u64) -> f64 {
    number as f64
}

fn percentiles(mut latencies: Vec<f64>) -> Result<Latency, Failure> {
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |thousandth: usize| latencies.get(latencies.len() * thousandth / 1000).copied();
    match (at(500), at(990), at(999)) {
        (Some(p50), Some(p99), Some(p999)) => Ok(Latency { p50, p99, p999 }),
        _ => Err("no request was due".into()),
    }
}

/// Opens the connections, each of which has had one answer.
async fn open(to: SocketAddr, scripts: Vec<Script>) -> Result<Vec<Connection>, Failure> {
    let mut opening = JoinSet::new();
    for script in scripts {
        opening.spawn(async move {
            let mut connection = Connection::open(to, script).await?;
            connection.ask().await?;
            Ok::<_, Failure>(connection)
        });
    }
    let mut open = Vec::new();
    while let Some(opened) = opening.join_next().await {
        open.push(opened??);
    }
    Ok(open)
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests;
