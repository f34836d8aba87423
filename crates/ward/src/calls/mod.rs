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

pub use caller::Caller;

use crate::ids::{CallId, WorkspaceId};

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

    /// What a first report and the list of test callers make of a call.
    pub const fn decided(reported: Self, from_test_caller: bool) -> Self {
        if from_test_caller { Self::Test } else { reported }
    }
}

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting to be placed.
    Queued,
    /// Being placed.
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
        Self::Queued,
        Self::Initiated,
        Self::Ringing,
        Self::InProgress,
        Self::Completed,
        Self::Busy,
        Self::NoAnswer,
        Self::Failed,
        Self::Canceled,
    ];

    /// Its name: Twilio's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
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

    /// The status of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing can follow it.
    pub const fn is_final(self) -> bool {
        self.rank() == LAST
    }

    /// How far a call with it has come. What comes later has the greater rank, so a report that arrives late is known by
    /// its lesser one.
    const fn rank(self) -> u8 {
        match self {
            Self::Queued => 0,
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

/// What one report says, beside who called and which way.
#[derive(Clone, Debug)]
pub struct Report {
    /// The call's status.
    pub status: Status,
    /// Who calls; `None` when the report does not say.
    pub caller: Option<Caller>,
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
    /// When it began as follows from its end and length; used while no report says so.
    pub reckoned_start: Option<Timestamp>,
    /// Which service answered.
    pub service_id: Option<String>,
    /// The rest, nulls left out.
    pub details: Map<String, Value>,
}

impl CallRecord {
    /// Takes a report over. One that comes late (behind the status, or after the end) only fills what is not known yet,
    /// so that the order in which reports arrive does not matter. Caller and direction stay as they are.
    pub fn take(&mut self, report: &Report) {
        let late = self.status.is_final() || report.status.rank() < self.status.rank();
        if report.status.rank() > self.status.rank() {
            self.status = report.status;
        }
        fill(&mut self.completion_reason, report.completion_reason.as_ref(), late);
        fill(&mut self.duration_ms, report.duration_ms.as_ref(), late);
        fill(&mut self.ended_at, report.ended_at.as_ref(), late);
        fill(&mut self.service_id, report.service_id.as_ref(), late);
        if let Some(started_at) = report.started_at.filter(|_| !(late && self.started_told)) {
            (self.started_at, self.started_told) = (started_at, true);
        }
        if let Some(reckoned) = report.reckoned_start.filter(|_| !self.started_told) {
            self.started_at = reckoned;
        }
        for (name, value) in &report.details {
            if !(late && self.details.contains_key(name)) {
                self.details.insert(name.clone(), value.clone());
            }
        }
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

    fn report(status: Status, duration_ms: Option<i64>) -> Report {
        Report {
            status,
            caller: None,
            direction: None,
            completion_reason: None,
            duration_ms,
            started_at: None,
            ended_at: None,
            reckoned_start: None,
            service_id: None,
            details: Map::new(),
        }
    }

    fn call() -> CallRecord {
        let now = Timestamp::from_micros(0);
        CallRecord {
            id: CallId::at(now),
            call_sid: "CA1".to_owned(),
            direction: Direction::Inbound,
            reported_direction: Direction::Inbound,
            reported_by: "runtime".to_owned(),
            caller: None,
            caller_form: "withheld".to_owned(),
            list_version: 0,
            status: Status::Queued,
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
    fn a_test_caller_wins_over_every_reporter() {
        for reported in Direction::ALL {
            assert_eq!(Direction::decided(reported, true), Direction::Test);
            assert_eq!(Direction::decided(reported, false), reported);
        }
    }

    #[test]
    fn a_call_never_goes_back_and_its_end_is_its_end() {
        for last in Status::ALL.into_iter().filter(|status| status.is_final()) {
            for later in Status::ALL {
                let mut call = call();
                call.take(&report(Status::InProgress, None));
                call.take(&report(Status::Ringing, None));
                assert_eq!(call.status, Status::InProgress);
                call.take(&report(last, Some(5)));
                call.take(&report(later, Some(7)));
                assert_eq!((call.status, call.duration_ms), (last, Some(5)));
            }
        }
    }

    #[test]
    fn what_comes_late_fills_what_is_not_known() {
        let mut call = call();
        call.take(&report(Status::Completed, None));
        call.take(&report(Status::Completed, Some(9)));
        assert_eq!(call.duration_ms, Some(9));
    }

    #[test]
    fn a_start_is_what_a_report_says_in_whichever_order_reports_come() {
        let at = Timestamp::from_micros;
        let ringing = || report(Status::Ringing, None);
        let runtimes = || Report { started_at: Some(at(5)), ..report(Status::Completed, None) };
        let twilios = || Report { reckoned_start: Some(at(7)), ..report(Status::Completed, None) };
        for order in [[runtimes(), twilios(), ringing()], [twilios(), runtimes(), ringing()]] {
            let mut call = call();
            for told in &order {
                call.take(told);
            }
            assert_eq!(call.started_at, at(5));
        }
        let mut call = call();
        call.take(&ringing());
        call.take(&twilios());
        assert_eq!(call.started_at, at(7), "better than when it was first heard of");
    }
}
