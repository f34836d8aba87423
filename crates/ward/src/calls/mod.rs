//! Calls: what telephones did, which of it was only a test, and what the rest owes to the EHR.
//!
//! The pure rules stand here: how a report changes what is known of a call, and what a finished call owes. A call's
//! caller and direction are decided by its first report and never change; a status never goes back.

pub mod actions;
pub mod api;
mod caller;
pub mod operator;
mod store;
pub mod twilio;

use serde_json::{Map, Value};
use ward_db::{Error, Row, Timestamp, Tx};

pub use caller::{Caller, NotACaller};

use crate::ids::{CallId, CredentialId, WorkspaceId};
use crate::workspaces::TestParties;

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A patient, or anybody else, called the practice.
    Inbound,
    /// The practice called.
    Outbound,
    /// A test caller called.
    Test,
    /// Somebody tried the agent in the playground.
    Playground,
    /// A simulation.
    Simulated,
}

/// The direction of a call that was real. Only what has one can be owed to an EHR: `sync` takes nothing else, which is
/// the first of the walls between a test and a patient's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealDirection(Direction);

impl RealDirection {
    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether the practice was called.
    pub const fn is_inbound(self) -> bool {
        matches!(self.0, Direction::Inbound)
    }
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 5] = [Self::Inbound, Self::Outbound, Self::Test, Self::Playground, Self::Simulated];

    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Test => "test",
            Self::Playground => "playground",
            Self::Simulated => "simulated",
        }
    }

    /// The direction of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name)
    }

    /// The direction, if the call was real.
    pub const fn real(self) -> Option<RealDirection> {
        match self {
            Self::Inbound | Self::Outbound => Some(RealDirection(self)),
            Self::Test | Self::Playground | Self::Simulated => None,
        }
    }

    /// `real` for what went over a telephone line, tests included; `simulated` for the rest.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Inbound | Self::Outbound | Self::Test => "real",
            Self::Playground | Self::Simulated => "simulated",
        }
    }

    /// The direction that a first report gives, unless a rule makes the call a test.
    pub const fn decided(reported: Self, rule: Option<TestRule>) -> Self {
        if rule.is_some() { Self::Test } else { reported }
    }
}

/// Why a call is a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestRule {
    /// The number that calls is on the list of test callers.
    Caller,
    /// The number that is called is on the list.
    Callee,
    /// The call was made with a test credential.
    Credential,
}

impl TestRule {
    const ALL: [Self; 3] = [Self::Caller, Self::Callee, Self::Credential];

    /// The rule that the parties of a call meet, if there is one.
    pub const fn of_parties(caller_listed: bool, callee_listed: bool) -> Option<Self> {
        match (caller_listed, callee_listed) {
            (true, _) => Some(Self::Caller),
            (false, true) => Some(Self::Callee),
            (false, false) => None,
        }
    }

    /// The rule that makes a call a test by what the workspace's lists say of it, if there is one.
    fn of(listed: TestParties) -> Option<Self> {
        let by_credential = listed.credential.then_some(Self::Credential);
        Self::of_parties(listed.caller, listed.callee).or(by_credential)
    }

    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "test_caller",
            Self::Callee => "test_callee",
            Self::Credential => "test_credential",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Reported in words that Ward does not know.
    Unknown,
    /// Being placed, or waiting to be.
    Initiated,
    /// Ringing.
    Ringing,
    /// Under way.
    InProgress,
    /// Over.
    Completed,
    /// The other side was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// It could not be connected.
    Failed,
    /// Called off before it was answered.
    Canceled,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initiated,
        Self::Ringing,
        Self::InProgress,
        Self::Completed,
        Self::Busy,
        Self::NoAnswer,
        Self::Failed,
        Self::Canceled,
    ];

    /// Its name: Twilio's, where Twilio has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The status of this name. Clients know no `queued`: a call that waits to be placed counts as initiated.
    pub fn named(name: &str) -> Option<Self> {
        if name == "queued" {
            return Some(Self::Initiated);
        }
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// The status for a word that Ward does not know. A call of which the end is told is over; other words move no call.
    pub const fn told_in_other_words(end_is_told: bool) -> Self {
        if end_is_told { Self::Completed } else { Self::Unknown }
    }

    /// Whether nothing can follow it.
    pub const fn is_final(self) -> bool {
        self.rank() == LAST
    }

    /// How far a call with it has come. What comes later has the greater rank, so a report that arrives late is known by
    /// its lesser one.
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

/// Who reported a call first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The voice runtime.
    Runtime,
    /// Twilio.
    Twilio,
}

impl Reporter {
    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Twilio => "twilio",
        }
    }
}

/// What a finished call owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A delivery, which was inserted with it.
    Owed,
    /// Nothing, because it was not real.
    Excluded,
    /// Nothing, because the workspace has no connector.
    NoConnector,
    /// Nothing, because the connector's integration was never provisioned.
    NotProvisioned,
}

impl Decision {
    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Excluded => "excluded",
            Self::NoConnector => "no_connector",
            Self::NotProvisioned => "not_provisioned",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Owed, Self::Excluded, Self::NoConnector, Self::NotProvisioned]
            .into_iter()
            .find(|decision| decision.name() == name)
    }
}

