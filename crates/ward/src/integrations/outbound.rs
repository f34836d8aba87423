//! Outbound calls within a request: the test of an endpoint and the health check. Only this module and the
//! delivery worker call `ward-ehr`. Nothing here runs inside a database closure.

mod credentials;
pub mod health;
pub mod test;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sha2::{Digest, Sha256};
use ward_db::{Timestamp, Tx};
use ward_ehr::auth::Signer;
use ward_ehr::endpoint::Way;
use ward_ehr::{Auth, Limits, Secret, Tokens};

use super::secrets::Sealed;
use super::store::Unparsed;
use super::{AuthConfig, AuthKind, Endpoint, store};
use crate::app::App;
use crate::config::{Config, ConfigError};
use crate::error::ApiError;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::shares::{self as pool, Holder, Share, Shares};
use crate::vault::Vault;

use credentials::{Keys, algorithm_of, own_auth};

/// Time limit of one integration's health check.
const CHECK_TIME: Duration = Duration::from_secs(5);
/// Calls of one workspace that may wait for a share.
const WAITING_CALLS: usize = 64;
/// How long a call waits for a share: less than `request_time` leaves beside the call itself.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const KIB: usize = 1024;
/// Time for a request's own work beside a call.
const OWN_TIME: Duration = Duration::from_secs(1);

/// The HTTP client for integrations, its tokens, and the shares that bound its calls.
pub struct Wire {
    outbound: ward_ehr::Outbound,
    tokens: Tokens,
    keys: Arc<Keys>,
    /// The values of [`ward_ehr::HOP`] for this installation, that of the current key first.
    hops: Vec<HeaderValue>,
    calls: Shares,
    trees: Shares,
}

impl Wire {
    /// The guarded HTTP client.
    pub fn outbound(&self) -> &ward_ehr::Outbound {
        &self.outbound
    }

    /// The cached access tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Creates the client with these settings. Blocking: it reads certificates and the system's resolver
    /// files.
    pub fn new(config: &Config, vault: &Arc<Vault>) -> Result<Self, ConfigError> {
        let settings = &config.outbound;
        let wrong = |message: String| ConfigError::one("outbound_ca_file", message);
        let extra_roots = match &settings.ca_file {
            Some(file) => std::fs::read(file)
                .map_err(|error| wrong(format!("{} cannot be read: {error}", file.display())))?,
            None => Vec::new(),
        };
        let left = config.limits.request_time.saturating_sub(OWN_TIME).max(config.limits.request_time / 2);
        let hops: Vec<HeaderValue> = vault.check_values().iter().map(|check| hop(check)).collect();
        let limits = Limits {
            allow: settings.allow.clone(),
            plain_http: settings.plain_http,
            total_time: settings.time.min(left),
            connect_time: CHECK_TIME.min(settings.time),
            body_bytes: settings.body_bytes,
            concurrency: settings.concurrency,
            extra_roots,
            name_servers: settings.name_servers.clone(),
            lookup_time: CHECK_TIME.min(settings.time),
            installation: hops.first().cloned(),
            own_origin: config.public_url.clone(),
        };
        let outbound = ward_ehr::Outbound::new(limits).map_err(|failure| wrong(failure.message))?;
        let calls = pool::Limits {
            total: settings.calls,
            each: settings.calls_per_workspace,
            waiting_each: WAITING_CALLS,
        };
        let kib = u32::try_from(settings.memory / KIB).unwrap_or(u32::MAX);
        let trees = pool::Limits { total: kib, each: kib / 4, waiting_each: WAITING_CALLS };
        Ok(Self {
            outbound,
            tokens: Tokens::default(),
            keys: Arc::new(Keys::new(vault.clone())),
            hops,
            calls: Shares::new("outbound_calls", calls),
            trees: Shares::new("outbound_answers", trees),
        })
    }

    /// Takes the share of one call of this workspace. Dropping the share frees it.
    ///
    /// # Errors
    /// 429 if none becomes free soon.
    pub(super) async fn place(&self, holder: Holder) -> Result<Share, ApiError> {
        soon(self.calls.take(holder, 1)).await
    }

    /// Takes a share of the memory for parsed answers of this workspace.
    ///
    /// # Errors
    /// 429 if the memory does not become free soon.
    pub(super) async fn memory_for(&self, holder: Holder, bytes: usize) -> Result<Share, ApiError> {
        let kib = u32::try_from(bytes / KIB).unwrap_or(u32::MAX).saturating_add(1);
        soon(self.trees.take(holder, kib)).await
    }

    /// The most memory that one answer may take, bytes.
    pub(super) fn most_memory(&self) -> usize {
        usize::try_from(self.trees.limits().each).unwrap_or(usize::MAX).saturating_mul(KIB)
    }

