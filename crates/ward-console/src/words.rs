//! The API's words, explained to people.

/// The sentence about the last action, by the word in the address. Unknown words say nothing, so no link can put words
/// on a page.
pub fn notice(done: &str) -> &'static str {
    match done {
        "signed-out" => "You are signed out.",
        "key-revoked" => "The key is revoked. It was refused from that moment on.",
        "rotation-finished" => "The former secret is refused from now on.",
        "role-set" => "The role is changed.",
        "removed" => "The member is removed, and the member's keys with it.",
        "left" => "You have left the workspace.",
        "invitation-revoked" => "The invitation is revoked.",
        "invitation-extended" => "The invitation's expiry is moved.",
        "nominated" => "The nomination stands until it is accepted, cancelled or expired.",
        "nomination-cancelled" => "The nomination is cancelled.",
        "ownership-accepted" => "You are the owner now.",
        "joined" => "You are a member now.",
        "saved" => "The changes are saved.",
        "created" => "It is created.",
        "deleted" => "It is deleted.",
        "provisioned" => "The workspace is provisioned. Its connector's integration is under Integrations.",
        "archived" => "The workspace is archived. Its keys are refused, and its operator can restore it.",
        "converted" => "The environment is changed.",
        "retried" => "The delivery will be tried again.",
        "retried-all" => "The failed deliveries will be tried again.",
        "resolved" => "The result is recorded.",
        "chosen" => "The choice is stored, and the delivery goes by itself.",
        "held" => "The integration is held. Nothing is sent until you release it.",
        "released" => "The integration is released. Its deliveries continue.",
        "export-queued" => "The export is ordered. Load this page again to see its progress.",
        _ => "",
    }
}

/// The permissions of a role, in a few words.
pub fn role(role: &str) -> &'static str {
    match role {
        "viewer" => "sees the workspace and its integrations",
        "member" => "also sees calls and keys",
        "operator" => "also reports calls and changes integrations",
        "admin" => "also manages keys, people, settings and the audit",
        "owner" => "everything, with archiving and transfer",
        _ => "",
    }
}

pub const ROLES: &[&str] = &["viewer", "member", "operator", "admin", "owner"];
pub const REGIONS: &[&str] = &["us-east-1", "ap-southeast-2", "eu-central-1", "ca-central-1"];
pub const ENVIRONMENTS: &[&str] = &["development", "staging", "production"];

/// The connectors of the document, with the vendors' names.
pub const CONNECTORS: &[(&str, &str)] = &[
    ("allscripts", "Veradigm (Allscripts)"),
    ("athenahealth", "athenahealth"),
    ("cerner", "Oracle Health (Cerner)"),
    ("charmhealth", "CharmHealth"),
    ("eclinicalworks", "eClinicalWorks"),
    ("epic", "Epic"),
    ("fhir_store", "Google Cloud FHIR store"),
    ("hubspot", "HubSpot"),
    ("meditab", "Meditab"),
    ("revolution", "RevolutionEHR"),
];

/// The reason of a delivery's state as a sentence, with the next action of a person.
pub fn reason(state: &str, reason: &str) -> &'static str {
    match (state, reason) {
        ("pending", "") => "It waits for its turn.",
        ("sending", _) => "A worker is sending it now.",
        ("synced", "found_by_a_person") => "A person found it in the EHR.",
        ("synced", _) => "The EHR has it.",
        ("held", "unmatched_patient") => {
            "The connector files calls into a chart, and no patient was matched. Report the call's patient, and it goes by itself."
        }
        ("held", "unmatched_encounter") => {
            "The note needs an encounter, and none is known for certain. Report the call's encounter, and it goes by itself."
        }
        ("held", "cannot_tell") => {
            "A try may have arrived, and this EHR cannot be searched. Look into the EHR, then say below whether it has the call."
        }
        ("held", "connector_takes_no_calls") => {
            "Ward knows no way to write a call into this connector. Choose another connector."
        }
        ("failed", "refused") => "The EHR refused it; its answer is below. Correct the cause, then retry.",
        ("failed", "tried_too_long") => {
            "The EHR did not accept it in a day of tries. Retry when the EHR works again."
        }
        ("failed", "duplicate") => {
            "The EHR has it more than once. Keep the oldest one, which the answer below names, and remove the others there."
        }
        ("failed", "not_a_real_call") => {
            "The last check before sending stopped it, because its call is not a real one. Report this defect."
        }
        ("pending", _) => "It waits for its next try.",
        ("held", _) => "A person must decide.",
        ("failed", _) => "It failed for good. Correct the cause, then retry.",
        _ => "",
    }
}

