//! The calls that requests make to the outside: an endpoint's test and the health check. Beside `sync/worker.rs` the only
//! place that knows the wire. Nothing here runs inside a database closure.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use ward_db::Timestamp;
use ward_ehr::auth::{Algorithm, Grant, Signer, TokenAuth};
use ward_ehr::endpoint::{Call as Wired, Outcome, Shape, Way};
use ward_ehr::health::{Checked, Health, Probe, Target};
use ward_ehr::{Auth, Limits, Secret, Tokens};
use zeroize::Zeroizing;

use super::secrets::{Place, Sealed, open_for, origin};
use super::{AuthConfig, AuthKind, Endpoint, Integration, Protocol, actions, own_base_url, store};
use crate::access::Permission;
use crate::app::App;
use crate::config::{Config, ConfigError};
use crate::error::ApiError;
use crate::http::Reply;
use crate::http::caller::{Entry, Held};
use crate::http::idempotency::{Begun, Repeat};
use crate::ids::{IntegrationId, WorkspaceId};
use crate::vault::Vault;

/// How long one integration's health check may take.
const CHECK_TIME: Duration = Duration::from_secs(5);
/// How many are checked at once: all that a workspace may have, so that none waits for the silent ones before it.
const CHECKED_AT_ONCE: usize = super::MOST;
/// What a request's own work may take besides a call.
const OWN_TIME: Duration = Duration::from_secs(1);

/// The one client and its tokens.
pub struct Wire {
    outbound: ward_ehr::Outbound,
    tokens: Tokens,
}

impl Wire {
    /// The client.
    pub fn outbound(&self) -> &ward_ehr::Outbound {
        &self.outbound
    }

    /// Its access tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The client under these settings. Blocking: it reads certificates.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let settings = &config.outbound;
        let wrong = |message: String| ConfigError::one("outbound_ca_file", message);
        let extra_roots = match &settings.ca_file {
            Some(file) => std::fs::read(file)
                .map_err(|error| wrong(format!("{} cannot be read: {error}", file.display())))?,
            None => Vec::new(),
        };
        let left = config.limits.request_time.saturating_sub(OWN_TIME).max(config.limits.request_time / 2);
        let limits = Limits {
            allow: settings.allow.clone(),
            plain_http: settings.plain_http,
            total_time: settings.time.min(left),
            connect_time: CHECK_TIME.min(settings.time),
            body_bytes: settings.body_bytes,
            concurrency: settings.concurrency,
            extra_roots,
        };
        let outbound = ward_ehr::Outbound::new(limits).map_err(|failure| wrong(failure.message))?;
        Ok(Self { outbound, tokens: Tokens::default() })
    }
}

/// Whether a text is a header's name (RFC 9110 section 5.1).
pub(super) fn is_header_name(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Whether a header is not for configuration to set.
pub(super) fn is_reserved_header(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| ward_ehr::reserved_header(&name))
}

/// Judges an endpoint's path.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    ward_ehr::template::check_path(path)
}

/// Whether a text is a way to a value in an answer.
pub(super) fn is_way(text: &str) -> bool {
    Way::read(text).is_some()
}

/// Judges a private key by signing with it. The sentence never repeats it.
pub(super) fn check_key(kind: AuthKind, algorithm: Option<&str>, pem: &str) -> Result<(), String> {
    Signer::new(algorithm_of(kind, algorithm), Secret::new(pem), None)
        .map(|_| ())
        .map_err(|failure| failure.message)
}

fn algorithm_of(kind: AuthKind, named: Option<&str>) -> Algorithm {
    match (kind, named) {
        (AuthKind::GcpWif, _) => Algorithm::Rs256,
        (_, Some("ES384")) => Algorithm::Es384,
        _ => Algorithm::Rs384,
    }
}

