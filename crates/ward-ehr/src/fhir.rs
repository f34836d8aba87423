//! A call as a FHIR R4 resource: how it is created, and how it is found again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, IF_MATCH, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::answers::{Evidence, is_error_outcome};
use crate::client::{Answer, Request};
use crate::delivery::{CallNote, Form};
use crate::{Failure, json as bounded, template};

const JSON: HeaderValue = HeaderValue::from_static("application/fhir+json");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const IF_NONE_EXIST: HeaderName = HeaderName::from_static("if-none-exist");
/// The characters that a query's value may contain unescaped (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const fn type_of(form: Form) -> &'static str {
    match form {
        Form::DocumentReference => "DocumentReference",
        Form::Communication | Form::HubSpotCall | Form::PatientCase => "Communication",
    }
}

/// The resource for a call, in the connector's form.
pub fn resource(form: Form, note: &CallNote) -> Value {
    match form {
        Form::DocumentReference => document_reference(note),
        Form::Communication | Form::HubSpotCall | Form::PatientCase => communication(note),
    }
}

fn identifier(note: &CallNote) -> Value {
    json!({ "system": note.system, "value": note.id })
}

fn title(note: &CallNote) -> &'static str {
    if note.inbound { "Inbound telephone call" } else { "Outbound telephone call" }
}

fn attachment(note: &CallNote) -> Value {
    json!({
        "contentType": "text/plain;charset=utf-8",
        "data": STANDARD.encode(&note.text),
        "title": title(note),
        "creation": note.ended_at.as_ref().unwrap_or(&note.started_at),
    })
}

/// A reference to a telephone by its number (RFC 3966), not to a resource. A server that checks references
/// would refuse one to a resource that it does not have.
fn telephone(number: Option<&String>) -> Option<Value> {
    let number = number.filter(|number| number.starts_with('+'))?;
    Some(json!({ "identifier": { "system": "urn:ietf:rfc:3966", "value": format!("tel:{number}") } }))
}

/// Whether a text can be the id of a resource (FHIR R4, 2.24.0.1, "id").
pub(crate) fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// The patient. The id is the EHR's own, so the reference resolves there, and the chart shows the resource.
fn subject(patient: &str) -> Value {
    if is_id(patient) {
        json!({ "type": "Patient", "reference": format!("Patient/{patient}") })
    } else {
        json!({ "type": "Patient", "identifier": { "value": patient } })
    }
}

/// The coded category, and the practice's own one as text.
fn categories(note: &CallNote, coded: Value) -> Value {
    let own = note.filing.category.as_ref().map(|category| json!({ "text": category }));
    Value::Array([coded].into_iter().chain(own).collect())
}

/// `Communication` (FHIR R4, 10.3). The people are logical references.
fn communication(note: &CallNote) -> Value {
    let mut resource = Map::new();
    let mut put = |name: &str, value: Value| {
        resource.insert(name.to_owned(), value);
    };
    put("resourceType", json!("Communication"));
    put("identifier", json!([identifier(note)]));
    if note.status == "completed" {
        put("status", json!("completed"));
    } else {
        put("status", json!("not-done"));
        put("statusReason", json!({ "text": note.status }));
    }
    let category = "http://terminology.hl7.org/CodeSystem/communication-category";
    put("category", categories(note, json!({ "coding": [{ "system": category, "code": "notification" }] })));
    let mode = "http://terminology.hl7.org/CodeSystem/v3-ParticipationMode";
    put("medium", json!([{ "coding": [{ "system": mode, "code": "PHONE" }] }]));
    if let Some(patient) = &note.patient {
        put("subject", subject(patient));
    }
    if let Some(encounter) = note.encounter.as_deref().filter(|id| is_id(id)) {
        put("encounter", json!({ "reference": format!("Encounter/{encounter}") }));
    }
    put("sent", json!(note.started_at));
    if let Some(ended_at) = &note.ended_at {
        put("received", json!(ended_at));
    }
    if let Some(to) = telephone(note.to.as_ref()) {
        put("recipient", json!([to]));
    }
    if let Some(from) = telephone(note.from.as_ref()) {
        put("sender", from);
    }
    put("payload", json!([{ "contentAttachment": attachment(note) }]));
    Value::Object(resource)
}

