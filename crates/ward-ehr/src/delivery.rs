//! Writing one call into an EHR, once.
//!
//! A conditional create is no guard by itself: servers race with themselves (24 creates at once of one identifier left
//! three resources on the server this was measured on), and many ignore the condition. So whoever calls this does so
//! for one call at a time, says when an earlier try may have arrived, and then nothing is sent before a search has shown
//! that nothing is there.

use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Answer, Request};
use crate::mask::Mask;
use crate::{Auth, Failure, FailureKind, Outbound, Tokens, fhir, hubspot, json as bounded};

/// How many bytes of an EHR's words are kept.
const WORDS_KEPT: usize = 16 << 10;
/// How many characters of a resource's place are kept. FHIR's ids have at most 64.
const PLACE_KEPT: usize = 200;

/// A call as an EHR is told of it.
#[derive(Clone, Debug)]
pub struct CallNote {
    /// The namespace of `id`: the workspace, `urn:uuid:…`.
    pub system: String,
    /// The call's id, the same at every try.
    pub id: String,
    /// Whether the practice was called.
    pub inbound: bool,
    /// How it ended: `completed`, `busy`, `no-answer`, `failed` or `canceled`.
    pub status: String,
    /// Who called, a number or an address.
    pub from: Option<String>,
    /// Who was called.
    pub to: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// How long it took, milliseconds.
    pub duration_ms: Option<i64>,
    /// The EHR's id of the patient, if one was matched.
    pub patient: Option<String>,
    /// What is to be read about it.
    pub text: String,
}

/// What a connector takes a call as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A FHIR R4 `Communication`.
    Communication,
    /// A FHIR R4 `DocumentReference`, which belongs to a patient.
    DocumentReference,
    /// `HubSpot`'s own call object.
    HubSpotCall,
}

/// Where to write.
#[derive(Clone, Copy)]
pub struct Target<'t> {
    /// The client.
    pub outbound: &'t Outbound,
    /// Its tokens.
    pub tokens: &'t Tokens,
    /// The integration's credentials.
    pub auth: Option<&'t Auth>,
    /// The integration's base URL.
    pub base_url: &'t str,
    /// What it takes.
    pub form: Form,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The EHR has it, there.
    Synced {
        /// Its place in the EHR, as far as the EHR said: `Communication/12`.
        location: Option<String>,
    },
    /// The EHR has it more than once; this one is the oldest.
    Duplicate {
        /// The oldest one's place.
        oldest: String,
        /// How many there are.
        count: usize,
    },
    /// The EHR will not take it, however often it is sent.
    Refused {
        /// The status.
        status: u16,
        /// The EHR's own words.
        words: Option<Value>,
    },
    /// Not now.
    Again {
        /// The status, if there was an answer.
        status: Option<u16>,
        /// When the EHR wants to be asked again.
        after: Option<Duration>,
        /// Whether this try may have arrived all the same.
        maybe_sent: bool,
        /// A word for it.
        why: &'static str,
        /// The EHR's own words.
        words: Option<Value>,
    },
    /// The credentials are refused: no delivery will get through before somebody sees to that.
    Unauthorized {
        /// The status, if there was an answer.
        status: Option<u16>,
        /// The EHR's own words.
        words: Option<Value>,
    },
    /// The integration cannot work as it is configured.
    Misconfigured {
        /// Why, without a URL or a value in it.
        why: String,
    },
    /// An earlier try may have arrived, and the EHR cannot be asked: a person must look.
    CannotTell {
        /// The status of the search.
        status: Option<u16>,
        /// The EHR's own words.
        words: Option<Value>,
    },
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The places of the resources with the identifier, oldest first.
    These(Vec<String>),
    /// The server does not search by identifier.
    NoSearch,
}

impl Form {
    /// Whether it can only be written for a known patient.
    pub const fn needs_patient(self) -> bool {
        matches!(self, Self::DocumentReference)
    }

    fn create(self, base_url: &str, note: &CallNote) -> Result<Request, Failure> {
        match self {
            Self::Communication | Self::DocumentReference => fhir::create(self, base_url, note),
            Self::HubSpotCall => hubspot::create(base_url, note),
        }
    }

    fn search(self, base_url: &str, note: &CallNote) -> Result<Request, Failure> {
        match self {
            Self::Communication | Self::DocumentReference => fhir::search(self, base_url, note),
            Self::HubSpotCall => hubspot::search(base_url, note),
        }
    }

