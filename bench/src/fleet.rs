//! The start and the preparation of all measured servers.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ward_test_db::postgres;

use crate::Failure;
use crate::child::{Server, this_program};
use crate::compare::Plan;
use crate::figures::Footprint;
use crate::load::{self, Edge, Latency, RunTotals};
use crate::process;
use crate::raw::Raw;
use crate::seed::{self, SeedData};
use crate::side::{Engine, Side};
use crate::workload::{Answers, Case, Script};

/// How long Ward and the bare router may take for their first answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the peer may take for its first answer. It may have to install its dependencies first.
const LONG_PATIENCE: Duration = Duration::from_mins(10);
/// The pause between the start of a server and the measurement of its memory.
const SETTLING: Duration = Duration::from_secs(1);

/// The settings of PostgreSQL. The server waits for its disk, as in production. The other settings suit a small
/// machine.
const DURABLE: [&str; 9] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "autovacuum=on",
    "wal_level=replica",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "deadlock_timeout=1s",
    "max_connections=200",
];

/// A server and the data that its requests use.
struct RunningServer {
    side: Side,
    server: Server,
    seeded: Arc<SeedData>,
    idle: f64,
    loaded: f64,
}

/// All running servers. Servers end before the databases that they use.
pub struct Fleet {
    served: Vec<RunningServer>,
    raws: Vec<(Side, Raw)>,
    databases: Vec<postgres::Database>,
    postgres: Option<postgres::Server>,
    /// The number of runs so far, which makes the number of each run unique.
    runs: u32,
}

/// The result of a run at the highest rate.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Answered requests per second, over all connections.
    pub rate: f64,
    /// Microseconds of the server's CPU time per request.
    pub cpu: f64,
    /// Microseconds of the database server's CPU time per request.
    pub database: Option<f64>,
}

