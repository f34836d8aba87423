//! The table.

use std::fmt;
use std::time::Duration;

use crate::compare::Figures;
use crate::load::CONNECTIONS;

/// The sides of a comparison, in the order of a row's figures.
const SIDES: [&str; 3] = ["Ward", "fixed route in Ward", "bare axum"];

/// One case on every side.
pub struct Row {
    /// Its name.
    pub case: &'static str,
    /// Requests a second at which latencies were taken.
    pub rate: u32,
    /// What was measured.
    pub figures: [Figures; 3],
}

/// The middle one.
pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the rounds' own ratios: what disturbs a machine for longer than a round cancels out.
fn ratio(of: &Figures, to: &Figures) -> f64 {
    let ratios: Vec<f64> = of.rates.iter().zip(&to.rates).map(|(of, to)| of / to).collect();
    median(&ratios)
}

fn micros(side: &Figures, of: impl Fn(&crate::load::Latency) -> Duration) -> f64 {
    let all: Vec<f64> = side.latencies.iter().map(|latency| of(latency).as_secs_f64() * 1e6).collect();
    median(&all)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ward, ..] = &self.figures;
        for (name, side) in SIDES.iter().zip(&self.figures) {
            let low = side.rates.iter().copied().fold(f64::INFINITY, f64::min);
            let high = side.rates.iter().copied().fold(0.0, f64::max);
            write!(
                f,
                "| {} | {name} | {:.0} ({low:.0}–{high:.0}) | {:.2} | {:.1} |",
                self.case,
                median(&side.rates),
                ratio(ward, side),
                median(&side.cpu),
            )?;
            if side.latencies.is_empty() {
                writeln!(f, " – | – | – |")?;
            } else {
                let (p50, p99) = (micros(side, |latency| latency.p50), micros(side, |latency| latency.p99));
                writeln!(f, " {} | {p50:.0} | {p99:.0} |", self.rate)?;
            }
        }
        Ok(())
    }
}

/// The page.
pub fn text(rounds: u32, seconds: u64, rows: &[Row], [ward, bare]: [u64; 2], flush: Duration) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let table: String = rows.iter().map(ToString::to_string).collect();
    format!(
        "# Performance\n\n\
         Written by `bench/run`; what it measures and how to read it is in [bench/README.md](../bench/README.md).\n\n\
         Machine: {cores} cores ({arch}, {os}), shared between server and load; making 4 KiB durable takes \
         {flush} µs. {CONNECTIONS} connections; {rounds} \
         alternating rounds of {seconds} s; medians. Every `Ward / this` is a ratio of rates within one round.\n\n\
         | case | server | requests/s (least–most) | Ward / this | CPU µs/request | at requests/s | p50 µs | p99 µs |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n\
         {table}\n\
         p50 and p99 count from when a request was due, at half the slowest side's highest rate. Most memory resident at \
         any time: Ward {ward} MiB, bare axum {bare} MiB.\n\n\
         Command: `bench/run --rounds {rounds} --seconds {seconds}`\n",
        arch = std::env::consts::ARCH,
        os = std::env::consts::OS,
        flush = flush.as_micros(),
    )
}

/// Prints to the terminal.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub fn show(text: &str) {
    println!("{text}");
}
