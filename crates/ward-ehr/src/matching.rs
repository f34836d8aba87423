//! The patient of a call in the EHR, by phone number and date of birth.
//!
//! A search (FHIR R4, `Patient?phone=…&birthdate=…`) may give results that do not fit: a server can add those that it
//! finds relevant (FHIR R4, 3.1.1.2), and Epic weighs the parameters. So each result is compared with the number and
//! the date here, and only those that have both count. The operation `$match` (FHIR R4, `patient-operation-match`) grades its
//! results, and only those of the grade `certain` count.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Answer, Request};
use crate::delivery::Target;
use crate::look_up::{Candidate, LookedUp, MOST_CANDIDATES, Searchset, chosen, searchset, shown};
use crate::{Failure, template};

const JSON: HeaderValue = HeaderValue::from_static("application/fhir+json");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Results on one page of a search. Two that fit are too many already.
const PAGE: &str = "20";
/// The grade of a match in the entry of a bundle (FHIR R4).
const GRADE: &str = "http://hl7.org/fhir/StructureDefinition/match-grade";
/// The maximum number of digits of a country code (ITU-T E.164, 6.2.1).
const LONGEST_COUNTRY: usize = 3;

/// The facts by which a patient is sought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientSought {
    /// The phone number, in international form with a `+`.
    pub phone: String,
    /// The date of birth, a whole date like `1980-02-29`.
    pub birth_date: String,
}

impl Target<'_> {
    /// The patient by a search. Exactly one counts if it has both the number and the date of birth.
    pub async fn search_patient(&self, sought: &PatientSought, deadline: Instant) -> LookedUp {
        let refused = "the EHR refuses the search of patients by phone and birthdate: grant it, or set \
                       delivery.patient to match or reported";
        let (request, sought) = (self.patient_search(sought), sought.clone());
        let read = move |answer: &Answer| found(answer, &sought);
        self.ask(request, refused, read, deadline).await.unwrap_or_else(LookedUp::Failed)
    }

    /// The patient by the operation `$match`. Exactly one counts if the EHR is certain of it. A second request asks for the
    /// uncertain ones, as candidates for a person.
    pub async fn match_patient(&self, sought: &PatientSought, deadline: Instant) -> LookedUp {
        let refused = "the EHR refuses the operation Patient/$match with phone and birth date: grant it, or set \
                       delivery.patient to search or reported";
        let ask = async |only_certain: bool| {
            let (request, sought) = (self.patient_match(sought, only_certain), sought.clone());
            let read = move |answer: &Answer| graded(answer, &sought, only_certain);
            self.ask(request, refused, read, deadline).await.unwrap_or_else(LookedUp::Failed)
        };
        match ask(true).await {
            // Several certain ones are left out of an answer that has certain ones only.
            LookedUp::Nothing(_) => ask(false).await,
            other => other,
        }
    }

    fn patient_search(&self, sought: &PatientSought) -> Result<Request, Failure> {
        let mut url = template::below(self.base_url, "/Patient")?;
        url.query_pairs_mut()
            .append_pair("phone", &sought.phone)
            .append_pair("birthdate", &sought.birth_date)
            .append_pair("_count", PAGE);
        let headers = HeaderMap::from_iter([
            (ACCEPT, JSON),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (PREFER, HeaderValue::from_static("handling=strict")),
        ]);
        Ok(Request { method: Method::GET, url, headers, body: Bytes::new() })
    }

    fn patient_match(&self, sought: &PatientSought, only_certain: bool) -> Result<Request, Failure> {
        let url = template::below(self.base_url, "/Patient/$match")?;
        let patient = json!({ "resourceType": "Patient", "birthDate": sought.birth_date,
                              "telecom": [{ "system": "phone", "value": sought.phone }] });
        let mut parameters = vec![
            json!({ "name": "resource", "resource": patient }),
            json!({ "name": "onlyCertainMatches", "valueBoolean": only_certain }),
        ];
        if !only_certain {
            parameters.push(json!({ "name": "count", "valueInteger": MOST_CANDIDATES }));
        }
        let body = json!({ "resourceType": "Parameters", "parameter": parameters });
        let headers = HeaderMap::from_iter([(ACCEPT, JSON), (CONTENT_TYPE, JSON)]);
        Ok(Request { method: Method::POST, url, headers, body: Bytes::from(body.to_string()) })
    }
}

/// The patients of a search's answer: those that fit, or the others as candidates.
fn found(answer: &Answer, sought: &PatientSought) -> Option<LookedUp> {
    let Searchset { entries, is_complete } = searchset(answer, "Patient")?;
    let (fitting, others): (Vec<&Value>, Vec<&Value>) = entries.iter().partition(|entry| {
        let patient = &entry["resource"];
        is_in_use(patient) && has_birth_date(patient, sought) && has_phone(patient, &sought.phone)
    });
    if fitting.is_empty() && is_complete {
        return Some(LookedUp::Nothing(candidates(&others)));
    }
    chosen(fitting.into_iter().map(candidate).collect(), is_complete)
}

