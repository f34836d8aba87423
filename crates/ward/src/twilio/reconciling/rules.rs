//! The pure rules of a comparison: its time, its period, and the meaning of a leg in Twilio's list.

use std::time::Duration;

use serde_json::Value;
use ward_db::Timestamp;
use ward_ehr::twilio::ListedCall;

use super::super::callback;
use crate::calls::{self, CallerId, Report};
use crate::ids::WorkspaceId;

const DAY: i64 = 86_400_000_000;
const HOUR: i64 = DAY / 24;
/// The first hour of the night (UTC), and the hours over which the workspaces are spread.
const NIGHT: (i64, i64) = (2, 4);
/// How long after its end a call is compared. Its last callback may come late, and the runtime's report too.
const SETTLED_AFTER: Duration = Duration::from_hours(1);
/// The longest period. Older calls are not compared.
const LONGEST_PERIOD: Duration = Duration::from_hours(31 * 24);
/// The longest time for which a call that has not ended holds back the next period. Twilio ends every call within a day.
const LONGEST_OPEN: Duration = Duration::from_hours(26);
/// The detail of a call by which people see that Twilio's list, and no report, told of it or of its end.
pub const FOUND_BY: &str = "found_by";
pub const RECONCILIATION: &str = "reconciliation";

/// The next night's time of this workspace.
pub fn next_night(workspace: WorkspaceId, now: Timestamp) -> Timestamp {
    let spread = i64::try_from(workspace.0.as_u128() % 14_400).unwrap_or(0) * (NIGHT.1 * HOUR / 14_400);
    let tonight = now.micros().div_euclid(DAY) * DAY + NIGHT.0 * HOUR + spread;
    Timestamp::from_micros(if tonight > now.micros() { tonight } else { tonight + DAY })
}

/// The period of a comparison that begins now. It continues the previous one. The calls before the account was set up are not
/// Ward's.
pub fn period(
    reconciled_until: Option<Timestamp>,
    account_since: Timestamp,
    now: Timestamp,
) -> (Timestamp, Timestamp) {
    let to = second(now.saturating_sub(SETTLED_AFTER));
    let from = second(reconciled_until.unwrap_or(account_since)).max(to.saturating_sub(LONGEST_PERIOD));
    (from.min(to), to)
}

/// The beginning of the second of a time, because Twilio's list has whole seconds.
fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.micros().div_euclid(1_000_000) * 1_000_000)
}

/// The beginning of the next period: the end of this one, or the start of the first call that had not ended.
pub fn next_period(to: Timestamp, open_since: Option<i64>) -> Timestamp {
    let open = open_since.map_or(to, Timestamp::from_micros);
    open.clamp(to.saturating_sub(LONGEST_OPEN), to)
}

/// The day of a time (UTC), as Twilio's filters take it.
pub fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

/// The day after that of a time. "On or before midnight of this date" has two readings, and one of them leaves the day out.
pub fn day_after(time: Timestamp) -> String {
    day(time.saturating_add(Duration::from_hours(24)))
}

/// The meaning of a leg for a comparison.
#[derive(Debug)]
pub enum Meaning {
    /// It is not a call of the period: a leg of another call, or a call of another time.
    Other,
    /// A call that has not ended, or only just, with its start.
    Open(Timestamp),
    Ended(Box<EndedCall>),
    /// A call that Ward cannot record, by its id.
    Unreadable(String),
}

/// An ended call in Twilio's list.
#[derive(Clone, Debug)]
pub struct EndedCall {
    pub sid: String,
    pub started_at: Timestamp,
    /// The call as the report of a callback.
    pub report: Report,
    /// Whether the called party stands in a leg only.
    pub needs_leg: bool,
}

/// The meaning of a leg in the list for a comparison of this period.
pub fn meaning(listed: &ListedCall, (from, to): (Timestamp, Timestamp), now: Timestamp) -> Meaning {
    let is_leg = listed.parent_call_sid.as_deref().is_some_and(|parent| !parent.is_empty());
    let started_at = listed.start_time.as_deref().and_then(callback::when);
    // A call that was not dialled has no start yet; a later list shows it.
    let Some(started_at) = started_at.filter(|_| !is_leg) else { return Meaning::Other };
    if started_at < from || started_at >= to {
        return Meaning::Other;
    }
    let unreadable = || Meaning::Unreadable(listed.sid.chars().take(64).collect());
    if !calls::is_sid(&listed.sid) {
        return unreadable();
    }
    let field = |name: &str| match name {
        "CallStatus" => listed.status.as_deref(),
        "From" => listed.from.as_deref(),
        "To" => listed.to.as_deref(),
        "Direction" => listed.direction.as_deref(),
        "CallDuration" => listed.duration.as_deref(),
        "Timestamp" => listed.end_time.as_deref(),
        _ => None,
    };
    let Ok(mut report) = callback::report(&field) else { return unreadable() };
    let length = Duration::from_millis(report.duration_ms.unwrap_or(0).unsigned_abs());
    let ended_at = report.ended_at.unwrap_or_else(|| started_at.saturating_add(length));
    if !report.status.is_final() || ended_at > now.saturating_sub(SETTLED_AFTER) {
        return Meaning::Open(started_at);
    }
    // The list names no caller where the network names none.
    report.caller.get_or_insert(CallerId::Withheld);
    report.ended_at = Some(ended_at.max(started_at));
    report.details.insert(FOUND_BY.to_owned(), Value::from(RECONCILIATION));
    let places = report.caller.as_ref().is_some_and(CallerId::is_softphone);
    let needs_leg = places && report.callee.as_ref().and_then(CallerId::number).is_none();
    Meaning::Ended(Box::new(EndedCall { sid: listed.sid.clone(), started_at, report, needs_leg }))
}

