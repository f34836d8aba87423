//! Credentials on a request: the six kinds of the contract's `AuthConfig`.

mod assertion;
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
pub use token::Tokens;

/// How calls of one integration authenticate.
#[derive(Clone, Debug)]
pub enum Auth {
    /// `api_key_header`: the key as the value of a header.
    ApiKeyHeader {
        /// The header.
        name: HeaderName,
        /// The key.
        key: Secret,
    },
    /// `bearer_token`: a fixed token (RFC 6750 section 2.1).
    BearerToken(Secret),
    /// A token that is got from a token endpoint and kept while it lives.
    Token(Box<TokenAuth>),
}

/// How a token is got.
#[derive(Clone, Debug)]
pub struct TokenAuth {
    /// What is presented for it.
    pub grant: Grant,
    /// The token endpoint; `None` only where the grant can discover it.
    pub token_url: Option<Url>,
    /// How long a token lives whose answer does not say.
    pub assumed_lifetime: Duration,
}

/// What is presented for a token.
#[derive(Clone, Debug)]
pub enum Grant {
    /// `oauth2_client_credentials` (RFC 6749 section 4.4), the client authenticated by its secret (section 2.3.1).
    ClientCredentials {
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// Whether both stand in the form (`client_secret_post`) rather than in HTTP Basic.
        in_form: bool,
        /// What is asked for.
        scopes: Vec<String>,
    },
    /// `oauth2_jwt_bearer` (RFC 7523 section 2.1): a signed statement about a subject.
    JwtBearer {
        /// Signs the statement.
        signer: Signer,
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
        /// `aud`; the token endpoint where it is not said.
        audience: Option<String>,
        /// What is asked for.
        scopes: Vec<String>,
        /// Whether the scopes stand in the statement rather than in the form.
        scopes_in_jwt: bool,
    },
    /// `smart_backend_services`: SMART App Launch 2.2, "Backend Services", the client authenticated by a signed
    /// assertion ("Client Authentication: Asymmetric").
    SmartBackendServices {
        /// Signs the assertion.
        signer: Signer,
        /// `iss` and `sub`.
        client_id: String,
        /// `aud`; the token endpoint where it is not said.
        audience: Option<String>,
        /// What is asked for, such as `system/DocumentReference.write`.
        scopes: Vec<String>,
        /// The FHIR base URL, below which the token endpoint is discovered when none is configured.
        fhir_base: Url,
    },
    /// `gcp_wif`: a token exchange (RFC 8693) at Google's security token service for a statement that a workload
    /// identity pool's provider trusts.
    GcpWif {
        /// Signs the statement; Google takes RS256.
        signer: Signer,
        /// `iss`, as the provider was set up with.
        issuer: String,
        /// `sub`.
        subject: String,
        /// `//iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…/providers/…`.
        provider: String,
        /// What is asked for.
        scopes: Vec<String>,
    },
}

/// An answer, and the secrets that went out on the way to it, so that an echo of them can be masked.
#[derive(Debug)]
pub struct Authorized {
    /// The answer.
    pub answer: Answer,
    /// What was sent.
    pub used: Vec<Secret>,
}

impl Auth {
    /// Sends a request with these credentials. When a got token is refused with 401 it is got anew, once, and the
    /// request sent again: who answers 401 has not done what was asked.
    ///
    /// # Errors
    /// As [`Outbound::send`]; [`crate::FailureKind::AuthFailed`] when no token was given.
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
                // Without a token the request was not sent; and who answers 401 has not done it.
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

/// The credentials of HTTP Basic, both parts form-encoded before (RFC 6749 section 2.3.1).
fn basic(client_id: &str, client_secret: &Secret) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(client_id), encoded(client_secret.expose())));
    STANDARD.encode(pair.as_bytes())
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| Failure::misconfigured("the secret holds characters that no header can carry"))?;
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

    /// Tells one way of getting a token from every other, secrets included: after an edit nothing old is used.
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
