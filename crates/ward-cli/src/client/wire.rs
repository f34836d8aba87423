//! Requests to a server, with repeats where a repeat cannot do the same twice.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use serde_json::Value;
use url::{Host, Url};

use super::arguments::Filled;
use crate::failure::CodedFailure;

/// The exit codes by kind of answer. The help of `ward api` has them in words.
pub mod exit {
    pub const REFUSED: u8 = 3;
    pub const MISSING: u8 = 4;
    pub const CONFLICT: u8 = 5;
    pub const INVALID: u8 = 6;
    pub const TOO_MANY: u8 = 7;
    pub const NO_ANSWER: u8 = 8;
}

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The time without a byte after which an answer is given up. A server allows a request 15 s.
const SILENCE: Duration = Duration::from_mins(1);
/// The longest time that a server's `retry-after` can make the command wait. A longer one ends the command.
const LONGEST_WAIT: u64 = 60;

#[derive(Clone, Debug)]
pub struct Base(Url);

impl Base {
    /// Reads the URL of a server, with or without a path before `/v1`.
    ///
    /// # Errors
    ///
    /// It is no URL of http or https, or it would send keys over a network in clear.
    pub fn parse(text: &str, plain_http: bool) -> Result<Self, CodedFailure> {
        let wrong = |what: &str| CodedFailure::usage(format!("the server {text:?} {what}"));
        let url = Url::parse(text).map_err(|_| wrong("is no URL, such as https://ward.example.com"))?;
        let inside = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(four)) => four.is_loopback(),
            Some(Host::Ipv6(six)) => six.is_loopback(),
            None => return Err(wrong("has no host")),
        };
        match url.scheme() {
            "https" => {}
            "http" if inside || plain_http => {}
            "http" => {
                return Err(wrong(
                    "would get keys in clear over the network. `ward login --plain-http` allows it",
                ));
            }
            _ => return Err(wrong("is neither http nor https")),
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("has more than a host and a path"));
        }
        Ok(Self(url))
    }

    /// The URL as text, without a slash at the end.
    pub fn as_text(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    fn with(&self, filled: &Filled) -> Result<Url, CodedFailure> {
        let wrong = |_| CodedFailure::usage("the arguments make no URL");
        let mut url = Url::parse(&format!("{}{}", self.as_text(), filled.path)).map_err(wrong)?;
        if !filled.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&filled.query);
        }
        Ok(url)
    }
}

/// One request, as often as it is sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    pub filled: Filled,
    /// The key by which the server recognizes a repeat.
    pub idempotency_key: Option<String>,
}

impl Outgoing {
    /// Whether the request can be sent again although its first copy may have arrived.
    fn repeatable(&self) -> bool {
        self.idempotency_key.is_some() || [Method::GET, Method::PUT].contains(&self.method)
    }
}

/// An answer that was read to its end, except for a successful one that is not JSON.
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: AnsweredBody,
}

pub enum AnsweredBody {
    Whole(Bytes),
    /// A file, for example, which may be large.
    Stream(Response),
}

impl Answered {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> Value {
        match &self.body {
            AnsweredBody::Whole(body) => serde_json::from_slice(body).unwrap_or_default(),
            AnsweredBody::Stream(_) => Value::Null,
        }
    }

    /// The seconds after which the server asks for a repeat.
    fn wanted_wait(&self) -> Option<u64> {
        let asks = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&self.status);
        let header = self.headers.get(RETRY_AFTER).filter(|_| asks)?;
        header.to_str().ok()?.trim().parse().ok()
    }

    /// The failure that this answer is, unless it is a success.
    pub fn failure(&self) -> Option<CodedFailure> {
        let status = self.status.as_u16();
        let exit = match status {
            200..=299 => return None,
            401 | 403 => exit::REFUSED,
            404 => exit::MISSING,
            409 | 412 => exit::CONFLICT,
            400 | 413 | 422 => exit::INVALID,
            429 => exit::TOO_MANY,
            500..=599 => exit::NO_ANSWER,
            _ => 1,
        };
        let body = self.json();
        let mut because = Vec::new();
        let code = body["error_code"].as_str().unwrap_or(if status == 422 { "invalid" } else { "http" });
        let message = match &body["detail"] {
            Value::String(detail) => detail.trim_end_matches('.').to_owned(),
            Value::Array(problems) => {
                because.extend(problems.iter().map(problem));
                "the request has wrong values".to_owned()
            }
            _ => "the server answered without an explanation".to_owned(),
        };
        if let Some(reason) = body["because"]["detail"].as_str() {
            because.push(reason.to_owned());
        }
        if let Some(missing) = body["missing"]["name"].as_str() {
            let kind = body["missing"]["kind"].as_str().unwrap_or("right");
            because.push(format!("the {kind} {missing} is missing"));
        }
        if let Some(request) = self.headers.get("x-request-id").and_then(|id| id.to_str().ok()) {
            because.push(format!("the request was {request}"));
        }
        Some(CodedFailure { exit, code: code.to_owned(), message: format!("{message} ({status})"), because })
    }
}

