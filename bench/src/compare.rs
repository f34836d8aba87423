//! The alternating run: every case runs on every side, in several rounds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::child::fresh_folder;
use crate::figures::{CaseFigures, Cell, Figures, Machine, PacedLatencies};
use crate::fleet::{Fleet, Peak, flush_time};
use crate::side::{Engine, Side};
use crate::workload::Case;
use crate::{Failure, machine, page};

/// The options of `bench compare`: the programs, the cases and the load.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// The `ward` binary, built with its feature `bench`.
    #[arg(long)]
    pub ward: PathBuf,
    /// The program of the peer. Without it, the peer is not measured.
    #[arg(long = "peer")]
    peer_program: Option<PathBuf>,
    /// The folder for databases, on the disk to be measured. Its content is deleted.
    #[arg(long)]
    pub data: PathBuf,
    /// The page to write. Its charts go into a folder beside it, which has the same name without the extension.
    #[arg(long, overrides_with = "out")]
    pub out: PathBuf,
    /// The number of rounds; each round runs every case on every side.
    #[arg(long, default_value_t = 3, overrides_with = "rounds")]
    pub rounds: usize,
    /// The duration of one run, in seconds.
    #[arg(long, default_value_t = 1.0, overrides_with = "seconds")]
    pub seconds: f64,
    /// Run only the cases whose name contains this text. The option may be repeated.
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// The numbers of connections, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pub connections: Vec<usize>,
    /// The database engines to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
    pub engines: Vec<Engine>,
    /// Do not measure the peer, even if `--peer` names its program.
    #[arg(long)]
    without_peer: bool,
    /// Measure only the highest rates, no latencies.
    #[arg(long)]
    peak_only: bool,
}

impl Plan {
    /// The program of the peer, unless the peer is not measured.
    pub fn peer(&self) -> Option<&Path> {
        self.peer_program.as_deref().filter(|_| !self.without_peer)
    }

    fn cases(&self) -> Vec<Case> {
        let wanted =
            |case: &Case| self.only.is_empty() || self.only.iter().any(|part| case.name().contains(part));
        Case::ALL.into_iter().filter(wanted).collect()
    }

    /// The duration of one run at the highest rate.
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// The duration of a run at a fixed rate, as a multiple of a run at the highest rate.
const PACED: f64 = 1.5;
/// Seconds of overhead before and after each run.
const AROUND: f64 = 0.1;

struct Run<'a> {
    plan: &'a Plan,
    fleet: Fleet,
    figures: Figures,
}

/// Measures all cases, prints the results and writes the page.
pub fn run(plan: &Plan, release: bool) -> Result<(), Failure> {
    let mut connections = plan.connections.clone();
    connections.sort_unstable();
    connections.dedup();
    let cases = plan.cases();
    if cases.is_empty() {
        let names: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
        return Err(format!("--only: no case has {:?} in its name: {}", plan.only, names.join("; ")).into());
    }
    if plan.rounds == 0 || connections.first().is_none_or(|least| *least == 0) || plan.seconds <= 0.0 {
        return Err("--rounds, --seconds and --connections must be above 0".into());
    }
    let mut machine = Machine::here()?;
    let began = Instant::now();
    fresh_folder(&plan.data)?;
    machine.flush = flush_time(&plan.data)?;
    say("starting and filling the servers");
    let fleet = Fleet::start(plan)?;
    machine.postgres_flush = fleet.postgres_flush()?;
    machine.postgres = fleet.postgres_flush()?.map(|_| machine::postgres_version());
    let figures = Figures {
        machine,
        command: command(),
        release,
        rounds: u32::try_from(plan.rounds)?,
        seconds: plan.seconds,
        connections,
        engines: plan.engines.clone(),
        sides: fleet.sides(),
        measured: Vec::new(),
        held: Vec::new(),
        remarks: Vec::new(),
    };
    let mut measuring = Run { plan, fleet, figures };
    measuring.announce(&cases);
    for case in cases {
        measuring.measure(case);
        measuring.figures.held = measuring.fleet.held()?;
        // The page is written after each case, so that a later failure does not lose this case.
        page::write(&measuring.figures, &plan.out)?;
        std::fs::write(plan.data.join("figures.json"), serde_json::to_vec(&measuring.figures)?)?;
    }
    let Run { fleet, figures, .. } = measuring;
    fleet.stop()?;
    say(&page::goals_table(&figures));
    say(&format!("{:.1} minutes; {} is written", began.elapsed().as_secs_f64() / 60.0, plan.out.display()));
    for remark in &figures.remarks {
        say(&format!("FAILED: {remark}"));
    }
    if figures.remarks.is_empty() { Ok(()) } else { Err("some runs failed; their errors are above".into()) }
}

