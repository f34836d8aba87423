//! The results of a measurement, and the numbers that follow from them.

use serde::{Deserialize, Serialize};

use crate::load::Latency;
use crate::side::{Engine, Side};
use crate::workload::Case;

/// All results of one measurement, as `compare` stores them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub machine: Machine,
    /// The command that repeats the measurement.
    pub command: String,
    /// Whether Ward was built with the profile of a release.
    pub release: bool,
    /// The number of rounds; each ran every case on every side.
    pub rounds: u32,
    /// The duration of one run, in seconds.
    pub seconds: f64,
    /// The numbers of connections that were measured, ascending.
    pub connections: Vec<usize>,
    /// The engines. The others are compared with the first one.
    pub engines: Vec<Engine>,
    /// The sides, in the order of the tables.
    pub sides: Vec<Side>,
    /// The rates and latencies of each case.
    pub measured: Vec<CaseFigures>,
    /// The memory and the start time of each server.
    pub held: Vec<Footprint>,
    /// The failures, as sentences for the page.
    pub remarks: Vec<String>,
}

/// The machine on which a measurement ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The number of cores. Servers and load share them.
    pub cores: usize,
    /// The model name of the processor.
    pub model: String,
    /// The memory of the machine, in GiB.
    pub memory: f64,
    /// The operating system and its kernel.
    pub system: String,
    /// The version of PostgreSQL, if it was measured.
    pub postgres: Option<String>,
    /// Microseconds for a durable write of 4 KiB where the files of SQLite are.
    pub flush: f64,
    /// Microseconds for a durable write of 4 KiB where the files of PostgreSQL are.
    pub postgres_flush: Option<f64>,
    /// The system's load average over the minute before the measurement: processes that wait for a core.
    pub busy: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseFigures {
    pub case: Case,
    /// The highest rates, by side and number of connections.
    pub cells: Vec<Cell>,
    /// The latencies of each side, at half of the highest rate of a side.
    pub paced: Vec<PacedLatencies>,
}

/// The highest rates of one side with one number of connections. `None` stands for a failed run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub side: Side,
    pub connections: usize,
    /// Requests per second, one value for each round.
    pub rates: Vec<Option<f64>>,
    /// Microseconds of the server's CPU time per request, by round.
    pub cpu: Vec<Option<f64>>,
    /// Microseconds of the database server's CPU time per request, if there is such a server.
    pub database: Vec<Option<f64>>,
}

/// The latencies of one side at a fixed rate. `None` stands for a failed run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PacedLatencies {
    pub side: Side,
    /// The side whose highest rate sets the load: half of that rate.
    pub beside: Side,
    /// The rate of the load, in requests per second.
    pub rate: u32,
    /// The latencies, one value for each round.
    pub latencies: Vec<Option<Latency>>,
}

/// The memory of a server in MiB: the sum over its processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Footprint {
    pub side: Side,
    /// The memory before the first request of a measurement.
    pub idle: f64,
    /// The largest memory at the end of a run with the most connections, while they were open.
    pub loaded: f64,
    /// The sum of the largest memory of each process at any time.
    pub peak: f64,
    /// Milliseconds from the start of the server to its first answer.
    pub first_answer: f64,
}

impl Figures {
    /// The largest number of connections that was measured.
    pub fn most(&self) -> usize {
        self.connections.last().copied().unwrap_or_default()
    }

    /// The results of one case, if it was measured.
    pub fn case(&self, case: Case) -> Option<&CaseFigures> {
        self.measured.iter().find(|measured| measured.case == case)
    }
}

impl CaseFigures {
    /// The highest rates of a side with this number of connections.
    pub fn cell(&self, side: Side, connections: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.side == side && cell.connections == connections)
    }

    /// The latencies of a side at half the highest rate of the side `beside`.
    pub fn paced(&self, side: Side, beside: Side) -> Option<&PacedLatencies> {
        self.paced.iter().find(|paced| paced.side == side && paced.beside == beside)
    }

    /// The median of the ratios of rates, each within one round. A disturbance that lasts longer than a round affects
    /// both rates, so it cancels out.
    pub fn ratio(&self, of: Side, to: Side, connections: usize) -> Option<f64> {
        let (of, to) = (self.cell(of, connections)?, self.cell(to, connections)?);
        median(&of.rates.iter().zip(&to.rates).map(|(of, to)| Some((*of)? / (*to)?)).collect::<Vec<_>>())
    }

    /// The median of the ratios of the 99th percentiles, each within one round, at the same rate.
    pub fn tail_ratio(&self, of: Side, to: Side) -> Option<f64> {
        let (of, to) = (self.paced(of, of)?, self.paced(to, of)?);
        let both = of.latencies.iter().zip(&to.latencies);
        median(&both.map(|(of, to)| Some((*of)?.p99 / (*to)?.p99)).collect::<Vec<_>>())
    }
}

