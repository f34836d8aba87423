//! The consequences of an attempt for its delivery and its queue.

use std::time::Duration;

use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_ehr::Answered;
use ward_ehr::delivery::{Delivered, SearchOutcome, Verdict};

use super::super::backoff;
use super::super::matching::Review;
use super::super::outbox::{Leased, Settled};
use super::super::refusals::REFUSED;

pub struct Tried {
    /// The state in which it leaves the delivery.
    pub settled: Settled,
    /// The outcome as one word, such as `synced`.
    pub outcome: &'static str,
    /// The last answer, if there was one.
    pub answered: Option<Answered>,
    /// The number of creates that were sent and whose outcome is unknown: 0 or 1.
    pub unknowns: i64,
    /// The HTTP status of a look-up, whose answer is not kept.
    pub status: Option<u16>,
    /// The HTTP status of a refusal.
    pub refused: Option<u16>,
    /// The answer of the EHR, or the reason why there was none.
    pub detail: Option<Value>,
    /// The pause that the EHR asked for.
    pub after: Option<Duration>,
    /// The question for a person, for which the delivery is held.
    pub review: Option<Review>,
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
    /// The consequences of the search for duplicates.
    pub fn of_check(leased: &Leased, looked: SearchOutcome, now: Timestamp) -> Self {
        let SearchOutcome { verdict, answered } = looked;
        let ended =
            |outcome| Self { was_sent: true, arrived: true, ..Self::unsent(Settled::Checked, outcome) };
        let mut tried = match verdict {
            None => ended("check_found_none"),
            Some(Verdict::Synced { .. }) => ended("checked"),
            Some(Verdict::CannotTell { .. }) => ended("cannot_tell"),
            Some(verdict) => Self::of(leased, Delivered::without_answer(verdict), now),
        };
        // A search that gets no answer for a day ends. The delivery itself has arrived.
        if matches!(tried.settled, Settled::Failed("tried_too_long", _) | Settled::Held(..)) {
            tried.settled = Settled::Checked;
        }
        tried.answered = answered;
        tried
    }

    /// The consequences of the EHR's verdict.
    pub fn of(leased: &Leased, delivered: Delivered, now: Timestamp) -> Self {
        let Delivered { verdict, answered, unknown } = delivered;
        let cannot_tell = Self::unsent(Settled::Held("cannot_tell", true), "cannot_tell");
        let unknowns = i64::from(unknown);
        let mut tried = Self { was_sent: true, answered, unknowns, ..cannot_tell };
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
                (tried.refused, tried.detail, tried.arrived) = (Some(status), words, true);
                tried.settled = Settled::Failed(REFUSED, leased.maybe_sent);
            }
            Verdict::Again { status, after, maybe_sent, why, words } => {
                tried.outcome = why;
                let after = after.map(|after| after.min(backoff::LONGEST_ASKED));
                (tried.status, tried.detail, tried.after) = (status, words, after);
                tried.failed = why != "conflict";
                let over = now >= leased.tried_since.saturating_add(backoff::TRIED_FOR);
                let mut wait = backoff::wait(leased.attempt, after, backoff::random(now));
                if maybe_sent {
                    wait = wait.max(backoff::after_unknown(leased.unknowns + unknowns));
                }
                tried.settled = if over && why == "search_unproven" {
                    // Only a person can find out, because the EHR answers searches without a result.
                    Settled::Held("cannot_tell", maybe_sent)
                } else if over {
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

    /// The end of an attempt that leaves a question for a person. Nothing of the note was sent.
    pub fn for_review(leased: &Leased, review: Review) -> Self {
        let held = Settled::Held(review.needs.reason(), leased.maybe_sent);
        Self { review: Some(review), ..Self::unsent(held, "held") }
    }

    /// The end of an attempt without a request to the EHR.
    pub const fn unsent(settled: Settled, outcome: &'static str) -> Self {
        Self {
            settled,
            outcome,
            answered: None,
            unknowns: 0,
            refused: None,
            status: None,
            detail: None,
            after: None,
            review: None,
            hold: None,
            was_sent: false,
            arrived: false,
            failed: false,
        }
    }
}
