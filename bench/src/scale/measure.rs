//! The same requests on every size, in turns, so that a disturbance of the machine affects all sizes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::http::{Connection, Request};
use crate::limit::Limit;
use crate::operations::{OPERATIONS, Operation};
use crate::place::{Engine, Places};
use crate::process::{OneCore, Ward, cpu_of_children};
use crate::shape::{Shape, Who, key, workspace};
use crate::{Args, Failure};

/// The number of measured starts on the largest database.
const STARTS: u32 = 7;

/// The results of one operation at one size, round by round.
#[derive(Clone, Default)]
pub struct Figures {
    /// The median time from sending a request to its whole answer, in microseconds.
    pub latency: Vec<f64>,
    /// The CPU time of Ward per request, in microseconds.
    pub ward: Vec<f64>,
    /// The CPU time of PostgreSQL's processes per request, in microseconds; 0 for SQLite.
    pub database: Vec<f64>,
}

pub struct EngineFigures {
    pub engine: Engine,
    /// The results, by operation and by size.
    pub figures: Vec<(&'static Operation, Vec<Figures>)>,
    /// For SQLite only: the time of SQLite alone for the rows of a GET of one object. It is in microseconds, by size
    /// and round.
    pub limit: Option<Vec<Vec<f64>>>,
    /// The time from start to first answer on the largest database, in milliseconds.
    pub starts: Vec<f64>,
    /// The bytes on disk, by size.
    pub bytes: Vec<u64>,
}

/// A server on the database of one size, and a connection to it.
struct Side {
    shape: Shape,
    ward: Ward,
    connection: Connection,
    random: StdRng,
}

/// Measures all operations on all sizes with one engine.
pub fn engine(places: &Places, sizes: &[u64], args: &Args) -> Result<EngineFigures, Failure> {
    let mut bytes = Vec::new();
    let mut sides = Vec::new();
    let one_core = OneCore::take(places.postmaster()?)?;
    let operations: Vec<&Operation> = OPERATIONS.iter().filter(|operation| args.wants(operation)).collect();
    for size in sizes {
        bytes.push(places.bytes(*size)?);
        places.warm(*size)?;
        let ward = start(places, *size, args)?;
        sides.push(Side {
            shape: Shape::of(*size),
            connection: Connection::to(ward.address)?,
            ward,
            random: StdRng::seed_from_u64(*size),
        });
    }
    let mut figures = vec![vec![Figures::default(); sizes.len()]; operations.len()];
    let bar = ProgressBar::new(u64::from(args.rounds + 1) * operations.len() as u64);
    bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {percent} %, {eta} to go  {msg}")?);
    bar.set_prefix(format!("{}: measuring", places.engine.name()));
    // The first round is discarded, because it opens files and fills caches for the first time.
    for round in 0..=args.rounds {
        // A virtual machine may have dropped pages that no process read for some minutes.
        if places.engine == Engine::Sqlite {
            for size in sizes {
                places.warm(*size)?;
            }
        }
        for (operation, by_size) in operations.iter().zip(&mut figures) {
            bar.set_message(operation.name);
            let requests = (args.requests / operation.share).max(10);
            for turn in 0..sides.len() {
                // The first size changes from turn to turn.
                let at = (turn + round as usize) % sides.len();
                let seen = run(places, &mut sides[at], operation, requests)?;
                if round > 0 {
                    by_size[at].latency.push(seen[0]);
                    by_size[at].ward.push(seen[1]);
                    by_size[at].database.push(seen[2]);
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    for side in sides {
        side.ward.stop()?;
    }
    let limit = match places.engine {
        Engine::Sqlite => Some(limit(places, sizes, args)?),
        Engine::Postgres => None,
    };
    // A start may use all cores, as in production.
    drop(one_core);
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let ward = start(places, *sizes.last().ok_or("--sizes is empty")?, args)?;
        starts.push(ward.started_in.as_secs_f64() * 1e3);
        ward.stop()?;
    }
    let figures = operations.into_iter().zip(figures).collect();
    Ok(EngineFigures { engine: places.engine, figures, limit, starts, bytes })
}

fn limit(places: &Places, sizes: &[u64], args: &Args) -> Result<Vec<Vec<f64>>, Failure> {
    let mut sides = Vec::new();
    for size in sizes {
        sides.push(Limit::of(&places.file(*size), &places.folder().join(format!("limit-{size}.db")))?);
    }
    let mut figures = vec![Vec::new(); sizes.len()];
    for round in 0..=args.rounds {
        for turn in 0..sides.len() {
            let at = (turn + round as usize) % sides.len();
            let median = sides[at].run(args.requests)?;
            if round > 0 {
                figures[at].push(median);
            }
        }
    }
    Ok(figures)
}

fn start(places: &Places, workspaces: u64, args: &Args) -> Result<Ward, Failure> {
    let first = Request::get(&format!("/v1/workspaces/{}", workspace(7)), &key(Who::Owner, 7), 200);
    Ward::start(&args.ward, places.folder(), &places.url(workspaces), &first)
}

/// The median latency, and the CPU time per request of Ward and of the database server, in microseconds.
fn run(places: &Places, side: &mut Side, operation: &Operation, requests: u32) -> Result<[f64; 3], Failure> {
    let sent: Vec<Request> =
        (0..requests).map(|_| (operation.request)(side.shape, &mut side.random)).collect();
    let postmaster = places.postmaster()?;
    let database = || postmaster.map_or(Ok(Duration::ZERO), cpu_of_children);
    let before = (side.ward.cpu()?, database()?);
    let mut times = Vec::with_capacity(sent.len());
    for request in &sent {
        let began = Instant::now();
        let answer = side.connection.send(request).map_err(|error| format!("{}: {error}", operation.name))?;
        times.push(began.elapsed());
        if answer.status != request.expected {
            return Err(format!("{}: {} {}", operation.name, answer.status, answer.body).into());
        }
    }
    let after = (side.ward.cpu()?, database()?);
    times.sort_unstable();
    let each = |span: Duration| span.as_secs_f64() * 1e6 / f64::from(requests);
    let median = times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6;
    Ok([median, each(after.0.saturating_sub(before.0)), each(after.1.saturating_sub(before.1))])
}
