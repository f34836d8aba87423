//! One request of a visitor: the session, the form, and the response.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{Api, Refusal};
use crate::console::Console;
use crate::form::{Fields, Form, Problems};
use crate::frame::{Frame, Me, VisitedWorkspace};
use crate::host::Host;
use crate::session::{self, Session};

/// The longest form. The longest value of a form is an integration's private key.
const LONGEST_FORM: usize = 256 << 10;
/// Pages of a caller's memberships that a page looks through for its workspace.
const MEMBERSHIP_PAGES: usize = 50;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'",
);

/// The id of the visitor's request, which all its requests to the API have too.
#[derive(Clone)]
struct RequestId(String);

/// Gives a request its id, and every answer the headers that protect its page.
pub async fn finish(State(_): State<Arc<Console>>, mut request: Request<Body>, next: Next) -> Response {
    let id = Host::request_id();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // With `no-referrer`, browsers would send forms with the origin `null`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}

/// The early end of a request.
pub struct Stop {
    base: String,
    why: Why,
}

enum Why {
    /// The visitor has no session, or the API no longer accepts its credential.
    SignIn {
        ended: bool,
        cookie: Option<String>,
    },
    Refused(Refusal),
    /// The form was not sent by a page of this session.
    Foreign,
    TooLong,
}

#[derive(Template)]
#[template(path = "stop.html")]
struct StopPage<'s> {
    base: &'s str,
    title: &'s str,
    said: Vec<String>,
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        let base = &self.base;
        let (status, title, said) = match self.why {
            Why::SignIn { ended, cookie } => {
                let why = if ended { "?why=ended" } else { "" };
                let mut response = redirect(&format!("{base}/sign-in{why}"));
                if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
                    response.headers_mut().insert(SET_COOKIE, cookie);
                }
                return response;
            }
            Why::Refused(refusal) => {
                let title = match refusal.status.as_u16() {
                    403 => "Not allowed",
                    404 => "Not found",
                    409 => "Not possible now",
                    422 => "Not accepted",
                    429 => "Too many requests",
                    _ => "Something went wrong",
                };
                (refusal.status, title, refusal.problems.sentences())
            }
            Why::Foreign => {
                let said = "This form does not belong to your session. Open the page again, and send the form from there.";
                (StatusCode::FORBIDDEN, "Not accepted", vec![said.to_owned()])
            }
            Why::TooLong => {
                let said = "The form is too long.".to_owned();
                (StatusCode::PAYLOAD_TOO_LARGE, "Not accepted", vec![said])
            }
        };
        html(status, &StopPage { base, title, said })
    }
}

/// The result of a page: its response, or the early end of the request.
pub type Page = Result<Response, Stop>;

fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the console was not rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The response with a rendered page and status 200.
#[expect(clippy::unnecessary_wraps, reason = "it ends a handler")]
pub fn page(page: &impl Template) -> Page {
    Ok(html(StatusCode::OK, page))
}

/// A page with a form, with the status of the form's problems.
#[expect(clippy::unnecessary_wraps, reason = "it ends a handler")]
pub fn page_of_form(form: &Form, page: &impl Template) -> Page {
    Ok(html(form.problems.status.unwrap_or(StatusCode::OK), page))
}

