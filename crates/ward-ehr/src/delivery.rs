//! Writes one call into an EHR exactly once.
//!
//! A conditional create alone does not prevent duplicates. Servers race with themselves: 24 concurrent
//! creates of one identifier left three resources on the measured server. And many servers ignore the
//! condition. So the caller delivers one call at a time and says whether an earlier attempt may have arrived.
//! If so, nothing is sent before a search has shown that nothing is there.

use std::time::Duration;

use http::HeaderName;
use http::header::{DATE, RETRY_AFTER};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::answers::{self, Answered, Created, Evidence, Searched};
use crate::client::{Answer, Request};
use crate::fhir::Found;
use crate::mask::Mask;
use crate::{Auth, Failure, FailureKind, Outbound, Tokens, athena, fhir, hubspot, json as bounded};

/// The maximum number of bytes kept of an EHR's answer.
const WORDS_KEPT: usize = 16 << 10;
/// The maximum number of characters kept of a resource's location. FHIR ids have at most 64.
const PLACE_KEPT: usize = 200;

/// The facts of a call that an EHR receives.
#[derive(Clone, Debug, Default)]
pub struct CallNote {
    /// The namespace of `id`: the workspace, `urn:uuid:…`.
    pub system: String,
    /// The call's id, the same in every attempt.
    pub id: String,
    /// Whether the practice received the call.
    pub inbound: bool,
    /// The call's end: `completed`, `busy`, `no-answer`, `failed` or `canceled`.
    pub status: String,
    /// The caller's number or address; `None` if it is unknown.
    pub from: Option<String>,
    /// The number or address that was called.
    pub to: Option<String>,
    /// The start of the call, in RFC 3339.
    pub started_at: String,
    /// The end of the call, in RFC 3339.
    pub ended_at: Option<String>,
    /// The duration in milliseconds, if it is known.
    pub duration_ms: Option<i64>,
    /// The EHR's id of the patient, if one was matched.
    pub patient: Option<String>,
    /// The EHR's id of the encounter that the call belongs to, if it is known.
    pub encounter: Option<String>,
    /// The location of the document that this one replaces, such as `DocumentReference/12`.
    pub replaces: Option<String>,
    /// The settings of the integration for its notes.
    pub filing: Filing,
    /// The note's text for its readers.
    pub text: String,
}

/// The settings of an integration for its notes.
#[derive(Clone, Debug, Default)]
pub struct Filing {
    /// Whether a document waits for a person's review. Otherwise it counts as signed.
    pub preliminary: bool,
    /// The department of a patient case.
    pub department: Option<String>,
    /// The provider of a patient case.
    pub provider: Option<String>,
    /// The source of a patient case; a patient if there is none.
    pub source: Option<String>,
    /// The subclass of a patient case.
    pub subclass: Option<String>,
    /// The practice's own category, beside the coded one.
    pub category: Option<String>,
}

/// The form in which a connector accepts a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A FHIR R4 `Communication`, with or without a patient.
    Communication,
    /// A FHIR R4 `DocumentReference`, which belongs to a patient.
    DocumentReference,
    /// `HubSpot`'s own call object, for its CRM API.
    HubSpotCall,
    /// A patient case of athenahealth, for its own API.
    PatientCase,
}

/// The integration that receives the call.
#[derive(Clone, Copy)]
pub struct Target<'t> {
    /// The client that sends the requests.
    pub outbound: &'t Outbound,
    /// The access tokens, shared by all integrations.
    pub tokens: &'t Tokens,
    /// The integration's credentials, if it has any.
    pub auth: Option<&'t Auth>,
    /// The integration's base URL, below which requests go.
    pub base_url: &'t str,
    /// The form that the EHR accepts.
    pub form: Form,
}

/// The outcome of one attempt to deliver.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The EHR has stored the call.
    Synced {
        /// Its location, if the EHR gave one, such as `Communication/12`.
        location: Option<String>,
    },
    /// The EHR has the call more than once.
    Duplicate {
        /// The location of the oldest resource.
        oldest: String,
        /// The number of resources with the call's identifier.
        count: usize,
    },
    /// The EHR will refuse this call in every attempt.
    Refused {
        /// The HTTP status of the answer.
        status: u16,
        /// The EHR's answer, shortened and without secrets.
        words: Option<Value>,
    },
    /// The attempt failed and may succeed later.
    Again {
        /// The status, if there was an answer.
        status: Option<u16>,
        /// The pause that the EHR asks for.
        after: Option<Duration>,
        /// Whether this attempt may have arrived nevertheless.
        maybe_sent: bool,
        /// The reason, as a short word.
        why: &'static str,
        /// The EHR's answer, shortened and without secrets.
        words: Option<Value>,
    },
    /// The credentials are refused: no delivery will succeed before a person corrects them.
    Unauthorized {
        /// The status, if there was an answer.
        status: Option<u16>,
        /// The EHR's answer, shortened and without secrets.
        words: Option<Value>,
    },
    /// The integration cannot work as it is configured.
    Misconfigured {
        /// The reason, without a URL or a value.
        why: String,
    },
    /// An earlier attempt may have arrived, and the EHR cannot be searched: a person must check.
    CannotTell {
        /// The HTTP status of the search's answer.
        status: Option<u16>,
        /// The EHR's answer, shortened and without secrets.
        words: Option<Value>,
    },
}

