//! What came of a try, for its delivery and for its lane.

use std::time::Duration;

use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_ehr::delivery::Verdict;

use super::super::backoff;
use super::super::outbox::{Leased, Settled};

/// How one try went.
pub struct Tried {
    /// Where it leaves the delivery.
    pub settled: Settled,
    /// A word for it.
    pub outcome: &'static str,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What the EHR said, or why there was no answer.
    pub detail: Option<Value>,
    /// How long the EHR wants to be let alone.
    pub after: Option<Duration>,
    /// Why the whole lane is to be held, if it is.
    pub hold: Option<&'static str>,
    /// Whether the EHR was asked.
    pub was_sent: bool,
    /// The EHR took it or said no to it: it works.
    pub arrived: bool,
    /// The EHR does not work.
    pub failed: bool,
}

impl Tried {
    /// What a verdict means for the delivery and for its lane.
    pub fn of(leased: &Leased, verdict: Verdict, now: Timestamp) -> Self {
        let mut tried = Self { was_sent: true, ..Self::not_begun() };
        match verdict {
            Verdict::Synced { location } => {
                tried.outcome = "synced";
                tried.arrived = true;
                tried.settled = Settled::Synced(location);
            }
            Verdict::Duplicate { oldest, count } => {
                tried.outcome = "duplicate";
                tried.arrived = true;
                tried.detail = Some(json!({ "oldest": oldest, "count": count }));
                tried.settled = Settled::Failed("duplicate", true);
            }
            Verdict::Refused { status, words } => {
                tried.outcome = "refused";
                (tried.status, tried.detail, tried.arrived) = (Some(status), words, true);
                tried.settled = Settled::Failed("refused", leased.maybe_sent);
            }
            Verdict::Again { status, after, maybe_sent, why, words } => {
                tried.outcome = why;
                let after = after.map(|after| after.min(backoff::LONGEST_ASKED));
                (tried.status, tried.detail, tried.after) = (status, words, after);
                tried.failed = why != "conflict";
                let over = now >= leased.tried_since.saturating_add(backoff::TRIED_FOR);
                let mut wait = backoff::wait(leased.attempt, after, backoff::random(now));
                if maybe_sent {
                    wait = wait.max(backoff::SHORTEST_UNKNOWN);
                }
                tried.settled = if over {
                    Settled::Failed("tried_too_long", maybe_sent)
                } else {
                    Settled::Again(now.saturating_add(wait), maybe_sent)
                };
            }
            Verdict::Unauthorized { status, words } => {
                tried.outcome = "unauthorized";
                (tried.status, tried.detail, tried.hold) = (status, words, Some("unauthorized"));
                tried.settled = Settled::Again(now, leased.maybe_sent);
            }
            Verdict::Misconfigured { why } => {
                tried.outcome = "misconfigured";
                (tried.detail, tried.hold) = (Some(json!({ "text": why })), Some("misconfigured"));
                tried.settled = Settled::Again(now, leased.maybe_sent);
            }
            Verdict::CannotTell { status, words } => {
                tried.outcome = "cannot_tell";
                (tried.status, tried.detail) = (status, words);
                tried.settled = Settled::Held("cannot_tell", true);
            }
        }
        tried
    }

    pub const fn not_begun() -> Self {
        Self {
            settled: Settled::Untried,
            outcome: "untried",
            status: None,
            detail: None,
            after: None,
            hold: None,
            was_sent: false,
            arrived: false,
            failed: false,
        }
    }

    pub fn unsent(settled: Settled, outcome: &'static str) -> Self {
        Self { settled, outcome, ..Self::not_begun() }
    }
}
