//! The sign-in pages of a test issuer: device codes (RFC 8628), codes for a browser with PKCE (RFC 7636), refresh tokens.
//!
//! It enforces what the standards ask of a client, and each of its codes and refresh tokens works once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::TestIssuer;
use crate::issuer::SigningKey;

/// The id of the only client that the sign-in knows.
pub const CLIENT_ID: &str = "ward-command-line";

/// The sign-in of a [`TestIssuer`], on a port of its own, for as long as this value lives.
pub struct SignIn {
    served: Arc<Served>,
    task: JoinHandle<()>,
}

impl Drop for SignIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    url: String,
    issuer: String,
    key: Arc<SigningKey>,
    claims: Value,
    /// The seconds after which a client replaces a token.
    life: AtomicU64,
    issued: AtomicU64,
    /// Device codes by user code, with the person who approved, or the refusal.
    devices: Mutex<HashMap<String, Device>>,
    /// The challenge and the redirect of each unused code.
    codes: Mutex<HashMap<String, (String, String)>>,
    refresh: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Device {
    code: String,
    polled: bool,
    allowed: Option<bool>,
}

impl SignIn {
    /// Starts the sign-in for the person `subject`, and names its endpoints in the issuer's discovery document.
    pub async fn start(issuer: &TestIssuer, subject: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let served = Arc::new(Served {
            url: url.clone(),
            issuer: issuer.url().to_owned(),
            key: issuer.key(),
            claims: issuer.claims(subject),
            life: AtomicU64::new(300),
            issued: AtomicU64::new(0),
            devices: Mutex::default(),
            codes: Mutex::default(),
            refresh: Mutex::default(),
        });
        issuer.amend_discovery(json!({
            "token_endpoint": format!("{url}/token"),
            "authorization_endpoint": format!("{url}/authorize"),
            "device_authorization_endpoint": format!("{url}/device"),
        }));
        let routes = Router::new()
            .route("/device", post(device))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(served.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self { served, task }
    }

    /// Lets later tokens be replaced after this many seconds.
    pub fn set_life(&self, seconds: u64) {
        self.served.life.store(seconds, Ordering::SeqCst);
    }

    /// Allows or refuses the device that shows this code. Whether there is one.
    pub fn decide(&self, user_code: &str, allowed: bool) -> bool {
        let mut devices = self.served.devices.lock();
        devices.get_mut(user_code).map(|device| device.allowed = Some(allowed)).is_some()
    }

    /// The number of tokens that were issued.
    pub fn issued(&self) -> u64 {
        self.served.issued.load(Ordering::SeqCst)
    }
}

fn form(bytes: &[u8]) -> HashMap<String, String> {
    form_urlencoded::parse(bytes).into_owned().collect()
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn error(code: &str) -> Response {
    answer(StatusCode::BAD_REQUEST, &json!({ "error": code }))
}

fn random() -> String {
    ward::random::id().simple().to_string()
}

async fn device(State(served): State<Arc<Served>>, body: Bytes) -> Response {
    if form(&body).get("client_id").is_none_or(|client| client != CLIENT_ID) {
        return error("invalid_client");
    }
    let (code, user_code) = (random(), random()[..8].to_uppercase());
    let device = Device { code: code.clone(), polled: false, allowed: None };
    served.devices.lock().insert(user_code.clone(), device);
    let page = format!("{}/enter", served.url);
    answer(
        StatusCode::OK,
        &json!({ "device_code": code, "user_code": user_code, "verification_uri": page, "expires_in": 600, "interval": 0 }),
    )
}

/// The person is signed in already and agrees, so the page is only a redirect.
async fn authorize(State(served): State<Arc<Served>>, RawQuery(query): RawQuery) -> Response {
    let query = form(query.unwrap_or_default().as_bytes());
    let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let redirect = value("redirect_uri");
    let right = value("response_type") == "code"
        && value("client_id") == CLIENT_ID
        && value("code_challenge_method") == "S256"
        && redirect.starts_with("http://127.0.0.1:");
    if !right {
        return error("invalid_request");
    }
    let code = random();
    served.codes.lock().insert(code.clone(), (value("code_challenge").to_owned(), redirect.to_owned()));
    let back = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("code", &code[..]), ("state", value("state")), ("iss", &served.issuer)])
        .finish();
    Redirect::to(&format!("{redirect}?{back}")).into_response()
}

async fn token(State(served): State<Arc<Served>>, body: Bytes) -> Response {
    let form = form(&body);
    let value = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if value("client_id") != CLIENT_ID {
        return error("invalid_client");
    }
    match value("grant_type") {
        "urn:ietf:params:oauth:grant-type:device_code" => {
            let mut devices = served.devices.lock();
            let found = devices.iter_mut().find(|(_, device)| device.code == value("device_code"));
            let Some((user_code, device)) = found else { return error("invalid_grant") };
            match device.allowed {
                // The first question always comes too early, as a person is slower than a program.
                Some(allowed) if device.polled => {
                    let user_code = user_code.clone();
                    devices.remove(&user_code);
                    if allowed { served.token() } else { error("access_denied") }
                }
                _ => {
                    device.polled = true;
                    error("authorization_pending")
                }
            }
        }
        "authorization_code" => match served.codes.lock().remove(value("code")) {
            Some((challenge, redirect))
                if redirect == value("redirect_uri")
                    && URL_SAFE_NO_PAD.encode(digest(&SHA256, value("code_verifier").as_bytes()))
                        == challenge =>
            {
                served.token()
            }
            _ => error("invalid_grant"),
        },
        "refresh_token" => {
            let mut refresh = served.refresh.lock();
            let Some(at) = refresh.iter().position(|one| one == value("refresh_token")) else {
                return error("invalid_grant");
            };
            refresh.remove(at);
            drop(refresh);
            served.token()
        }
        _ => error("unsupported_grant_type"),
    }
}

impl Served {
    fn token(&self) -> Response {
        let refresh = random();
        self.refresh.lock().push(refresh.clone());
        self.issued.fetch_add(1, Ordering::SeqCst);
        let access = self.key.sign(&self.key.header(), &self.claims);
        let life = self.life.load(Ordering::SeqCst);
        answer(
            StatusCode::OK,
            &json!({ "access_token": access, "token_type": "Bearer", "expires_in": life, "refresh_token": refresh }),
        )
    }
}
