//! Credentials on a request: the six kinds of the contract's `AuthConfig`.

mod assertion;
mod generated;
mod key;
mod token;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::client::{Answer, Outbound, Request};
use crate::{Failure, Secret};

pub use assertion::{Algorithm, Signer};
pub use generated::KeyPair;
pub use token::Tokens;

/// The authentication of one integration's calls.
#[derive(Clone, Debug)]
pub enum Auth {
    /// `api_key_header`: a header whose value is the key.
    ApiKeyHeader {
        /// The header's name, such as `x-api-key`.
        name: HeaderName,
        /// The key, which is the header's whole value.
        key: Secret,
    },
    /// `bearer_token`: a fixed token (RFC 6750 section 2.1).
    BearerToken(Secret),
    /// A token that is fetched from a token endpoint and kept while it is valid.
    Token(Box<TokenAuth>),
}

/// The way in which a token is fetched.
#[derive(Clone, Debug)]
pub struct TokenAuth {
    /// The grant that is presented for a token.
    pub grant: Grant,
    /// The token endpoint; `None` only if the grant can discover it.
    pub token_url: Option<Url>,
    /// The lifetime of a token whose answer does not state one.
    pub assumed_lifetime: Duration,
}

/// The grant that is presented to a token endpoint.
#[derive(Clone, Debug)]
pub enum Grant {
    /// `oauth2_client_credentials` (RFC 6749 section 4.4), the client authenticated by its secret (section 2.3.1).
    ClientCredentials {
        /// The client's id at the token endpoint.
        client_id: String,
        /// The secret that authenticates the client.
        client_secret: Secret,
        /// Whether both are sent in the form (`client_secret_post`) instead of HTTP Basic.
        in_form: bool,
        /// The requested scopes, sent separated by spaces.
        scopes: Vec<String>,
    },
    /// `oauth2_jwt_bearer` (RFC 7523 section 2.1): a signed assertion about a subject.
    JwtBearer {
        /// The key that signs the assertion.
        signer: Signer,
        /// The assertion's `iss` claim, which names its signer.
        issuer: String,
        /// The assertion's `sub` claim: the account that the token is for. `None` leaves the claim out.
        subject: Option<String>,
        /// The assertion's `aud`; by default the token endpoint.
        audience: Option<String>,
        /// The requested scopes, sent separated by spaces.
        scopes: Vec<String>,
        /// Whether the scopes are sent in the assertion instead of the form.
        scopes_in_jwt: bool,
    },
    /// `smart_backend_services`: SMART App Launch 2.2, "Backend Services", the client authenticated by a signed
    /// assertion ("Client Authentication: Asymmetric").
    SmartBackendServices {
        /// The key that signs the assertion.
        signer: Signer,
        /// The client's id, sent as the assertion's `iss` and `sub`.
        client_id: String,
        /// The assertion's `aud`; by default the token endpoint.
        audience: Option<String>,
        /// The scopes that are requested, such as `system/DocumentReference.write`.
        scopes: Vec<String>,
        /// The FHIR base URL, below which the token endpoint is discovered if none is configured.
        fhir_base: Url,
    },
    /// `gcp_wif`: a token exchange (RFC 8693) at Google's security token service. It presents an assertion
    /// that the provider of a workload identity pool trusts.
    GcpWif {
        /// The key that signs the assertion; Google accepts RS256.
        signer: Signer,
        /// The assertion's `iss`, as configured at the provider.
        issuer: String,
        /// The assertion's `sub` claim: the account that the token is for.
        subject: String,
        /// The provider's resource name,
        /// `//iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…/providers/…`.
        provider: String,
        /// The requested scopes, sent separated by spaces.
        scopes: Vec<String>,
    },
}

/// An answer and the secrets that were sent for it, so that an echo of them can be masked.
#[derive(Debug)]
pub struct Authorized {
    /// The answer of the last attempt, with any status.
    pub answer: Answer,
    /// The secrets that were sent, derived forms included.
    pub used: Vec<Secret>,
}