impl Cell {
    /// The median of the rates, in requests per second.
    pub fn rate(&self) -> Option<f64> {
        median(&self.rates)
    }
}

impl PacedLatencies {
    /// The median over the rounds of one percentile.
    pub fn percentile(&self, which: impl Fn(&Latency) -> f64) -> Option<f64> {
        median(&self.latencies.iter().map(|latency| latency.as_ref().map(&which)).collect::<Vec<_>>())
    }
}

/// The median of the values that are present. For an even number of values it is the mean of the middle two.
pub fn median(of: &[Option<f64>]) -> Option<f64> {
    let mut sorted: Vec<f64> = of.iter().flatten().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(f64::midpoint(sorted[low], sorted[high]))
}

/// Invented figures for tests of the tables and charts.
#[cfg(test)]
pub fn example() -> Figures {
    let ward = Side::Ward(Engine::Sqlite);
    let cell = |side, rate: f64| Cell {
        side,
        connections: 64,
        rates: vec![Some(rate), Some(rate * 1.2), Some(rate * 0.9)],
        cpu: vec![Some(20.0); 3],
        database: vec![None; 3],
    };
    let paced = |side, p99: f64| PacedLatencies {
        side,
        beside: ward,
        rate: 5_000,
        latencies: vec![Some(Latency { p50: p99 / 2.0, p99, p999: p99 * 2.0 }); 3],
    };
    let sides = vec![ward, Side::Peer(Engine::Sqlite), Side::Bare];
    let measured = |case| CaseFigures {
        case,
        cells: vec![
            cell(ward, 10_000.0),
            cell(Side::Peer(Engine::Sqlite), 500.0),
            Cell { rates: vec![None; 3], ..cell(Side::Bare, 1.0) },
        ],
        paced: vec![paced(ward, 900.0), paced(Side::Bare, 700.0)],
    };
    Figures {
        machine: Machine {
            cores: 2,
            model: "a core".to_owned(),
            memory: 8.0,
            system: "Linux".to_owned(),
            postgres: None,
            flush: 500.0,
            postgres_flush: None,
            busy: 0.1,
        },
        command: "bench/run".to_owned(),
        release: true,
        rounds: 3,
        seconds: 1.0,
        connections: vec![64],
        engines: vec![Engine::Sqlite],
        sides,
        measured: vec![measured(Case::Get), measured(Case::Bootstrap)],
        held: vec![Footprint { side: ward, idle: 20.0, loaded: 120.0, peak: 130.0, first_answer: 30.0 }],
        remarks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-9)
    }

    #[test]
    fn medians_pass_over_what_failed() {
        assert!(is(median(&[Some(3.0), None, Some(1.0), Some(2.0)]), 2.0));
        assert!(is(median(&[Some(3.0), Some(1.0)]), 2.0));
        assert_eq!(median(&[None, None]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut figures = example();
        let (ward, peer) = (Side::Ward(Engine::Sqlite), Side::Peer(Engine::Sqlite));
        // The machine is twice as fast in one round, for both sides. The ratio does not change.
        for cell in &mut figures.measured[0].cells {
            cell.rates[1] = cell.rates[1].map(|rate| rate * 2.0);
        }
        assert!(is(figures.measured[0].ratio(ward, peer, 64), 20.0));
        assert_eq!(figures.measured[0].ratio(ward, Side::Bare, 64), None);
        assert_eq!(figures.measured[0].ratio(ward, peer, 16), None);
        assert!(is(figures.measured[0].tail_ratio(ward, Side::Bare), 900.0 / 700.0));
    }
}
