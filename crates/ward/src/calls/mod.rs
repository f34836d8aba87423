//! Calls: the reported phone calls, the rule that makes some of them tests, and what the others owe to the EHR.
//!
//! The pure rules are here: how a report changes a call, and what a finished call owes. The first report
//! decides a call's caller and direction, which never change. A status never goes back.

pub mod actions;
pub mod amending;
pub mod api;
pub mod backfill;
mod caller_id;
mod choosing;
pub mod correcting;
pub mod operator;
pub mod patients;
pub mod resolving;
mod store;
pub(crate) mod told;

use serde_json::{Map, Value};
use ward_db::{Error, Timestamp, Tx};

pub use caller_id::{CallerId, NotACallerId};
pub use store::unfinished;

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::ids::{CallId, CredentialId, WorkspaceId};
use crate::names::named;
use crate::test_callers::TestParties;

/// The longest accepted sid, in characters.
const LONGEST_SID: usize = 128;

/// Whether a text can be a call's sid. It must contain a capital letter or a digit. The name of a collection
/// below `/calls/`, such as `benchmarks`, is therefore never taken for a call.
pub fn is_sid(text: &str) -> bool {
    (1..=LONGEST_SID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// The direction of a call, which also says whether the call is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Direction {
    /// A patient or another person called the practice.
    Inbound,
    /// The practice called a patient or another person.
    Outbound,
    /// A test by the lists of the workspace, or by its reporter.
    Test,
    /// A person tried the agent in the playground.
    Playground,
    /// A call that a simulation made.
    Simulated,
}

/// The direction of a real call. The delivery queue accepts only this type. That is the first of the
/// barriers between a test and a patient's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealDirection(Direction);

impl RealDirection {
    /// The name in the database and in answers.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether the other party called the practice.
    pub const fn is_inbound(self) -> bool {
        matches!(self.0, Direction::Inbound)
    }
}

named!(Direction);

impl Direction {
    /// The direction, if the call was real.
    pub const fn real(self) -> Option<RealDirection> {
        match self {
            Self::Inbound | Self::Outbound => Some(RealDirection(self)),
            Self::Test | Self::Playground | Self::Simulated => None,
        }
    }

    /// `real` for a call over a telephone line, tests included; `simulated` for the others.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Inbound | Self::Outbound | Self::Test => "real",
            Self::Playground | Self::Simulated => "simulated",
        }
    }

    /// The direction after a first report: `Test` if a rule applies, otherwise the reported one.
    pub const fn decided(reported: Self, rule: Option<TestRule>) -> Self {
        if rule.is_some() { Self::Test } else { reported }
    }
}

/// The rule that makes a call a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum TestRule {
    /// The caller's number is on the list of test callers.
    #[strum(to_string = "test_caller")]
    Caller,
    /// The called number is on the list of test callers.
    #[strum(to_string = "test_callee")]
    Callee,
    /// The call was made with a test credential.
    #[strum(to_string = "test_credential")]
    Credential,
}

named!(TestRule);

impl TestRule {
    /// The rule that applies to these parties, if there is one.
    pub const fn of_parties(caller_listed: bool, callee_listed: bool) -> Option<Self> {
        match (caller_listed, callee_listed) {
            (true, _) => Some(Self::Caller),
            (false, true) => Some(Self::Callee),
            (false, false) => None,
        }
    }

    /// The rule that applies to a call by the workspace's lists, if there is one.
    fn of(listed: TestParties) -> Option<Self> {
        let by_credential = listed.credential.then_some(Self::Credential);
        Self::of_parties(listed.caller, listed.callee).or(by_credential)
    }
}

/// The progress of a call, in the words of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Status {
    /// The reported word is not known to Ward.
    Unknown,
    /// The call is being placed, or waits for it.
    Initiated,
    /// The phone is ringing, but not answered.
    Ringing,
    /// The call was answered and goes on.
    InProgress,
    /// The call was answered and has ended.
    Completed,
    Busy,
    /// The call rang without an answer.
    NoAnswer,
    /// The call could not be connected.
    Failed,
    /// The call was cancelled before an answer.
    Canceled,
}

named!(Status);

impl Status {
    /// Whether no other status can follow.
    pub const fn is_final(self) -> bool {
        self.rank() == LAST
    }

    /// The order of statuses. A later status has a greater rank, so a lesser rank shows that a report is late.
    const fn rank(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Initiated => 1,
            Self::Ringing => 2,
            Self::InProgress => 3,
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Failed | Self::Canceled => LAST,
        }
    }
}

