//! A call as `HubSpot`'s call object (CRM API, "Calls").
//!
//! `HubSpot` has no conditional create. The call's id is stored in Ward's property `ward_call_id`, which the
//! owner of the portal has to create once. A search for it shows whether an earlier attempt arrived.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};

use crate::answers::Evidence;
use crate::client::{Answer, Request};
use crate::delivery::CallNote;
use crate::{Failure, json as bounded, template};

/// The property that holds the call's id.
pub const ID_PROPERTY: &str = "ward_call_id";
/// `HubSpot`'s number for the association of a call with a contact.
const CALL_TO_CONTACT: i64 = 194;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The `HubSpot` object for a call.
pub fn object(note: &CallNote) -> Value {
    let mut properties = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            properties.insert(name.to_owned(), Value::String(value));
        }
    };
    let status = match note.status.as_str() {
        "completed" => "COMPLETED",
        "busy" => "BUSY",
        "no-answer" => "NO_ANSWER",
        "canceled" => "CANCELED",
        _ => "FAILED",
    };
    put(ID_PROPERTY, Some(note.id.clone()));
    put("hs_timestamp", Some(note.started_at.clone()));
    put("hs_call_direction", Some(if note.inbound { "INBOUND" } else { "OUTBOUND" }.to_owned()));
    put("hs_call_status", Some(status.to_owned()));
    put("hs_call_duration", note.duration_ms.map(|milliseconds| milliseconds.to_string()));
    put("hs_call_title", Some(if note.inbound { "Inbound call" } else { "Outbound call" }.to_owned()));
    put("hs_call_body", Some(note.text.clone()));
    put("hs_call_from_number", note.from.clone());
    put("hs_call_to_number", note.to.clone());
    let mut object = json!({ "properties": properties });
    if let Some(contact) = &note.patient {
        object["associations"] = json!([{
            "to": { "id": contact },
            "types": [{ "associationCategory": "HUBSPOT_DEFINED", "associationTypeId": CALL_TO_CONTACT }],
        }]);
    }
    object
}

/// The missing set-up that a refusal names: the property by which calls are found again.
pub(crate) fn complaint(words: &Value) -> Option<String> {
    let said = words.to_string();
    let lacks = said.contains(ID_PROPERTY)
        && (said.contains("PROPERTY_DOESNT_EXIST") || said.contains("does not exist"));
    lacks.then(|| {
        format!("HubSpot has no property {ID_PROPERTY} of calls: create it as a single-line text, then the queue goes on")
    })
}

fn post(base_url: &str, path: &str, body: &Value) -> Result<Request, Failure> {
    let headers = HeaderMap::from_iter([(ACCEPT, JSON), (CONTENT_TYPE, JSON)]);
    let url = template::below(base_url, path)?;
    Ok(Request { method: Method::POST, url, headers, body: Bytes::from(body.to_string()) })
}

pub(crate) fn create(base_url: &str, note: &CallNote) -> Result<Request, Failure> {
    post(base_url, "/crm/v3/objects/calls", &object(note))
}

/// An update of the call at `place` (CRM API, "Calls", update). Its contacts stay.
pub(crate) fn update(base_url: &str, note: &CallNote, place: &str) -> Option<Request> {
    let id = place.strip_prefix("calls/")?;
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let body = json!({ "properties": object(note)["properties"] });
    let request = post(base_url, &format!("/crm/v3/objects/calls/{id}"), &body).ok()?;
    Some(Request { method: Method::PATCH, ..request })
}

pub(crate) fn search(base_url: &str, note: &CallNote) -> Result<Request, Failure> {
    let filter = json!({ "propertyName": ID_PROPERTY, "operator": "EQ", "value": note.id });
    let body = json!({ "filterGroups": [{ "filters": [filter] }], "properties": [ID_PROPERTY], "limit": 10 });
    let mut request = post(base_url, "/crm/v3/objects/calls/search", &body)?;
    // A gateway's cache may be older than a create.
    request.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(request)
}

/// The evidence in a search's answer. Only a complete answer shows that there is no call: a total of 0, no result and no
/// further page (CRM API, "Search").
pub(crate) fn evidence(note: &CallNote, answer: &Answer) -> Evidence {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let Some(results) = body["results"].as_array() else { return Evidence::Unproven };
    let mut ours: Vec<(&str, String)> = results
        .iter()
        .filter(|result| result["properties"][ID_PROPERTY] == note.id.as_str())
        .map(|result| {
            let place = format!("calls/{}", result["id"].as_str().unwrap_or_default());
            (result["createdAt"].as_str().unwrap_or_default(), place)
        })
        .collect();
    if ours.len() < results.len() {
        return Evidence::NoSearch;
    }
    if ours.is_empty() && (body["total"] != 0 || !body["paging"]["next"].is_null()) {
        return Evidence::Unproven;
    }
    ours.sort();
    Evidence::These(ours.into_iter().map(|(_, place)| place).collect())
}

/// The location of the created call, from the object in the body. An object of another call names nothing.
pub(crate) fn location(note: &CallNote, answer: &Answer) -> Option<String> {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE)?;
    let id = body["id"].as_str().filter(|id| !id.is_empty())?;
    let known = &body["properties"][ID_PROPERTY];
    let is_created = answer.status.as_u16() == 201;
    // HubSpot's objects always have properties; only a creation is proof without them.
    let ours = if known.is_null() { is_created } else { *known == note.id.as_str() };
    ours.then(|| format!("calls/{id}"))
}
