//! The alternating run: every case on every server, round after round.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::Failure;
use crate::child::{Server, fresh_folder, this_program};
use crate::load::{Latency, Request, Tools};
use crate::report::{self, Row};
use crate::seed::{self, Seeded};

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// The `ward` binary, built with its feature `bench`.
    #[arg(long)]
    ward: PathBuf,
    /// The folder for databases, on the disk that is to be measured. What is in it is lost.
    #[arg(long)]
    data: PathBuf,
    /// Where the table goes, as Markdown. Without it, only to the terminal.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How often every case is run on every server.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of one run.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only the cases whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Highest rates only, no latencies.
    #[arg(long)]
    peak_only: bool,
    /// The name or path of oha.
    #[arg(long, env = "OHA", default_value = "oha")]
    oha: String,
}

/// A kind of request, and the file with its answer.
struct Case {
    name: &'static str,
    fixed: &'static str,
    request: Request,
}

/// One case on one server.
#[derive(Default)]
pub struct Figures {
    /// Requests a second, by round.
    pub rates: Vec<f64>,
    /// Microseconds of the server's CPU time per request, by round.
    pub cpu: Vec<f64>,
    /// At the fixed rate, by round.
    pub latencies: Vec<Latency>,
}

/// Measures, prints and writes.
pub fn run(plan: &Plan) -> Result<(), Failure> {
    let fixed = plan.data.join("fixed");
    let database = plan.data.join("database");
    for folder in [&plan.data, &fixed, &database] {
        fresh_folder(folder)?;
    }
    let tools = Tools::new(plan.data.clone(), Duration::from_secs(plan.seconds), plan.oha.clone())?;

    let filling = Server::start(ward(plan, &database, &fixed)?)?;
    let seeded = seed::seed(filling.address, &fixed)?;
    filling.stop()?;

    let ward = Server::start(ward(plan, &database, &fixed)?)?;
    let mut bare = this_program("bare")?;
    bare.arg("--fixed").arg(&fixed);
    let bare = Server::start(bare)?;

    let flush = flush_time(&plan.data)?;
    let mut runs = 0;
    let mut rows = Vec::new();
    for case in cases(&seeded).into_iter().filter(|case| case.name.contains(&plan.only)) {
        let fixed = Request { path: format!("/fixed/{}", case.fixed), ..case.request.clone() };
        let sides = [(&ward, &case.request), (&ward, &fixed), (&bare, &fixed)];
        let mut figures: [Figures; 3] = Default::default();
        for round in 0..plan.rounds {
            for side in order(round) {
                runs += 1;
                let (server, request) = sides[side];
                let before = server.cpu()?;
                let done = tools.peak(server.address, request, runs)?;
                let used = server.cpu()?.saturating_sub(before);
                figures[side].rates.push(done.rate());
                figures[side].cpu.push(per_request(used, done.requests));
            }
        }
        let slowest = figures.iter().map(|side| report::median(&side.rates)).fold(f64::INFINITY, f64::min);
        let rate = half(slowest);
        for round in 0..if plan.peak_only { 0 } else { plan.rounds.min(3) } {
            for side in order(round) {
                runs += 1;
                let (server, request) = sides[side];
                figures[side].latencies.push(tools.paced(server.address, request, rate, runs)?);
            }
        }
        let row = Row { case: case.name, rate, figures };
        report::show(&row.to_string());
        rows.push(row);
    }
    let memory = [ward.peak_memory()?, bare.peak_memory()?];
    let text = report::text(plan.rounds, plan.seconds, &rows, memory, flush);
    report::show(&text);
    if let Some(out) = &plan.out {
        std::fs::write(out, text)?;
    }
    ward.stop()?;
    drop(bare);
    fresh_folder(&database)
}

/// What it takes to make four KiB durable here: the figure that creations depend on most, and differ most by.
fn flush_time(folder: &Path) -> Result<Duration, Failure> {
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
    Ok(times[times.len() / 2])
}

/// Rounds alternate in direction, so that no side always comes after the same other.
fn order(round: u32) -> [usize; 3] {
    if round.is_multiple_of(2) { [0, 1, 2] } else { [2, 1, 0] }
}

/// Ward with everything on. Quotas are counted but never used up: what counting costs is part of the figures, being
/// refused is not.
fn ward(plan: &Plan, database: &Path, fixed: &Path) -> Result<Command, Failure> {
    const ENDLESS: &str = "1000000:1000000";
    let mut command = Command::new(&plan.ward);
    command
        .arg("serve")
        .arg("--database")
        .arg(format!("sqlite:{}", database.join("ward.db").display()))
        .args(["--metrics-listen", "127.0.0.1:0", "--rates", "on", "--unclaimed-limit", "10000000"])
        .args(["--rate-failed-credentials", ENDLESS, "--rate-bootstrap", ENDLESS, "--rate-claims", ENDLESS])
        .env("WARD_BENCH_FIXED", fixed)
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(plan.data.join("ward.log"))?);
    Ok(command)
}

fn cases(seeded: &Seeded) -> Vec<Case> {
    let read = Request {
        path: format!("/v1/workspaces/{}", seeded.workspace),
        bearer: Some(seeded.key.clone()),
        creates: false,
        refused: false,
    };
    let list = Request { path: "/v1/workspaces?limit=20".to_owned(), ..read.clone() };
    let refused = Request { bearer: Some(seeded.revoked.clone()), refused: true, ..read.clone() };
    let create = Request { path: "/v1/workspaces".to_owned(), bearer: None, creates: true, refused: false };
    let own = Request {
        path: "/v1/workspaces/self-service".to_owned(),
        bearer: Some(seeded.creator.clone()),
        ..create.clone()
    };
    vec![
        Case { name: "GET one", fixed: "get", request: read },
        Case { name: "list of 20", fixed: "list", request: list },
        Case { name: "401, a revoked key", fixed: "refused", request: refused },
        Case { name: "create (bootstrap)", fixed: "create", request: create },
        Case { name: "create (self-service)", fixed: "create", request: own },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
fn per_request(used: Duration, requests: u64) -> f64 {
    used.as_secs_f64() * 1e6 / requests as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of a machine of today")]
fn half(rate: f64) -> u32 {
    ((rate / 2.0) as u32).max(1)
}