/// A call as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// Its id, the contract's `entity_id`.
    pub id: CallId,
    /// Its id at the telephone provider.
    pub call_sid: String,
    /// What kind of call it is, for good.
    pub direction: Direction,
    /// What the first report said of that.
    pub reported_direction: Direction,
    /// Why it is a test; `None` when it is none.
    pub test_rule: Option<TestRule>,
    /// Who reported it first.
    pub reported_by: String,
    /// Who called; `None` for a withheld caller.
    pub caller: Option<String>,
    /// In which form that was said.
    pub caller_form: String,
    /// By which version of the list of test callers the direction was decided.
    pub list_version: i64,
    /// Where it is in its life.
    pub status: Status,
    /// How it ended.
    pub completion_reason: Option<String>,
    /// How long it took, milliseconds.
    pub duration_ms: Option<i64>,
    /// When it began: as reported, else as follows from its end and length, else when it was first reported.
    pub started_at: Timestamp,
    /// Whether a report said so.
    pub started_told: bool,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Which service answered.
    pub service_id: Option<String>,
    /// What no filter asks for.
    pub details: Map<String, Value>,
    /// What it owes; `None` until it has finished.
    pub sync: Option<Decision>,
    /// The workspace's connector when it finished.
    pub sync_connector: Option<String>,
    /// When it was first reported.
    pub first_reported_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// One report of a call, as it was understood.
#[derive(Clone, Debug)]
pub struct Report {
    /// The call's status.
    pub status: Status,
    /// Who calls; `None` when the report does not say.
    pub caller: Option<Caller>,
    /// Who is called; `None` when the report does not say.
    pub callee: Option<Caller>,
    /// The key that the call was made with, where another key reports it.
    pub credential: Option<CredentialId>,
    /// Which way; `None` when the report does not say.
    pub direction: Option<Direction>,
    /// How it ended.
    pub completion_reason: Option<String>,
    /// How long it took, milliseconds.
    pub duration_ms: Option<i64>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Which service answered.
    pub service_id: Option<String>,
    /// The rest, nulls left out.
    pub details: Map<String, Value>,
}

impl CallRecord {
    /// Takes over a report that came at `now`. One that comes late (behind the status, or after the end) only fills what is
    /// not known yet, so that the order in which reports arrive does not matter. Parties and direction stay as they are.
    pub fn take(&mut self, report: &Report, now: Timestamp) {
        let late = self.status.is_final() || report.status.rank() < self.status.rank();
        // A second end, of another kind than the first: its reason and length are not those of this call's end.
        let other_end = report.status.is_final() && self.status.is_final() && report.status != self.status;
        let former = (self.status.is_final(), self.duration_ms);
        if report.status.rank() > self.status.rank() {
            self.status = report.status;
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
            let tells_length = report.status.is_final() && report.duration_ms.is_some();
            let is_news = former != (self.status.is_final(), self.duration_ms);
            self.reckon_start((tells_length && is_news && !other_end).then_some(now));
        }
        for (name, value) in &report.details {
            if !(late && self.details.contains_key(name)) {
                self.details.insert(name.clone(), value.clone());
            }
        }
    }

    /// Reckons the start that no report tells from the end and the length. Without a told end, `over_at` is the end: when
    /// a report came that the call is over and how long it took.
    fn reckon_start(&mut self, over_at: Option<Timestamp>) {
        match (self.duration_ms, self.ended_at.or(over_at)) {
            (Some(duration_ms), Some(end)) => {
                self.started_at = Timestamp::from_micros(end.micros() - duration_ms * 1_000);
            }
            (None, Some(end)) => self.started_at = self.started_at.min(end),
            (_, None) => {}
        }
    }

    /// Whether the told end lies before the told start.
    pub fn ends_before_start(&self) -> bool {
        self.started_told && self.ended_at.is_some_and(|end| end < self.started_at)
    }

    /// Drops what is said of people, for who may not view calls.
    pub fn hide_people(&mut self) {
        self.caller = None;
        for name in ["phone_number", "patient_id", "summary"] {
            self.details.remove(name);
        }
    }

    /// A detail's text.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.details.get(name).and_then(Value::as_str)
    }
}

fn fill<T: Clone>(known: &mut Option<T>, told: Option<&T>, late: bool) {
    if let Some(told) = told.filter(|_| !(late && known.is_some())) {
        *known = Some(told.clone());
    }
}

/// Counts a value of a report that Ward does not know, by its field. The value itself stands only with the call.
fn count_unknown(field: &'static str) {
    metrics::counter!("ward_unknown_reported_values_total", "field" => field).increment(1);
}

/// Whether the workspace has real calls. A look at all of its calls, so only for long reads.
pub fn any_real(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<bool, Error> {
    store::any_real(tx, workspace)
}

/// The call of this id.
pub fn by_id(tx: &mut Tx<'_>, workspace: WorkspaceId, id: CallId) -> Result<Option<CallRecord>, Error> {
    store::by_id(tx, workspace, id)
}

impl Direction {
    fn column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        Self::named(row.text(index)?).ok_or_else(|| Error::unreadable("an unknown direction"))
    }
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
        // The length alone, with the end: the call ended when that was reported. A repeat moves nothing.
        let mut call = call();
        call.take(&report(Status::Completed, Some(2)), at(9_000));
        call.take(&report(Status::Completed, Some(2)), at(20_000));
        assert_eq!(call.started_at, at(7_000));
        // The end becomes known later.
        call.take(&Report { ended_at: Some(at(8_000)), ..report(Status::Completed, None) }, at(30_000));
        assert_eq!(call.started_at, at(6_000));
        // A length so far, of a call under way, says nothing of its start.
        let mut under_way = self::call();
        under_way.take(&report(Status::InProgress, Some(2)), at(9_000));
        assert_eq!(under_way.started_at, at(0));
        // The end alone: no call begins after it.
        let mut ended = CallRecord { started_at: at(9_000), ..self::call() };
        ended.take(&Report { ended_at: Some(at(4_000)), ..report(Status::Failed, None) }, at(9_000));
        assert_eq!(ended.started_at, at(4_000));
    }
}
