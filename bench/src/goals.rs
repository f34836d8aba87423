//! Ward's performance goals, and whether a measurement reaches them.

use std::fmt;

use crate::figures::Figures;
use crate::side::{Engine, Side};
use crate::workload::Case;

/// The number of connections for the goals on rates.
const CROWD: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    NotMet,
    /// The measurement has no figure for the goal.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::Unknown => "not measured",
        })
    }
}

/// A goal with the measured value.
pub struct Goal {
    /// The measured quantity, as the page names it.
    pub what: String,
    /// The wanted value, with "at least" or "at most".
    pub wanted: String,
    pub found: String,
    /// Whether the measured value reaches the goal.
    pub verdict: Verdict,
}

#[derive(Clone, Copy)]
enum Threshold {
    AtLeast(f64),
    AtMost(f64),
}

fn goal(what: String, bound: Threshold, found: Option<f64>, show: impl Fn(f64) -> String) -> Goal {
    let (words, value) = match bound {
        Threshold::AtLeast(value) => ("at least", value),
        Threshold::AtMost(value) => ("at most", value),
    };
    let verdict = match (found, bound) {
        (None, _) => Verdict::Unknown,
        (Some(found), Threshold::AtLeast(value)) if found >= value => Verdict::Met,
        (Some(found), Threshold::AtMost(value)) if found <= value => Verdict::Met,
        (Some(_), _) => Verdict::NotMet,
    };
    let found = found.map_or_else(|| "–".to_owned(), &show);
    Goal { what, wanted: format!("{words} {}", show(value)), found, verdict }
}

/// All goals, in the order of the page.
pub fn goals(figures: &Figures) -> Vec<Goal> {
    let sqlite = Side::Ward(Engine::Sqlite);
    let share = |value: f64| format!("{value:.2}");
    let times = |value: f64| format!("{value:.1}×");
    let ratio = |case, of, to| figures.case(case).and_then(|measured| measured.ratio(of, to, CROWD));
    let to_limit = |case: Case, to: Side, wanted| {
        let what = format!("{}: {} ÷ {}", case.name(), sqlite.name(), to.name());
        goal(what, Threshold::AtLeast(wanted), ratio(case, sqlite, to), share)
    };
    let mut goals = vec![
        to_limit(Case::Get, Side::Bare, 0.5),
        to_limit(Case::Get, Side::Fixed, 0.65),
        to_limit(Case::List, Side::Bare, 0.25),
    ];
    for (engine, reads, creations) in [(Engine::Sqlite, 10.0, 6.0), (Engine::Postgres, 4.0, 2.0)] {
        let ward = Side::Ward(engine);
        for peer in [Side::Peer(engine), Side::Shortcut(engine)] {
            for (case, wanted) in [
                (Case::Get, reads),
                (Case::List, reads),
                (Case::Bootstrap, creations),
                (Case::Own, creations),
            ] {
                let what = format!("{}: {} ÷ {}", case.name(), ward.name(), peer.name());
                goals.push(goal(what, Threshold::AtLeast(wanted), ratio(case, ward, peer), times));
            }
        }
    }
    let creations = figures.case(Case::Bootstrap).and_then(|measured| measured.cell(sqlite, CROWD)?.rate());
    goals.push(goal(
        format!("creations a second: {}", sqlite.name()),
        Threshold::AtLeast(10_000.0),
        creations,
        |value| format!("{value:.0}"),
    ));
    goals.push(to_limit(Case::Bootstrap, Side::Raw(Engine::Sqlite), 0.35));
    for case in [Case::Get, Case::List] {
        let what = format!("{}, p99 at half the highest rate: {} ÷ bare axum", case.name(), sqlite.name());
        let found = figures.case(case).and_then(|measured| measured.tail_ratio(sqlite, Side::Bare));
        goals.push(goal(what, Threshold::AtMost(1.5), found, times));
    }
    let mebibytes = |value: f64| format!("{value:.0} MiB");
    for side in [sqlite, Side::Ward(Engine::Postgres)] {
        let held = figures.held.iter().find(|held| held.side == side);
        let (idle, loaded) = (held.map(|held| held.idle), held.map(|held| held.loaded));
        let what = format!("memory, idle: {}", side.name());
        goals.push(goal(what, Threshold::AtMost(30.0), idle, mebibytes));
        let what = format!("memory with {CROWD} connections: {}", side.name());
        let loaded = loaded.filter(|_| figures.most() == CROWD);
        goals.push(goal(what, Threshold::AtMost(100.0), loaded, mebibytes));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::example;

    #[test]
    fn each_goal_is_judged_by_its_own_figure() {
        let goals = goals(&example());
        let verdict = |what: &str| goals.iter().find(|goal| goal.what == what).unwrap().verdict;
        assert_eq!(verdict("GET one: Ward (SQLite) ÷ bare axum"), Verdict::Unknown);
        assert_eq!(verdict("GET one: Ward (SQLite) ÷ FastAPI (SQLite)"), Verdict::Met);
        assert_eq!(verdict("list of 20: Ward (SQLite) ÷ FastAPI (SQLite)"), Verdict::Unknown);
        assert_eq!(verdict("creations a second: Ward (SQLite)"), Verdict::Met);
        assert_eq!(verdict("memory, idle: Ward (SQLite)"), Verdict::Met);
        assert_eq!(verdict("memory with 64 connections: Ward (SQLite)"), Verdict::NotMet);
    }
}