/// `DocumentReference` (FHIR R4, 2.43): a telephone note in a patient's chart, with a type from LOINC.
fn document_reference(note: &CallNote) -> Value {
    let mut period = Map::from_iter([("start".to_owned(), json!(note.started_at))]);
    let ended_at = note.ended_at.as_ref().unwrap_or(&note.started_at);
    period.insert("end".to_owned(), json!(ended_at));
    let mut context = json!({ "period": period });
    if let Some(encounter) = &note.encounter {
        context["encounter"] = json!([{ "reference": format!("Encounter/{encounter}") }]);
    }
    let mut document = document_body(note, ended_at, &context);
    if let Some(former) = &note.replaces {
        // The former document stays readable and counts as superseded (FHIR R4, 2.43, `relatesTo`).
        document["relatesTo"] = json!([{ "code": "replaces", "target": { "reference": former } }]);
    }
    document
}

fn document_body(note: &CallNote, ended_at: &str, context: &Value) -> Value {
    let category = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category";
    json!({
        "resourceType": "DocumentReference",
        "identifier": [identifier(note)],
        "status": "current",
        "docStatus": if note.filing.preliminary { "preliminary" } else { "final" },
        "type": {
            "coding": [{ "system": "http://loinc.org", "code": "34748-4", "display": "Telephone encounter Note" }],
        },
        // US Core requires one (US Core DocumentReference Profile 6.1.0).
        "category": categories(note, json!({ "coding": [{ "system": category, "code": "clinical-note", "display": "Clinical Note" }] })),
        "subject": { "reference": format!("Patient/{}", note.patient.as_deref().unwrap_or_default()) },
        "date": ended_at,
        "description": title(note),
        "content": [{ "attachment": attachment(note) }],
        "context": context,
    })
}

/// The path of the resource at `place`, if that is a location of this form's type.
fn path_of(form: Form, place: &str) -> Option<(String, &str)> {
    let (kind, id) = place.split_once('/')?;
    (kind == type_of(form) && is_id(id)).then(|| (format!("/{kind}/{id}"), id))
}

/// A read of the resource at `place`, not from a cache.
pub(crate) fn read(form: Form, base_url: &str, place: &str) -> Option<Request> {
    let (path, _) = path_of(form, place)?;
    let headers =
        HeaderMap::from_iter([(ACCEPT, JSON), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))]);
    let url = template::below(base_url, &path).ok()?;
    Some(Request { method: Method::GET, url, headers, body: Bytes::new() })
}

/// The resource that a read found.
pub(crate) enum Found {
    /// This call's, with its version if the server has versions.
    Ours(Option<String>),
    /// The answer has a resource, but not the one that this call created.
    Other,
}

/// The resource in the answer to a read.
pub(crate) fn found(note: &CallNote, answer: &Answer) -> Found {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    if !is_ours(note, &body) {
        return Found::Other;
    }
    Found::Ours(body["meta"]["versionId"].as_str().filter(|id| is_id(id)).map(str::to_owned))
}

/// An update of the resource at `place`, of this version if one is known (FHIR R4, 3.1.0.4 and 3.1.0.5).
pub(crate) fn update(
    form: Form,
    base_url: &str,
    note: &CallNote,
    place: &str,
    version: Option<&str>,
) -> Option<Request> {
    let (path, id) = path_of(form, place)?;
    let mut headers = HeaderMap::from_iter([
        (ACCEPT, JSON),
        (CONTENT_TYPE, JSON),
        (PREFER, HeaderValue::from_static("return=representation")),
    ]);
    if let Some(version) = version {
        headers.insert(IF_MATCH, HeaderValue::from_str(&format!("W/\"{version}\"")).ok()?);
    }
    let mut body = resource(form, note);
    body["id"] = json!(id);
    let url = template::below(base_url, &path).ok()?;
    Some(Request { method: Method::PUT, url, headers, body: Bytes::from(body.to_string()) })
}

fn token(note: &CallNote) -> String {
    let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    format!("identifier={}%7C{}", escape(&note.system), escape(&note.id))
}