/// The patients of a match's answer: the certain ones, or the others as candidates.
fn graded(answer: &Answer, sought: &PatientSought, only_certain: bool) -> Option<LookedUp> {
    let Searchset { entries, is_complete } = searchset(answer, "Patient")?;
    let (certain, others): (Vec<&Value>, Vec<&Value>) = entries.iter().partition(|entry| {
        let patient = &entry["resource"];
        // The birth date is compared as well, if the answer shows one.
        let agrees = patient["birthDate"].is_null() || has_birth_date(patient, sought);
        is_in_use(patient) && agrees && grade(entry).is_some_and(|grade| grade == "certain")
    });
    if !only_certain && certain.len() < 2 {
        // The request for certain ones has found none, so a single one is a candidate too. The request limits their number.
        return Some(LookedUp::Nothing(candidates(&entries.iter().collect::<Vec<_>>())));
    }
    if certain.is_empty() && is_complete {
        return Some(LookedUp::Nothing(candidates(&others)));
    }
    chosen(certain.into_iter().map(candidate).collect(), is_complete)
}

/// Whether the record is in use: active, and not replaced by another one after a merge.
fn is_in_use(patient: &Value) -> bool {
    let mut links = patient["link"].as_array().into_iter().flatten();
    patient["active"] != false && !links.any(|link| link["type"] == "replaced-by")
}

fn has_birth_date(patient: &Value, sought: &PatientSought) -> bool {
    patient["birthDate"] == sought.birth_date.as_str()
}

fn phones(patient: &Value) -> impl Iterator<Item = &str> {
    let telecoms = patient["telecom"].as_array().into_iter().flatten();
    let of_phones = telecoms.filter(|telecom| ["phone", "sms"].iter().any(|kind| telecom["system"] == *kind));
    of_phones.filter_map(|telecom| telecom["value"].as_str())
}

fn has_phone(patient: &Value, number: &str) -> bool {
    phones(patient).any(|known| is_same_number(known, number))
}

/// Whether a number of a record, written in any form, is this number in international form. A national number is the same if
/// only a country code is missing.
fn is_same_number(known: &str, number: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let (all, known_digits) = (digits(number), digits(known));
    if known.trim_start().starts_with('+') {
        return known_digits == all;
    }
    let national = known_digits.trim_start_matches('0');
    !national.is_empty() && all.ends_with(national) && all.len() - national.len() <= LONGEST_COUNTRY
}

fn grade(entry: &Value) -> Option<&str> {
    let extensions = entry["search"]["extension"].as_array().into_iter().flatten();
    extensions.filter(|extension| extension["url"] == GRADE).find_map(|grade| grade["valueCode"].as_str())
}

fn candidates(entries: &[&Value]) -> Vec<Candidate> {
    entries.iter().take(MOST_CANDIDATES).map(|entry| candidate(entry)).collect()
}

