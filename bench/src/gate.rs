//! `authorize` beside a plain read. Both run in turns on the same server with the same key, so other load affects both.

use std::fmt::Write as _;

use crate::child::fresh_folder;
use crate::compare::{Plan, say};
use crate::figures::{Machine, median};
use crate::fleet::{Fleet, Peak};
use crate::side::{Engine, Side};
use crate::workload::Case;
use crate::{Failure, page};

/// The wanted rate of `authorize`, as a multiple of the rate of GET one.
const WANTED: f64 = 1.0;

/// The rounds of one engine with one number of connections. A failed run is `None`.
struct Row {
    engine: Engine,
    connections: usize,
    rounds: Vec<[Option<Peak>; 2]>,
}

impl Row {
    fn median(&self, of: impl Fn(&[Option<Peak>; 2]) -> Option<f64>) -> Option<f64> {
        median(&self.rounds.iter().map(of).collect::<Vec<_>>())
    }

    /// The rate of `authorize` divided by that of GET one, the median of the ratios within each round.
    fn ratio(&self) -> Option<f64> {
        self.median(|[get, authorize]| Some(authorize.as_ref()?.rate / get.as_ref()?.rate))
    }

    fn text(&self) -> String {
        let shown = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let rate = |case: usize| shown(self.median(|round| Some(round[case]?.rate)), 0);
        let cpu = |case: usize| shown(self.median(|round| Some(round[case]?.cpu)), 1);
        let verdict = match self.ratio() {
            Some(ratio) if ratio >= WANTED => "met",
            Some(_) => "**not met**",
            None => "not measured",
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {verdict} |\n",
            Side::Ward(self.engine).name(),
            self.connections,
            rate(0),
            rate(1),
            shown(self.ratio(), 2),
            cpu(0),
            cpu(1),
        )
    }
}

/// Measures both operations, prints the rows and writes the page.
pub fn run(plan: &Plan, release: bool) -> Result<(), Failure> {
    let machine = Machine::here()?;
    fresh_folder(&plan.data)?;
    let mut fleet = Fleet::start(plan)?;
    let mut rows = Vec::new();
    for engine in &plan.engines {
        for connections in &plan.connections {
            let mut row = Row { engine: *engine, connections: *connections, rounds: Vec::new() };
            for round in 0..plan.rounds {
                let mut peaks = [None, None];
                let mut turns = [(0, Case::Get), (1, Case::Authorize)];
                if !round.is_multiple_of(2) {
                    turns.reverse();
                }
                for (at, case) in turns {
                    peaks[at] = Some(fleet.peak(Side::Ward(*engine), case, *connections, plan.time())?);
                }
                row.rounds.push(peaks);
            }
            say(row.text().trim_end());
            rows.push(row);
        }
    }
    fleet.stop()?;
    std::fs::write(&plan.out, text(plan, &machine, &rows, release))?;
    Ok(())
}

fn text(plan: &Plan, machine: &Machine, rows: &[Row], release: bool) -> String {
    let mut table =
        "| server | connections | GET one, requests/s | authorize, requests/s | authorize ÷ GET one | \
                     CPU µs of GET one | CPU µs of authorize | at least 1.00 |\n\
                     |---|---:|---:|---:|---:|---:|---:|---|\n"
            .to_owned();
    for row in rows {
        table.push_str(&row.text());
    }
    let mut page = format!(
        "# The gate for other services, measured\n\n\
         `bench/gate` writes this page. `GET /v1/{{workspace_id}}/authorize?permission=Workspace.view` and \
         `GET /v1/workspaces/{{workspace_id}}` run in turns with the same key, at the highest rate that the connections reach. The \
         goal is that `authorize` is at least as fast.\n\n{}\n\n\
         The figures are medians of {} alternating rounds of {} s. A ratio is the median of the ratios within each round. CPU is \
         the time of Ward's process per request.\n\n{table}\n",
        page::machine_line(machine),
        plan.rounds,
        plan.seconds,
    );
    if !release {
        page.push_str("**This is a debug build, so its figures say nothing about Ward.**\n\n");
    }
    let command = std::env::var("WARD_BENCH_COMMAND").unwrap_or_else(|_| "bench/gate".to_owned());
    // Writing to a string cannot fail.
    let _ = writeln!(page, "Command: `{command}`");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rates: &[(f64, f64)]) -> Row {
        let peak = |rate| Some(Peak { rate, cpu: 2.0, database: None });
        let rounds = rates.iter().map(|(get, authorize)| [peak(*get), peak(*authorize)]).collect();
        Row { engine: Engine::Sqlite, connections: 16, rounds }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_ratios_within_the_rounds() {
        // The machine was busy in the second round, which changes both rates and not their ratio.
        let slowed = row(&[(100.0, 110.0), (50.0, 55.0), (100.0, 120.0)]);
        assert!((slowed.ratio().unwrap() - 1.1).abs() < 1e-9);
        assert_eq!(slowed.text(), "| Ward (SQLite) | 16 | 100 | 110 | 1.10 | 2.0 | 2.0 | met |\n");
        assert!(row(&[(100.0, 90.0)]).text().ends_with("| **not met** |\n"));
        let failed = Row { rounds: vec![[None, None]], ..row(&[]) };
        assert!(failed.text().ends_with("| – | – | – | not measured |\n"), "{}", failed.text());
    }
}