/// A conditional create (FHIR R4, 3.1.0.8.1). It does no harm where the condition is ignored, and is a
/// further guard elsewhere.
pub(crate) fn create(form: Form, base_url: &str, note: &CallNote) -> Result<Request, Failure> {
    let condition = HeaderValue::from_str(&token(note))
        .map_err(|_| Failure::misconfigured("the identifier has characters that a header cannot carry"))?;
    let headers = HeaderMap::from_iter([
        (ACCEPT, JSON),
        (CONTENT_TYPE, JSON),
        (IF_NONE_EXIST, condition),
        (PREFER, HeaderValue::from_static("return=minimal")),
    ]);
    let url = template::below(base_url, &format!("/{}", type_of(form)))?;
    let body = Bytes::from(resource(form, note).to_string());
    Ok(Request { method: Method::POST, url, headers, body })
}

/// A search by identifier. It asks a server that does not understand the parameter to refuse instead of
/// ignoring it (FHIR R4, 3.1.1.3.3.1). It also asks not to answer from a cache, which may be older than a create.
pub(crate) fn search(form: Form, base_url: &str, note: &CallNote) -> Result<Request, Failure> {
    let headers = HeaderMap::from_iter([
        (ACCEPT, JSON),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (PREFER, HeaderValue::from_static("handling=strict")),
    ]);
    let mut url = template::below(base_url, &format!("/{}", type_of(form)))?;
    url.set_query(Some(&token(note)));
    Ok(Request { method: Method::GET, url, headers, body: Bytes::new() })
}

/// The evidence in a search's answer. A server that does not understand the parameter may answer with everything it has,
/// so each resource is checked. Only a complete answer shows that there is none: a searchset without a further page, without
/// an error inside, and with as many resources as its total says (FHIR R4, 2.36 and 3.1.1.2).
pub(crate) fn evidence(form: Form, note: &CallNote, answer: &Answer) -> Evidence {
    let Some(bundle) = bounded::parse(&answer.body, bounded::SMALL_TREE) else { return Evidence::Unproven };
    if bundle["resourceType"] != "Bundle" {
        return Evidence::Unproven;
    }
    let entries: Vec<&Value> = bundle["entry"].as_array().into_iter().flatten().collect();
    let resources: Vec<&Value> = entries
        .iter()
        .map(|entry| &entry["resource"])
        .filter(|resource| resource["resourceType"] == type_of(form))
        .collect();
    let mut ours: Vec<(&str, String)> = resources
        .iter()
        .filter(|resource| is_ours(note, resource))
        .map(|resource| {
            let place = format!("{}/{}", type_of(form), resource["id"].as_str().unwrap_or_default());
            (resource["meta"]["lastUpdated"].as_str().unwrap_or_default(), place)
        })
        .collect();
    if ours.len() < resources.len() {
        return Evidence::NoSearch;
    }
    if ours.is_empty() && !is_complete(&bundle, &entries) {
        return Evidence::Unproven;
    }
    ours.sort();
    Evidence::These(ours.into_iter().map(|(_, place)| place).collect())
}

fn is_ours(note: &CallNote, resource: &Value) -> bool {
    let mut identifiers = resource["identifier"].as_array().into_iter().flatten();
    identifiers.any(|known| known["system"] == note.system.as_str() && known["value"] == note.id.as_str())
}

/// Whether a bundle without the resource shows that there is none.
fn is_complete(bundle: &Value, entries: &[&Value]) -> bool {
    let mut links = bundle["link"].as_array().into_iter().flatten();
    let has_more = links.any(|link| link["relation"] == "next");
    let is_empty = bundle["total"].is_null() || bundle["total"] == 0;
    // An entry that is neither a remark nor an error could be the resource.
    let only_remarks = entries.iter().all(|entry| {
        entry["resource"]["resourceType"] == "OperationOutcome" && !is_error_outcome(&entry["resource"])
    });
    let is_list = bundle["entry"].is_null() || bundle["entry"].is_array();
    bundle["type"] == "searchset" && !has_more && is_empty && only_remarks && is_list
}