const LAST: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The platform's voice runtime, over the API.
    Runtime,
    /// Twilio's status callback, whose signature was verified.
    Twilio,
    /// Twilio's own list of calls, in which a call was found that no callback reported.
    TwilioList,
}

impl Reporter {
    /// The name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Twilio | Self::TwilioList => "twilio",
        }
    }
}

/// The decision whether a finished call is delivered to the EHR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Decision {
    /// A delivery, which was queued in the same transaction.
    Owed,
    /// Nothing, because the call was not real.
    Excluded,
    /// Nothing, because the workspace has no connector.
    NoConnector,
    /// Nothing, because the connector's integration was never provisioned.
    NotProvisioned,
    /// Nothing, because the integration's settings leave the call out.
    NotChosen,
}

named!(Decision);

/// The stored state of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// The id of the call, the contract's `entity_id`.
    pub id: CallId,
    /// The id of the call at the telephone provider.
    pub call_sid: String,
    /// The decided direction, which never changes.
    pub direction: Direction,
    /// The direction in the first report.
    pub reported_direction: Direction,
    /// The rule that made it a test, if one did.
    pub test_rule: Option<TestRule>,
    /// The source of the first report.
    pub reported_by: String,
    /// The caller's text; `None` if it is withheld.
    pub caller: Option<String>,
    /// The form of the caller's text; see [`CallerId::form`].
    pub caller_form: String,
    /// The version of the list of test callers that decided the direction.
    pub list_version: i64,
    pub status: Status,
    /// The reported reason for its end.
    pub completion_reason: Option<String>,
    /// The duration in milliseconds, so far or in all.
    pub duration_ms: Option<i64>,
    /// The start: as reported, or computed from end and duration, or the time of the first report.
    pub started_at: Timestamp,
    /// Whether a report gave the start.
    pub started_told: bool,
    /// The reported time of the end.
    pub ended_at: Option<Timestamp>,
    /// The service that answered the call.
    pub service_id: Option<String>,
    /// Reported fields that no filter uses.
    pub details: Map<String, Value>,
    /// The decision about the delivery; `None` until the call has finished.
    pub sync: Option<Decision>,
    /// The workspace's connector at the end of the call.
    pub sync_connector: Option<String>,
    pub first_reported_at: Timestamp,
    /// The timestamp of the last change.
    pub updated_at: Timestamp,
}

/// The content of one report; an absent field says nothing about the call.
#[derive(Clone, Debug)]
pub struct Report {
    /// The reported status of the call.
    pub status: Status,
    /// The caller; `None` if the report does not name one.
    pub caller: Option<CallerId>,
    /// The callee; `None` if the report does not name one.
    pub callee: Option<CallerId>,
    /// The key that made the call, if another key reports it.
    pub credential: Option<CredentialId>,
    /// The direction; `None` if the report does not name one.
    pub direction: Option<Direction>,
    /// The reason for the end of the call.
    pub completion_reason: Option<String>,
    /// The duration in milliseconds, so far or in all.
    pub duration_ms: Option<i64>,
    /// The start, if the report gives it.
    pub started_at: Option<Timestamp>,
    /// The end, if the report gives it.
    pub ended_at: Option<Timestamp>,
    /// The service that answered the call.
    pub service_id: Option<String>,
    /// The facts by which the EHR can find the patient.
    pub patient: patients::Facts,
    /// Other fields of the report, without nulls.
    pub details: Map<String, Value>,
}

impl CallRecord {
    /// Applies a report that arrived at `now`. A late report (of an earlier status, or after the end) only
    /// fills unknown fields, so the order of arrival does not matter. Parties and direction stay unchanged.
    pub fn take(&mut self, report: &Report, now: Timestamp) {
        // The reason may have come with an earlier report.
        let reason = report.completion_reason.as_deref().or(self.completion_reason.as_deref());
        let told = report.status.because(reason);
        let late = self.status.is_final() || told.rank() < self.status.rank();
        // This is a second end, of another kind than the first. Its reason and duration do not belong to
        // this call's end.
        let other_end = told.is_final() && self.status.is_final() && told != self.status;
        let former = (self.status.is_final(), self.duration_ms);
        if told.rank() > self.status.rank() {
            self.status = told;
        }
        if !other_end {
            fill(&mut self.completion_reason, report.completion_reason.as_ref(), late);
            fill(&mut self.duration_ms, report.duration_ms.as_ref(), late);
            fill(&mut self.ended_at, report.ended_at.as_ref(), late);
        }
        fill(&mut self.service_id, report.service_id.as_ref(), late);
        if let Some(started_at) = report.started_at.filter(|_| !(late && self.started_told)) {
            (self.started_at, self.started_told) = (started_at, true);
        }
        if !self.started_told {
            let tells_length = told.is_final() && report.duration_ms.is_some();
            let is_news = former != (self.status.is_final(), self.duration_ms);
            self.reckon_start((tells_length && is_news && !other_end).then_some(now));
        }
        for (name, value) in &report.details {
            if !(late && self.details.contains_key(name)) {
                self.details.insert(name.clone(), value.clone());
            }
        }
    }