impl Fleet {
    /// Starts and prepares all servers of the plan, and prints the progress.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let mut fleet =
            Self { served: Vec::new(), raws: Vec::new(), databases: Vec::new(), postgres: None, runs: 0 };
        if plan.engines.contains(&Engine::Postgres) {
            fleet.postgres = Some(postgres::Server::start(&DURABLE, |_| {}));
        }
        let fixed = plan.data.join("fixed");
        std::fs::create_dir_all(&fixed)?;
        for (number, engine) in plan.engines.iter().enumerate() {
            let side = Side::Ward(*engine);
            let url = fleet.database(plan, side, *engine)?;
            let keep = (number == 0).then_some(&*fixed);
            fleet.serve(side, PATIENCE, keep, || ward(plan, side, &url, &fixed))?;
        }
        fleet.serve_bare(&fixed)?;
        if let Some(peer) = plan.peer() {
            for side in plan.engines.iter().flat_map(|engine| [Side::Peer(*engine), Side::Shortcut(*engine)])
            {
                let engine = side.engine().ok_or("the peer has no engine")?;
                let url = fleet.database(plan, side, engine)?;
                fleet.serve(side, LONG_PATIENCE, None, || self::peer(plan, peer, side, &url))?;
            }
        }
        for engine in &plan.engines {
            let side = Side::Raw(*engine);
            let url = fleet.database(plan, side, *engine)?;
            fleet.raws.push((side, Raw::open(&url)?));
        }
        std::thread::sleep(SETTLING);
        for served in &mut fleet.served {
            served.idle = process::memory(served.server.pid())?.now;
        }
        Ok(fleet)
    }

    /// The URL of an empty database on the engine.
    fn database(&mut self, plan: &Plan, side: Side, engine: Engine) -> Result<String, Failure> {
        match (engine, &self.postgres) {
            (Engine::Sqlite, _) => {
                let folder = plan.data.join(slug(side));
                std::fs::create_dir_all(&folder)?;
                Ok(format!("sqlite:{}", folder.join("database.db").display()))
            }
            (Engine::Postgres, Some(server)) => {
                let database = server.database();
                let url = database.url.clone();
                self.databases.push(database);
                Ok(url)
            }
            (Engine::Postgres, None) => Err("PostgreSQL is not running".into()),
        }
    }

    /// Starts a server, fills it and checks its answers. Then it restarts the server, because the memory used for the
    /// filling must not count.
    fn serve(
        &mut self,
        side: Side,
        patience: Duration,
        keep: Option<&Path>,
        command: impl Fn() -> Result<Command, Failure>,
    ) -> Result<(), Failure> {
        let failed = |error: Failure| -> Failure {
            format!("{}: {error}; its log is {}.log in the data folder", side.name(), slug(side)).into()
        };
        let filling = Server::start(command()?, patience).map_err(failed)?;
        let seeded = seed::seed(filling.address).map_err(failed)?;
        let answers = seed::answers(filling.address, &seeded).map_err(failed)?;
        if let Some(folder) = keep {
            seed::keep(&answers, folder)?;
        }
        filling.stop().map_err(failed)?;
        let server = Server::start(command()?, patience).map_err(failed)?;
        self.served.push(RunningServer { side, server, seeded: Arc::new(seeded), idle: 0.0, loaded: 0.0 });
        Ok(())
    }

    fn serve_bare(&mut self, fixed: &Path) -> Result<(), Failure> {
        let mut command = this_program("bare")?;
        command.arg("--fixed").arg(fixed);
        let server = Server::start(command, PATIENCE)?;
        let seeded = self.served.first().ok_or("no Ward is running")?.seeded.clone();
        self.served.push(RunningServer { side: Side::Bare, server, seeded, idle: 0.0, loaded: 0.0 });
        Ok(())
    }

    /// The running sides, in the order of the tables.
    pub fn sides(&self) -> Vec<Side> {
        let there = |side: &Side| {
            let running = self.served.iter().any(|served| served.side == *side);
            running || *side == Side::Fixed || self.raws.iter().any(|(raw, _)| raw == side)
        };
        Side::ALL.into_iter().filter(there).collect()
    }

    /// The server that receives the requests of a side, and the kind of answers that it gives.
    fn of(&mut self, side: Side) -> Result<(&mut RunningServer, Answers), Failure> {
        let found = match side {
            // The first Ward serves the routes with ready answers.
            Side::Fixed => self.served.first_mut(),
            _ => self.served.iter_mut().find(|served| served.side == side),
        };
        let answers = if matches!(side, Side::Fixed | Side::Bare) { Answers::Fixed } else { Answers::Worked };
        Ok((found.ok_or("the side is not running")?, answers))
    }

    fn database_cpu(postgres: Option<u32>) -> Result<Duration, Failure> {
        postgres.map_or(Ok(Duration::ZERO), process::cpu)
    }

    /// Measures the highest rate over `time`: each connection sends its next request as soon as it has an answer.
    pub fn peak(
        &mut self,
        side: Side,
        case: Case,
        connections: usize,
        time: Duration,
    ) -> Result<Peak, Failure> {
        self.runs += 1;
        let run = self.runs;
        let uses_postgres = side.engine() == Some(Engine::Postgres);
        let postgres = self.postgres.as_ref().filter(|_| uses_postgres).map(postgres::Server::pid);
        if let Some((_, raw)) = self.raws.iter().find(|(raw, _)| *raw == side) {
            let before = Self::database_cpu(postgres)?;
            let (done, used) = raw.peak(case, connections, time)?;
            let database = Self::database_cpu(postgres)?.saturating_sub(before);
            return Ok(Peak::of(done, used, postgres.map(|_| database)));
        }
        let (served, answers) = self.of(side)?;
        let pid = served.server.pid();
        let script = |connection| Script::new(&served.seeded, case, answers, run, connection);
        let scripts: Vec<Script> = (0..connections).map(script).collect();
        let (mut used, mut database) = (Duration::ZERO, Duration::ZERO);
        let (mut before, mut database_before) = (Duration::ZERO, Duration::ZERO);
        let mut loaded = 0.0;
        let done = load::peak(served.server.address, scripts, time, |edge| {
            match edge {
                Edge::Begin => {
                    (before, database_before) = (process::cpu(pid)?, Self::database_cpu(postgres)?);
                }
                Edge::End => {
                    used = process::cpu(pid)?.saturating_sub(before);
                    database = Self::database_cpu(postgres)?.saturating_sub(database_before);
                }
                Edge::Idle => loaded = process::memory(pid)?.now,
            }
            Ok(())
        })?;
        served.loaded = served.loaded.max(loaded);
        Ok(Peak::of(done, used, postgres.map(|_| database)))
    }

    /// Measures the latencies at a fixed rate.
    pub fn paced(
        &mut self,
        side: Side,
        case: Case,
        connections: usize,
        rate: u32,
        time: Duration,
    ) -> Result<Latency, Failure> {
        self.runs += 1;
        let run = self.runs;
        let (served, answers) = self.of(side)?;
        let script = |connection| Script::new(&served.seeded, case, answers, run, connection);
        let scripts = (0..connections).map(script).collect();
        load::paced(served.server.address, scripts, rate, time)
    }

    /// The memory and the start time of each server so far.
    pub fn held(&self) -> Result<Vec<Footprint>, Failure> {
        let held = self.served.iter().map(|served| {
            let peak = process::memory(served.server.pid())?.peak;
            let first_answer = served.server.first_answer.as_secs_f64() * 1e3;
            let RunningServer { side, idle, loaded, .. } = *served;
            Ok(Footprint { side, idle, loaded, peak, first_answer })
        });
        held.collect()
    }

    /// Microseconds for a durable write where the files of PostgreSQL are.
    pub fn postgres_flush(&self) -> Result<Option<f64>, Failure> {
        self.postgres.as_ref().map(|server| flush_time(server.folder())).transpose()
    }

    /// Stops all servers in an orderly way.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.raws.clear();
        for served in self.served.drain(..) {
            let name = served.side.name();
            served.server.stop().map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}

