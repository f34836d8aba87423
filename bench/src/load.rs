//! The load: a client of HTTP/1.1 on one thread, which does as little as a client can.
//!
//! [`peak`] is the closed loop: each connection sends when it has its answer. [`paced`] is the open one: requests are due
//! at a fixed rate, and latency counts from when one was due, so that a server that stalls makes late what was due
//! meanwhile instead of having it sent later.

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

/// How often a second requests become due, at most. Above that several become due at once: a load that wakes for every
/// single one needs most of a core for waking, and takes it from the server.
const BURSTS: u32 = 4_000;

/// How long after its end a run at a fixed rate may take for what was due before.
const LATENESS: Duration = Duration::from_secs(10);

/// How many requests a run did, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Requests answered.
    pub requests: u64,
    /// In this time.
    pub time: Duration,
}

impl Done {
    /// Requests per second.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    pub fn rate(self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

/// Latencies from the moment a request was due, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// All but a hundredth took no longer.
    pub p99: f64,
    /// All but a thousandth took no longer.
    pub p999: f64,
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// All connections are open and have been used once.
    Begin,
    /// The time is over.
    End,
    /// The same, but nothing is on its way any more; the connections are still open.
    Idle,
}

/// As many requests as the server answers on as many connections as there are scripts. `at` is called at each edge.
pub fn peak(
    to: SocketAddr,
    scripts: Vec<Script>,
    time: Duration,
    mut at: impl FnMut(Edge) -> Result<(), Failure>,
) -> Result<Done, Failure> {
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
        if requests == 0 { Err("nothing was answered in time".into()) } else { Ok(Done { requests, time }) }
    })
}

/// Asks until it is over. What is answered after that does not count.
async fn ask_on(mut connection: Connection, over: Arc<AtomicBool>) -> Result<(Connection, u64), Failure> {
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        connection.ask().await?;
        answered += u64::from(!over.load(Ordering::Relaxed));
    }
    Ok((connection, answered))
}

/// Latencies at `rate` requests a second, on as many connections as there are scripts.
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
        // Everybody is to find out that nothing more is due.
        due.add_permits(crowd);
        let mut latencies = Vec::new();
        let all = async {
            while let Some(worked) = workers.join_next().await {
                latencies.extend(worked??);
            }
            Ok::<_, Failure>(())
        };
        let late =
            |_| format!("{rate} requests a second are too many: not all are answered {LATENESS:?} later");
        tokio::time::timeout(LATENESS, all).await.map_err(late)??;
        percentiles(latencies)
    })
}

/// When requests are due: so many at once after every interval, until all were.
#[derive(Clone, Copy)]
struct Schedule {
    started: Instant,
    interval: Duration,
    at_once: u64,
    total: u64,
}

impl Schedule {
    /// When a request is due, counted from 0; in seconds from the start.
    fn due(self, number: u64) -> f64 {
        self.interval.as_secs_f64() * precise(number / self.at_once + 1)
    }
}

/// Asks whenever something is due; the latencies, in microseconds.
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
        _ => Err("nothing was due".into()),
    }
}

/// Connections on which one request each has been answered.
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
