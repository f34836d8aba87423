//! A call as a patient case of athenahealth ("Patient Cases" in its public documentation): a record of a call about a
//! patient, outside of an encounter, that is routed to a provider.
//!
//! The API has no idempotency key and no identifier of the client. So the note ends with the call's id, and a search
//! reads the patient's cases and looks for it.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::answers::Evidence;
use crate::client::{Answer, Request};
use crate::delivery::CallNote;
use crate::{Failure, json as bounded, template};

/// The longest `internalnote` that athenahealth takes, in characters.
const LONGEST_NOTE: usize = 4_000;
/// The source of a case, unless the integration names another.
const SOURCE: &str = "PATIENT";
/// The subclass of a case, unless the integration names another.
const SUBCLASS: &str = "CLINICALQUESTION";
/// Cases that one page of a search shows.
const PAGE: &str = "100";
/// The fields of a listed case that may hold the note.
const TEXTS: [&str; 4] = ["internalnote", "actionnote", "description", "subject"];

/// The fields of the form for a call.
pub fn fields(note: &CallNote) -> Vec<(&'static str, String)> {
    let filing = &note.filing;
    let mut fields = vec![
        ("departmentid", filing.department.clone().unwrap_or_default()),
        ("providerid", filing.provider.clone().unwrap_or_default()),
        ("documentsource", filing.source.clone().unwrap_or_else(|| SOURCE.to_owned())),
        ("documentsubclass", filing.subclass.clone().unwrap_or_else(|| SUBCLASS.to_owned())),
        (
            "subject",
            if note.inbound { "Inbound telephone call" } else { "Outbound telephone call" }.to_owned(),
        ),
        ("internalnote", marked(note)),
    ];
    let other = if note.inbound { &note.from } else { &note.to };
    if let Some(number) = other.as_ref().filter(|number| number.starts_with('+')) {
        fields.push(("callbacknumber", number.clone()));
    }
    fields
}

/// The note with the call's id at its end. A note that is too long loses text before it.
fn marked(note: &CallNote) -> String {
    let mark = format!("\n\nCall {}", note.id);
    let kept: String = note.text.chars().take(LONGEST_NOTE - mark.len()).collect();
    kept + &mark
}

fn place(base_url: &str, note: &CallNote) -> Result<url::Url, Failure> {
    let missing = |what: &str| Failure::misconfigured(format!("a patient case needs {what}"));
    let patient = note.patient.as_deref().ok_or_else(|| missing("a patient"))?;
    if note.filing.department.is_none() {
        return Err(missing("a department: set delivery.department_id"));
    }
    if note.filing.provider.is_none() {
        return Err(missing("a provider: set delivery.provider_id"));
    }
    let patient = utf8_percent_encode(patient, NON_ALPHANUMERIC);
    template::below(base_url, &format!("/patients/{patient}/documents/patientcase"))
}

pub(crate) fn create(base_url: &str, note: &CallNote) -> Result<Request, Failure> {
    let url = place(base_url, note)?;
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
    ]);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields(note)).finish();
    Ok(Request { method: Method::POST, url, headers, body: Bytes::from(body) })
}

pub(crate) fn search(base_url: &str, note: &CallNote) -> Result<Request, Failure> {
    let mut url = place(base_url, note)?;
    let department = note.filing.department.as_deref().unwrap_or_default();
    url.query_pairs_mut().append_pair("departmentid", department).append_pair("limit", PAGE);
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    Ok(Request { method: Method::GET, url, headers, body: Bytes::new() })
}

/// The evidence in a search's answer. A case without any text that could hold the note shows that the list does not
/// tell, and so does a list that has further pages.
pub(crate) fn evidence(note: &CallNote, answer: &Answer) -> Evidence {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let Some(cases) = body["patientcases"].as_array() else { return Evidence::Unproven };
    let has_more =
        body["next"].is_string() || body["totalcount"].as_u64().is_some_and(|all| all > cases.len() as u64);
    let texts = |case: &Value| {
        TEXTS.iter().filter_map(|name| case[*name].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let ours: Vec<String> = cases
        .iter()
        .filter(|case| texts(case).iter().any(|text| text.contains(&note.id)))
        .filter_map(|case| id_of(case).map(|id| format!("patientcase/{id}")))
        .collect();
    let blind = cases.iter().any(|case| case["internalnote"].as_str().is_none());
    if ours.is_empty() && (has_more || blind) {
        return Evidence::NoSearch;
    }
    Evidence::These(ours)
}

fn id_of(case: &Value) -> Option<String> {
    let id = &case["patientcaseid"];
    id.as_str().map(str::to_owned).or_else(|| id.as_u64().map(|id| id.to_string()))
}

pub(crate) fn location(answer: &Answer) -> Option<String> {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE)?;
    // Both an object and a list with one object are in use.
    let case = body.as_array().and_then(|cases| cases.first()).unwrap_or(&body);
    id_of(case).map(|id| format!("patientcase/{id}"))
}