/// An attempt's outcome, and what is kept of its last answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The outcome, which decides the next state of the delivery.
    pub verdict: Verdict,
    /// The last answer, if there was one.
    pub answered: Option<Answered>,
    /// Whether this attempt sent a create whose outcome is unknown.
    pub unknown: bool,
}

/// The result of a search for a call that may be in the EHR.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOutcome {
    /// The result. `None`: a complete answer says that the EHR does not have the call.
    pub verdict: Option<Verdict>,
    /// The answer to the search, if there was one.
    pub answered: Option<Answered>,
}

impl Delivered {
    /// An attempt that got no answer, or one that is not kept. It sent no create.
    pub const fn without_answer(verdict: Verdict) -> Self {
        Self { verdict, answered: None, unknown: false }
    }
}

/// A request as it would be sent, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The HTTP method, such as `POST`.
    pub method: String,
    /// The whole URL, with its query.
    pub url: String,
    /// The headers by name, without those of the credentials.
    pub headers: Vec<(String, String)>,
    /// The body as it would be sent.
    pub body: String,
}

impl Preview {
    fn of(request: &Request) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = request.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
        Self {
            method: request.method.to_string(),
            url: request.url.to_string(),
            headers: headers.collect(),
            body: String::from_utf8_lossy(&request.body).into_owned(),
        }
    }
}

impl Form {
    /// The request that a delivery of this note would send, or an amendment of the record at `amends`. The update of a FHIR
    /// resource also names the version that is read before. `None`: no request is described.
    ///
    /// # Errors
    /// The integration cannot work as it is configured.
    pub fn preview(
        self,
        base_url: &str,
        note: &CallNote,
        amends: Option<&str>,
    ) -> Result<Option<Preview>, Failure> {
        match amends {
            Some(place) if self != Self::DocumentReference => {
                Ok(self.update(base_url, note, place, None).as_ref().map(Preview::of))
            }
            _ => Ok(Some(Preview::of(&self.create(base_url, note)?))),
        }
    }

    /// Whether this form requires a known patient.
    pub const fn needs_patient(self) -> bool {
        matches!(self, Self::DocumentReference | Self::PatientCase)
    }

    fn create(self, base_url: &str, note: &CallNote) -> Result<Request, Failure> {
        match self {
            Self::Communication | Self::DocumentReference => fhir::create(self, base_url, note),
            Self::HubSpotCall => hubspot::create(base_url, note),
            Self::PatientCase => athena::create(base_url, note),
        }
    }

    /// The request that writes the note over the resource at `place`. `None`: the vendor's documents describe none, or
    /// `place` is no such resource.
    fn update(self, base_url: &str, note: &CallNote, place: &str, version: Option<&str>) -> Option<Request> {
        match self {
            Self::Communication => fhir::update(self, base_url, note, place, version),
            Self::HubSpotCall => hubspot::update(base_url, note, place),
            Self::DocumentReference | Self::PatientCase => None,
        }
    }

    pub(crate) fn search(self, base_url: &str, note: &CallNote) -> Result<Request, Failure> {
        match self {
            Self::Communication | Self::DocumentReference => fhir::search(self, base_url, note),
            Self::HubSpotCall => hubspot::search(base_url, note),
            Self::PatientCase => athena::search(base_url, note),
        }
    }

    pub(crate) fn evidence(self, note: &CallNote, answer: &Answer) -> Evidence {
        match self {
            Self::Communication | Self::DocumentReference => fhir::evidence(self, note, answer),
            Self::HubSpotCall => hubspot::evidence(note, answer),
            Self::PatientCase => athena::evidence(note, answer),
        }
    }

    /// The set-up that an administrator has to complete, if a refusal is about that and not about the call.
    fn complaint(self, words: Option<&Value>) -> Option<String> {
        match self {
            Self::HubSpotCall => hubspot::complaint(words?),
            Self::Communication | Self::DocumentReference | Self::PatientCase => None,
        }
    }

    fn location(self, note: &CallNote, answer: &Answer) -> Option<String> {
        match self {
            Self::Communication | Self::DocumentReference => fhir::location(self, note, answer),
            Self::HubSpotCall => hubspot::location(note, answer),
            Self::PatientCase => athena::location(answer),
        }
    }
}

