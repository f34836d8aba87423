//! Measures a running Ward beside its peers, in alternating runs. `bench/run` builds and starts it; `bench/README.md`
//! says what the figures mean.

mod bare;
mod child;
mod client;
mod compare;
mod load;
mod paced;
mod report;
mod seed;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// As in the `ward` binary, so that both sides of a comparison allocate alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What stops a measurement: a sentence, for a person to read.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures Ward beside its peers and writes the table.
    Compare(compare::Plan),
    /// Serves fixed answers from a bare axum router.
    Bare {
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
        /// The folder of the answers: files `NAME.STATUS`, each served at `/fixed/NAME`.
        #[arg(long)]
        fixed: PathBuf,
    },
}

#[expect(clippy::print_stderr, reason = "a command's failure goes to the person who ran it")]
fn main() -> std::process::ExitCode {
    let done = match Args::parse().command {
        Command::Compare(plan) => compare::run(&plan),
        Command::Bare { listen, fixed } => on_runtime(bare::run(listen, fixed)),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// The runtime of the `ward` binary: as many threads as there are cores.
fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