/// One wrong value in a sentence, without the value, which may be a secret.
fn problem(problem: &Value) -> String {
    let places = problem["loc"].as_array().into_iter().flatten().skip(1);
    let place: Vec<String> =
        places.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect();
    let message = problem["msg"].as_str().unwrap_or("it is wrong");
    if place.is_empty() { message.to_owned() } else { format!("{}: {message}", place.join(".")) }
}

pub struct Caller {
    http: reqwest::Client,
    base: Base,
    bearer: Option<HeaderValue>,
    /// How often one request is sent again, at most.
    repeats: u32,
}

/// The HTTP client of this program's user. It follows no redirect, because another server must not get the key.
///
/// # Errors
///
/// TLS cannot be used on this machine.
#[expect(
    clippy::disallowed_methods,
    reason = "a person's own client: the guard of `Outbound` protects a server's network"
)]
pub fn http_client() -> Result<reqwest::Client, CodedFailure> {
    let built = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIME)
        .read_timeout(SILENCE)
        .user_agent(concat!("ward-cli/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|error| CodedFailure::local(format!("no HTTPS client can be made: {}", causes(&error))))
}

impl Caller {
    pub fn new(base: Base, bearer: Option<&str>, repeats: u32) -> Result<Self, CodedFailure> {
        let bearer = bearer.map(|secret| {
            let mut value = HeaderValue::from_str(&format!("Bearer {secret}"))
                .map_err(|_| CodedFailure::local("the credential has characters that no header can have"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { http: http_client()?, base, bearer: bearer.transpose()?, repeats })
    }

    /// Sends a request until there is an answer that a repeat would not change.
    ///
    /// A request is repeated after no answer only if it cannot do the same twice. A 429, and a 503 with which nothing was
    /// written, are repeated after the time that they name.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn send(&self, outgoing: &Outgoing) -> Result<Answered, CodedFailure> {
        let url = self.base.with(&outgoing.filled)?;
        for attempt in 0.. {
            let last = attempt >= self.repeats;
            let sent = self.once(outgoing, url.clone()).await;
            let wait = match &sent {
                Ok(answer) => {
                    let wait = answer.wanted_wait().filter(|wait| !last && *wait <= LONGEST_WAIT);
                    let unsure = answer.json()["error_code"] == "outcome_unknown";
                    wait.filter(|_| !unsure || outgoing.repeatable()).map(Duration::from_secs)
                }
                Err(error) => {
                    let again = !last && (outgoing.repeatable() || error.is_connect());
                    again.then(|| Duration::from_millis(200 << attempt.min(6)))
                }
            };
            match (wait, sent) {
                (Some(wait), _) => tokio::time::sleep(wait).await,
                (None, Ok(answer)) => return Ok(answer),
                (None, Err(error)) => return Err(unanswered(&self.base, outgoing, &error)),
            }
        }
        Err(CodedFailure::local("the request was never sent"))
    }

    async fn once(&self, outgoing: &Outgoing, url: Url) -> Result<Answered, reqwest::Error> {
        let mut request = self.http.request(outgoing.method.clone(), url);
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        if let Some(key) = &outgoing.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = &outgoing.filled.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let mut response = request.send().await?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let body = if status.is_success()
            && !kind.is_empty()
            && kind.split(';').next() != Some("application/json")
        {
            AnsweredBody::Stream(response)
        } else {
            AnsweredBody::Whole(response.bytes().await?)
        };
        Ok(Answered { status, headers, body })
    }
}

fn unanswered(base: &Base, outgoing: &Outgoing, error: &reqwest::Error) -> CodedFailure {
    let mut because = vec![causes(error)];
    if !error.is_connect() && outgoing.method != Method::GET {
        because.push("the request may have been done nevertheless".to_owned());
    }
    if let Some(key) = &outgoing.idempotency_key {
        because.push(format!("--idempotency-key {key} repeats it without doing it twice"));
    }
    let message = format!("{} gave no answer", base.as_text());
    CodedFailure { exit: exit::NO_ANSWER, code: "no_answer".to_owned(), message, because }
}

/// The innermost cause of an error. The outer ones repeat the URL.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_cross_a_network_in_clear() {
        for good in
            ["http://127.0.0.1:8080", "http://[::1]:8080/", "http://localhost:1/ward", "https://w.example"]
        {
            assert!(Base::parse(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://ward:8080",
            "ftp://w.example",
            "w.example",
            "https://a:b@w.example",
            "https://w.example/?a",
        ] {
            assert_eq!(Base::parse(bad, false).unwrap_err().exit, 2, "{bad}");
        }
        assert_eq!(Base::parse("http://ward:8080/", true).unwrap().as_text(), "http://ward:8080");
    }
}