    /// Computes a start that no report gave from the end and the duration. Without a reported end,
    /// `over_at` replaces it: the arrival of the report that the call had ended, with its duration.
    fn reckon_start(&mut self, over_at: Option<Timestamp>) {
        match (self.duration_ms, self.ended_at.or(over_at)) {
            (Some(duration_ms), Some(end)) => {
                self.started_at = Timestamp::from_micros(end.micros() - duration_ms * 1_000);
            }
            (None, Some(end)) => self.started_at = self.started_at.min(end),
            (_, None) => {}
        }
    }

    /// Whether the reported end is before the reported start.
    pub fn ends_before_start(&self) -> bool {
        self.started_told && self.ended_at.is_some_and(|end| end < self.started_at)
    }

    /// Removes personal data, for a caller that may not view calls.
    pub fn hide_people(&mut self) {
        self.caller = None;
        for name in ["phone_number", "patient_id", "encounter_id", "summary"] {
            self.details.remove(name);
        }
    }

    /// The text of one reported field.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.details.get(name).and_then(Value::as_str)
    }
}

fn fill<T: Clone>(known: &mut Option<T>, told: Option<&T>, late: bool) {
    if let Some(told) = told.filter(|_| !(late && known.is_some())) {
        *known = Some(told.clone());
    }
}

/// Counts a reported value that Ward does not know, by its field. Only the call itself keeps the value.
pub(crate) fn count_unknown(field: &'static str) {
    metrics::counter!("ward_unknown_reported_values_total", "field" => field).increment(1);
}

/// Whether the workspace has real calls. The query may read all of its calls, so it is for long reads only.
pub fn any_real(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<bool, Error> {
    store::any_real(tx, workspace)
}

/// The knowledge of a call by its sid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No report and no callback named it.
    No,
    /// A report named it, but no report its end.
    Unfinished,
    /// A report of its end came.
    Finished,
}

/// Whether the workspace knows the call with this sid, and its end.
pub fn known(tx: &mut Tx<'_>, workspace: WorkspaceId, sid: &str) -> Result<Known, Error> {
    Ok(match store::is_finished(tx, workspace, sid)? {
        None => Known::No,
        Some(false) => Known::Unfinished,
        Some(true) => Known::Finished,
    })
}