fn candidate(entry: &Value) -> Candidate {
    let patient = &entry["resource"];
    let name = &patient["name"][0];
    let parts = name["given"].as_array().into_iter().flatten().chain([&name["family"]]);
    let joined = parts.filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    Candidate {
        id: patient["id"].as_str().unwrap_or_default().to_owned(),
        display: shown(&name["text"]).or_else(|| shown(&Value::String(joined))),
        birth_date: shown(&patient["birthDate"]),
        phone: phones(patient).next().and_then(|phone| shown(&json!(phone))),
        status: (!is_in_use(patient)).then(|| "inactive".to_owned()),
        grade: grade(entry).and_then(|grade| shown(&json!(grade))),
        score: entry["search"]["score"].as_f64().filter(|score| (0.0..=1.0).contains(score)),
        ..Candidate::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_national_number_lacks_a_country_code_and_nothing_else() {
        for (known, number, same) in [
            ("+1 (555) 010-0001", "+15550100001", true),
            ("(555) 010-0001", "+15550100001", true),
            ("1-555-010-0001", "+15550100001", true),
            ("010-0001", "+15550100001", false),
            ("+45550100001", "+15550100001", false),
            ("555-010-0002", "+15550100001", false),
            ("020 7946 0001", "+442079460001", true),
            ("06 698 12345", "+390669812345", true),
            ("12 34 56 78", "+4512345678", true),
            ("", "+15550100001", false),
            ("000", "+15550100001", false),
        ] {
            assert_eq!(is_same_number(known, number), same, "{known} {number}");
        }
    }

    fn answer(content_type: &'static str, body: &Value) -> Answer {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Answer { status: http::StatusCode::OK, headers, body: Bytes::from(body.to_string()) }
    }

    fn patient(id: &str) -> Value {
        json!({ "resourceType": "Patient", "id": id, "birthDate": "1980-02-29", "name": [{ "given": ["Ann"], "family": "Lee" }],
                "telecom": [{ "system": "phone", "value": "(555) 010-0001" }] })
    }

    fn sought() -> PatientSought {
        PatientSought { phone: "+15550100001".to_owned(), birth_date: "1980-02-29".to_owned() }
    }

    #[test]
    fn only_a_complete_searchset_of_patients_proves_something() {
        let bundle = |entry: Value, more: Value| {
            let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset", "entry": entry });
            bundle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            bundle
        };
        let one = json!([{ "resource": patient("p1") }]);
        let two = json!([{ "resource": patient("p1") }, { "resource": patient("p2") }]);
        let next = json!({ "link": [{ "relation": "next", "url": "https://ehr.example/2" }] });
        let fhir = "application/fhir+json";
        let read = |body: &Value| found(&answer(fhir, body), &sought());
        assert_eq!(read(&bundle(one.clone(), json!({}))), Some(LookedUp::One("p1".to_owned())));
        assert_eq!(read(&bundle(json!([]), json!({ "total": 0 }))), Some(LookedUp::Nothing(Vec::new())));
        assert!(
            matches!(read(&bundle(two.clone(), json!({}))), Some(LookedUp::Several(found)) if found.len() == 2)
        );
        // Two results are several on any page.
        assert!(matches!(read(&bundle(two, next.clone())), Some(LookedUp::Several(_))));
        let error = json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": "timeout" }] });
        for unproven in [
            bundle(one.clone(), next.clone()),
            bundle(json!([]), next),
            bundle(one.clone(), json!({ "total": 2 })),
            bundle(json!([]), json!({ "total": "0" })),
            bundle(one.clone(), json!({ "type": "batch-response" })),
            bundle(json!([{ "resource": patient("p1") }, { "resource": error }]), json!({})),
            bundle(json!([{ "resource": { "resourceType": "Person", "id": "p1" } }]), json!({})),
            bundle(json!([{ "resource": { "resourceType": "Patient" } }]), json!({})),
            bundle(json!({ "resource": patient("p1") }), json!({})),
            error,
            json!([]),
        ] {
            assert_eq!(read(&unproven), None, "{unproven}");
        }
        assert_eq!(found(&answer("text/html", &bundle(one, json!({}))), &sought()), None);
    }

    #[test]
    fn a_result_that_was_not_asked_for_is_only_a_candidate() {
        let changed = |name: &str, value: Value| {
            let mut other = patient("p2");
            other[name] = value;
            other
        };
        for other in [
            changed("birthDate", json!("1980-02-28")),
            changed("birthDate", json!("1980")),
            changed("telecom", json!([{ "system": "phone", "value": "555 010 0002" }])),
            changed("telecom", json!([{ "system": "email", "value": "555 010 0001" }])),
            changed("active", json!(false)),
            changed("link", json!([{ "type": "replaced-by", "other": { "reference": "Patient/p1" } }])),
        ] {
            let bundle =
                json!({ "resourceType": "Bundle", "type": "searchset", "entry": [{ "resource": other }] });
            let Some(LookedUp::Nothing(candidates)) =
                found(&answer("application/fhir+json", &bundle), &sought())
            else {
                panic!("{bundle}")
            };
            assert_eq!(
                (candidates[0].id.as_str(), candidates[0].display.as_deref()),
                ("p2", Some("Ann Lee"))
            );
            let entry = json!([{ "resource": other }, { "resource": patient("p1") }]);
            let bundle = json!({ "resourceType": "Bundle", "type": "searchset", "entry": entry });
            let read = found(&answer("application/json", &bundle), &sought());
            assert_eq!(read, Some(LookedUp::One("p1".to_owned())));
        }
    }

    #[test]
    fn only_the_grade_certain_is_a_match() {
        let entry = |id: &str, grade: Value, score: f64| {
            json!({ "resource": patient(id), "search": { "mode": "match", "score": score,
                    "extension": [{ "url": GRADE, "valueCode": grade }] } })
        };
        let read = |entries: &[Value], only_certain: bool| {
            let bundle = json!({ "resourceType": "Bundle", "type": "searchset", "entry": entries });
            graded(&answer("application/fhir+json", &bundle), &sought(), only_certain)
        };
        let certain = entry("p1", json!("certain"), 1.0);
        assert_eq!(read(std::slice::from_ref(&certain), true), Some(LookedUp::One("p1".to_owned())));
        let two = [certain.clone(), entry("p2", json!("certain"), 1.0)];
        assert!(matches!(read(&two, true), Some(LookedUp::Several(_))));
        for grade in [json!("probable"), json!("possible"), json!("certainly-not"), Value::Null] {
            let Some(LookedUp::Nothing(found)) = read(&[entry("p1", grade.clone(), 0.99)], true) else {
                panic!("{grade}")
            };
            assert_eq!(found[0].grade.as_deref(), grade.as_str());
            assert_eq!(found[0].score, Some(0.99));
        }
        // A score alone is no grade, and a grade of another birth date is none.
        let ungraded = json!({ "resource": patient("p1"), "search": { "score": 1.0 } });
        assert!(matches!(read(&[ungraded], true), Some(LookedUp::Nothing(_))));
        let mut other = certain;
        other["resource"]["birthDate"] = json!("1999-01-01");
        assert!(matches!(read(&[other], true), Some(LookedUp::Nothing(_))));
    }
}
