//! The content of a call for an EHR, composed at the time of sending.

use std::time::Duration;

use ward_db::Timestamp;
use ward_ehr::delivery::{CallNote, Filing, Form};

use super::local;
use crate::calls::{CallRecord, RealDirection};
use crate::ids::WorkspaceId;
use crate::integrations::{self, DeliverySettings, DocumentStatus, EncounterRule, PatientRule, Takes};

/// The form in which a connector receives a call. `None` if no way to write a call is known.
pub fn form_of(connector: &str) -> Option<Form> {
    match integrations::takes(connector)? {
        Takes::Communication => Some(Form::Communication),
        Takes::Document(..) => Some(Form::DocumentReference),
        Takes::HubSpotCall => Some(Form::HubSpotCall),
        Takes::PatientCase => Some(Form::PatientCase),
        Takes::Nothing => None,
    }
}

/// The form whose record can move to another patient by an update.
pub const MOVABLE: Form = Form::Communication;

/// The name of the form for people.
pub const fn name_of(form: Form) -> &'static str {
    match form {
        Form::HubSpotCall => "HubSpot call",
        Form::DocumentReference => "FHIR DocumentReference",
        Form::Communication => "FHIR Communication",
        Form::PatientCase => "athenahealth patient case",
    }
}

/// The namespace of the identifiers that a workspace's calls have in an EHR.
pub fn identifiers_of(workspace: WorkspaceId) -> String {
    format!("urn:uuid:{workspace}")
}

/// The content of a call for the EHR, by the settings of its integration.
pub fn of(
    workspace: WorkspaceId,
    call: &CallRecord,
    direction: RealDirection,
    (connector, settings): (&str, &DeliverySettings),
) -> CallNote {
    let inbound = direction.is_inbound();
    CallNote {
        system: identifiers_of(workspace),
        id: call.id.to_string(),
        inbound,
        status: call.status.name().to_owned(),
        from: call.caller.clone(),
        to: call.detail("phone_number").map(str::to_owned),
        started_at: call.started_at.to_string(),
        ended_at: end(call).map(|ended_at| ended_at.to_string()),
        duration_ms: call.duration_ms,
        patient: call.detail("patient_id").map(str::to_owned),
        encounter: call.detail("encounter_id").map(str::to_owned),
        replaces: None,
        filing: filing(connector, settings),
        text: text(call, inbound, settings),
    }
}

/// The settings of an integration for its notes.
fn filing(connector: &str, settings: &DeliverySettings) -> Filing {
    let status = match integrations::takes(connector) {
        Some(Takes::Document(status, _)) => status,
        _ => DocumentStatus::Final,
    };
    Filing {
        preliminary: settings.document_status.unwrap_or(status) == DocumentStatus::Preliminary,
        department: settings.department_id.clone(),
        provider: settings.provider_id.clone(),
        source: settings.document_source.clone(),
        subclass: settings.document_subclass.clone(),
        category: settings.category.clone(),
    }
}

/// The number of the other party in international form, by which its patient is sought.
pub fn number_of(call: &CallRecord) -> Option<String> {
    let inbound = call.direction.real()?.is_inbound();
    let other = if inbound { call.caller.as_deref() } else { call.detail("phone_number") };
    other.filter(|number| number.starts_with('+')).map(str::to_owned)
}

/// The way to a note's patient. Only a FHIR server has one beside the report.
pub fn patient_rule(form: Form, settings: &DeliverySettings) -> PatientRule {
    match form {
        Form::Communication | Form::DocumentReference => settings.patient.unwrap_or(PatientRule::Reported),
        Form::HubSpotCall | Form::PatientCase => PatientRule::Reported,
    }
}

/// The look-up in the EHR that comes before a note is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    Nothing,
    /// The patient's encounter during the call.
    Encounter,
    /// The contact that has the other party's number.
    Contact,
    /// Nothing, because a person has to report the encounter.
    Unreported,
}

/// The look-up that a note of this connector needs.
pub fn sought((connector, settings): (&str, &DeliverySettings), form: Form, note: &CallNote) -> Sought {
    let rule = match integrations::takes(connector) {
        Some(Takes::Document(_, rule)) => rule,
        _ => EncounterRule::Optional,
    };
    match form {
        Form::DocumentReference if note.encounter.is_none() => match settings.encounter.unwrap_or(rule) {
            EncounterRule::Optional => Sought::Nothing,
            EncounterRule::Reported => Sought::Unreported,
            EncounterRule::LookUp => Sought::Encounter,
        },
        Form::HubSpotCall if note.patient.is_none() && settings.associate_contacts.unwrap_or(true) => {
            Sought::Contact
        }
        _ => Sought::Nothing,
    }
}

/// The end of a call: as reported, or its start and its length.
fn end(call: &CallRecord) -> Option<Timestamp> {
    let length = || {
        let duration_ms = u64::try_from(call.duration_ms?).ok()?;
        Some(call.started_at.saturating_add(Duration::from_millis(duration_ms)))
    };
    call.ended_at.or_else(length)
}

/// The note for its readers: the facts of the call, each on a line of its own, and then the summary. Only the summary can
/// have line breaks.
fn text(call: &CallRecord, inbound: bool, settings: &DeliverySettings) -> String {
    let direction = if inbound { "Inbound" } else { "Outbound" };
    let mut lines = vec![format!("{direction} telephone call, {}.", call.status.name().replace('-', " "))];
    let mut put = |name: &str, value: Option<&str>| {
        lines.extend(value.map(|value| format!("{name}: {value}")));
    };
    // The platform's words have underscores between their parts.
    let words = |word: &str| word.replace('_', " ");
    put("Category", settings.category.as_deref());
    put("From", Some(call.caller.as_deref().unwrap_or("withheld")));
    put("To", call.detail("phone_number"));
    put("Started", Some(&local::shown(call.started_at, settings.time_zone.as_deref())));
    put("Duration", call.duration_ms.map(|duration| format!("{} s", duration / 1_000)).as_deref());
    put("Call", Some(&call.call_sid));
    put("Disposition", call.completion_reason.as_deref().map(words).as_deref());
    put("Final state", call.detail("final_state").map(words).as_deref());
    put("Escalation", call.detail("escalation_status").map(words).as_deref());
    if let Some(summary) = call.detail("summary") {
        lines.push(String::new());
        lines.push(summary.to_owned());
    }
    lines.join("\n")
}
