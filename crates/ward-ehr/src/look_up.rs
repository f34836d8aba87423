//! Look-ups in the EHR before a note is sent: the encounter that a call belongs to, and the contact of a CRM.
//! [`crate::matching`] has the look-up of the patient.
//!
//! A look-up never chooses between several results. It gives one, or says that there is none or more than one.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::answers::is_error_outcome;
use crate::client::{Answer, Request};
use crate::delivery::{CallNote, Target, of_failure};
use crate::{Auth, Failure, delivery::Verdict, fhir, json as bounded, template};

/// The word of an answer that shows neither a result nor that there is none.
pub const UNPROVEN: &str = "look_up_unproven";
/// The maximum number of candidates that a look-up gives.
pub const MOST_CANDIDATES: usize = 10;
/// The maximum number of characters of a candidate's texts.
const LONGEST_TEXT: usize = 200;

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq)]
pub enum LookedUp {
    /// Exactly one was found: its id.
    One(String),
    /// The EHR answered, and has none. The candidates are results that do not count, such as uncertain matches.
    Nothing(Vec<Candidate>),
    /// More than one was found, and the first of them are given.
    Several(Vec<Candidate>),
    /// The look-up itself has an outcome like an attempt: the note was not sent.
    Failed(Verdict),
}

/// A resource of the EHR among which a person can choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The EHR's id of the resource.
    pub id: String,
    /// The patient's name, or the type of the encounter.
    pub display: Option<String>,
    /// The patient's date of birth, as the EHR has it.
    pub birth_date: Option<String>,
    /// The patient's first phone number, as the EHR has it.
    pub phone: Option<String>,
    /// The status of the encounter; `inactive` for a patient's record that is not in use.
    pub status: Option<String>,
    /// The grade of the match (FHIR R4, `match-grade`).
    pub grade: Option<String>,
    /// The score of the match, between 0 and 1.
    pub score: Option<f64>,
    /// The start of the encounter, as the EHR writes it.
    pub starts_at: Option<String>,
    /// The end of the encounter, as the EHR writes it.
    pub ends_at: Option<String>,
}

/// Encounters with these statuses did not take place (FHIR R4, `encounter-status`).
const NOT_HELD: [&str; 2] = ["cancelled", "entered-in-error"];

impl Target<'_> {
    /// The patient's encounter during the call, by the search parameters `patient` and `date` (FHIR R4, 8.11).
    pub async fn encounter(&self, note: &CallNote, deadline: Instant) -> LookedUp {
        let Some(patient) = &note.patient else { return LookedUp::Nothing(Vec::new()) };
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
        self.ask(request(), refused, encounters, deadline).await.unwrap_or_else(LookedUp::Failed)
    }

    /// The contact of `HubSpot` that has the other party's number.
    pub async fn contact(&self, note: &CallNote, deadline: Instant) -> LookedUp {
        let other = if note.inbound { &note.from } else { &note.to };
        let Some(number) = other.as_ref().filter(|number| number.starts_with('+')) else {
            return LookedUp::Nothing(Vec::new());
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
        self.ask(request(), refused, contacts, deadline).await.unwrap_or_else(LookedUp::Failed)
    }

    /// Sends a request that writes nothing, and reads its answer. `read` gives `None` for an answer that proves nothing.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        request: Result<Request, Failure>,
        refused: &str,
        read: impl FnOnce(&Answer) -> Option<T> + Send + 'static,
        deadline: Instant,
    ) -> Result<T, Verdict> {
        let request = request.map_err(|failure| Verdict::Misconfigured { why: failure.message })?;
        let answer = match Auth::send(self.auth, self.outbound, self.tokens, request, deadline).await {
            Ok(sent) => sent.answer,
            // Nothing that could be in the chart was sent.
            Err(failure) => return Err(of_failure(failure, false)),
        };
        let status = Some(answer.status.as_u16());
        let again = |why| Verdict::Again { status, after: None, maybe_sent: false, why, words: None };
        match answer.status {
            StatusCode::OK => {
                let read = self.outbound.work(move || read(&answer)).await;
                read.map_err(|failure| of_failure(failure, false))?.ok_or_else(|| again(UNPROVEN))
            }
            StatusCode::UNAUTHORIZED => Err(Verdict::Unauthorized { status, words: None }),
            StatusCode::TOO_MANY_REQUESTS => Err(again("throttled")),
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Err(again("server_error"))
            }
            // A success without a searchset says nothing about what the EHR has.
            status if status.is_success() => Err(again(UNPROVEN)),
            _ => Err(Verdict::Misconfigured { why: refused.to_owned() }),
        }
    }
}