/// The location of the created resource as `Type/id`, from `Location` or from the body. Neither counts if it is of another
/// type, because a gateway's answer may name anything.
pub(crate) fn location(form: Form, note: &CallNote, answer: &Answer) -> Option<String> {
    let told = answer.headers.get(LOCATION).and_then(|told| told.to_str().ok());
    let told = told.and_then(|told| {
        let place = told.split("/_history/").next()?.trim_end_matches('/');
        let mut parts = place.rsplitn(3, '/');
        let (id, kind) = (parts.next()?, parts.next()?);
        (kind == type_of(form) && !id.is_empty()).then(|| format!("{kind}/{id}"))
    });
    told.or_else(|| {
        let body = bounded::parse(&answer.body, bounded::SMALL_TREE)?;
        let id = body["id"].as_str().filter(|id| !id.is_empty())?;
        let named =
            body["resourceType"] == type_of(form) && (body["identifier"].is_null() || is_ours(note, &body));
        named.then(|| format!("{}/{id}", type_of(form)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> CallNote {
        CallNote {
            system: "urn:uuid:0d0f".to_owned(),
            id: "0198".to_owned(),
            inbound: true,
            status: "completed".to_owned(),
            from: Some("+15550100001".to_owned()),
            to: None,
            started_at: "2026-04-18T12:00:00.000000Z".to_owned(),
            ended_at: None,
            duration_ms: Some(1_000),
            patient: Some("p-1".to_owned()),
            text: "A call.".to_owned(),
            ..CallNote::default()
        }
    }

    fn answer(status: u16, body: &Value) -> Answer {
        let status = http::StatusCode::from_u16(status).unwrap();
        Answer { status, headers: HeaderMap::new(), body: Bytes::from(body.to_string()) }
    }

    #[test]
    fn the_identifier_is_escaped_once() {
        let request = search(Form::Communication, "https://ehr.example/fhir/", &note()).unwrap();
        assert_eq!(
            request.url.as_str(),
            "https://ehr.example/fhir/Communication?identifier=urn%3Auuid%3A0d0f%7C0198"
        );
        let request = create(Form::DocumentReference, "https://ehr.example/fhir", &note()).unwrap();
        assert_eq!(request.headers[IF_NONE_EXIST], "identifier=urn%3Auuid%3A0d0f%7C0198");
        assert_eq!(request.url.path(), "/fhir/DocumentReference");
    }

    #[test]
    fn a_server_that_answers_with_anything_has_not_searched() {
        let ours = json!({ "resourceType": "Communication", "id": "2", "meta": { "lastUpdated": "2026-02" },
                           "identifier": [{ "system": "urn:uuid:0d0f", "value": "0198" }] });
        let older = json!({ "resourceType": "Communication", "id": "1", "meta": { "lastUpdated": "2026-01" },
                            "identifier": [{ "system": "urn:uuid:0d0f", "value": "0198" }] });
        let other = json!({ "resourceType": "Communication", "id": "3" });
        let bundle = |resources: &[&Value]| {
            let entry: Vec<Value> =
                resources.iter().map(|resource| json!({ "resource": resource })).collect();
            answer(200, &json!({ "resourceType": "Bundle", "type": "searchset", "entry": entry }))
        };
        let form = Form::Communication;
        assert_eq!(evidence(form, &note(), &bundle(&[])), Evidence::These(vec![]));
        let both = Evidence::These(vec!["Communication/1".to_owned(), "Communication/2".to_owned()]);
        assert_eq!(evidence(form, &note(), &bundle(&[&ours, &older])), both);
        assert_eq!(evidence(form, &note(), &bundle(&[&other])), Evidence::NoSearch);
    }

    #[test]
    fn places_are_told_without_host_and_version() {
        let mut told = answer(201, &json!({}));
        told.headers.insert(
            LOCATION,
            HeaderValue::from_static("https://ehr.example/fhir/Communication/12/_history/1"),
        );
        let form = Form::Communication;
        assert_eq!(location(form, &note(), &told).as_deref(), Some("Communication/12"));
        assert_eq!(location(Form::DocumentReference, &note(), &told), None, "another type");
        let told = answer(200, &json!({ "resourceType": "Communication", "id": "9" }));
        assert_eq!(location(form, &note(), &told).as_deref(), Some("Communication/9"));
        let of_another = json!([{ "system": "urn:uuid:0d0f", "value": "0199" }]);
        let told =
            answer(200, &json!({ "resourceType": "Communication", "id": "9", "identifier": of_another }));
        assert_eq!(location(form, &note(), &told), None, "another call's resource");
    }
}