/// An authentication ready to use, or why it is not.
fn ready(auth: &AuthConfig, secret: Option<Zeroizing<String>>, base_url: &str) -> Result<Auth, String> {
    let secret = secret.ok_or("the credentials are not complete: their secret is missing")?;
    let secret = Secret::new(secret.as_str());
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let scopes = || auth.scopes.clone().unwrap_or_default();
    let signer = |secret: Secret| {
        let algorithm = algorithm_of(auth.kind, auth.assertion_algorithm.as_deref());
        Signer::new(algorithm, secret, auth.assertion_kid.clone()).map_err(|failure| failure.message)
    };
    let url = |text: &str| text.parse().map_err(|_| "base_url or token_url is not a finished URL".to_owned());
    let issuer = || auth.assertion_issuer.clone().or_else(|| auth.client_id.clone()).unwrap_or_default();
    let grant = match auth.kind {
        AuthKind::ApiKeyHeader => {
            let name = HeaderName::from_bytes(text(&auth.header_name).as_bytes());
            return Ok(Auth::ApiKeyHeader {
                name: name.map_err(|_| "header_name is not a header's name")?,
                key: secret,
            });
        }
        AuthKind::BearerToken => return Ok(Auth::BearerToken(secret)),
        AuthKind::ClientCredentials => Grant::ClientCredentials {
            client_id: text(&auth.client_id),
            client_secret: secret,
            scopes: scopes(),
        },
        AuthKind::JwtBearer => Grant::JwtBearer {
            signer: signer(secret)?,
            issuer: issuer(),
            subject: auth.assertion_subject.clone().unwrap_or_else(issuer),
            audience: auth.assertion_audience.clone(),
            scopes: scopes(),
            scopes_in_jwt: auth.assertion_scopes_in_jwt,
        },
        AuthKind::SmartBackendServices => Grant::SmartBackendServices {
            signer: signer(secret)?,
            client_id: text(&auth.client_id),
            audience: auth.assertion_audience.clone(),
            scopes: scopes(),
            fhir_base: url(base_url)?,
        },
        AuthKind::GcpWif => Grant::GcpWif {
            signer: signer(secret)?,
            issuer: issuer(),
            subject: text(&auth.assertion_subject),
            provider: text(&auth.assertion_audience),
            scopes: auth.gcp_scopes.clone().unwrap_or_default(),
        },
    };
    let google = (auth.kind == AuthKind::GcpWif).then_some("https://sts.googleapis.com/v1/token");
    let token_url = auth.token_url.as_deref().filter(|url| !url.is_empty()).or(google);
    Ok(Auth::Token(Box::new(TokenAuth {
        grant,
        token_url: token_url.map(url).transpose()?,
        assumed_lifetime: Duration::from_secs(u64::try_from(auth.token_lifetime_seconds).unwrap_or(3600)),
    })))
}

/// The authentication of the integration itself, opened.
fn own_auth(integration: &Integration, sealed: &[Sealed], vault: &Vault) -> Result<Option<Auth>, String> {
    let Some(auth) = &integration.config.auth else { return Ok(None) };
    opened(auth, &Place { endpoint: None, base_url: &integration.config.base_url }, sealed, vault).map(Some)
}

fn opened(auth: &AuthConfig, place: &Place<'_>, sealed: &[Sealed], vault: &Vault) -> Result<Auth, String> {
    let secret = open_for(auth, place, sealed, vault).map_err(|error| {
        tracing::error!(cause = error.cause().map(ToString::to_string), "a sealed secret cannot be opened");
        "a secret cannot be opened with this server's keys".to_owned()
    })?;
    ready(auth, secret, place.base_url)
}

/// An integration, as far as sending calls to it goes.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name; a connector's, where provisioning seeded it.
    pub name: String,
    /// Where it is; empty, or with `{placeholders}`, until the operator says so.
    pub base_url: String,
    /// Whether it is used.
    pub enabled: bool,
    /// How its calls authenticate, or why that is not known.
    pub auth: Result<Option<Auth>, String>,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// The integration of this id, its credentials opened on a thread where that may take its time.
pub async fn connection(
    app: &App,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<Connection>, ward_db::Error> {
    let found = app.db.read("integrations.connection", move |tx| {
        let Some(integration) = store::get(tx, workspace, id)? else { return Ok(None) };
        Ok::<_, ward_db::Error>(Some((integration, store::sealed(tx, workspace, id)?)))
    });
    let Some((integration, sealed)) = found.await? else { return Ok(None) };
    let vault = app.vault.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let auth = own_auth(&integration, &sealed, &vault);
        let Integration { name, updated_at, config, .. } = integration;
        Connection { name, base_url: config.base_url, enabled: config.enabled, auth, updated_at }
    });
    Ok(opened.await.ok())
}

