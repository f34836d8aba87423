//! A stand-in for the system of an EHR's vendor. It enforces what the vendor's public documents require: the client
//! authentication, the scopes, and, by a function of the test, the required fields and the form of errors.

pub mod patients;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The client id that every stand-in knows.
pub const CLIENT: &str = "ward-at-the-vendor";
pub const TOKEN_PATH: &str = "/oauth2/token";
/// The largest body that it reads, in bytes.
const LARGEST: usize = 1 << 20;

/// The client authentication that the stand-in's token endpoint requires.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// SMART Backend Services with the keys of a registered JWK set.
    Smart {
        /// The accepted signature algorithms, such as `RS384`.
        algorithms: &'static [&'static str],
        /// The scopes that the client may have.
        scopes: &'static [&'static str],
    },
    /// A signed assertion as a grant (RFC 7523 section 2.1), with the scope inside.
    Assertion {
        /// The account that the assertion must name as its issuer.
        issuer: &'static str,
    },
    /// A client id and a secret with HTTP Basic.
    Secret {
        secret: &'static str,
        /// The scopes that the client may have.
        scopes: &'static [&'static str],
    },
    /// A fixed bearer token, without a token endpoint.
    Bearer(&'static str),
    /// A user and a password with HTTP Basic on every request.
    Basic { user: &'static str, password: &'static str },
}

/// A request that the stand-in received with a valid token.
#[derive(Clone, Debug)]
pub struct VendorRequest {
    pub method: String,
    pub path: String,
    /// The query as sent, or an empty text.
    pub query: String,
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub scopes: Vec<String>,
}

impl VendorRequest {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The values of a form's field, from the query or, with a form as the body, from the body.
    pub fn field(&self, name: &str) -> Option<String> {
        let read = |text: &str| {
            let url = reqwest::Url::parse(&format!("http://stand.in/?{text}")).ok()?;
            url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
        };
        read(&self.query).or_else(|| read(&self.body))
    }

    /// Whether the token has one of these scopes.
    pub fn may(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.scopes.iter().any(|has| has == scope))
    }
}