impl Target<'_> {
    /// Delivers the call before `deadline`. `maybe_sent`: an earlier attempt may have arrived, so a search
    /// comes first.
    pub async fn deliver(&self, note: &CallNote, maybe_sent: bool, deadline: Instant) -> Delivered {
        if maybe_sent {
            let SearchOutcome { verdict, answered } = self.look(note, deadline).await;
            if let Some(verdict) = verdict {
                return Delivered { verdict, answered, unknown: false };
            }
        }
        let without = |verdict, unknown| Delivered { verdict, answered: None, unknown };
        let request = match self.form.create(self.base_url, note) {
            Ok(request) => request,
            Err(failure) => return without(Verdict::Misconfigured { why: failure.message }, false),
        };
        let form = self.form;
        let judge =
            move |note: &CallNote, answer: &Answer| answers::created(answer, || form.location(note, answer));
        let (told, created) = match self.send(request, note, deadline, judge).await {
            Ok(told) => told,
            Err(failure) => {
                let unknown = failure.maybe_sent;
                return without(of_failure(failure, maybe_sent || unknown), unknown);
            }
        };
        let Told { answered, after, words } = told;
        let status = answered.status;
        let again = |why, after, maybe_sent| Verdict::Again {
            status: Some(status),
            after,
            maybe_sent,
            why,
            words: words.clone(),
        };
        let (verdict, unknown) = match created {
            Created::Done(location) => {
                (Verdict::Synced { location: location.map(|told| place(&told)) }, false)
            }
            Created::There => {
                let found = self.look(note, deadline).await;
                let Some(verdict) = found.verdict else {
                    return Delivered {
                        verdict: again("conflict", None, true),
                        answered: found.answered,
                        unknown: true,
                    };
                };
                return Delivered { verdict, answered: found.answered, unknown: false };
            }
            Created::Unproven => (again("unproven", after, true), true),
            // A server that throttles has not executed the request; one that fails may have done so before.
            Created::NotNow(why) => (again(why, after, maybe_sent || why != "throttled"), why != "throttled"),
            Created::Unauthorized => (Verdict::Unauthorized { status: Some(status), words }, false),
            Created::Never => match self.form.complaint(words.as_ref()) {
                Some(why) => (Verdict::Misconfigured { why }, false),
                None => (Verdict::Refused { status, words }, false),
            },
        };
        Delivered { verdict, answered: Some(answered), unknown }
    }

    /// Writes the note over its resource at `place`, before `deadline`. A repeat writes the same content, so no search precedes
    /// it. A FHIR resource is read first: it must be this call's, and the update names the version that was read.
    pub async fn update(&self, note: &CallNote, place: &str, deadline: Instant) -> Delivered {
        let without = Delivered::without_answer;
        let cannot = || without(Verdict::CannotTell { status: None, words: None });
        let version = if self.form == Form::Communication {
            match self.version_of(note, place, deadline).await {
                Ok(version) => version,
                Err(delivered) => return delivered,
            }
        } else {
            None
        };
        let request = self.form.update(self.base_url, note, place, version.as_deref());
        let Some(request) = request else { return cannot() };
        let (form, at) = (self.form, place.to_owned());
        let judge = move |note: &CallNote, answer: &Answer| {
            answers::updated(answer, || form.location(note, answer), &at)
        };
        let (told, updated) = match self.send(request, note, deadline, judge).await {
            Ok(told) => told,
            Err(failure) => return without(of_failure(failure, true)),
        };
        Delivered { verdict: changed(&told, &updated, place), answered: Some(told.answered), unknown: false }
    }

    /// The version of the call's resource at `place`, if the server gives versions.
    async fn version_of(
        &self,
        note: &CallNote,
        place: &str,
        deadline: Instant,
    ) -> Result<Option<String>, Delivered> {
        let cannot = Verdict::CannotTell { status: None, words: None };
        let Some(request) = fhir::read(self.form, self.base_url, place) else {
            return Err(Delivered::without_answer(cannot));
        };
        let judge = move |note: &CallNote, answer: &Answer| {
            (answers::updated(answer, || Some(String::new()), ""), fhir::found(note, answer))
        };
        match self.send(request, note, deadline, judge).await {
            Ok((_, (Created::Done(_), Found::Ours(version)))) => Ok(version),
            // Another resource stands there, which is not overwritten.
            Ok((told, (Created::Done(_), Found::Other))) => {
                let verdict = Verdict::CannotTell { status: Some(told.answered.status), words: None };
                Err(Delivered { verdict, answered: Some(told.answered), unknown: false })
            }
            Ok((told, (other, _))) => {
                let verdict = changed(&told, &other, place);
                Err(Delivered { verdict, answered: Some(told.answered), unknown: false })
            }
            Err(failure) => Err(Delivered::without_answer(of_failure(failure, true))),
        }
    }

    /// Searches the EHR for the call, before `deadline`. Nothing is written.
    pub async fn look(&self, note: &CallNote, deadline: Instant) -> SearchOutcome {
        let without = |verdict| SearchOutcome { verdict: Some(verdict), answered: None };
        let request = match self.form.search(self.base_url, note) {
            Ok(request) => request,
            Err(failure) => return without(Verdict::Misconfigured { why: failure.message }),
        };
        let form = self.form;
        let judge =
            move |note: &CallNote, answer: &Answer| answers::searched(answer, || form.evidence(note, answer));
        let (told, searched) = match self.send(request, note, deadline, judge).await {
            Ok(told) => told,
            Err(failure) => return without(of_failure(failure, true)),
        };
        let Told { answered, after, words } = told;
        let status = Some(answered.status);
        let verdict = match searched {
            Searched::These(places) => match places.as_slice() {
                [] => None,
                [one] => Some(Verdict::Synced { location: Some(place(one)) }),
                [oldest, ..] => Some(Verdict::Duplicate { oldest: place(oldest), count: places.len() }),
            },
            Searched::NoSearch => Some(Verdict::CannotTell { status, words: None }),
            Searched::Unproven => {
                Some(Verdict::Again { status, after, maybe_sent: true, why: "search_unproven", words })
            }
            Searched::NotNow(why) => Some(Verdict::Again { status, after, maybe_sent: true, why, words }),
            Searched::Unauthorized => Some(Verdict::Unauthorized { status, words }),
            Searched::Never => Some(match self.form.complaint(words.as_ref()) {
                Some(why) => Verdict::Misconfigured { why },
                None => Verdict::CannotTell { status, words },
            }),
        };
        SearchOutcome { verdict, answered: Some(answered) }
    }

    /// Sends a request, reads its answer and judges it. An answer can be long, so it is masked, parsed and
    /// judged outside the threads that serve requests.
    async fn send<J: Send + 'static>(
        &self,
        request: Request,
        note: &CallNote,
        deadline: Instant,
        judge: impl FnOnce(&CallNote, &Answer) -> J + Send + 'static,
    ) -> Result<(Told, J), Failure> {
        let sent = Auth::send(self.auth, self.outbound, self.tokens, request, deadline).await?;
        let (mut answer, used, note) = (sent.answer, sent.used, note.clone());
        let read = move || {
            if !used.is_empty() {
                // The answer is stored and shown, and some EHRs repeat the request in it, including
                // credentials.
                answer.body = Mask::of(&used).bytes(&answer.body).into();
            }
            let judged = judge(&note, &answer);
            let told =
                Told { answered: Answered::of(&answer), after: retry_after(&answer), words: words(&answer) };
            (told, judged)
        };
        self.outbound.work(read).await
    }
}

