//! The health of an integration, as one word.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use tokio::time::Instant;

use crate::answers::{self, Searched};
use crate::auth::{Auth, Tokens};
use crate::client::{Answer, Outbound, Request};
use crate::delivery::{CallNote, Form};
use crate::{Failure, FailureKind, template};

/// The health of an integration, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers and accepts the credentials.
    Healthy,
    /// It answers and refuses the credentials.
    AuthFailed,
    /// It does not answer, or answers that it is unavailable.
    Unreachable,
    /// It does not answer in time.
    Timeout,
    /// Its certificate or its TLS is faulty.
    SslError,
    /// The integration cannot work as it is configured.
    Misconfigured,
}

impl Health {
    /// The contract's word for this health.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::AuthFailed => "auth_failed",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::SslError => "ssl_error",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// The resource that a probe requests.
#[derive(Clone, Debug)]
pub enum Target {
    /// A FHIR server's `metadata` (FHIR R4, "capabilities"), which anyone may read, and then the search of deliveries, which
    /// needs the credentials.
    Fhir(Search),
    /// The search of deliveries alone, for a system that is no FHIR server.
    Search(Search),
    /// A path for a `GET` without parameters, whose answer shows whether the credentials are accepted.
    Path {
        /// The path below the base URL.
        path: String,
        /// The headers that the endpoint adds.
        headers: HeaderMap,
    },
    /// The root, if nothing better is known. It shows only that something answers.
    Root,
}

/// The search that deliveries make after an unknown outcome, for an identifier that no call has.
#[derive(Clone, Debug)]
pub struct Search {
    /// The form in which calls are written.
    pub form: Form,
    /// The namespace of the calls' identifiers: the workspace, `urn:uuid:…`.
    pub system: String,
}

/// The identifier of a health check's search. Calls have UUIDs, so no call has it.
const NO_CALL: &str = "health-check";

impl Search {
    fn note(&self) -> CallNote {
        CallNote { system: self.system.clone(), id: NO_CALL.to_owned(), ..CallNote::default() }
    }
}

/// A health check of one integration.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The key of its gate: the integration's id.
    pub gate: String,
    /// The integration's base URL, below which requests go.
    pub base_url: String,
    /// The resource to request below the base URL.
    pub target: Target,
    /// The credentials of the integration, if it has any.
    pub auth: Option<Auth>,
}

/// The result of one health check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The health that the probe found.
    pub health: Health,
    /// The reason as a sentence, if it is not healthy.
    pub detail: Option<String>,
    /// The HTTP status of its answer, if it answered.
    pub http_status: Option<u16>,
    /// The duration of the health check.
    pub duration: Duration,
}

impl Checked {
    /// A result that needed no request.
    pub fn without_probe(health: Health, detail: impl Into<String>) -> Self {
        Self { health, detail: Some(detail.into()), http_status: None, duration: Duration::ZERO }
    }
}

impl Probe {
    /// Sends the request and judges its answer, before `deadline`.
    pub async fn run(&self, outbound: &Outbound, tokens: &Tokens, deadline: Instant) -> Checked {
        let started = Instant::now();
        let mut http_status = None;
        let mut found = (Health::Healthy, None);
        for step in self.target.steps() {
            found = self.step(step, outbound, tokens, deadline, &mut http_status).await;
            if found.0 != Health::Healthy {
                break;
            }
        }
        let (health, detail) = found;
        Checked { health, detail, http_status, duration: started.elapsed() }
    }

    /// Sends one request of the check, and judges its answer.
    async fn step(
        &self,
        step: Step,
        outbound: &Outbound,
        tokens: &Tokens,
        deadline: Instant,
        http_status: &mut Option<u16>,
    ) -> (Health, Option<String>) {
        let may_be_large = matches!(step, Step::Path { .. } | Step::Root);
        match self.ask(&step, outbound, tokens, deadline).await {
            Ok(answer) => {
                *http_status = Some(answer.status.as_u16());
                // A capability statement can be long, and only one of its fields matters.
                let judged = outbound.work(move || step.judge(&answer)).await;
                judged.unwrap_or_else(|failure| (Health::Unreachable, Some(failure.message)))
            }
            Err(failure) => {
                let health = match failure.kind {
                    FailureKind::Misconfigured => Health::Misconfigured,
                    FailureKind::Tls => Health::SslError,
                    FailureKind::AuthFailed => Health::AuthFailed,
                    FailureKind::Timeout | FailureKind::Busy => Health::Timeout,
                    // A large answer shows at least that something answers.
                    FailureKind::TooLarge if may_be_large => Health::Healthy,
                    FailureKind::Unreachable | FailureKind::Garbage | FailureKind::TooLarge => {
                        Health::Unreachable
                    }
                };
                (health, Some(failure.message).filter(|_| health != Health::Healthy))
            }
        }
    }

