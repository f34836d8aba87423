//! Sign-in at an `OpenID` Connect issuer, by device code (RFC 8628) or in a browser on this machine (RFC 8252 with PKCE).

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;
use ward::clock::Clock;

use super::profiles::Token;
use super::wire::{Base, causes, exit, http_client};
use crate::failure::CodedFailure;
use crate::show::Output;

/// The time that a person has for the sign-in.
const PATIENCE: Duration = Duration::from_mins(10);

/// The issuer, and how this program is known to it.
#[derive(Clone, Debug, clap::Args)]
pub struct IssuerArguments {
    /// Sign in at this OpenID Connect issuer instead of with an API key. The server must accept its access tokens.
    #[arg(long, value_name = "URL", requires = "client_id", help_heading = "Issuer")]
    pub issuer: Option<String>,
    /// The id of the public client that is registered for this program at the issuer.
    #[arg(long, value_name = "ID", requires = "issuer", help_heading = "Issuer")]
    pub client_id: Option<String>,
    /// A scope to ask for. The flag can be repeated. `offline_access` mostly gives a refresh token.
    #[arg(long, value_name = "SCOPE", default_values_t = ["openid".to_owned(), "offline_access".to_owned()], help_heading = "Issuer")]
    pub scope: Vec<String>,
    /// The server's audience, for issuers that take the parameter `audience`.
    #[arg(long, value_name = "TEXT", requires = "issuer", help_heading = "Issuer")]
    pub audience: Option<String>,
    /// The server's audience, for issuers that take the parameter `resource` (RFC 8707).
    #[arg(long, value_name = "URL", requires = "issuer", help_heading = "Issuer")]
    pub resource: Option<String>,
    /// Sign in with a browser on this machine. Default: a code that is entered on any device.
    #[arg(long, requires = "issuer", help_heading = "Issuer")]
    pub browser: bool,
}

impl IssuerArguments {
    /// The parameters that name the audience.
    fn audience(&self) -> Vec<(&'static str, &str)> {
        let audience = self.audience.as_deref().map(|audience| ("audience", audience));
        let resource = self.resource.as_deref().map(|resource| ("resource", resource));
        audience.into_iter().chain(resource).collect()
    }
}

/// The parts of an issuer's discovery document that a sign-in needs.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    token_endpoint: String,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
}

fn failed(message: impl Into<String>) -> CodedFailure {
    CodedFailure {
        exit: exit::REFUSED,
        code: "sign_in".to_owned(),
        message: message.into(),
        because: Vec::new(),
    }
}

fn unanswered(issuer: &str, error: &dyn std::error::Error) -> CodedFailure {
    let message = format!("the issuer {issuer} gave no usable answer: {}", causes(error));
    CodedFailure { exit: exit::NO_ANSWER, code: "no_answer".to_owned(), message, because: Vec::new() }
}

async fn discover(http: &reqwest::Client, issuer: &str) -> Result<Discovery, CodedFailure> {
    Base::parse(issuer, false)?;
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let answer = http.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let answer = match answer {
        Ok(answer) => answer.bytes().await,
        Err(error) => Err(error),
    };
    let body = answer.map_err(|error| unanswered(issuer, &error))?;
    let found: Discovery = serde_json::from_slice(&body).map_err(|error| unanswered(issuer, &error))?;
    if found.issuer != issuer {
        return Err(failed(format!("the issuer calls itself {:?}, not {issuer:?}", found.issuer)));
    }
    let endpoints = [Some(&found.token_endpoint), found.device_authorization_endpoint.as_ref()];
    for endpoint in endpoints.into_iter().flatten().chain(&found.authorization_endpoint) {
        let refused = |_| failed(format!("the endpoint {endpoint} of the issuer does not use https"));
        Base::parse(endpoint.split('?').next().unwrap_or_default(), false).map_err(refused)?;
    }
    Ok(found)
}

/// The answer of a token endpoint (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<i64>,
}

impl TokenAnswer {
    fn token(self, before: Option<&Token>, issuer: &str, client_id: &str) -> Token {
        let now = Clock::default().now().micros() / 1_000_000;
        Token {
            access: self.access_token,
            // An issuer that sends no new one leaves the old one in force.
            refresh: self.refresh_token.or_else(|| before?.refresh.clone()),
            expires_at: self.expires_in.map(|life| now + life),
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
        }
    }
}

