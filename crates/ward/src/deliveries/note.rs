//! The content of a call for an EHR, composed at the time of sending.

use ward_ehr::delivery::{CallNote, Form};

use crate::calls::{CallRecord, RealDirection};
use crate::ids::WorkspaceId;

/// The form in which a connector receives a call. `None` if no way to write a call is known.
pub fn form_of(connector: &str) -> Option<Form> {
    match connector {
        "hubspot" => Some(Form::HubSpotCall),
        "epic" | "cerner" | "allscripts" => Some(Form::DocumentReference),
        // Its patient cases need a department and a provider, which a call does not have.
        "athenahealth" => None,
        _ => Some(Form::Communication),
    }
}

/// The name of the form for people.
pub const fn name_of(form: Form) -> &'static str {
    match form {
        Form::HubSpotCall => "HubSpot call",
        Form::DocumentReference => "FHIR DocumentReference",
        Form::Communication => "FHIR Communication",
    }
}

/// The content of a call for the EHR.
pub fn of(workspace: WorkspaceId, call: &CallRecord, direction: RealDirection) -> CallNote {
    let inbound = direction.is_inbound();
    CallNote {
        system: format!("urn:uuid:{workspace}"),
        id: call.id.to_string(),
        inbound,
        status: call.status.name().to_owned(),
        from: call.caller.clone(),
        to: call.detail("phone_number").map(str::to_owned),
        started_at: call.started_at.to_string(),
        ended_at: call.ended_at.map(|ended_at| ended_at.to_string()),
        duration_ms: call.duration_ms,
        patient: call.detail("patient_id").map(str::to_owned),
        text: text(call, inbound),
    }
}

fn text(call: &CallRecord, inbound: bool) -> String {
    let mut lines = vec![format!(
        "{} telephone call, {}.",
        if inbound { "Inbound" } else { "Outbound" },
        call.completion_reason.as_deref().unwrap_or(call.status.name()).replace('_', " ")
    )];
    lines.push(format!("From: {}", call.caller.as_deref().unwrap_or("withheld")));
    if let Some(called) = call.detail("phone_number") {
        lines.push(format!("To: {called}"));
    }
    lines.push(format!("Started: {}", call.started_at));
    if let Some(duration_ms) = call.duration_ms {
        lines.push(format!("Duration: {} s", duration_ms / 1_000));
    }
    if let Some(summary) = call.detail("summary") {
        lines.push(String::new());
        lines.push(summary.to_owned());
    }
    lines.join("\n")
}