/// The number that Twilio dialled first on behalf of a softphone's call.
pub fn dialled(legs: &[ListedCall]) -> Option<CallerId> {
    let started = |leg: &ListedCall| leg.start_time.as_deref().and_then(callback::when);
    let number = |leg: &ListedCall| {
        CallerId::from_network(leg.to.as_deref()).ok().filter(|callee| callee.number().is_some())
    };
    let mut dialled: Vec<_> = legs.iter().filter_map(|leg| Some((started(leg), number(leg)?))).collect();
    // A leg without a start was never dialled, so it comes last.
    dialled.sort_by_key(|(started, _)| started.unwrap_or(Timestamp::MAX));
    dialled.into_iter().next().map(|(_, callee)| callee)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn leg(start: &str, end: Option<&str>, status: &str) -> ListedCall {
        ListedCall {
            sid: "CA1".to_owned(),
            from: Some("+15550100002".to_owned()),
            to: Some("+15550109999".to_owned()),
            status: Some(status.to_owned()),
            direction: Some("inbound".to_owned()),
            start_time: Some(start.to_owned()),
            end_time: end.map(str::to_owned),
            duration: Some("60".to_owned()),
            ..ListedCall::default()
        }
    }

    #[test]
    fn a_workspace_has_its_own_time_of_every_night() {
        for index in 0..200_u128 {
            let workspace = WorkspaceId(uuid::Uuid::from_u128(index * 7_919));
            let now = at("2026-04-18T12:00:00.000000Z");
            let night = next_night(workspace, now);
            assert!(night > at("2026-04-19T01:59:59.000000Z") && night < at("2026-04-19T06:00:00.000000Z"));
            assert_eq!(next_night(workspace, night).micros() - night.micros(), DAY);
        }
    }

    #[test]
    fn a_period_continues_the_previous_one_and_has_a_bound() {
        let now = at("2026-04-18T03:00:00.000000Z");
        let to = at("2026-04-18T02:00:00.000000Z");
        let set_up = at("2026-04-17T09:00:00.000000Z");
        assert_eq!(period(None, set_up, now), (set_up, to));
        let until = at("2026-04-17T02:00:00.000000Z");
        assert_eq!(period(Some(until), set_up, now), (until, to));
        let old = at("2025-01-01T00:00:00.000000Z");
        assert_eq!(period(Some(old), set_up, now).0, at("2026-03-18T02:00:00.000000Z"));
        assert_eq!(period(None, now, now), (to, to), "an empty period");
        let open = at("2026-04-17T23:00:00.000000Z").micros();
        assert_eq!(next_period(to, Some(open)), Timestamp::from_micros(open));
        assert_eq!(next_period(to, None), to);
        assert_eq!(next_period(to, Some(old.micros())), at("2026-04-17T00:00:00.000000Z"));
    }

    #[test]
    fn a_listed_leg_is_a_call_of_the_period_or_not() {
        let period = (at("2026-04-17T02:00:00.000000Z"), at("2026-04-18T02:00:00.000000Z"));
        let now = at("2026-04-18T03:00:00.000000Z");
        let meaning = |listed: &ListedCall| meaning(listed, period, now);
        let noon = "Fri, 17 Apr 2026 12:00:00 +0000";
        let end = Some("Fri, 17 Apr 2026 12:01:00 +0000");
        let Meaning::Ended(call) = meaning(&leg(noon, end, "completed")) else { panic!("it has ended") };
        assert_eq!(call.report.ended_at, Some(at("2026-04-17T12:01:00.000000Z")));
        let child = ListedCall { parent_call_sid: Some("CA0".to_owned()), ..leg(noon, end, "completed") };
        assert!(matches!(meaning(&child), Meaning::Other));
        let before = leg("Fri, 17 Apr 2026 01:59:59 +0000", end, "completed");
        assert!(matches!(meaning(&before), Meaning::Other));
        let later = leg("Sat, 18 Apr 2026 02:00:00 +0000", None, "completed");
        assert!(matches!(meaning(&later), Meaning::Other));
        assert!(matches!(meaning(&leg(noon, None, "in-progress")), Meaning::Open(_)));
        let recent =
            leg("Sat, 18 Apr 2026 01:59:00 +0000", Some("Sat, 18 Apr 2026 02:30:00 +0000"), "completed");
        assert!(matches!(meaning(&recent), Meaning::Open(_)), "its callback may be on its way");
        let missed = ListedCall { duration: None, ..leg(noon, None, "no-answer") };
        let Meaning::Ended(call) = meaning(&missed) else { panic!("it was not answered") };
        assert_eq!(call.report.ended_at, Some(call.started_at));
        let hidden =
            ListedCall { from: Some("+1555\u{200e}0100002".to_owned()), ..leg(noon, end, "completed") };
        assert!(matches!(meaning(&hidden), Meaning::Unreadable(sid) if sid == "CA1"));
    }
}