impl Auth {
    /// Sends a request with these credentials. If a fetched token is refused with 401, a new token is fetched
    /// and the request is sent again, once. A server that answers 401 has not executed the request.
    ///
    /// # Errors
    /// The errors of [`Outbound::send`]; [`crate::FailureKind::AuthFailed`] if no token could be fetched.
    pub async fn send(
        auth: Option<&Self>,
        outbound: &Outbound,
        tokens: &Tokens,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Authorized, Failure> {
        let Some(auth) = auth else {
            return Ok(Authorized { answer: outbound.send(&request, deadline).await?, used: Vec::new() });
        };
        match auth {
            Self::ApiKeyHeader { name, key } => {
                request.headers.insert(name, sensitive(key)?);
                let answer = outbound.send(&request, deadline).await?;
                Ok(Authorized { answer, used: vec![key.clone()] })
            }
            Self::BearerToken(token) => {
                bear(&mut request.headers, token)?;
                let answer = outbound.send(&request, deadline).await?;
                Ok(Authorized { answer, used: vec![token.clone()] })
            }
            Self::Token(how) => {
                // Without a token the request was not sent, and a server that answers 401 has not executed
                // it.
                let token = tokens.get(outbound, how, None, deadline).await.map_err(Failure::unsent)?;
                bear(&mut request.headers, &token)?;
                let answer = outbound.send(&request, deadline).await?;
                if answer.status != StatusCode::UNAUTHORIZED {
                    return Ok(Authorized { answer, used: how.secrets(token) });
                }
                let fresh =
                    tokens.get(outbound, how, Some(&token), deadline).await.map_err(Failure::unsent)?;
                bear(&mut request.headers, &fresh)?;
                let answer = outbound.send(&request, deadline).await?;
                let mut used = how.secrets(token);
                used.push(fresh);
                Ok(Authorized { answer, used })
            }
        }
    }
}

fn bear(headers: &mut HeaderMap, token: &Secret) -> Result<(), Failure> {
    let value = sensitive(&Secret::new(format!("Bearer {}", token.expose())))?;
    headers.insert(http::header::AUTHORIZATION, value);
    Ok(())
}

/// The credentials of HTTP Basic, with both parts form-encoded first (RFC 6749 section 2.3.1).
fn basic(client_id: &str, client_secret: &Secret) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(client_id), encoded(client_secret.expose())));
    STANDARD.encode(pair.as_bytes())
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| Failure::misconfigured("the secret has characters that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl TokenAuth {
    fn secrets(&self, token: Secret) -> Vec<Secret> {
        match &self.grant {
            Grant::ClientCredentials { client_id, client_secret, .. } => {
                let basic = Secret::new(basic(client_id, client_secret));
                vec![token, client_secret.clone(), basic]
            }
            _ => vec![token],
        }
    }

    /// A hash of everything that determines the token, secrets included, so that no old token is used after
    /// an edit.
    fn fingerprint(&self) -> [u8; 32] {
        let token_url = self.token_url.as_ref().map_or("", Url::as_str);
        let (scopes, parts) = match &self.grant {
            Grant::ClientCredentials { client_id, client_secret, in_form, scopes } => {
                let place = if *in_form { "in form" } else { "in header" };
                (scopes, vec!["secret", client_id, client_secret.expose(), place])
            }
            Grant::JwtBearer { signer, issuer, subject, audience, scopes, scopes_in_jwt } => {
                let place = if *scopes_in_jwt { "in jwt" } else { "in form" };
                let audience = audience.as_deref().unwrap_or_default();
                let subject = subject.as_deref().unwrap_or_default();
                (scopes, [&["bearer", issuer, subject, audience, place][..], &signer.parts()].concat())
            }
            Grant::SmartBackendServices { signer, client_id, audience, scopes, fhir_base } => {
                let audience = audience.as_deref().unwrap_or_default();
                (scopes, [&["smart", client_id, audience, fhir_base.as_str()][..], &signer.parts()].concat())
            }
            Grant::GcpWif { signer, issuer, subject, provider, scopes } => {
                (scopes, [&["gcp", issuer, subject, provider][..], &signer.parts()].concat())
            }
        };
        let mut hash = Sha256::new();
        for part in parts.into_iter().chain([token_url]).chain(scopes.iter().map(String::as_str)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}
