//! The health of an integration, as one word.

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
    /// A FHIR server's `metadata` (FHIR R4, "capabilities").
    FhirMetadata,
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
        let (health, detail) = match self.ask(outbound, tokens, deadline).await {
            Ok(answer) => {
                http_status = Some(answer.status.as_u16());
                // A capability statement can be long, and only one of its fields matters.
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
                    // A large answer shows at least that something answers.
                    FailureKind::TooLarge if !self.is_fhir() => Health::Healthy,
                    FailureKind::Unreachable | FailureKind::Garbage | FailureKind::TooLarge => {
                        Health::Unreachable
                    }
                };
                (health, Some(failure.message).filter(|_| health != Health::Healthy))
            }
        };
        Checked { health, detail, http_status, duration: started.elapsed() }
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

/// The only field of a FHIR resource that is needed: its type.
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
                    (Health::Misconfigured, Some("the server that answers is not a FHIR server".to_owned()))
                }
            }
            (_, Self::FhirMetadata) | (300..=399 | 404 | 405 | 410, Self::Path { .. }) => {
                answered(Health::Misconfigured)
            }
            // Any other refusal of the path concerns its parameters, not the credentials. Few APIs have
            // anything at their root. There, any answer that is not about the credentials counts as healthy.
            (_, Self::Path { .. } | Self::Root) => (Health::Healthy, None),
        }
    }
}
