//! The evidence in an EHR's answer: what it proves about a create, and what about a search.
//!
//! A status alone proves little. A maintenance page, a gateway and an `OperationOutcome` with an error all come with 200.
//! So a create counts as done only if the answer says that something was created, or names the resource. A search counts
//! as empty only if the answer is complete. Every other success proves nothing, and the caller has to search.

use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::client::Answer;
use crate::json as bounded;

/// The maximum number of bytes of an answer that an attempt keeps.
const HEAD_KEPT: usize = 1 << 10;
/// The maximum number of characters of a content type that an attempt keeps.
const TYPE_KEPT: usize = 200;

/// The last answer of an attempt, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status of the answer.
    pub status: u16,
    /// The content type, if the answer has one.
    pub content_type: Option<String>,
    /// The beginning of the body, without secrets. It may name a patient.
    pub head: Vec<u8>,
}

impl Answered {
    /// The kept part of an answer whose secrets are already masked.
    pub(crate) fn of(answer: &Answer) -> Self {
        let content_type = answer.headers.get(CONTENT_TYPE).map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            text.chars().filter(|c| !c.is_control()).take(TYPE_KEPT).collect()
        });
        let head = answer.body[..answer.body.len().min(HEAD_KEPT)].to_vec();
        Self { status: answer.status.as_u16(), content_type, head }
    }
}

/// The meaning of an answer to a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The resource exists, at this location if the answer names one.
    Done(Option<String>),
    /// The EHR says that it has the resource already.
    There,
    /// A success that proves nothing: the resource may exist or not.
    Unproven,
    /// The EHR did not create it now and may do so later.
    NotNow(&'static str),
    /// The EHR refuses the credentials of the integration.
    Unauthorized,
    /// The EHR refuses the request in every attempt.
    Never,
}

/// The meaning of an answer to a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Searched {
    /// The locations of the resources with the identifier, oldest first. An empty list means that there are none.
    These(Vec<String>),
    /// The server does not search by identifier.
    NoSearch,
    /// A success that proves nothing, such as one page of several.
    Unproven,
    /// The EHR did not search now and may do so later.
    NotNow(&'static str),
    /// The EHR refuses the credentials of the integration.
    Unauthorized,
    /// The EHR refuses the search in every attempt.
    Never,
}

/// A body's evidence about a search that was answered with 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Resources with the identifier, oldest first. An empty list comes from a complete answer only.
    These(Vec<String>),
    /// The answer has other resources, so the server has not searched.
    NoSearch,
    /// The answer does not say whether there is one.
    Unproven,
}

impl From<Refusal> for Created {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::There => Self::There,
            Refusal::NotNow(why) => Self::NotNow(why),
            Refusal::Unauthorized => Self::Unauthorized,
            Refusal::Never => Self::Never,
        }
    }
}

/// Judges an answer to a create. `named` finds the location of a created resource in headers or body.
pub(crate) fn created(answer: &Answer, named: impl FnOnce() -> Option<String>) -> Created {
    match answer.status.as_u16() {
        200 | 201 if reports_error(answer) => Created::Unproven,
        201 => Created::Done(named()),
        200 => named().map_or(Created::Unproven, |location| Created::Done(Some(location))),
        202..300 => Created::Unproven,
        409 | 412 => Created::There,
        _ => refusal(answer).into(),
    }
}

/// Judges an answer to an update of the resource at `place`. `named` finds the resource that the answer names; an empty name is
/// any. A success counts only if the answer names this resource.
pub(crate) fn updated(answer: &Answer, named: impl FnOnce() -> Option<String>, place: &str) -> Created {
    match answer.status.as_u16() {
        200 | 201 if reports_error(answer) => Created::Unproven,
        200 | 201 => match named() {
            Some(found) if found == place => Created::Done(None),
            _ => Created::Unproven,
        },
        202..300 => Created::Unproven,
        // The version has changed since it was read, so it is read again.
        409 | 412 => Created::There,
        _ => refusal(answer).into(),
    }
}

/// Judges an answer to a search. `evidence` reads the body of an answer with 200.
pub(crate) fn searched(answer: &Answer, evidence: impl FnOnce() -> Evidence) -> Searched {
    match answer.status.as_u16() {
        200 => match evidence() {
            Evidence::These(found) => Searched::These(found),
            Evidence::NoSearch => Searched::NoSearch,
            Evidence::Unproven => Searched::Unproven,
        },
        201..300 => Searched::Unproven,
        // A server without this search says so in every attempt.
        501 => Searched::Never,
        _ => match refusal(answer) {
            Refusal::NotNow(why) => Searched::NotNow(why),
            Refusal::Unauthorized => Searched::Unauthorized,
            Refusal::There | Refusal::Never => Searched::Never,
        },
    }
}

/// Whether the body is an `OperationOutcome` with an error.
fn reports_error(answer: &Answer) -> bool {
    bounded::parse(&answer.body, bounded::SMALL_TREE).is_some_and(|body| is_error_outcome(&body))
}

/// Whether an answer is a page for people.
pub(crate) fn is_web_page(answer: &Answer) -> bool {
    let told = answer.headers.get(CONTENT_TYPE).and_then(|told| told.to_str().ok()).unwrap_or_default();
    let kind = told.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
}

/// Whether a resource is an `OperationOutcome` with an issue of severity `error` or `fatal` (FHIR R4, 2.40).
pub(crate) fn is_error_outcome(resource: &Value) -> bool {
    let mut issues = resource["issue"].as_array().into_iter().flatten();
    resource["resourceType"] == "OperationOutcome"
        && issues.any(|issue| issue["severity"] == "error" || issue["severity"] == "fatal")
}

/// The meaning of an answer without success.
enum Refusal {
    There,
    NotNow(&'static str),
    Unauthorized,
    Never,
}

fn refusal(answer: &Answer) -> Refusal {
    let (kinds, codes) = issues(answer);
    let says = |wanted: &[&str]| kinds.iter().any(|kind| wanted.contains(&kind.as_str()));
    // These are Epic's codes for a duplicate, and for an exhausted quota.
    let coded = |wanted: &str| codes.iter().any(|code| code == wanted);
    match answer.status.as_u16() {
        401 => Refusal::Unauthorized,
        _ if coded("59141") => Refusal::There,
        429 => Refusal::NotNow("throttled"),
        _ if coded("4135") || says(&["throttled"]) => Refusal::NotNow("throttled"),
        // A locked resource, and a request that came too early, are states of the server and not of the call.
        408 | 423 | 425 | 500.. => Refusal::NotNow("server_error"),
        _ if says(&["transient", "timeout", "lock-error"]) => Refusal::NotNow("server_error"),
        _ => Refusal::Never,
    }
}

/// The kinds and the codes of an `OperationOutcome`'s issues.
fn issues(answer: &Answer) -> (Vec<String>, Vec<String>) {
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let issues: Vec<&Value> = body["issue"].as_array().into_iter().flatten().collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kinds = issues.iter().filter_map(|issue| text(&issue["code"])).collect();
    let codings = issues.iter().flat_map(|issue| issue["details"]["coding"].as_array().into_iter().flatten());
    (kinds, codings.filter_map(|coding| text(&coding["code"])).collect())
}