impl Peak {
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    fn of(done: RunTotals, used: Duration, database: Option<Duration>) -> Self {
        let per_request = |used: Duration| used.as_secs_f64() * 1e6 / done.requests as f64;
        Self { rate: done.rate(), cpu: per_request(used), database: database.map(per_request) }
    }
}

/// Microseconds for a durable write of 4 KiB in a folder. Creations depend most on this number, and it differs most
/// between machines.
pub fn flush_time(folder: &Path) -> Result<f64, Failure> {
    let path = folder.join("flush");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..101 {
        file.write_all(&[1; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    std::fs::remove_file(path)?;
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// The name of the side for use in file names.
fn slug(side: Side) -> String {
    let name = side.name().to_lowercase().replace([' ', '('], "-").replace([')'], "");
    name.replace("--", "-")
}

/// A command whose output goes into a file with the name of the side.
fn logged(plan: &Plan, side: Side, program: &Path) -> Result<Command, Failure> {
    let path: PathBuf = plan.data.join(format!("{}.log", slug(side)));
    let log = File::options().create(true).append(true).open(path)?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// Ward with all features enabled. Quotas are counted but never reached: the count is a part of the measured cost,
/// and a refusal is not.
fn ward(plan: &Plan, side: Side, url: &str, fixed: &Path) -> Result<Command, Failure> {
    const ENDLESS: &str = "1000000:1000000";
    let mut command = logged(plan, side, &plan.ward)?;
    command
        .args(["serve", "--database", url])
        .args(["--metrics-listen", "127.0.0.1:0", "--rates", "on", "--unclaimed-limit", "10000000"])
        .args(["--rate-failed-credentials", ENDLESS, "--rate-bootstrap", ENDLESS, "--rate-claims", ENDLESS])
        .args(["--quota-requests-per-second", "1000000"])
        // 32 bytes for a key that protects no real secrets.
        .env("WARD_MASTER_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")
        .env("WARD_BENCH_FIXED", fixed);
    Ok(command)
}

/// The peer with one worker per core.
fn peer(plan: &Plan, program: &Path, side: Side, url: &str) -> Result<Command, Failure> {
    let cores = std::thread::available_parallelism()?;
    let mut command = logged(plan, side, program)?;
    command.args(["--database", url, "--workers", &cores.to_string()]);
    if matches!(side, Side::Peer(_)) {
        command.arg("--plain");
    }
    Ok(command)
}