/// The authentication of one endpoint: its own, or the integration's if it is on the integration's origin.
fn endpoint_auth(
    integration: &Integration,
    (index, endpoint): (usize, &Endpoint<AuthConfig>),
    sealed: &[Sealed],
    vault: &Vault,
) -> Result<Option<Auth>, String> {
    let base_url = own_base_url(endpoint).unwrap_or(&integration.config.base_url);
    if let Some(auth) = &endpoint.auth {
        let place = Place { endpoint: Some((index, &endpoint.name)), base_url };
        return opened(auth, &place, sealed, vault).map(Some);
    }
    if origin(base_url).is_none() || origin(base_url) != origin(&integration.config.base_url) {
        return Ok(None);
    }
    own_auth(integration, sealed, vault)
}

/// The headers that an endpoint sets.
fn headers(endpoint: &Endpoint<AuthConfig>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header has no name")?;
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default());
        headers.insert(name, value.map_err(|_| "a header has a value that it cannot carry")?);
    }
    Ok(headers)
}

fn wired(
    integration: &Integration,
    (index, endpoint): (usize, &Endpoint<AuthConfig>),
    sealed: &[Sealed],
    vault: &Vault,
) -> Result<Wired, String> {
    if integration.config.protocol == Protocol::Mcp {
        return Err("tool servers are stored as given and never called".to_owned());
    }
    Ok(Wired {
        gate: integration.id.to_string(),
        method: Method::from_bytes(endpoint.method.as_bytes()).map_err(|_| "the method is none")?,
        base_url: own_base_url(endpoint).unwrap_or(&integration.config.base_url).to_owned(),
        path: endpoint.path.clone(),
        headers: headers(endpoint)?,
        form: endpoint.body_format == "form",
        auth: endpoint_auth(integration, (index, endpoint), sealed, vault)?,
        max_retries: endpoint.retry_config.max_retries,
        retry_on_status: endpoint.retry_config.retry_on_status.clone(),
        shape: Shape {
            filter: endpoint.response_filter.clone(),
            mapping: endpoint.response_mapping.clone(),
            result_key: endpoint.result_key.clone(),
            result_template: endpoint.result_template.clone(),
            max_length: usize::try_from(endpoint.max_result_length).unwrap_or_default(),
        },
    })
}

/// `TestEndpointResponse`.
#[derive(Serialize)]
struct Tested {
    status_code: Option<u16>,
    duration_ms: f64,
    retries: u32,
    raw_response: Value,
    after_filter: Value,
    after_mapping: Value,
    final_result: Option<String>,
    error: Option<String>,
}

impl From<Outcome> for Tested {
    fn from(outcome: Outcome) -> Self {
        Self {
            status_code: outcome.status,
            duration_ms: milliseconds(outcome.duration),
            retries: outcome.retries,
            raw_response: outcome.raw,
            after_filter: outcome.after_filter,
            after_mapping: outcome.after_mapping,
            final_result: outcome.final_result,
            error: outcome.error,
        }
    }
}

/// Milliseconds with three digits after the point.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// What is known of a test before its call.
struct ToTest {
    integration: Integration,
    index: usize,
    sealed: Vec<Sealed>,
}

