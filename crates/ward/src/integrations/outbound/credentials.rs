//! The configured credentials of an integration, opened for use.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use ward_ehr::auth::{Algorithm, Grant, Signer, TokenAuth};
use ward_ehr::{Auth, Secret};
use zeroize::Zeroizing;

use crate::integrations::secrets::{AssociatedData, SealedSecret, open_for, origin};
use crate::integrations::{
    AuthConfig, AuthKind, ClientAuthMethod, Endpoint, Integration, keys, own_base_url,
};
use crate::vault::Vault;

/// Parsed private keys that are kept; each takes some kilobytes.
const MOST_SIGNERS: usize = 2_000;

/// Opens credentials, and caches parsed private keys, because parsing one takes longer than signing with
/// it.
pub struct Keys {
    vault: Arc<Vault>,
    /// The URL of this installation, below which it serves JWK sets.
    public_url: Option<String>,
    signers: Cache<[u8; 32], Result<Signer, String>>,
}

impl Keys {
    /// Credentials sealed under the operator's keys.
    pub fn new(vault: Arc<Vault>, public_url: Option<String>) -> Self {
        Self { vault, public_url, signers: Cache::new(MOST_SIGNERS) }
    }

    /// The parsed key of this authentication. Each version of the sealed secret is parsed once. Sealing is
    /// randomized, so a secret that was set again has other bytes.
    fn signer(&self, auth: &AuthConfig, sealed: &SealedSecret, secret: &Secret) -> Result<Signer, String> {
        let (algorithm, kid) = match sealed.signs_with.as_deref() {
            Some(algorithm) => (Some(algorithm), sealed.field.kid()),
            None => (auth.assertion_algorithm.as_deref(), auth.assertion_kid.as_deref()),
        };
        let mut hash = Sha256::new();
        for part in [
            sealed.bytes.as_slice(),
            format!("{:?}", auth.kind).as_bytes(),
            algorithm.unwrap_or_default().as_bytes(),
            kid.unwrap_or_default().as_bytes(),
            &[u8::from(auth.assertion_includes_jku)],
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let version = hash.finalize().into();
        if let Some(known) = self.signers.get(&version) {
            return known;
        }
        let signer = Signer::new(algorithm_of(auth.kind, algorithm), secret, kid.map(str::to_owned));
        let jku =
            sealed.signs_with.as_ref().filter(|_| auth.assertion_includes_jku).and_then(|_| {
                keys::set_url(self.public_url.as_deref(), sealed.workspace, sealed.integration)
            });
        let signer = signer.map(|signer| signer.with_jku(jku)).map_err(|failure| failure.message);
        self.signers.insert(version, signer.clone());
        signer
    }
}

pub(super) fn algorithm_of(kind: AuthKind, named: Option<&str>) -> Algorithm {
    match (kind, named) {
        (AuthKind::GcpWif, _) | (_, Some("RS256")) => Algorithm::Rs256,
        (_, Some("ES384")) => Algorithm::Es384,
        _ => Algorithm::Rs384,
    }
}

/// Whether the token endpoint is Google's. There, a subject other than the issuer asks for domain-wide
/// delegation, so an assertion without one is what a service account sends.
fn is_googles(auth: &AuthConfig) -> bool {
    let origin = auth.token_url.as_deref().and_then(origin);
    origin.is_some_and(|origin| origin == "https://oauth2.googleapis.com")
}

/// An authentication ready for use, or the reason why it is not.
fn ready(
    auth: &AuthConfig,
    found: Option<(&SealedSecret, Zeroizing<String>)>,
    base_url: &str,
    keys: &Keys,
) -> Result<Auth, String> {
    let (sealed, secret) = found.ok_or("the credentials are not complete: their secret is missing")?;
    let secret = Secret::new(secret.as_str());
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let scopes = || auth.scopes.clone().unwrap_or_default();
    let signer = || keys.signer(auth, sealed, &secret);
    let url = |text: &str| text.parse().map_err(|_| "base_url or token_url is not a complete URL".to_owned());
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
            in_form: auth.client_auth_method == Some(ClientAuthMethod::ClientSecretPost),
            scopes: scopes(),
        },
        AuthKind::JwtBearer => Grant::JwtBearer {
            signer: signer()?,
            issuer: issuer(),
            subject: auth.assertion_subject.clone().or_else(|| (!is_googles(auth)).then(issuer)),
            audience: auth.assertion_audience.clone(),
            scopes: scopes(),
            scopes_in_jwt: auth.assertion_scopes_in_jwt,
        },
        AuthKind::SmartBackendServices => Grant::SmartBackendServices {
            signer: signer()?,
            client_id: text(&auth.client_id),
            audience: auth.assertion_audience.clone(),
            scopes: scopes(),
            fhir_base: url(base_url)?,
        },
        AuthKind::GcpWif => Grant::GcpWif {
            signer: signer()?,
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

/// Opens the authentication of the integration itself.
pub(super) fn own_auth(
    integration: &Integration,
    sealed: &[SealedSecret],
    keys: &Keys,
) -> Result<Option<Auth>, String> {
    let Some(auth) = &integration.config.auth else { return Ok(None) };
    opened(auth, &AssociatedData { endpoint: None, base_url: &integration.config.base_url }, sealed, keys)
        .map(Some)
}

fn opened(
    auth: &AuthConfig,
    place: &AssociatedData<'_>,
    sealed: &[SealedSecret],
    keys: &Keys,
) -> Result<Auth, String> {
    let found = open_for(auth, place, sealed, &keys.vault).map_err(|error| {
        tracing::error!(cause = error.cause().map(ToString::to_string), "cannot open a sealed secret; calls that need it fail until its key is configured or the secret is set again");
        "a secret cannot be opened with this server's keys".to_owned()
    })?;
    ready(auth, found, place.base_url, keys)
}

/// The authentication of one endpoint: its own, or the integration's if both have the same origin.
pub(super) fn endpoint_auth(
    integration: &Integration,
    (index, endpoint): (usize, &Endpoint<AuthConfig>),
    sealed: &[SealedSecret],
    keys: &Keys,
) -> Result<Option<Auth>, String> {
    let base_url = own_base_url(endpoint).unwrap_or(&integration.config.base_url);
    if let Some(auth) = &endpoint.auth {
        let place = AssociatedData { endpoint: Some((index, &endpoint.name)), base_url };
        return opened(auth, &place, sealed, keys).map(Some);
    }
    if origin(base_url).is_none() || origin(base_url) != origin(&integration.config.base_url) {
        return Ok(None);
    }
    own_auth(integration, sealed, keys)
}
