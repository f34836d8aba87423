//! What was measured, and what follows from it.

use serde::{Deserialize, Serialize};

use crate::load::Latency;
use crate::side::{Engine, Side};
use crate::workload::Case;

/// A whole measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Where it was taken.
    pub machine: Machine,
    /// The command that takes it again.
    pub command: String,
    /// Whether Ward was built as it is released.
    pub release: bool,
    /// How often every case was run on every side.
    pub rounds: u32,
    /// Seconds of one run.
    pub seconds: f64,
    /// Numbers of connections, ascending.
    pub connections: Vec<usize>,
    /// Which engines, the one that others are compared with first.
    pub engines: Vec<Engine>,
    /// Which sides, in the order of the tables.
    pub sides: Vec<Side>,
    /// By case.
    pub measured: Vec<Measured>,
    /// By server.
    pub held: Vec<Held>,
    /// What went wrong.
    pub remarks: Vec<String>,
}

/// Where a measurement was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// How many cores, which servers and load share.
    pub cores: usize,
    /// What they are called.
    pub model: String,
    /// GiB of memory.
    pub memory: f64,
    /// The operating system and its kernel.
    pub system: String,
    /// What else is used, with versions.
    pub postgres: Option<String>,
    /// Microseconds that making 4 KiB durable takes where the files of SQLite are.
    pub flush: f64,
    /// The same where PostgreSQL's are.
    pub postgres_flush: Option<f64>,
    /// Processes that were waiting for a core a minute before it began, on average.
    pub busy: f64,
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Which.
    pub case: Case,
    /// Highest rates.
    pub cells: Vec<Cell>,
    /// Latencies.
    pub paced: Vec<Paced>,
}

/// Highest rates of one side with so many connections. `None`: that run failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Whose.
    pub side: Side,
    /// Connections.
    pub connections: usize,
    /// Requests a second, by round.
    pub rates: Vec<Option<f64>>,
    /// Microseconds of the server's CPU time per request, by round.
    pub cpu: Vec<Option<f64>>,
    /// The same of the database server, if there is one.
    pub database: Vec<Option<f64>>,
}

/// Latencies of one side at a fixed rate. `None`: that run failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paced {
    /// Whose.
    pub side: Side,
    /// The side at half of whose highest rate they were taken.
    pub beside: Side,
    /// That rate.
    pub rate: u32,
    /// By round.
    pub latencies: Vec<Option<Latency>>,
}

/// A server's memory in MiB, its processes together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Whose.
    pub side: Side,
    /// Before the first request of a measurement.
    pub idle: f64,
    /// The most found at the end of a run with the most connections, while they were open.
    pub loaded: f64,
    /// The most of each process at any time, added up.
    pub peak: f64,
    /// Milliseconds from its start to its first answer.
    pub first_answer: f64,
}

impl Figures {
    /// The most connections.
    pub fn most(&self) -> usize {
        self.connections.last().copied().unwrap_or_default()
    }

    /// One case.
    pub fn case(&self, case: Case) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.case == case)
    }
}

impl Measured {
    /// Highest rates of a side.
    pub fn cell(&self, side: Side, connections: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.side == side && cell.connections == connections)
    }

    /// Latencies of a side at half the highest rate of another, or of its own.
    pub fn paced(&self, side: Side, beside: Side) -> Option<&Paced> {
        self.paced.iter().find(|paced| paced.side == side && paced.beside == beside)
    }

    /// The median of the rounds' own ratios of rates: what disturbs a machine for longer than a round cancels out.
    pub fn ratio(&self, of: Side, to: Side, connections: usize) -> Option<f64> {
        let (of, to) = (self.cell(of, connections)?, self.cell(to, connections)?);
        median(&of.rates.iter().zip(&to.rates).map(|(of, to)| Some((*of)? / (*to)?)).collect::<Vec<_>>())
    }

    /// The median of the rounds' own ratios of the 99th percentile of `of` to that of `to` at the same rate.
    pub fn tail_ratio(&self, of: Side, to: Side) -> Option<f64> {
        let (of, to) = (self.paced(of, of)?, self.paced(to, of)?);
        let both = of.latencies.iter().zip(&to.latencies);
        median(&both.map(|(of, to)| Some((*of)?.p99 / (*to)?.p99)).collect::<Vec<_>>())
    }
}

impl Cell {
    /// The median of the rates.
    pub fn rate(&self) -> Option<f64> {
        median(&self.rates)
    }
}

impl Paced {
    /// The median of the rounds.
    pub fn percentile(&self, which: impl Fn(&Latency) -> f64) -> Option<f64> {
        median(&self.latencies.iter().map(|latency| latency.as_ref().map(&which)).collect::<Vec<_>>())
    }
}

/// The middle one of those that are there; between the middle two when they are even in number.
pub fn median(of: &[Option<f64>]) -> Option<f64> {
    let mut sorted: Vec<f64> = of.iter().flatten().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(f64::midpoint(sorted[low], sorted[high]))
}

/// Figures that no machine gave, to see that tables and charts are made of them.
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
    let paced = |side, p99: f64| Paced {
        side,
        beside: ward,
        rate: 5_000,
        latencies: vec![Some(Latency { p50: p99 / 2.0, p99, p999: p99 * 2.0 }); 3],
    };
    let sides = vec![ward, Side::Peer(Engine::Sqlite), Side::Bare];
    let measured = |case| Measured {
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
        held: vec![Held { side: ward, idle: 20.0, loaded: 120.0, peak: 130.0, first_answer: 30.0 }],
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
        // A machine that is twice as fast in one round is so for both: the ratio does not move.
        for cell in &mut figures.measured[0].cells {
            cell.rates[1] = cell.rates[1].map(|rate| rate * 2.0);
        }
        assert!(is(figures.measured[0].ratio(ward, peer, 64), 20.0));
        assert_eq!(figures.measured[0].ratio(ward, Side::Bare, 64), None);
        assert_eq!(figures.measured[0].ratio(ward, peer, 16), None);
        assert!(is(figures.measured[0].tail_ratio(ward, Side::Bare), 900.0 / 700.0));
    }
}
