//! Measures a running Ward beside its peers, in alternating runs. `bench/run` builds and starts it; `bench/README.md`
//! explains the figures. It needs Linux, because it reads the resource use of servers from `/proc`.

mod bare;
mod chart;
mod child;
mod client;
mod compare;
mod figures;
mod fleet;
mod gate;
mod goals;
mod load;
mod machine;
mod page;
mod process;
mod raw;
mod seed;
mod side;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::seed::SeedData;
use crate::workload::{Answers, Case, Script};

/// The same allocator as in the `ward` binary, so that both sides of a comparison allocate alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An error that ends a measurement: a sentence for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure Ward beside its peers and write the page.
    Compare(compare::Plan),
    /// Measure `authorize` beside a plain read and write its page.
    Gate(compare::Plan),
    /// Write the page again from the stored figures of a measurement.
    Page {
        /// The figures of a measurement, which `compare` stores in its data folder.
        #[arg(long)]
        figures: PathBuf,
        /// The file for the page. Its content is replaced.
        #[arg(long)]
        out: PathBuf,
    },
    /// Serve fixed answers from a bare axum router.
    Bare {
        /// The address to listen on, such as 127.0.0.1:8000.
        #[arg(long)]
        listen: SocketAddr,
        /// The folder of the answers: files `NAME.STATUS`, each served at `/fixed/NAME`.
        #[arg(long)]
        fixed: PathBuf,
    },
    /// Send requests for `/fixed/get` of a server at its highest rate, to compare this load generator with others.
    Load {
        /// The address of the server, such as 127.0.0.1:8000.
        #[arg(long)]
        to: SocketAddr,
        /// The number of connections, each with one request at a time.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// The duration of the load, in seconds.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
}

#[expect(clippy::print_stderr, reason = "a command's failure goes to the person who ran it")]
fn main() -> std::process::ExitCode {
    let done = match Args::parse().command {
        Command::Compare(plan) => compare::run(&plan, !cfg!(debug_assertions)),
        Command::Gate(plan) => gate::run(&plan, !cfg!(debug_assertions)),
        Command::Page { figures, out } => page_again(&figures, &out),
        Command::Bare { listen, fixed } => on_runtime(bare::run(listen, fixed)),
        Command::Load { to, connections, seconds } => load_once(to, connections, seconds),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// The same runtime as in the `ward` binary, with one thread per core.
fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn page_again(figures: &std::path::Path, out: &std::path::Path) -> Result<(), Failure> {
    page::write(&serde_json::from_slice(&std::fs::read(figures)?)?, out)
}

fn load_once(to: SocketAddr, connections: usize, seconds: f64) -> Result<(), Failure> {
    let nobody = || SeedData {
        workspace: String::new(),
        // The text is as long as a real key, because the size of a request is a part of its cost.
        key: "k".repeat(76),
        revoked: String::new(),
        tenants: vec![seed::Tenant { workspace: String::new(), key: String::new(), service: String::new() }],
    };
    let seeded = Arc::new(nobody());
    let script = |connection| Script::new(&seeded, Case::Get, Answers::Fixed, 0, connection);
    let scripts = (0..connections).map(script).collect();
    let before = process::own_cpu()?;
    let done = load::peak(to, scripts, Duration::from_secs_f64(seconds), |_| Ok(()))?;
    let used = process::own_cpu()?.saturating_sub(before).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    let each = used * 1e6 / done.requests as f64;
    compare::say(&format!("{:.0} requests/s, {each:.1} µs of the load's CPU per request", done.rate()));
    Ok(())
}