/// The results in a searchset, and whether there are no others.
pub(crate) struct Searchset {
    /// The entries whose resource has the sought type.
    pub entries: Vec<Value>,
    /// Whether the answer has every result: no further page, and no greater total (FHIR R4, 3.1.1.2).
    pub is_complete: bool,
}

/// Reads the answer to a search for resources of this type. `None` if it is no searchset of JSON, has an error inside, or
/// has a result of another type or without an id.
pub(crate) fn searchset(answer: &Answer, kind: &str) -> Option<Searchset> {
    let content_type = answer.headers.get(CONTENT_TYPE).map(|told| String::from_utf8_lossy(told.as_bytes()));
    if content_type.is_some_and(|told| !told.to_ascii_lowercase().contains("json")) {
        return None;
    }
    let mut bundle = bounded::parse(&answer.body, bounded::SMALL_TREE)?;
    if bundle["resourceType"] != "Bundle" || bundle["type"] != "searchset" {
        return None;
    }
    let has_more = bundle["link"].as_array().into_iter().flatten().any(|link| link["relation"] == "next");
    let mut entries = Vec::new();
    match bundle["entry"].take() {
        Value::Null => {}
        Value::Array(all) => {
            for entry in all {
                let resource = &entry["resource"];
                if is_error_outcome(resource) {
                    return None;
                }
                // Remarks, and resources that belong to a result, are no results (FHIR R4, `search-entry-mode`).
                if resource["resourceType"] == "OperationOutcome" || entry["search"]["mode"] == "include" {
                    continue;
                }
                if resource["resourceType"] != kind || !resource["id"].as_str().is_some_and(fhir::is_id) {
                    return None;
                }
                entries.push(entry);
            }
        }
        _ => return None,
    }
    let total = &bundle["total"];
    let has_all = total.is_null() || total.as_u64().is_some_and(|total| total <= entries.len() as u64);
    Some(Searchset { entries, is_complete: !has_more && has_all })
}

/// A text of the EHR as a person sees it: of one line, and not too long.
pub(crate) fn shown(text: &Value) -> Option<String> {
    let kept: String = text.as_str()?.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
    Some(kept).filter(|kept| !kept.trim().is_empty())
}

/// The finding of a list of results. Two results are several, whatever else there is; fewer count only in a complete list.
pub(crate) fn chosen(mut found: Vec<Candidate>, is_complete: bool) -> Option<LookedUp> {
    if found.len() > 1 {
        found.truncate(MOST_CANDIDATES);
        return Some(LookedUp::Several(found));
    }
    is_complete.then(|| {
        found.pop().map_or_else(|| LookedUp::Nothing(Vec::new()), |candidate| LookedUp::One(candidate.id))
    })
}

fn encounters(answer: &Answer) -> Option<LookedUp> {
    let Searchset { entries, is_complete } = searchset(answer, "Encounter")?;
    let resources = entries.iter().map(|entry| &entry["resource"]);
    let held = resources
        .filter(|resource| !NOT_HELD.contains(&resource["status"].as_str().unwrap_or_default()))
        .map(|resource| Candidate {
            id: resource["id"].as_str().unwrap_or_default().to_owned(),
            display: shown(&resource["type"][0]["text"])
                .or_else(|| shown(&resource["type"][0]["coding"][0]["display"]))
                .or_else(|| shown(&resource["class"]["display"]))
                .or_else(|| shown(&resource["class"]["code"])),
            status: shown(&resource["status"]),
            starts_at: shown(&resource["period"]["start"]),
            ends_at: shown(&resource["period"]["end"]),
            ..Candidate::default()
        });
    chosen(held.collect(), is_complete)
}

fn contacts(answer: &Answer) -> Option<LookedUp> {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE)?;
    let results = body["results"].as_array()?;
    let ids: Vec<&str> = results.iter().filter_map(|result| result["id"].as_str()).collect();
    let is_complete = body["total"].as_u64().is_none_or(|total| total == ids.len() as u64);
    Some(match ids.as_slice() {
        [] if is_complete => LookedUp::Nothing(Vec::new()),
        [one] if is_complete => LookedUp::One((*one).to_owned()),
        _ => LookedUp::Several(Vec::new()),
    })
}
