//! Outbound calls within a request: the test of an endpoint and the health check. Only this module and the
//! delivery worker call `ward-ehr`. Nothing here runs inside a database closure.

pub mod client;
mod credentials;
pub mod documents;
pub mod health;
pub mod test;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use ward_db::{Timestamp, Tx};
use ward_ehr::auth::{Algorithm, Signer};
use ward_ehr::endpoint::Way;
use ward_ehr::{Auth, Secret};

use super::secrets::SealedSecret;
use super::store::IntegrationRow;
use super::{AuthConfig, AuthKind, DeliverySettings, Endpoint, store};
use crate::app::App;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::shares::Holder;

pub(super) use ward_ehr::auth::KeyPair;

use credentials::{Keys, algorithm_of, own_auth};

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

/// Generates a key pair for an algorithm. It belongs in [`crate::work::Work`], because an RSA key takes long.
pub(super) fn generate(algorithm: &str) -> Result<KeyPair, String> {
    let algorithm = Algorithm::named(algorithm).ok_or("an unknown algorithm")?;
    KeyPair::generate(algorithm).map_err(|failure| failure.message)
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
    /// The settings for the writing of calls.
    pub delivery: DeliverySettings,
    /// The timestamp of its last change.
    pub updated_at: Timestamp,
}

/// An integration and its sealed credentials as one transaction read them.
#[derive(Debug)]
pub struct StoredConnection {
    integration: IntegrationRow,
    sealed: Vec<SealedSecret>,
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
            delivery: config.delivery,
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
