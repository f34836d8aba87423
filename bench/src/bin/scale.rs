//! Whether what a request costs depends on how much the installation holds: the same requests to `ward serve` on databases
//! of a thousand, a hundred thousand and a million workspaces, on both engines. `docs/measured/scale.md` is what it writes.
//!
//! `cargo build --release -p ward-cli && cargo run --release -p bench --bin scale -- --data DIR`. A database that is in
//! `DIR` already is used again.

#[path = "../scale/fill.rs"]
mod fill;
#[path = "../scale/http.rs"]
mod http;
#[path = "../scale/limit.rs"]
mod limit;
#[path = "../scale/measure.rs"]
mod measure;
#[path = "../scale/operations.rs"]
mod operations;
#[path = "../scale/place.rs"]
mod place;
#[path = "../scale/process.rs"]
mod process;
#[path = "../scale/report.rs"]
mod report;
#[path = "../scale/shape.rs"]
mod shape;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use place::{Engine, Places};
use shape::Shape;

/// What stops a measurement: a sentence, for a person to read.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures whether what a request costs depends on how much the installation holds.")]
struct Args {
    /// The folder of the databases. What is in it already is used again; about 19 GB for everything.
    #[arg(long)]
    data: PathBuf,
    /// The `ward` binary, built for release.
    #[arg(long)]
    ward: PathBuf,
    /// Numbers of workspaces.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    sizes: Vec<u64>,
    /// Engines.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
    engines: Vec<Engine>,
    /// How often every operation is measured at every size, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Requests of one operation at one size in one round.
    #[arg(long, default_value_t = 5_000)]
    requests: u32,
    /// Only the operations whose name has this in it. May be given more than once.
    #[arg(long, value_name = "OPERATION")]
    only: Vec<String>,
    /// Only make the databases.
    #[arg(long)]
    fill_only: bool,
    /// Where the table goes, as Markdown. Without it, only to the terminal.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Args {
    fn wants(&self, operation: &operations::Operation) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| operation.name.contains(part))
    }
}

#[expect(clippy::print_stderr, reason = "a command's failure goes to the person who ran it")]
fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("scale: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn run(args: &Args) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.data)?;
    let data = std::fs::canonicalize(&args.data)?;
    let mut sizes = args.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.first().is_none_or(|least| *least < shape::LEAST) {
        return Err(format!("sizes are {} workspaces and more", shape::LEAST).into());
    }
    let mut measured = Vec::new();
    for engine in &args.engines {
        let places = Places::open(*engine, &data, &args.ward)?;
        for size in &sizes {
            places.filled(Shape::of(*size))?;
        }
        if !args.fill_only {
            measured.push(measure::engine(&places, &sizes, args)?);
        }
    }
    if args.fill_only {
        return Ok(());
    }
    let text = report::text(&measured, &sizes, args.rounds, args.requests);
    println!("{text}");
    if let Some(out) = &args.out {
        std::fs::write(out, text)?;
    }
    Ok(())
}