/// The answer of a device endpoint (RFC 8628, section 3.2).
#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

/// The refusal of an endpoint (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

/// The reason why an endpoint gave no token.
enum NoToken {
    Refused(Refusal),
    Unanswered(CodedFailure),
}

/// An issuer, as its own document describes it.
struct Issuer {
    http: reqwest::Client,
    found: Discovery,
}

impl Issuer {
    async fn new(issuer: &str) -> Result<Self, CodedFailure> {
        let http = http_client()?;
        Ok(Self { found: discover(&http, issuer).await?, http })
    }

    /// Sends a form and reads the answer.
    async fn post<T: DeserializeOwned>(&self, endpoint: &str, form: &[(&str, &str)]) -> Result<T, NoToken> {
        let broken =
            |error: &dyn std::error::Error| NoToken::Unanswered(unanswered(&self.found.issuer, error));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.http.post(endpoint).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = request.body(body).send().await.map_err(|error| broken(&error))?;
        let granted = answer.status().is_success();
        let body = answer.bytes().await.map_err(|error| broken(&error))?;
        if granted {
            return serde_json::from_slice(&body).map_err(|error| broken(&error));
        }
        Err(NoToken::Refused(serde_json::from_slice(&body).map_err(|error| broken(&error))?))
    }

    fn failure(&self, no_token: NoToken) -> CodedFailure {
        match no_token {
            NoToken::Refused(Refusal { error, error_description }) => {
                let words = error_description.unwrap_or(error);
                failed(format!("the issuer {} refused the sign-in: {words}", self.found.issuer))
            }
            NoToken::Unanswered(failure) => failure,
        }
    }

    /// The sign-in by a code that a person enters on any device.
    async fn by_device(&self, arguments: &IssuerArguments, out: Output) -> Result<TokenAnswer, CodedFailure> {
        let client_id = arguments.client_id.as_deref().unwrap_or_default();
        let endpoint = self.found.device_authorization_endpoint.as_deref().ok_or_else(|| {
            let issuer = &self.found.issuer;
            failed(format!(
                "the issuer {issuer} offers no sign-in by device code; --browser is the other way"
            ))
        })?;
        let scope = arguments.scope.join(" ");
        let mut form = vec![("client_id", client_id), ("scope", &scope)];
        form.extend(arguments.audience());
        let device: DeviceAnswer = self.post(endpoint, &form).await.map_err(|error| self.failure(error))?;
        let DeviceAnswer { device_code, user_code, verification_uri, expires_in, interval } = device;
        out.remark(&format!("Open {verification_uri} on any device and enter the code {user_code}"));
        let deadline = Instant::now() + PATIENCE.min(Duration::from_secs(expires_in));
        let mut interval = Duration::from_secs(interval.unwrap_or(5));
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &device_code),
            ("client_id", client_id),
        ];
        loop {
            // An issuer that asks for no pause gets a short one.
            tokio::time::sleep(interval.max(Duration::from_millis(100))).await;
            let refusal = match self.post(&self.found.token_endpoint, &form).await {
                Ok(answer) => return Ok(answer),
                Err(NoToken::Refused(refusal)) if Instant::now() < deadline => refusal,
                Err(other) => return Err(self.failure(other)),
            };
            match &refusal.error[..] {
                "authorization_pending" => {}
                "slow_down" => interval += Duration::from_secs(5),
                _ => return Err(self.failure(NoToken::Refused(refusal))),
            }
        }
    }

    /// The sign-in in a browser on this machine, by a code with PKCE (RFC 7636).
    async fn by_browser(
        &self,
        arguments: &IssuerArguments,
        out: Output,
    ) -> Result<TokenAnswer, CodedFailure> {
        let client_id = arguments.client_id.as_deref().unwrap_or_default();
        let offers_none =
            || failed(format!("the issuer {} offers no sign-in in a browser", self.found.issuer));
        let endpoint = self.found.authorization_endpoint.as_deref().ok_or_else(offers_none)?;
        let mut page = Url::parse(endpoint).map_err(|_| offers_none())?;
        let (verifier, state) = (random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let (redirect, mut callbacks) = listen().await?;
        page.query_pairs_mut()
            .extend_pairs([
                ("response_type", "code"),
                ("client_id", client_id),
                ("redirect_uri", &redirect),
                ("scope", &arguments.scope.join(" ")),
                ("state", &state),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
            ])
            .extend_pairs(arguments.audience());
        out.remark(&format!("Open this page to sign in:\n  {page}"));
        open(page.as_str());
        let code = called_back(&mut callbacks, &state, &self.found.issuer).await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &redirect),
            ("code_verifier", &verifier),
            ("client_id", client_id),
        ];
        form.extend(arguments.audience());
        self.post(&self.found.token_endpoint, &form).await.map_err(|error| self.failure(error))
    }
}

