//! All hostile neighbours at once: the test whether memory stays flat.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::Method;

use super::Failure;
use super::hostile::{Pool, Ready};
use super::outside::Outside;
use super::server::{Engine, Ward};
use super::tenant::{self, Tenant};

/// The accepted growth between two samples of a server with flat memory: a relative part, and MiB.
const TOLERANCE: (f64, f64) = (0.1, 16.0);

/// The options of `bench/neighbours soak`.
#[derive(clap::Args)]
pub struct Args {
    /// The `ward` binary, built with the release profile.
    #[arg(long)]
    ward: PathBuf,
    /// A folder for databases and logs.
    #[arg(long, default_value = "target/bench-data/soak")]
    data: PathBuf,
    /// The database engine: sqlite or postgres.
    #[arg(long, default_value = "sqlite")]
    engine: Engine,
    /// The duration of the soak, in minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// The number of clients of each neighbour.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// The file for the report. Its content is replaced.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The memory and the open files at one point in time.
#[derive(Clone, Copy)]
struct Sample {
    minute: f64,
    memory: f64,
    files: usize,
}

/// Runs the soak and prints the report.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let outside = Outside::start().await?;
    let ward =
        Ward::start(&args.ward, args.engine, &args.data.join(format!("{:?}", args.engine)), outside.names)?;
    let quiet = Tenant::new(&tenant::client()?, ward.address).await?;
    let mut at_work = Vec::new();
    for pool in Pool::ALL {
        let ready = Ready::new(pool, &ward, &outside).await?;
        at_work.push((pool, ready.start(args.clients).await?));
    }
    let (began, time) = (Instant::now(), Duration::from_secs(args.minutes * 60));
    let every = (time / 120).max(Duration::from_secs(1));
    let (mut samples, mut refused, mut asked) = (Vec::new(), 0, 0);
    while began.elapsed() < time {
        tokio::time::sleep(every).await;
        let sample = Sample {
            minute: began.elapsed().as_secs_f64() / 60.0,
            memory: ward.memory()?,
            files: ward.files()?,
        };
        samples.push(sample);
        asked += 1;
        let answer = quiet.send(Method::GET, &quiet.workspace(""), None).await;
        refused += usize::from(!answer.is_ok_and(|answer| answer.status.is_success()));
        println!("{:.1} min: {:.0} MiB, {} open files", sample.minute, sample.memory, sample.files);
    }
    let mut report = report(args, &samples)?;
    let _ =
        writeln!(report, "A quiet tenant asked {asked} times meanwhile and was refused {refused} times.\n");
    report.push_str("| neighbour | its requests |\n|---|---|\n");
    for (pool, neighbour) in &at_work {
        let _ = writeln!(report, "| {} | {} |", pool.name(), neighbour.done());
    }
    println!("{report}");
    if let Some(out) = &args.out {
        std::fs::write(out, report)?;
    }
    Ok(())
}

/// Compares the memory of the second quarter with that of the last. Caches that fill once are full by then.
fn report(args: &Args, samples: &[Sample]) -> Result<String, Failure> {
    let quarter = samples.len() / 4;
    let median = |part: &[Sample]| {
        let mut memory: Vec<f64> = part.iter().map(|sample| sample.memory).collect();
        memory.sort_by(f64::total_cmp);
        memory.get(memory.len() / 2).copied().ok_or("there are too few samples for a comparison")
    };
    let before = median(samples.get(quarter..2 * quarter).unwrap_or_default())?;
    let after = median(samples.get(3 * quarter..).unwrap_or_default())?;
    let most = samples.iter().map(|sample| sample.memory).fold(0.0, f64::max);
    let files = samples.iter().map(|sample| sample.files).max().unwrap_or_default();
    let flat = after <= before * (1.0 + TOLERANCE.0) + TOLERANCE.1;
    Ok(format!(
        "# A soak with hostile neighbours\n\n{} minutes on {}, {} clients of each neighbour. Resident memory was {before:.0} MiB \
         in the second quarter and {after:.0} MiB in the last (medians); the most was {most:.0} MiB with {files} open \
         files. Memory {}.\n\n",
        args.minutes,
        args.engine.name(),
        args.clients,
        if flat { "stayed flat" } else { "**grew**" }
    ))
}
