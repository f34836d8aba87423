//! The consequences of an attempt for its delivery and its queue.

use std::time::Duration;

use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_ehr::delivery::Verdict;

use super::super::backoff;
use super::super::outbox::{Leased, Settled};

/// The result of one attempt.
pub struct Tried {
    /// The state in which it leaves the delivery.
    pub settled: Settled,
    /// The outcome, as one word.
    pub outcome: &'static str,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The answer of the EHR, or the reason why there was none.
    pub detail: Option<Value>,
    /// The pause that the EHR asked for.
    pub after: Option<Duration>,
    /// The reason to pause the whole queue, if there is one.
    pub hold: Option<&'static str>,
    /// Whether a request was sent to the EHR.
    pub was_sent: bool,
    /// Whether the EHR accepted or refused the call, which shows that it works.
    pub arrived: bool,
    /// Whether the attempt shows that the EHR does not work.
    pub failed: bool,
}

impl Tried {
    /// The consequences of the EHR's verdict.
    pub fn of(leased: &Leased, verdict: Verdict, now: Timestamp) -> Self {
        let unknown = Settled::Held("cannot_tell", true);
        let mut tried = Self { was_sent: true, ..Self::unsent(unknown, "cannot_tell") };
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
                (tried.status, tried.detail) = (status, words);
            }
        }
        tried
    }

    /// The end of an attempt without a request to the EHR.
    pub const fn unsent(settled: Settled, outcome: &'static str) -> Self {
        Self {
            settled,
            outcome,
            status: None,
            detail: None,
            after: None,
            hold: None,
            was_sent: false,
            arrived: false,
            failed: false,
        }
    }
}