/// 256 random bits as text, as RFC 7636 recommends for a verifier.
fn random() -> Result<String, CodedFailure> {
    let mut bytes = [0; 32];
    ward::random::fill(&mut bytes).map_err(|error| CodedFailure::local(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Signs a person in and returns their token.
///
/// # Errors
///
/// The issuer refuses, is not reachable, or the person takes longer than ten minutes.
pub async fn sign_in(arguments: &IssuerArguments, out: Output) -> Result<Token, CodedFailure> {
    let issuer = Issuer::new(arguments.issuer.as_deref().unwrap_or_default()).await?;
    let answer = if arguments.browser {
        issuer.by_browser(arguments, out).await
    } else {
        issuer.by_device(arguments, out).await
    };
    Ok(answer?.token(None, &issuer.found.issuer, arguments.client_id.as_deref().unwrap_or_default()))
}

/// A new token for the holder of a refresh token.
///
/// # Errors
///
/// The issuer refuses or is not reachable.
pub async fn refreshed(before: &Token) -> Result<Token, CodedFailure> {
    let issuer = Issuer::new(&before.issuer).await?;
    let refresh = before.refresh.as_deref().unwrap_or_default();
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", &before.client_id)];
    let answer: TokenAnswer = issuer.post(&issuer.found.token_endpoint, &form).await.map_err(|error| {
        let mut failure = issuer.failure(error);
        failure.because.push("`ward login` signs in again".to_owned());
        failure
    })?;
    Ok(answer.token(Some(before), &before.issuer, &before.client_id))
}

/// Listens on the loopback for the browser's return (RFC 8252, section 7.3).
async fn listen() -> Result<(String, mpsc::Receiver<String>), CodedFailure> {
    let failed = |error: std::io::Error| CodedFailure::local(format!("no port can be opened: {error}"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (sender, receiver) = mpsc::channel(1);
    let page = async move |RawQuery(query): RawQuery| {
        let _ = sender.send(query.unwrap_or_default()).await;
        Html("<!doctype html><title>Ward</title><p>You can close this page and return to the terminal.")
    };
    let routes = Router::new().route("/callback", get(page));
    // The task ends with the process.
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok((format!("http://{address}/callback"), receiver))
}

/// Waits for the code. A call with another `state` is not the answer to this request and is ignored.
async fn called_back(
    callbacks: &mut mpsc::Receiver<String>,
    state: &str,
    issuer: &str,
) -> Result<String, CodedFailure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let query = tokio::time::timeout_at(deadline, callbacks.recv()).await;
        let query = query.ok().flatten().ok_or_else(|| failed("the sign-in took longer than ten minutes"))?;
        let value = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        if value("state").as_deref() != Some(state) {
            continue;
        }
        if let Some(error) = value("error_description").or_else(|| value("error")) {
            return Err(failed(format!("the issuer {issuer} refused the sign-in: {error}")));
        }
        // An issuer that names itself must be this one (RFC 9207).
        if value("iss").is_some_and(|named| named != issuer) {
            return Err(failed("another issuer answered the sign-in"));
        }
        return value("code").ok_or_else(|| failed(format!("the issuer {issuer} sent no code")));
    }
}

/// Opens a page in the desktop's browser, if there is one.
fn open(page: &str) {
    let _ = Command::new("xdg-open")
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}
