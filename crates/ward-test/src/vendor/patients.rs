//! Patients in a stand-in for a vendor's FHIR server: the search and the operation `$match`, with the rules of their documents.
//!
//! Search: FHIR R4, 3.1.1 (`Prefer: handling=strict` refuses unknown parameters; `_count` and a `next` link) and the search
//! parameters `phone` and `birthdate` of Patient; each once, and a date without a time (Oracle Health, Millennium R4, "Patient"). Match: FHIR R4, `patient-operation-match` (parameters, score, `match-grade`,
//! and `onlyCertainMatches`, with which several matches give none). Additional results: FHIR R4, 3.1.1.2; Epic weighs
//! its parameters, so a patient who has only one of them may be among the results.

use serde_json::{Value, json};

use super::{VendorAnswer, VendorRequest};

/// A patient's record with one phone number.
pub fn patient(id: &str, phone: &str, birth_date: &str) -> Value {
    json!({ "resourceType": "Patient", "id": id, "active": true, "birthDate": birth_date,
            "name": [{ "given": ["Ann"], "family": id }], "telecom": [{ "system": "phone", "value": phone }] })
}

fn refused(status: u16, code: &str, text: &str) -> VendorAnswer {
    let issue = json!({ "severity": "error", "code": code, "diagnostics": text });
    (status, Vec::new(), json!({ "resourceType": "OperationOutcome", "issue": [issue] }))
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// Whether the record has the number, in national or international form.
fn has_phone(record: &Value, phone: &str) -> bool {
    let known = digits(record["telecom"][0]["value"].as_str().unwrap_or_default());
    known.len() >= 10 && digits(phone).ends_with(&known)
}

/// Answers `GET /Patient`. With `weighs`, a record that has one of the two is a result too.
pub fn search(asked: &VendorRequest, kept: &[Value], weighs: bool) -> VendorAnswer {
    let url = reqwest::Url::parse(&format!("http://stand.in/?{}", asked.query)).expect("a query");
    let known = ["phone", "birthdate", "_count"];
    if asked.headers.get("prefer").map(String::as_str) == Some("handling=strict")
        && let Some((name, _)) = url.query_pairs().find(|(name, _)| !known.contains(&name.as_ref()))
    {
        return refused(400, "not-supported", &name);
    }
    let (Some(phone), Some(birth_date)) = (asked.field("phone"), asked.field("birthdate")) else {
        return refused(400, "required", "phone and birthdate");
    };
    let times = |name: &str| url.query_pairs().filter(|(known, _)| known == name).count();
    if times("phone") > 1 || times("birthdate") > 1 || birth_date.contains('T') {
        return refused(422, "business-rule", "phone or birthdate");
    }
    // A plus that is not escaped arrives as a space.
    if !phone.starts_with('+') {
        return refused(400, "value", "phone");
    }
    let fits = |record: &&Value| {
        let (phone, date) = (has_phone(record, &phone), record["birthDate"] == birth_date.as_str());
        record["resourceType"] == "Patient" && if weighs { phone || date } else { phone && date }
    };
    let found: Vec<&Value> = kept.iter().filter(fits).collect();
    let count = asked.field("_count").and_then(|count| count.parse().ok()).unwrap_or(50);
    let entry: Vec<Value> = found
        .iter()
        .take(count)
        .map(|record| json!({ "resource": record, "search": { "mode": "match" } }))
        .collect();
    let mut bundle =
        json!({ "resourceType": "Bundle", "type": "searchset", "total": found.len(), "entry": entry });
    if found.len() > count {
        bundle["link"] = json!([{ "relation": "next", "url": "https://vendor.example/Patient?page=2" }]);
    }
    (200, Vec::new(), bundle)
}

/// Answers `POST /Patient/$match`. A record with both facts is `certain`, and one with one of them `possible`.
pub fn matched(asked: &VendorRequest, kept: &[Value]) -> VendorAnswer {
    if asked.headers.get("content-type").map(String::as_str) != Some("application/fhir+json") {
        return refused(415, "not-supported", "content-type");
    }
    let body = asked.json();
    let empty = Vec::new();
    let parameters = body["parameter"].as_array().unwrap_or(&empty);
    let of = |name: &str| parameters.iter().filter(|one| one["name"] == name).collect::<Vec<_>>();
    let (resource, certain, count) = (of("resource"), of("onlyCertainMatches"), of("count"));
    let is_known = resource.len() + certain.len() + count.len() == parameters.len();
    if body["resourceType"] != "Parameters" || !is_known || resource.len() != 1 || certain.len() > 1 {
        return refused(400, "invalid", "parameters");
    }
    let sought = &resource[0]["resource"];
    let phone = sought["telecom"][0]["value"].as_str().unwrap_or_default();
    if sought["resourceType"] != "Patient" || phone.is_empty() || !sought["birthDate"].is_string() {
        return refused(400, "required", "insufficient properties");
    }
    let graded = |record: &Value| {
        let (phone, date) = (has_phone(record, phone), record["birthDate"] == sought["birthDate"]);
        let (score, grade) = match (phone, date) {
            (true, true) => (1.0, "certain"),
            (true, false) | (false, true) => (0.5, "possible"),
            (false, false) => return None,
        };
        let extension =
            json!([{ "url": "http://hl7.org/fhir/StructureDefinition/match-grade", "valueCode": grade }]);
        Some(
            json!({ "resource": record, "search": { "mode": "match", "score": score, "extension": extension } }),
        )
    };
    let people = kept.iter().filter(|record| record["resourceType"] == "Patient");
    let mut entry: Vec<Value> = people.filter_map(graded).collect();
    if certain.first().is_some_and(|only| only["valueBoolean"] == true) {
        entry.retain(|one| one["search"]["score"] == 1.0);
        if entry.len() > 1 {
            entry.clear();
        }
    }
    entry.truncate(
        count
            .first()
            .and_then(|count| count["valueInteger"].as_u64())
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(100),
    );
    (
        200,
        Vec::new(),
        json!({ "resourceType": "Bundle", "type": "searchset", "total": entry.len(), "entry": entry }),
    )
}