    async fn ask(
        &self,
        step: &Step,
        outbound: &Outbound,
        tokens: &Tokens,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let get = |path: &str, accept, mut headers: HeaderMap| {
            headers.entry(ACCEPT).or_insert(HeaderValue::from_static(accept));
            let url = template::below(&self.base_url, path)?;
            Ok::<_, Failure>(Request { method: Method::GET, url, headers, body: Bytes::new() })
        };
        let request = match step {
            Step::Metadata => get("/metadata", "application/fhir+json", HeaderMap::new())?,
            Step::Search(search) => search.form.search(&self.base_url, &search.note())?,
            Step::Path { path, headers } => get(path, "application/json", headers.clone())?,
            Step::Root => get("", "application/json", HeaderMap::new())?,
        };
        let _place = outbound.enter(&self.gate, deadline).await?;
        Ok(Auth::send(self.auth.as_ref(), outbound, tokens, request, deadline).await?.answer)
    }
}

/// One request of a health check.
enum Step {
    Metadata,
    Search(Search),
    Path { path: String, headers: HeaderMap },
    Root,
}

impl Target {
    fn steps(&self) -> Vec<Step> {
        match self {
            Self::Fhir(search) => vec![Step::Metadata, Step::Search(search.clone())],
            Self::Search(search) => vec![Step::Search(search.clone())],
            Self::Path { path, headers } => {
                vec![Step::Path { path: path.clone(), headers: headers.clone() }]
            }
            Self::Root => vec![Step::Root],
        }
    }
}

/// The only field of a FHIR resource that is needed: its type.
#[derive(Default, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, rename = "resourceType", default)]
    kind: Cow<'a, str>,
}

impl Step {
    fn judge(&self, answer: &Answer) -> (Health, Option<String>) {
        let status = answer.status.as_u16();
        let answered = |health| (health, Some(format!("it answered {status}")));
        match (status, self) {
            (401 | 403 | 407, _) => answered(Health::AuthFailed),
            (_, Self::Search(search)) => search.judge(answer),
            (408 | 429 | 500.., _) => answered(Health::Unreachable),
            (200..300, Self::Metadata) => {
                let said: Resource<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
                if said.kind == "CapabilityStatement" {
                    (Health::Healthy, None)
                } else {
                    (Health::Misconfigured, Some("the server that answers is not a FHIR server".to_owned()))
                }
            }
            (_, Self::Metadata) | (300..=399 | 404 | 405 | 410, Self::Path { .. }) => {
                answered(Health::Misconfigured)
            }
            // A gateway in front of a system that is down answers with a page for people.
            (200..300, Self::Path { .. }) if answers::is_web_page(answer) => {
                (Health::Unreachable, Some(format!("it answered {status} with a web page")))
            }
            // Any other refusal of the path concerns its parameters, not the credentials. Few APIs have
            // anything at their root. There, any answer that is not about the credentials counts as healthy.
            (_, Self::Path { .. }) => (Health::Healthy, None),
            (_, Self::Root) => {
                let unknown = "it answers; no endpoint shows whether it takes the credentials";
                (Health::Healthy, Some(unknown.to_owned()))
            }
        }
    }
}

impl Search {
    /// A refusal of the search itself shows that the credentials were taken. Deliveries work without the search, but an
    /// unknown outcome then needs a person, so the detail says so.
    fn judge(&self, answer: &Answer) -> (Health, Option<String>) {
        let status = answer.status.as_u16();
        let note = self.note();
        match answers::searched(answer, || self.form.evidence(&note, answer)) {
            Searched::These(_) => (Health::Healthy, None),
            Searched::NoSearch => {
                (Health::Healthy, Some("it answers, but it does not search by identifier".to_owned()))
            }
            Searched::Never => {
                (Health::Healthy, Some(format!("it answers, but it refuses the search ({status})")))
            }
            Searched::Unauthorized => (Health::AuthFailed, Some(format!("it answered {status}"))),
            Searched::Unproven => {
                (Health::Unreachable, Some(format!("it answered {status} without the result of a search")))
            }
            Searched::NotNow(_) => (Health::Unreachable, Some(format!("it answered {status}"))),
        }
    }
}
