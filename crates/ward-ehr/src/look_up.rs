//! Look-ups in the EHR before a note is sent: the encounter that a call belongs to, and the contact of a CRM.
//!
//! A look-up never chooses between several results. It gives one, or says that there is none or more than one.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Answer, Request};
use crate::delivery::{CallNote, Target, of_failure};
use crate::{Auth, Failure, delivery::Verdict, json as bounded, template};

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq)]
pub enum LookedUp {
    /// Exactly one was found: its id.
    One(String),
    /// The EHR answered, and has none.
    Nothing,
    /// Several were found, or the answer does not show all of them.
    Several,
    /// The look-up itself has an outcome like an attempt: the note was not sent.
    Failed(Verdict),
}

/// Encounters with these statuses did not take place (FHIR R4, `encounter-status`).
const NOT_HELD: [&str; 2] = ["cancelled", "entered-in-error"];

impl Target<'_> {
    /// The patient's encounter during the call, by the search parameters `patient` and `date` (FHIR R4, 8.11).
    pub async fn encounter(&self, note: &CallNote, deadline: Instant) -> LookedUp {
        let Some(patient) = &note.patient else { return LookedUp::Nothing };
        let ended_at = note.ended_at.as_ref().unwrap_or(&note.started_at);
        let request = || {
            let mut url = template::below(self.base_url, "/Encounter")?;
            url.query_pairs_mut()
                .append_pair("patient", patient)
                .append_pair("date", &format!("ge{}", note.started_at))
                .append_pair("date", &format!("le{ended_at}"));
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/fhir+json"))]);
            Ok(Request { method: Method::GET, url, headers, body: Bytes::new() })
        };
        let refused =
            "the EHR refuses the search of encounters: grant it, or set delivery.encounter to optional";
        self.ask(request(), refused, encounters, deadline).await
    }

    /// The contact of `HubSpot` that has the other party's number.
    pub async fn contact(&self, note: &CallNote, deadline: Instant) -> LookedUp {
        let other = if note.inbound { &note.from } else { &note.to };
        let Some(number) = other.as_ref().filter(|number| number.starts_with('+')) else {
            return LookedUp::Nothing;
        };
        let request = || {
            let by = |name: &str| json!({ "filters": [{ "propertyName": name, "operator": "EQ", "value": number }] });
            let body = json!({ "filterGroups": [by("phone"), by("mobilephone")], "limit": 2 });
            let url = template::below(self.base_url, "/crm/v3/objects/contacts/search")?;
            let json = HeaderValue::from_static("application/json");
            let headers = HeaderMap::from_iter([(ACCEPT, json.clone()), (CONTENT_TYPE, json)]);
            Ok(Request { method: Method::POST, url, headers, body: Bytes::from(body.to_string()) })
        };
        let refused = "HubSpot refuses the search of contacts: grant crm.objects.contacts.read, or set \
                       delivery.associate_contacts to false";
        self.ask(request(), refused, contacts, deadline).await
    }

    async fn ask(
        &self,
        request: Result<Request, Failure>,
        refused: &str,
        read: fn(&Answer) -> LookedUp,
        deadline: Instant,
    ) -> LookedUp {
        let request = match request {
            Ok(request) => request,
            Err(failure) => return LookedUp::Failed(Verdict::Misconfigured { why: failure.message }),
        };
        let answer = match Auth::send(self.auth, self.outbound, self.tokens, request, deadline).await {
            Ok(sent) => sent.answer,
            // Nothing that could be in the chart was sent.
            Err(failure) => return LookedUp::Failed(of_failure(failure, false)),
        };
        let status = Some(answer.status.as_u16());
        let again = |why| {
            LookedUp::Failed(Verdict::Again { status, after: None, maybe_sent: false, why, words: None })
        };
        match answer.status {
            StatusCode::OK => {
                let read = self.outbound.work(move || read(&answer)).await;
                read.unwrap_or_else(|failure| LookedUp::Failed(of_failure(failure, false)))
            }
            StatusCode::UNAUTHORIZED => LookedUp::Failed(Verdict::Unauthorized { status, words: None }),
            StatusCode::TOO_MANY_REQUESTS => again("throttled"),
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                again("server_error")
            }
            _ => LookedUp::Failed(Verdict::Misconfigured { why: refused.to_owned() }),
        }
    }
}

/// The finding of a complete list of results.
fn chosen(mut ids: Vec<String>, complete: bool) -> LookedUp {
    match (ids.pop(), ids.is_empty(), complete) {
        (None, _, true) => LookedUp::Nothing,
        (Some(one), true, true) => LookedUp::One(one),
        _ => LookedUp::Several,
    }
}

fn garbage() -> LookedUp {
    let why = "look_up_unproven";
    LookedUp::Failed(Verdict::Again { status: Some(200), after: None, maybe_sent: false, why, words: None })
}

fn encounters(answer: &Answer) -> LookedUp {
    let bundle = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    if bundle["resourceType"] != "Bundle" || bundle["type"] != "searchset" {
        return garbage();
    }
    let resources = bundle["entry"].as_array().into_iter().flatten().map(|entry| &entry["resource"]);
    let resources: Vec<&Value> = resources.collect();
    if resources.iter().any(|resource| {
        let issues = resource["issue"].as_array().into_iter().flatten();
        resource["resourceType"] == "OperationOutcome"
            && issues.into_iter().any(|issue| issue["severity"] == "error" || issue["severity"] == "fatal")
    }) {
        return garbage();
    }
    let mut links = bundle["link"].as_array().into_iter().flatten();
    let complete = !links.any(|link| link["relation"] == "next");
    let held = |resource: &&&Value| {
        resource["resourceType"] == "Encounter"
            && !NOT_HELD.contains(&resource["status"].as_str().unwrap_or_default())
    };
    let ids = resources.iter().filter(held).filter_map(|resource| resource["id"].as_str().map(str::to_owned));
    chosen(ids.collect(), complete)
}

fn contacts(answer: &Answer) -> LookedUp {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let Some(results) = body["results"].as_array() else { return garbage() };
    let ids: Vec<String> =
        results.iter().filter_map(|result| result["id"].as_str().map(str::to_owned)).collect();
    let complete = body["total"].as_u64().is_none_or(|total| total == ids.len() as u64);
    chosen(ids, complete)
}