    fn found(self, note: &CallNote, answer: &Answer) -> Found {
        match self {
            Self::Communication | Self::DocumentReference => fhir::found(self, note, answer),
            Self::HubSpotCall => hubspot::found(note, answer),
        }
    }

    fn location(self, answer: &Answer) -> Option<String> {
        match self {
            Self::Communication | Self::DocumentReference => fhir::location(answer),
            Self::HubSpotCall => hubspot::location(answer),
        }
    }
}

impl Target<'_> {
    /// Writes the call, until `deadline` at most. `maybe_sent`: an earlier try may have arrived, so look first.
    pub async fn deliver(&self, note: &CallNote, maybe_sent: bool, deadline: Instant) -> Verdict {
        if maybe_sent && let Some(verdict) = self.look(note, deadline).await {
            return verdict;
        }
        let request = match self.form.create(self.base_url, note) {
            Ok(request) => request,
            Err(failure) => return Verdict::Misconfigured { why: failure.message },
        };
        let told = match self.send(request, note, deadline).await {
            Ok(told) => told,
            Err(failure) => {
                let maybe_sent = maybe_sent || failure.maybe_sent;
                return of_failure(failure, maybe_sent);
            }
        };
        let Told { status, after, judged, words, location, .. } = told;
        match judged {
            Judged::Taken => Verdict::Synced { location: location.map(|told| place(&told)) },
            Judged::There => self.look(note, deadline).await.unwrap_or(Verdict::Again {
                status: Some(status),
                after: None,
                maybe_sent: true,
                why: "conflict",
                words,
            }),
            Judged::NotNow(why) => Verdict::Again {
                status: Some(status),
                after,
                // A server that throttles has not done it; one that breaks may have done it before.
                maybe_sent: maybe_sent || why != "throttled",
                why,
                words,
            },
            Judged::Unauthorized => Verdict::Unauthorized { status: Some(status), words },
            Judged::Never => Verdict::Refused { status, words },
        }
    }

    /// Looks for what an earlier try may have left. `None`: nothing is there, so it can be sent.
    async fn look(&self, note: &CallNote, deadline: Instant) -> Option<Verdict> {
        let request = match self.form.search(self.base_url, note) {
            Ok(request) => request,
            Err(failure) => return Some(Verdict::Misconfigured { why: failure.message }),
        };
        let told = match self.send(request, note, deadline).await {
            Ok(told) => told,
            Err(failure) => return Some(of_failure(failure, true)),
        };
        let Told { status, after, judged, words, found, .. } = told;
        let status = Some(status);
        match judged {
            Judged::Taken => match found {
                Found::These(places) => match places.as_slice() {
                    [] => None,
                    [one] => Some(Verdict::Synced { location: Some(place(one)) }),
                    [oldest, ..] => Some(Verdict::Duplicate { oldest: place(oldest), count: places.len() }),
                },
                Found::NoSearch => Some(Verdict::CannotTell { status, words: None }),
            },
            Judged::NotNow(why) => Some(Verdict::Again { status, after, maybe_sent: true, why, words }),
            Judged::Unauthorized => Some(Verdict::Unauthorized { status, words }),
            Judged::There | Judged::Never => Some(Verdict::CannotTell { status, words }),
        }
    }

    /// Sends a request and reads its answer. An answer can be long, so it is masked, parsed and judged outside the
    /// threads that serve requests.
    async fn send(&self, request: Request, note: &CallNote, deadline: Instant) -> Result<Told, Failure> {
        let sent = Auth::send(self.auth, self.outbound, self.tokens, request, deadline).await?;
        let (mut answer, used, form, note) = (sent.answer, sent.used, self.form, note.clone());
        let read = move || {
            if !used.is_empty() {
                // The answer is kept and shown, and some EHRs repeat the request in it, credentials and all.
                answer.body = Mask::of(&used).bytes(&answer.body).into();
            }
            Told {
                status: answer.status.as_u16(),
                after: retry_after(&answer),
                judged: judge(&answer),
                words: words(&answer),
                location: form.location(&answer),
                found: form.found(&note, &answer),
            }
        };
        self.outbound.work(read).await
    }
}

/// The answer of an EHR to a create or a search, read.
struct Told {
    status: u16,
    /// The pause that it asks for.
    after: Option<Duration>,
    judged: Judged,
    words: Option<Value>,
    /// The place of the resource that was created.
    location: Option<String>,
    /// The resources that a search found.
    found: Found,
}