    /// Registers an address at which this server listens, so that no integration calls it.
    pub fn listens_at(&self, address: SocketAddr) {
        self.outbound.listens_at(address);
    }

    /// Whether this installation sent the request itself.
    pub fn is_own(&self, headers: &HeaderMap) -> bool {
        headers.get_all(ward_ehr::HOP).iter().any(|given| self.hops.contains(given))
    }
}

/// Waits a few seconds for a share of a pool.
async fn soon(taking: impl Future<Output = Result<Share, pool::Full>>) -> Result<Share, ApiError> {
    match tokio::time::timeout(LONGEST_WAIT, taking).await {
        Ok(taken) => taken.map_err(ApiError::share_used_up),
        Err(elapsed) => Err(ApiError::share_used_up(elapsed)),
    }
}

/// The value by which an installation recognizes its own requests. It is the same on all replicas and
/// serves no other purpose.
fn hop(check_value: &str) -> HeaderValue {
    let digest = Sha256::digest(format!("ward hop {check_value}"));
    let text: String = digest.iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("ward"))
}

/// Whether a text is a valid header name (RFC 9110 section 5.1).
pub(super) fn is_header_name(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Whether a configuration must not set this header.
pub(super) fn is_reserved_header(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| ward_ehr::reserved_header(&name))
}

/// Checks the path of an endpoint. The error is a phrase that describes the problem.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    ward_ehr::template::check_path(path)
}

/// Whether a text is a path to a value in an answer.
pub(super) fn is_way(text: &str) -> bool {
    Way::read(text).is_some()
}

/// Checks a private key by signing with it. The error never repeats the key.
pub(super) fn check_key(kind: AuthKind, algorithm: Option<&str>, pem: &str) -> Result<(), String> {
    Signer::new(algorithm_of(kind, algorithm), &Secret::new(pem), None)
        .map(|_| ())
        .map_err(|failure| failure.message)
}

/// The parts of an integration that a call needs.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The name of the integration; for a seeded one, its connector's name.
    pub name: String,
    /// The base URL; empty or with `{placeholders}` until the operator completes it.
    pub base_url: String,
    /// Whether calls and deliveries may use it.
    pub enabled: bool,
    /// The authentication of its calls, or the reason why it is not usable.
    pub auth: Result<Option<Auth>, String>,
    /// The timestamp of its last change.
    pub updated_at: Timestamp,
}

/// An integration and its sealed credentials as one transaction read them.
#[derive(Debug)]
pub struct StoredConnection {
    integration: Unparsed,
    sealed: Vec<Sealed>,
}

/// Reads the integration of this id. `StoredConnection::open` follows outside the transaction.
pub fn stored_connection(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<StoredConnection>, ward_db::Error> {
    let Some(integration) = store::get(tx, workspace, id)? else { return Ok(None) };
    Ok(Some(StoredConnection { integration, sealed: store::sealed(tx, workspace, id)? }))
}

impl StoredConnection {
    /// Parses the configuration and opens the credentials. That work grows with the stored configuration,
    /// so it belongs in [`crate::work::Work`].
    fn open(self, keys: &Keys) -> Result<Connection, ward_db::Error> {
        let integration = self.integration.parse()?;
        let auth = own_auth(&integration, &self.sealed, keys);
        let config = integration.config;
        Ok(Connection {
            name: integration.name,
            base_url: config.base_url,
            enabled: config.enabled,
            auth,
            updated_at: integration.updated_at,
        })
    }
}

/// The integration of this id, with its credentials opened as CPU work.
pub async fn connection(
    app: &App,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<Connection>, ward_db::Error> {
    let stored =
        app.db.read("integrations.connection", move |tx| stored_connection(tx, workspace, id)).await?;
    let Some(stored) = stored else { return Ok(None) };
    let keys = app.wire.keys.clone();
    let opened = app.work.run(Holder::Workspace(workspace), move || stored.open(&keys)).await;
    opened.ok().transpose()
}

/// The longest headers of an endpoint together, bytes. Few servers accept longer ones.
pub(super) const MOST_HEADER_BYTES: usize = 8192;

/// The headers that an endpoint configures.
pub(super) fn headers(endpoint: &Endpoint<AuthConfig>) -> Result<HeaderMap, String> {
    let length = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if endpoint.headers.iter().map(length).sum::<usize>() > MOST_HEADER_BYTES {
        return Err("the endpoint's headers are longer than 8,192 bytes together".to_owned());
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header's name is not valid")?;
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default());
        headers.insert(name, value.map_err(|_| "a header's value has a character that is not allowed")?);
    }
    Ok(headers)
}

/// Milliseconds with three digits after the point.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}
