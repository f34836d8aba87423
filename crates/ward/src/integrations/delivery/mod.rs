//! Which calls are written to the EHR of an integration, and how. An absent field is as the connector usually does.

mod store;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use store::{receiver, settings};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverySettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_status: Option<DocumentStatus>,
    /// Whether a document needs an encounter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encounter: Option<EncounterRule>,
    /// Whether a call is written without an encounter if the look-up finds none or several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_without_encounter: Option<bool>,
    /// The way to a call's patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<PatientRule>,
    /// athenahealth: the department's id in patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department_id: Option<String>,
    /// athenahealth: the provider's id in patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// athenahealth: the `documentsource` of patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_source: Option<String>,
    /// athenahealth: the `documentsubclass` of patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_subclass: Option<String>,
    /// Whether a call is tied to the contact that has the other party's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub associate_contacts: Option<bool>,
    /// The finished calls that are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallChoice>,
    /// The time for which a finished call without a summary waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_summary_seconds: Option<u32>,
    /// The IANA time zone of the times in notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The practice's own category of its notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

impl DeliverySettings {
    /// The time for which a finished call without a summary waits for one.
    pub fn summary_wait(&self) -> Duration {
        Duration::from_secs(self.wait_for_summary_seconds.unwrap_or(0).into())
    }
}

/// The conditions of a workspace on the finished calls that are written. A call must meet all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallChoice {
    /// The final statuses. Without a list, a call must be completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<CallEnd>>,
    /// The directions. Without a list, both are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directions: Option<Vec<CallDirection>>,
    /// The shortest duration. A call of unknown duration is shorter than every minimum above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_duration_seconds: Option<u32>,
    /// The reported reasons for the end. Without a list, any reason is written, and so is a call without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispositions: Option<Vec<String>>,
}

/// The final status of a call, under the names of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEnd {
    Completed,
    Busy,
    NoAnswer,
    Failed,
    Canceled,
}

/// The direction of a real call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallDirection {
    Inbound,
    Outbound,
}

/// The status of a document in a chart (FHIR R4, `composition-status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentStatus {
    /// A person has yet to review it.
    Preliminary,
    /// It is complete, as if a person had signed it.
    Final,
}

/// The way to the patient of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatientRule {
    /// A call has the patient that was reported.
    Reported,
    /// A patient that was not reported is searched for by phone number and date of birth.
    Search,
    /// The EHR matches a patient that was not reported (`$match`), by phone number and date of birth.
    Match,
}

/// The need of an encounter of the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncounterRule {
    /// A reported encounter is used, and none is needed.
    Optional,
    /// A call waits until its encounter is reported.
    Reported,
    /// An encounter that was not reported is looked up. A call waits unless there is exactly one during the call.
    LookUp,
}
