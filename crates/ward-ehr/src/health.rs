//! How an integration is, in one word.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use tokio::time::Instant;

use crate::auth::{Auth, Tokens};
use crate::client::{Answer, Outbound, Request};
use crate::{Failure, FailureKind, template};

/// How an integration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers, and takes the credentials.
    Healthy,
    /// It answers, and refuses the credentials.
    AuthFailed,
    /// It does not answer, or answers that it cannot.
    Unreachable,
    /// It does not answer in time.
    Timeout,
    /// Its certificate or its TLS is wrong.
    SslError,
    /// What is configured cannot work.
    Misconfigured,
}

impl Health {
    /// The word.
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

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A FHIR server's `metadata` (FHIR R4, "capabilities").
    FhirMetadata,
    /// A path that takes a `GET` and no parameters, and whose answer tells whether the credentials are taken.
    Path {
        /// The path.
        path: String,
        /// Headers of its own.
        headers: HeaderMap,
    },
    /// Its root, where nothing better is known: it tells only that something answers.
    Root,
}

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Whose place at the gate it takes: the integration's id.
    pub gate: String,
    /// The integration's base URL.
    pub base_url: String,
    /// What is asked for below it.
    pub target: Target,
    /// How it authenticates.
    pub auth: Option<Auth>,
}

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// How the integration is.
    pub health: Health,
    /// Why, in a sentence, where it is not healthy.
    pub detail: Option<String>,
    /// How long that took.
    pub duration: Duration,
}

impl Checked {
    /// A finding without a probe.
    pub fn without_probe(health: Health, detail: impl Into<String>) -> Self {
        Self { health, detail: Some(detail.into()), duration: Duration::ZERO }
    }
}

impl Probe {
    /// Asks, until `deadline` at most.
    pub async fn run(&self, outbound: &Outbound, tokens: &Tokens, deadline: Instant) -> Checked {
        let started = Instant::now();
        let (health, detail) = match self.ask(outbound, tokens, deadline).await {
            Ok(answer) => {
                // A capability statement can be long, and only one of its fields counts.
                let target = self.target.clone();
                let judged = outbound.work(move || target.judge(&answer)).await;
                judged.unwrap_or_else(|failure| (Health::Unreachable, Some(failure.message)))
            }
            Err(failure) => {
                let health = match failure.kind {
                    FailureKind::Misconfigured => Health::Misconfigured,
                    FailureKind::Tls => Health::SslError,
                    FailureKind::AuthFailed => Health::AuthFailed,
                    FailureKind::Timeout | FailureKind::Busy => Health::Timeout,
                    // Whatever it is that answered, it is there.
                    FailureKind::TooLarge if !self.is_fhir() => Health::Healthy,
                    FailureKind::Unreachable | FailureKind::Garbage | FailureKind::TooLarge => {
                        Health::Unreachable
                    }
                };
                (health, Some(failure.message).filter(|_| health != Health::Healthy))
            }
        };
        Checked { health, detail, duration: started.elapsed() }
    }

    async fn ask(&self, outbound: &Outbound, tokens: &Tokens, deadline: Instant) -> Result<Answer, Failure> {
        let (path, mut headers) = match &self.target {
            Target::FhirMetadata => ("/metadata", HeaderMap::new()),
            Target::Path { path, headers } => (path.as_str(), headers.clone()),
            Target::Root => ("", HeaderMap::new()),
        };
        let url = template::below(&self.base_url, path)?;
        let accept = if self.is_fhir() { "application/fhir+json" } else { "application/json" };
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static(accept));
        let request = Request { method: Method::GET, url, headers, body: Bytes::new() };
        let _place = outbound.enter(&self.gate, deadline).await?;
        Ok(Auth::send(self.auth.as_ref(), outbound, tokens, request, deadline).await?.answer)
    }

    const fn is_fhir(&self) -> bool {
        matches!(self.target, Target::FhirMetadata)
    }
}

/// The one field of a FHIR resource that says what it is.
#[derive(Default, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, rename = "resourceType", default)]
    kind: Cow<'a, str>,
}

impl Target {
    fn judge(&self, answer: &Answer) -> (Health, Option<String>) {
        let status = answer.status.as_u16();
        let answered = |health| (health, Some(format!("it answered {status}")));
        match (status, self) {
            (401 | 403 | 407, _) => answered(Health::AuthFailed),
            (408 | 429 | 500.., _) => answered(Health::Unreachable),
            (200..300, Self::FhirMetadata) => {
                let said: Resource<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
                if said.kind == "CapabilityStatement" {
                    (Health::Healthy, None)
                } else {
                    (Health::Misconfigured, Some("what answers there is not a FHIR server".to_owned()))
                }
            }
            (_, Self::FhirMetadata) | (300..=399 | 404 | 405 | 410, Self::Path { .. }) => {
                answered(Health::Misconfigured)
            }
            // Another refusal of the path is about its parameters, not about who asks. Few APIs have anything at their
            // root: that something answers, and not about the credentials, is all that can be asked for there.
            (_, Self::Path { .. } | Self::Root) => (Health::Healthy, None),
        }
    }
}