/// An answer of the stand-in: status, further headers, and a body of JSON unless it is null.
pub type VendorAnswer = (u16, Vec<(&'static str, String)>, Value);

/// The rules of one vendor: they judge a request, and keep what it creates.
type Rules = dyn Fn(&VendorRequest, &mut Vec<Value>) -> VendorAnswer + Send + Sync;

#[derive(Default)]
struct VendorState {
    /// The URL of the client's registered JWK set.
    jwks_url: Option<String>,
    /// The issued tokens with their scopes.
    tokens: BTreeMap<String, Vec<String>>,
    /// The headers of all presented assertions.
    assertions: Vec<Value>,
    asked: Vec<VendorRequest>,
    kept: Vec<Value>,
}

struct Shared {
    access: ClientAuth,
    address: SocketAddr,
    rules: Box<Rules>,
    seen: Mutex<VendorState>,
}

/// A running stand-in; clones share it.
#[derive(Clone)]
pub struct Vendor(Arc<Shared>);

impl Vendor {
    /// Starts a stand-in with these rules.
    ///
    /// # Panics
    ///
    /// No port is free.
    pub async fn start(
        access: ClientAuth,
        rules: impl Fn(&VendorRequest, &mut Vec<Value>) -> VendorAnswer + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let vendor =
            Self(Arc::new(Shared { access, address, rules: Box::new(rules), seen: Mutex::default() }));
        let router = Router::new().fallback(serve).with_state(vendor.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        vendor
    }

    /// The URL of its root, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub fn token_url(&self) -> String {
        format!("{}{TOKEN_PATH}", self.url())
    }

    /// Registers the URL of the client's JWK set, as a person does in the vendor's console.
    pub fn register(&self, jwks_url: impl Into<String>) {
        self.0.seen.lock().jwks_url = Some(jwks_url.into());
    }

    /// The headers of the assertions that it accepted or refused, in order.
    pub fn assertions(&self) -> Vec<Value> {
        self.0.seen.lock().assertions.clone()
    }

    /// The requests with a valid token, in order.
    pub fn asked(&self) -> Vec<VendorRequest> {
        self.0.seen.lock().asked.clone()
    }

    /// The things that it created, in order, and those that [`Self::keep`] added.
    pub fn kept(&self) -> Vec<Value> {
        self.0.seen.lock().kept.clone()
    }

    /// Adds a thing as if another client had created it.
    pub fn keep(&self, thing: Value) {
        self.0.seen.lock().kept.push(thing);
    }

    /// Forgets all tokens, so that the next request with one gets 401.
    pub fn forget_tokens(&self) {
        self.0.seen.lock().tokens.clear();
    }

    async fn token(&self, asked: &VendorRequest) -> VendorAnswer {
        let refuse = |error: &str| (400, Vec::new(), json!({ "error": error }));
        if asked.headers.get("content-type").map(String::as_str) != Some("application/x-www-form-urlencoded")
        {
            return refuse("invalid_request");
        }
        let scope = asked.field("scope").unwrap_or_default();
        let (scope, may_have) = match &self.0.access {
            ClientAuth::Smart { algorithms, scopes } => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                if asked.field("grant_type").as_deref() != Some("client_credentials")
                    || asked.field("client_assertion_type").as_deref() != Some(kind)
                {
                    return refuse("unsupported_grant_type");
                }
                let assertion = asked.field("client_assertion").unwrap_or_default();
                let Some(claims) = self.verified(&assertion, algorithms).await else {
                    return refuse("invalid_client");
                };
                if claims["iss"] != CLIENT || claims["sub"] != CLIENT {
                    return refuse("invalid_client");
                }
                (scope, *scopes)
            }
            ClientAuth::Assertion { issuer } => {
                if asked.field("grant_type").as_deref() != Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
                {
                    return refuse("unsupported_grant_type");
                }
                let assertion = asked.field("assertion").unwrap_or_default();
                let Some(claims) = self.verified(&assertion, &["RS256"]).await else {
                    return refuse("invalid_grant");
                };
                if claims["iss"] != *issuer || !claims["scope"].is_string() {
                    return refuse("invalid_grant");
                }
                (claims["scope"].as_str().unwrap_or_default().to_owned(), &[][..])
            }
            ClientAuth::Secret { secret, scopes } => {
                let basic = STANDARD.encode(format!("{CLIENT}:{secret}"));
                let given = asked.headers.get("authorization").map(String::as_str);
                if given != Some(&format!("Basic {basic}")) {
                    return (401, Vec::new(), json!({ "error": "invalid_client" }));
                }
                (scope, *scopes)
            }
            ClientAuth::Bearer(_) | ClientAuth::Basic { .. } => return (404, Vec::new(), Value::Null),
        };
        let scopes: Vec<String> = scope.split(' ').map(str::to_owned).collect();
        if !may_have.is_empty() && !scopes.iter().all(|scope| may_have.contains(&scope.as_str())) {
            return refuse("invalid_scope");
        }
        let mut seen = self.0.seen.lock();
        let token = format!("token-{}-of-the-vendor", seen.tokens.len() + 1);
        seen.tokens.insert(token.clone(), scopes);
        (
            200,
            Vec::new(),
            json!({ "access_token": token, "token_type": "bearer", "expires_in": 300, "scope": scope }),
        )
    }

    /// The claims of an assertion that a key of the registered set signed for this token endpoint.
    async fn verified(&self, assertion: &str, algorithms: &[&str]) -> Option<Value> {
        let mut parts = assertion.split('.');
        let (head, body, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let (header, claims) = (part(head)?, part(body)?);
        self.0.seen.lock().assertions.push(header.clone());
        let url = self.0.seen.lock().jwks_url.clone()?;
        let set: Value = reqwest::get(url).await.ok()?.json().await.ok()?;
        let key = set["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?.clone();
        let algorithm = header["alg"].as_str().filter(|named| algorithms.contains(named))?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let signed = format!("{head}.{body}");
        if key["alg"] != algorithm || !is_signed(&key, algorithm, signed.as_bytes(), &signature) {
            return None;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let lives = claims["exp"].as_u64().is_some_and(|exp| exp > now && exp <= now + 300);
        (lives && claims["aud"] == self.token_url() && claims["jti"].is_string()).then_some(claims)
    }

    fn scopes_of(&self, asked: &VendorRequest) -> Option<Vec<String>> {
        let given = asked.headers.get("authorization")?;
        if let ClientAuth::Basic { user, password } = &self.0.access {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            return (given.strip_prefix("Basic ") == Some(&pair)).then(Vec::new);
        }
        let token = given.strip_prefix("Bearer ")?;
        match &self.0.access {
            ClientAuth::Bearer(fixed) => (token == *fixed).then(Vec::new),
            _ => self.0.seen.lock().tokens.get(token).cloned(),
        }
    }
}

/// Whether this public key verifies the signature.
fn is_signed(key: &Value, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
    let number =
        |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap_or_default()).unwrap_or_default();
    if algorithm == "ES384" {
        let point = [&[4][..], &number("x"), &number("y")].concat();
        return UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok();
    }
    let parameters = match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        _ => &RSA_PKCS1_2048_8192_SHA384,
    };
    RsaPublicKeyComponents { n: number("n"), e: number("e") }.verify(parameters, message, signature).is_ok()
}

async fn serve(State(vendor): State<Vendor>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, LARGEST).await.unwrap_or_default();
    let text = |name: &axum::http::HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut asked = VendorRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers.keys().map(|name| (name.as_str().to_owned(), text(name))).collect(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
        scopes: Vec::new(),
    };

    let said = if asked.path.ends_with("/.well-known/smart-configuration") {
        (200, Vec::new(), json!({ "token_endpoint": vendor.token_url() }))
    } else if asked.path == TOKEN_PATH {
        vendor.token(&asked).await
    } else if asked.path.ends_with("/metadata") {
        // A capability statement needs no token (FHIR R4, "capabilities").
        (200, Vec::new(), json!({ "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1" }))
    } else if let Some(scopes) = vendor.scopes_of(&asked) {
        asked.scopes = scopes;
        let mut seen = vendor.0.seen.lock();
        seen.asked.push(asked.clone());
        (vendor.0.rules)(&asked, &mut seen.kept)
    } else {
        (401, Vec::new(), json!({ "error": "unauthorized" }))
    };
    let (status, headers, body) = said;
    let mut answer = Response::builder().status(status).header(CONTENT_TYPE, content_type(&body));
    for (name, value) in headers {
        answer = answer.header(name, value);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    answer.body(body).expect("a valid answer")
}

fn content_type(body: &Value) -> &'static str {
    if body["resourceType"].is_string() { "application/fhir+json" } else { "application/json" }
}