impl Run<'_> {
    fn announce(&self, cases: &[Case]) {
        let each = |case: &Case| self.figures.sides.iter().filter(|side| side.has(*case)).count();
        let peaks: usize = cases.iter().map(each).sum::<usize>() * self.figures.connections.len();
        let paced: usize = cases.iter().map(|case| self.pacing(*case).len()).sum();
        let paced = if self.plan.peak_only { 0 } else { paced };
        let round = precise(peaks) * (self.plan.seconds + AROUND)
            + precise(paced) * (self.plan.seconds * PACED + AROUND);
        let minutes = round * precise(self.plan.rounds) / 60.0;
        say(&format!("the measurement takes about {minutes:.0} minutes"));
    }

    /// Measures one case with all numbers of connections.
    fn measure(&mut self, case: Case) {
        let mut measured = CaseFigures { case, cells: Vec::new(), paced: Vec::new() };
        for connections in self.figures.connections.clone() {
            self.peaks(&mut measured, connections);
            for cell in measured.cells.iter().filter(|cell| cell.connections == connections) {
                let rate = cell.rate().unwrap_or(f64::NAN);
                say(&format!(
                    "{:22} {connections:3} connections  {:26} {rate:9.0}/s",
                    case.name(),
                    cell.side.name()
                ));
            }
        }
        if !self.plan.peak_only {
            self.latencies(&mut measured);
        }
        self.figures.measured.push(measured);
    }

    fn peaks(&mut self, measured: &mut CaseFigures, connections: usize) {
        let case = measured.case;
        let sides: Vec<Side> = self.figures.sides.iter().copied().filter(|side| side.has(case)).collect();
        let mut cells: Vec<Cell> = sides.iter().map(|side| Cell::empty(*side, connections)).collect();
        for round in 0..self.plan.rounds {
            for number in order(round, sides.len()) {
                let side = sides[number];
                let peak = self.fleet.peak(side, case, connections, self.plan.time());
                let peak = self.noted(peak, case, side);
                cells[number].add(peak);
            }
        }
        measured.cells.extend(cells);
    }

    /// The pairs for latencies: a side, and the side whose highest rate sets the load. The load is half of that rate.
    /// The bare router is measured at the rates of each Ward.
    fn pacing(&self, case: Case) -> Vec<(Side, Side)> {
        let there = |side: &Side| self.figures.sides.contains(side);
        let own = self.figures.sides.iter().copied().filter(|side| side.has(case));
        let own = own.filter(|side| matches!(side, Side::Ward(_) | Side::Peer(_) | Side::Shortcut(_)));
        let mut pacing: Vec<(Side, Side)> = Vec::new();
        for side in own {
            pacing.push((side, side));
            if matches!(side, Side::Ward(_)) && there(&Side::Bare) {
                pacing.push((Side::Bare, side));
            }
        }
        pacing
    }

    fn latencies(&mut self, measured: &mut CaseFigures) {
        let case = measured.case;
        let connections = self.figures.most();
        let mut all: Vec<PacedLatencies> = Vec::new();
        for (side, beside) in self.pacing(case) {
            let Some(rate) = measured.cell(beside, connections).and_then(Cell::rate) else { continue };
            all.push(PacedLatencies { side, beside, rate: half(rate), latencies: Vec::new() });
        }
        // Tail latencies need a longer measurement than rates.
        let time = self.plan.time().mul_f64(PACED);
        for round in 0..self.plan.rounds {
            for number in order(round, all.len()) {
                let PacedLatencies { side, rate, .. } = all[number];
                let latency = self.fleet.paced(side, case, connections, rate, time);
                let latency = self.noted(latency, case, side);
                all[number].latencies.push(latency);
            }
        }
        measured.paced = all;
    }

    /// Records a failed run as a remark. The other runs continue.
    fn noted<T>(&mut self, run: Result<T, Failure>, case: Case, side: Side) -> Option<T> {
        match run {
            Ok(done) => Some(done),
            Err(error) => {
                let cause: String = error.to_string().chars().take(600).collect();
                let remark = format!("{}, {}: {cause}", case.name(), side.name());
                say(&format!("FAILED: {remark}"));
                self.figures.remarks.push(remark);
                None
            }
        }
    }
}

impl Cell {
    const fn empty(side: Side, connections: usize) -> Self {
        Self { side, connections, rates: Vec::new(), cpu: Vec::new(), database: Vec::new() }
    }

    fn add(&mut self, peak: Option<Peak>) {
        self.rates.push(peak.map(|peak| peak.rate));
        self.cpu.push(peak.map(|peak| peak.cpu));
        self.database.push(peak.and_then(|peak| peak.database));
    }
}

/// The order of the sides in a round. It alternates in direction, so that no side always follows the same other side.
fn order(round: usize, sides: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..sides).collect() } else { (0..sides).rev().collect() }
}

/// The command line of `bench/run`, from a variable, because this program gets different arguments.
fn command() -> String {
    std::env::var("WARD_BENCH_COMMAND").unwrap_or_else(|_| "bench/run".to_owned())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of a machine of today")]
fn half(rate: f64) -> u32 {
    ((rate / 2.0) as u32).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
const fn precise(number: usize) -> f64 {
    number as f64
}

/// Prints one line to the terminal.
#[expect(clippy::print_stdout, reason = "what it finds is what this program is for")]
pub fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_alternate_in_direction() {
        assert_eq!((order(0, 3), order(1, 3)), (vec![0, 1, 2], vec![2, 1, 0]));
    }

    #[test]
    fn a_fixed_rate_is_half_and_never_none() {
        assert_eq!((half(101.0), half(0.5)), (50, 1));
    }
}
