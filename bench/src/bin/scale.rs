//! The influence of the size of an installation on the cost of a request. The same requests go to `ward serve` on
//! databases of a thousand, a hundred thousand and a million workspaces, on both engines. The results are in
//! `docs/measured/scale.md`.
//!
//! `bench/scale --data DIR` builds and runs it. A database that is already in `DIR` is used again.

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

/// An error that ends a measurement: a sentence for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures whether what a request costs depends on how much the installation holds.")]
struct Args {
    /// The folder of the databases, about 19 GB for all sizes. Existing databases are used again.
    #[arg(long)]
    data: PathBuf,
    /// The `ward` binary, built with the release profile.
    #[arg(long)]
    ward: PathBuf,
    /// The numbers of workspaces to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    sizes: Vec<u64>,
    /// The database engines to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
    engines: Vec<Engine>,
    /// The number of rounds; each measures every operation at every size.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The requests of one operation at one size in one round.
    #[arg(long, default_value_t = 5_000)]
    requests: u32,
    /// Measure only the operations whose name contains this text. The option may be repeated.
    #[arg(long, value_name = "OPERATION")]
    only: Vec<String>,
    /// Create the databases, and measure nothing.
    #[arg(long)]
    fill_only: bool,
    /// The file for the Markdown page. Without it, the page goes only to the terminal.
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
        return Err(format!("--sizes: the smallest size is {} workspaces", shape::LEAST).into());
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