/// Calls an endpoint and tells every step. That it is called is recorded before; whatever the other side does is a result.
pub(super) async fn test(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    endpoint: String,
    params: Map<String, Value>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let (vault, begin, noted) = (app.vault.clone(), repeat.clone(), entry.clone());
    let begun = app
        .db
        .write("integrations.begin_test", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let integration = store::get(tx, seen.workspace.id, id)?.ok_or(ApiError::no_integration())?;
            let index = integration.config.endpoints.iter().position(|known| known.name == endpoint);
            let index = index.ok_or(ApiError::no_endpoint())?;
            let called = &integration.config.endpoints[index];
            if called.method != "GET" && !seen.reach.permissions.contains(Permission::IntegrationUpdate) {
                return Err(ApiError::forbidden());
            }
            if let Begun::Answered(reply) = begin.begin_apart(tx, &vault)? {
                return Ok(Err(reply));
            }
            actions::record_test(tx, &entry.context, &caller, &integration, called)?;
            let sealed = store::sealed(tx, seen.workspace.id, id)?;
            Ok(Ok(ToTest { integration, index, sealed }))
        })
        .await;
    if begun.as_ref().is_err_and(ApiError::is_forbidden) {
        noted.note_forbidden(app);
    }
    let to_test = match begun? {
        Ok(to_test) => to_test,
        Err(reply) => return Ok(reply),
    };
    let endpoint = (to_test.index, &to_test.integration.config.endpoints[to_test.index]);
    let outcome = match wired(&to_test.integration, endpoint, &to_test.sealed, &app.vault) {
        Ok(call) => call.make(&app.wire.outbound, &app.wire.tokens, &params).await,
        Err(error) => Outcome { error: Some(error), ..Outcome::default() },
    };
    let tested = Arc::new(Tested::from(outcome));
    if !repeat.has_key() {
        return Reply::ok(&*tested);
    }
    let vault = app.vault.clone();
    app.db.write("integrations.end_test", move |tx| repeat.finish_apart(tx, &vault, &*tested)).await
}

/// One integration's health.
#[derive(Serialize)]
struct Report {
    id: IntegrationId,
    name: String,
    status: &'static str,
    detail: Option<String>,
    duration_ms: f64,
}

/// The answer of the health check.
#[derive(Serialize)]
pub(super) struct Reports {
    checked_at: Timestamp,
    integrations: Vec<Report>,
}

/// Checks every enabled integration, several at once, each in bounded time. Tool servers are not run and not listed.
pub(super) async fn health(app: &Arc<App>, entry: &Entry) -> Result<Reports, ApiError> {
    let workspace = entry.workspace()?.id;
    let (found, sealed) = app
        .db
        .read("integrations.health", move |tx| {
            Ok::<_, ward_db::Error>((store::list(tx, workspace)?, store::all_sealed(tx, workspace)?))
        })
        .await?;
    let checked = found
        .into_iter()
        .filter(|integration| integration.config.enabled && integration.config.protocol != Protocol::Mcp)
        .map(|integration| check(app, integration, &sealed));
    let integrations = stream::iter(checked).buffered(CHECKED_AT_ONCE).collect().await;
    Ok(Reports { checked_at: entry.context.now, integrations })
}

/// What of an integration tells best how it is: of a REST one the first endpoint that can be called as it stands, with the
/// integration's own credentials.
fn target(integration: &Integration) -> Target {
    if integration.config.protocol == Protocol::Fhir {
        return Target::FhirMetadata;
    }
    let fit = |endpoint: &&Endpoint<AuthConfig>| {
        endpoint.method == "GET"
            && !endpoint.path.contains('{')
            && own_base_url(endpoint).is_none()
            && endpoint.auth.is_none()
    };
    let found = integration.config.endpoints.iter().find(fit);
    found.map_or(Target::Root, |endpoint| match headers(endpoint) {
        Ok(headers) => Target::Path { path: endpoint.path.clone(), headers },
        Err(_) => Target::Root,
    })
}

async fn check(app: &Arc<App>, integration: Integration, sealed: &[Sealed]) -> Report {
    let own: Vec<Sealed> =
        sealed.iter().filter(|secret| secret.integration == integration.id).cloned().collect();
    let checked = match own_auth(&integration, &own, &app.vault) {
        Err(why) => Checked::without_probe(Health::Misconfigured, why),
        Ok(auth) => {
            let probe = Probe {
                gate: integration.id.to_string(),
                base_url: integration.config.base_url.clone(),
                target: target(&integration),
                auth,
            };
            let deadline = Instant::now() + CHECK_TIME.min(app.wire.outbound.limits().total_time);
            probe.run(&app.wire.outbound, &app.wire.tokens, deadline).await
        }
    };
    Report {
        id: integration.id,
        name: integration.name,
        status: checked.health.name(),
        detail: checked.detail,
        duration_ms: milliseconds(checked.duration),
    }
}
