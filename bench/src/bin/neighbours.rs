//! The influence of one tenant on another: a quiet tenant alone, and beside the worst neighbour for each shared pool.
//!
//! `bench/neighbours` builds with the release profile and measures both engines in about twenty minutes.
//! `bench/neighbours soak` samples the memory of a Ward that all hostile neighbours use at once, for an hour. Ward is
//! a separate process. The clients of the neighbour share the machine with it.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

#[path = "../neighbours/history.rs"]
mod history;
#[path = "../neighbours/hostile.rs"]
mod hostile;
#[path = "../neighbours/outside.rs"]
mod outside;
#[path = "../neighbours/quiet.rs"]
mod quiet;
#[path = "../neighbours/server.rs"]
mod server;
#[path = "../neighbours/soak.rs"]
mod soak;
#[path = "../neighbours/tenant.rs"]
mod tenant;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use hostile::{CLIENTS, Pool, Ready};
use outside::Outside;
use quiet::{Quiet, Times};
use server::{Engine, Ward};

/// An error that ends a measurement: a sentence for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures what one tenant costs another.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a quiet tenant alone, and beside the worst neighbour for each pool.
    Measure(Args),
    /// Sample the memory of a Ward that every hostile neighbour uses at once.
    Soak(soak::Args),
}

#[derive(clap::Args)]
struct Args {
    /// The `ward` binary, built with the release profile.
    #[arg(long)]
    ward: PathBuf,
    /// A folder for databases and logs.
    #[arg(long, default_value = "target/bench-data/neighbours")]
    data: PathBuf,
    /// The database engines to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
    engines: Vec<Engine>,
    /// The duration of each measurement of the tenant, in seconds.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// The number of rounds; each measures the tenant alone and beside the neighbour.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Measure only the pools whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// The file for the page. Its content is replaced.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The measured commit, for the page.
    #[arg(long, default_value = "")]
    commit: String,
    /// The day of the measurement, for the page.
    #[arg(long, default_value = "")]
    date: String,
}

/// The results for one pool on one engine.
struct Row {
    engine: Engine,
    pool: Pool,
    alone: Times,
    beside: Times,
    answered: u64,
}

fn main() -> Result<(), Failure> {
    let asked = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match &asked.command {
            Command::Measure(args) => run(args).await,
            Command::Soak(args) => soak::run(args).await,
        }
    })
}

async fn run(args: &Args) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for engine in &args.engines {
        for pool in Pool::ALL.into_iter().filter(|pool| pool.name().contains(&args.only)) {
            match measure(args, *engine, pool).await {
                Ok(row) => {
                    println!("{}", line(&row));
                    rows.push(row);
                }
                Err(error) => println!("{} {}: {error}", engine.name(), pool.name()),
            }
        }
    }
    let page = page(args, &rows)?;
    if let Some(out) = &args.out {
        std::fs::write(out, &page)?;
    }
    println!("{page}");
    Ok(())
}

async fn measure(args: &Args, engine: Engine, pool: Pool) -> Result<Row, Failure> {
    let mut outside = Outside::start().await?;
    let folder = args.data.join(format!("{engine:?}-{pool:?}"));
    let ward = Ward::start(&args.ward, engine, &folder, outside.names)?;
    let quiet = Quiet::new(pool, &ward, &outside).await?;
    let ready = Ready::new(pool, &ward, &outside).await?;
    let time = Duration::from_secs(args.seconds);
    let mut row = Row { engine, pool, alone: Times::default(), beside: Times::default(), answered: 0 };
    // This warm-up separates the preparation from the measurement.
    quiet.measure(Duration::from_secs(1), &mut outside).await?;
    for _ in 0..args.rounds {
        // The neighbour for deliveries cannot be stopped, because its EHRs have work for hours. All measurements of
        // the tenant alone therefore come first.
        row.alone.add(quiet.measure(time, &mut outside).await?);
        if pool != Pool::Deliveries {
            let neighbour = ready.start(CLIENTS).await?;
            row.beside.add(quiet.measure(time, &mut outside).await?);
            row.answered += neighbour.done();
            drop(neighbour);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    if pool == Pool::Deliveries {
        let neighbour = ready.start(CLIENTS).await?;
        for _ in 0..args.rounds {
            row.beside.add(quiet.measure(time, &mut outside).await?);
        }
        row.answered = neighbour.done();
    }
    Ok(row)
}

fn line(row: &Row) -> String {
    let ms = |seconds: f64| format!("{:.1}", seconds * 1_000.0);
    let ratio = |part: f64| row.beside.quantile(part) / row.alone.quantile(part);
    let met = if ratio(0.99) <= 2.0 && row.beside.refused == 0 { "met" } else { "**not met**" };
    format!(
        "| {} | {} | {} / {} | {} / {} | {:.1} | {:.1} | {} of {} | {} | {met} |",
        row.pool.name(),
        row.engine.name(),
        ms(row.alone.quantile(0.5)),
        ms(row.beside.quantile(0.5)),
        ms(row.alone.quantile(0.99)),
        ms(row.beside.quantile(0.99)),
        ratio(0.5),
        ratio(0.99),
        row.beside.refused,
        row.beside.count() + row.beside.refused,
        row.answered,
    )
}

fn page(args: &Args, rows: &[Row]) -> Result<String, Failure> {
    let mut page = String::from(
        "# The influence of one tenant on another, measured\n\n`bench`'s `neighbours` writes this page. A quiet tenant is measured \
         alone and beside the worst neighbour for each pool that they share. The target is a p99 beside the neighbour of at \
         most twice the p99 alone, and no refused request.\n\n",
    );
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let cores = std::thread::available_parallelism()?.get();
    let _ = writeln!(
        page,
        "Measured on {} at commit {} on {cores} cores, which Ward, both tenants' clients, the EHRs and the database share. \
         The load of the machine at the end was {}. The neighbour's clients have the lowest priority. Times \
         are milliseconds, from the time when a request was due.\n",
        args.date,
        args.commit,
        load.split(' ').next().unwrap_or_default()
    );
    page.push_str(
        "| pool | engine | p50 alone / beside | p99 alone / beside | p50 ratio | p99 ratio | refused | the neighbour's requests | target |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(page, "{}", line(row));
    }
    page.push_str("\n| pool | the quiet tenant | the neighbour |\n|---|---|---|\n");
    for pool in Pool::ALL {
        let _ = writeln!(page, "| {} | {} | {} |", pool.name(), Quiet::asks(pool), pool.neighbour());
    }
    Ok(page)
}