fn redirect(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(location) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// A visitor, with or without a session.
pub struct Guest {
    pub console: Arc<Console>,
    pub api: Api,
    pub session: Option<Session>,
    pub query: Fields,
    /// The `host` header, for commands that a person copies.
    host: String,
}

impl FromRequestParts<Arc<Console>> for Guest {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Stop> {
        let session = Session::of(console, &parts.headers);
        let bearer = session.as_ref().map(|session| session.bearer.clone());
        let id = parts.extensions.get::<RequestId>().map_or_else(Host::request_id, |id| id.0.clone());
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        Ok(Self {
            api: Api::new(console, parts, &id, bearer),
            query: Fields::parse(parts.uri.query().unwrap_or_default().as_bytes()),
            host: host.unwrap_or("localhost").to_owned(),
            session,
            console: console.clone(),
        })
    }
}

impl Guest {
    pub fn stop(&self, refusal: Refusal) -> Stop {
        let base = self.console.base.clone();
        if refusal.status == StatusCode::UNAUTHORIZED {
            let cookie = Some(session::ending(&self.console));
            return Stop { base, why: Why::SignIn { ended: true, cookie } };
        }
        Stop { base, why: Why::Refused(refusal) }
    }

    /// The URL of the API, for commands that a person copies.
    pub fn api_url(&self) -> String {
        self.console.host.api_url(&self.host)
    }

    /// An empty form of this visitor.
    pub fn form(&self) -> Form {
        Form {
            csrf: self.session.as_ref().map(|session| session.csrf.clone()).unwrap_or_default(),
            repeat: Host::random().unwrap_or_default(),
            ..Form::default()
        }
    }

    /// A form with the sent values and their problems. It gets a new idempotency key, because its content will change.
    pub fn form_again(&self, fields: Fields, problems: Problems) -> Form {
        Form { fields, problems, ..self.form() }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it ends a handler")]
    pub fn go(&self, path: &str) -> Page {
        Ok(redirect(&format!("{}{path}", self.console.base)))
    }

    /// A new session of this credential, with its cookie. `None`: the cookie would be too long.
    pub fn begin(&self, bearer: &str) -> Option<(Session, HeaderValue)> {
        let session = Session::begin(&self.console, bearer.to_owned())?;
        let cookie = session.cookie(&self.console)?;
        Some((session, HeaderValue::from_str(&cookie).ok()?))
    }

    /// The frame of a page outside a workspace.
    pub fn frame(&self, title: &str) -> Frame {
        Frame::new(self, title)
    }
}

/// A visitor whose cookie has a session.
pub struct Visit {
    pub guest: Guest,
    /// The time of the request, in seconds since 1970.
    pub now: i64,
}

impl std::ops::Deref for Visit {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl Visit {
    fn of(guest: Guest) -> Result<Self, Stop> {
        if guest.session.is_none() {
            let base = guest.console.base.clone();
            return Err(Stop { base, why: Why::SignIn { ended: false, cookie: None } });
        }
        let now = guest.console.host.now() / 1_000_000;
        Ok(Self { guest, now })
    }

    /// The answer to a GET of the API.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Stop> {
        self.api.send(Method::GET, path, None, None).await.map_err(|refusal| self.stop(refusal))
    }

    /// The answer to a write of the API: a success, or its problems. Only a refused credential ends the request.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        fields: &Fields,
    ) -> Result<Result<T, Problems>, Stop> {
        let repeat = fields.given("repeat");
        match self.api.send(method, path, body.as_ref(), repeat).await {
            Ok(done) => Ok(Ok(done)),
            Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED => Err(self.stop(refusal)),
            Err(refusal) => Ok(Err(refusal.problems)),
        }
    }

    /// The end of a request whose action was refused, as a page of its own.
    pub fn refused(&self, problems: Problems) -> Stop {
        let status = problems.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.stop(Refusal { status, problems })
    }

    /// The caller, with a page of its memberships.
    pub async fn me(&self, token: i64) -> Result<Me, Stop> {
        self.get(&format!("/v1/me?limit=20&continuation_token={token}")).await
    }

    /// A workspace with the caller's permissions in it.
    pub async fn room(&self, workspace: &str) -> Result<VisitedWorkspace, Stop> {
        let mut token = 0;
        for _ in 0..MEMBERSHIP_PAGES {
            let mut me = self.me(token).await?;
            let found = me.memberships.items.iter().position(|one| one.workspace_id == workspace);
            if let Some(found) = found {
                return Ok(VisitedWorkspace { membership: me.memberships.items.swap_remove(found), me });
            }
            match me.memberships.continuation_token {
                Some(next) => token = next,
                None => break,
            }
        }
        let problems = Problems::general("There is no such workspace, or you are not its member.");
        Err(self.stop(Refusal { status: StatusCode::NOT_FOUND, problems }))
    }
}

impl FromRequestParts<Arc<Console>> for Visit {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Stop> {
        Self::of(Guest::from_request_parts(parts, console).await?)
    }
}

/// A form of a visitor without a session, sent by a page of the console.
pub struct GuestPost {
    pub guest: Guest,
    pub fields: Fields,
}

impl FromRequest<Arc<Console>> for GuestPost {
    type Rejection = Stop;

    async fn from_request(request: Request<Body>, console: &Arc<Console>) -> Result<Self, Stop> {
        let (mut parts, body) = request.into_parts();
        let stop = |why| Stop { base: console.base.clone(), why };
        if !session::is_own(console, &parts.headers) {
            return Err(stop(Why::Foreign));
        }
        let guest = Guest::from_request_parts(&mut parts, console).await?;
        let body = Limited::new(body, LONGEST_FORM).collect().await.map_err(|_| stop(Why::TooLong))?;
        Ok(Self { guest, fields: Fields::parse(&body.to_bytes()) })
    }
}

/// A form of a session, sent by a page of this session.
pub struct Post {
    pub visit: Visit,
    pub fields: Fields,
}

impl FromRequest<Arc<Console>> for Post {
    type Rejection = Stop;

    async fn from_request(request: Request<Body>, console: &Arc<Console>) -> Result<Self, Stop> {
        let GuestPost { guest, fields } = GuestPost::from_request(request, console).await?;
        let visit = Visit::of(guest)?;
        if visit.session.as_ref().is_some_and(|session| session.owns(fields.whole("csrf"))) {
            return Ok(Self { visit, fields });
        }
        Err(Stop { base: console.base.clone(), why: Why::Foreign })
    }
}