/// `maybe_sent`: whether this try or an earlier one may have arrived.
fn of_failure(failure: Failure, maybe_sent: bool) -> Verdict {
    let why = match failure.kind {
        FailureKind::Misconfigured => return Verdict::Misconfigured { why: failure.message },
        FailureKind::AuthFailed => return Verdict::Unauthorized { status: None, words: None },
        FailureKind::Timeout => "timeout",
        FailureKind::Unreachable => "unreachable",
        FailureKind::Tls => "tls",
        FailureKind::TooLarge => "answer_too_large",
        FailureKind::Garbage => "broken_answer",
        FailureKind::Busy => "busy",
    };
    let words = Some(json!({ "text": failure.message }));
    Verdict::Again { status: None, after: None, maybe_sent, why, words }
}

/// What an answer means, whatever was asked.
enum Judged {
    Taken,
    There,
    NotNow(&'static str),
    Unauthorized,
    Never,
}

fn judge(answer: &Answer) -> Judged {
    let (kinds, codes) = issues(answer);
    let says = |wanted: &[&str]| kinds.iter().any(|kind| wanted.contains(&kind.as_str()));
    // Epic's words for a duplicate, and for a quota that is used up.
    let coded = |wanted: &str| codes.iter().any(|code| code == wanted);
    match answer.status.as_u16() {
        200..300 => Judged::Taken,
        401 => Judged::Unauthorized,
        409 | 412 => Judged::There,
        _ if coded("59141") => Judged::There,
        429 => Judged::NotNow("throttled"),
        _ if coded("4135") || says(&["throttled"]) => Judged::NotNow("throttled"),
        408 | 500 | 502..=504 => Judged::NotNow("server_error"),
        _ if says(&["transient", "timeout", "lock-error"]) => Judged::NotNow("server_error"),
        status if status > 504 => Judged::NotNow("server_error"),
        _ => Judged::Never,
    }
}

/// The kinds and the codes of an `OperationOutcome`'s issues.
fn issues(answer: &Answer) -> (Vec<String>, Vec<String>) {
    if answer.status.is_success() {
        return (Vec::new(), Vec::new());
    }
    let body = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let issues: Vec<&Value> = body["issue"].as_array().into_iter().flatten().collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kinds = issues.iter().filter_map(|issue| text(&issue["code"])).collect();
    let codings = issues.iter().flat_map(|issue| issue["details"]["coding"].as_array().into_iter().flatten());
    (kinds, codings.filter_map(|coding| text(&coding["code"])).collect())
}

/// What the EHR said: its JSON where it is not too much of it, else the beginning of its text.
fn words(answer: &Answer) -> Option<Value> {
    if answer.body.is_empty() {
        return None;
    }
    if answer.body.len() <= WORDS_KEPT
        && let Some(mut said) = bounded::parse(&answer.body, bounded::SMALL_TREE)
    {
        drop_nul(&mut said);
        return Some(said);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let text: String = text.chars().filter(|c| *c != '\0').take(2_000).collect();
    Some(json!({ "text": text }))
}

/// Takes the character out that no database keeps in a text.
fn drop_nul(said: &mut Value) {
    match said {
        Value::String(text) => text.retain(|c| c != '\0'),
        Value::Array(items) => items.iter_mut().for_each(drop_nul),
        Value::Object(fields) => {
            if fields.keys().any(|name| name.contains('\0')) {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(name, value)| (name.replace('\0', ""), value))
                    .collect();
            }
            fields.values_mut().for_each(drop_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A place as it is kept: what an EHR says of it could be anything.
fn place(told: &str) -> String {
    told.chars().filter(char::is_ascii_graphic).take(PLACE_KEPT).collect()
}

/// How long `Retry-After` asks to wait (RFC 9110, section 10.2.3): seconds, or a date, which is counted from the answer's
/// own `Date`, so that only one clock is asked.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = |name: HeaderName| answer.headers.get(name)?.to_str().ok().map(str::trim);
    let given = text(RETRY_AFTER)?;
    if let Ok(seconds) = given.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(given).ok()?;
    let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    Some(then.duration_since(now.unwrap_or_else(SystemTime::now)).unwrap_or_default())
}

/// Whether an answer is one that says something was made.
pub(crate) const fn made(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 201)
}