/// The outcome of an update by its answer. The former content may still be there, so every failure counts as possibly sent.
fn changed(told: &Told, updated: &Created, place: &str) -> Verdict {
    let (status, words) = (told.answered.status, told.words.clone());
    let again = |why| {
        let words = words.clone();
        Verdict::Again { status: Some(status), after: told.after, maybe_sent: true, why, words }
    };
    match updated {
        Created::Done(_) => Verdict::Synced { location: Some(place.to_owned()) },
        Created::There => again("conflict"),
        Created::Unproven => again("unproven"),
        Created::NotNow(why) => again(*why),
        Created::Unauthorized => Verdict::Unauthorized { status: Some(status), words: words.clone() },
        Created::Never => Verdict::Refused { status, words: words.clone() },
    }
}

/// The parts of an EHR's answer that are kept.
struct Told {
    answered: Answered,
    /// The pause that the EHR asks for.
    after: Option<Duration>,
    words: Option<Value>,
}

/// `maybe_sent`: whether this try or an earlier one may have arrived.
pub(crate) fn of_failure(failure: Failure, maybe_sent: bool) -> Verdict {
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

/// The EHR's answer: its JSON if that is not too long, otherwise the beginning of its text.
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

/// Removes NUL characters, which no database stores in a text.
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

/// A location in the form in which it is stored, because an EHR's answer could hold anything.
fn place(told: &str) -> String {
    told.chars().filter(char::is_ascii_graphic).take(PLACE_KEPT).collect()
}

/// The pause that `Retry-After` asks for (RFC 9110, section 10.2.3): seconds or a date. A date is compared
/// with the answer's own `Date`, so that only one clock counts.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = |name: HeaderName| answer.headers.get(name)?.to_str().ok().map(str::trim);
    let given = text(RETRY_AFTER)?;
    if let Ok(seconds) = given.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(given).ok()?;
    let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    Some(then.duration_since(now.unwrap_or_else(crate::ambient::now)).unwrap_or_default())
}