/// The call with this id, if the workspace has it.
pub fn by_id(tx: &mut Tx<'_>, workspace: WorkspaceId, id: CallId) -> Result<Option<CallRecord>, Error> {
    store::by_id(tx, workspace, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(0);

    fn report(status: Status, duration_ms: Option<i64>) -> Report {
        Report {
            status,
            caller: None,
            callee: None,
            credential: None,
            direction: None,
            completion_reason: None,
            duration_ms,
            started_at: None,
            ended_at: None,
            service_id: None,
            patient: patients::Facts::default(),
            details: Map::new(),
        }
    }

    fn call() -> CallRecord {
        let now = NOW;
        CallRecord {
            id: CallId::at(now),
            call_sid: "CA1".to_owned(),
            direction: Direction::Inbound,
            reported_direction: Direction::Inbound,
            test_rule: None,
            reported_by: "runtime".to_owned(),
            caller: None,
            caller_form: "withheld".to_owned(),
            list_version: 0,
            status: Status::Unknown,
            completion_reason: None,
            duration_ms: None,
            started_at: now,
            started_told: false,
            ended_at: None,
            service_id: None,
            details: Map::new(),
            sync: None,
            sync_connector: None,
            first_reported_at: now,
            updated_at: now,
        }
    }

    #[test]
    fn only_real_calls_have_a_real_direction() {
        for direction in Direction::ALL {
            let real = matches!(direction, Direction::Inbound | Direction::Outbound);
            assert_eq!(direction.real().is_some(), real, "{direction:?}");
        }
    }

    #[test]
    fn a_test_rule_wins_over_every_reporter() {
        for reported in Direction::ALL {
            for rule in TestRule::ALL {
                assert_eq!(Direction::decided(reported, Some(rule)), Direction::Test);
                assert_eq!(TestRule::named(rule.name()), Some(rule));
            }
            assert_eq!(Direction::decided(reported, None), reported);
        }
    }

    #[test]
    fn a_call_never_goes_back_and_its_end_is_its_end() {
        for last in Status::ALL.into_iter().filter(|status| status.is_final()) {
            for later in Status::ALL {
                let mut call = call();
                call.take(&report(Status::InProgress, None), NOW);
                call.take(&report(Status::Ringing, None), NOW);
                assert_eq!(call.status, Status::InProgress);
                call.take(&report(last, Some(5)), NOW);
                call.take(&report(later, Some(7)), NOW);
                assert_eq!((call.status, call.duration_ms), (last, Some(5)));
            }
        }
    }

    #[test]
    fn what_comes_late_fills_what_is_not_known() {
        let mut call = call();
        call.take(&report(Status::Completed, None), NOW);
        call.take(&report(Status::Completed, Some(9)), NOW);
        assert_eq!(call.duration_ms, Some(9));
    }

    #[test]
    fn an_end_of_another_kind_says_nothing_of_the_end_that_was() {
        let other = Report {
            completion_reason: Some("no_answer".to_owned()),
            ended_at: Some(NOW),
            service_id: Some("front-desk".to_owned()),
            ..report(Status::NoAnswer, Some(0))
        };
        let mut call = call();
        call.take(&report(Status::Completed, None), NOW);
        call.take(&other, NOW);
        assert_eq!((&call.completion_reason, call.duration_ms, call.ended_at), (&None, None, None));
        assert_eq!(call.service_id.as_deref(), Some("front-desk"));
    }

    #[test]
    fn a_reason_from_an_earlier_report_counts_at_the_end() {
        let reason = || Some("no_answer".to_owned());
        let mut call = call();
        call.take(&Report { completion_reason: reason(), ..report(Status::Ringing, None) }, NOW);
        call.take(&report(Status::Completed, Some(3)), NOW);
        call.take(&report(Status::Completed, Some(3)), NOW);
        assert_eq!((call.status, call.duration_ms), (Status::NoAnswer, Some(3)));
    }

    #[test]
    fn a_start_is_what_a_report_says_in_whichever_order_reports_come() {
        let at = Timestamp::from_micros;
        let ringing = || report(Status::Ringing, None);
        let told = || Report { started_at: Some(at(5)), ..report(Status::Completed, None) };
        let reckoned = || Report { ended_at: Some(at(9_000)), ..report(Status::Completed, Some(2)) };
        for order in [[told(), reckoned(), ringing()], [reckoned(), told(), ringing()]] {
            let mut call = call();
            for told in &order {
                call.take(told, NOW);
            }
            assert_eq!(call.started_at, at(5));
        }
        let mut call = call();
        call.take(&ringing(), NOW);
        call.take(&reckoned(), NOW);
        assert_eq!(call.started_at, at(7_000), "better than when it was first heard of");
    }

    #[test]
    fn a_start_that_nobody_tells_is_reckoned_from_what_is_told() {
        let at = Timestamp::from_micros;
        // The report has only a duration, so the call ended when the report arrived. A retry changes nothing.
        let mut call = call();
        call.take(&report(Status::Completed, Some(2)), at(9_000));
        call.take(&report(Status::Completed, Some(2)), at(20_000));
        assert_eq!(call.started_at, at(7_000));
        // A later report gives the end.
        call.take(&Report { ended_at: Some(at(8_000)), ..report(Status::Completed, None) }, at(30_000));
        assert_eq!(call.started_at, at(6_000));
        // The duration so far of an ongoing call does not give its start.
        let mut under_way = self::call();
        under_way.take(&report(Status::InProgress, Some(2)), at(9_000));
        assert_eq!(under_way.started_at, at(0));
        // The report has only an end, and no call begins after it.
        let mut ended = CallRecord { started_at: at(9_000), ..self::call() };
        ended.take(&Report { ended_at: Some(at(4_000)), ..report(Status::Failed, None) }, at(9_000));
        assert_eq!(ended.started_at, at(4_000));
    }
}