/// The reason for which a person has to choose a patient or an encounter, as a sentence.
pub fn review(because: &str) -> &'static str {
    match because {
        "not_reported" => "The call's report does not name it.",
        "no_number" => "No number in international form is known by which the EHR could be asked.",
        "no_birth_date" => "The patient's date of birth is not known. Correct the call, or enter the id.",
        "none" => "The EHR has none.",
        "several" => "The EHR has several.",
        "uncertain" => "The EHR has some, and none of them fits for certain.",
        "unproven" => "For a day, no answer of the EHR showed everything that it has.",
        _ => "Ward does not know it for certain.",
    }
}

/// The reason for the wait of an integration's queue, as a sentence.
pub fn waits(because: &str, held_because: &str) -> &'static str {
    match (because, held_because) {
        ("held", "unauthorized") => "The EHR refused the credentials. Correct them, and the queue continues.",
        ("held", "misconfigured") => "The configuration cannot work. Correct it, and the queue continues.",
        ("held", _) => "A person holds it. Release it to continue.",
        ("integration_disabled", _) => "The integration is disabled. Enable it to continue.",
        ("integration_unconfigured", _) => "The integration has no address yet. Complete it to continue.",
        ("integration_gone", _) => "The integration was deleted. Provision the workspace again to continue.",
        ("workspace_archived", _) => "The workspace is archived. The queue is kept until it is restored.",
        ("throttled", _) => "The EHR asked for a pause. The queue continues by itself.",
        ("failing", _) => "Five tries failed in a row. After a pause, one delivery goes ahead as a test.",
        _ => "",
    }
}

/// The outcome of a test of an integration.
pub fn health(status: &str) -> &'static str {
    match status {
        "healthy" => "Healthy",
        "auth_failed" => "Credentials refused",
        "unreachable" => "Not reachable",
        "timeout" => "No answer in time",
        "ssl_error" => "TLS failed",
        "misconfigured" => "Configuration incomplete",
        _ => "Not tested",
    }
}

/// The tone of a state: one of the style sheet's classes.
pub fn tone(state: &str) -> &'static str {
    match state {
        "synced" | "healthy" | "completed" | "done" | "production" | "enabled" => "good",
        "pending" | "sending" | "in-progress" | "initiated" | "ringing" | "queued" | "staging" => "busy",
        "held" | "timeout" | "misconfigured" | "test" | "warning" => "warn",
        "failed" | "auth_failed" | "unreachable" | "ssl_error" | "blocker" | "busy" | "no-answer" => "bad",
        _ => "plain",
    }
}

/// A name of the API as words: `stored_bytes` becomes `stored bytes`.
pub fn spaced(name: &str) -> String {
    name.replace(['_', '-'], " ")
}

/// The name of a quota as a label.
pub fn quota(name: &str) -> String {
    let mut words = spaced(name);
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

/// A number of bytes in its largest binary unit, such as `16 GiB`.
pub fn bytes(number: i64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut tenths, mut unit) = (number.saturating_mul(10), 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1_024;
        unit += 1;
    }
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if tenth == 0 { format!("{whole} {}", units[unit]) } else { format!("{whole}.{tenth} {}", units[unit]) }
}

/// A count with spaces between thousands.
pub fn count(number: &i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if *number < 0 { format!("−{text}") } else { text }
}

/// The last block of a UUID, which tells rows apart by eye. Ids of one time begin alike.
pub fn short(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([bytes(0), bytes(1_536), bytes(16 << 30)], ["0 bytes", "1.5 KiB", "16 GiB"]);
        assert_eq!([count(&7), count(&1_234_567)], ["7", "1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn every_reason_of_a_delivery_is_a_sentence() {
        for state in ["pending", "sending", "synced", "held", "failed"] {
            for word in ["", "refused", "unmatched_patient", "cannot_tell", "a_new_word"] {
                assert!(reason(state, word).ends_with('.'), "{state} {word}");
            }
        }
        assert_eq!(notice("anything else"), "");
    }
}
