//! Signing in and out, and the way to a first key.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::segment;
use crate::console::Console;
use crate::form::{Fields, Form, Problems};
use crate::frame::{Frame, Me};
use crate::host::Start;
use crate::session;
use crate::time::Time;
use crate::visit::{Guest, GuestPost, Page, Post, page, page_of_form};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    ended: bool,
    /// Whether this server lets people create workspaces.
    start: bool,
}

#[derive(Template)]
#[template(path = "start.html")]
struct StartPage {
    frame: Frame,
    form: Form,
    claim: Form,
    above: Vec<String>,
    token: bool,
}

/// A key that is shown once.
#[derive(Deserialize)]
pub struct NewKey {
    pub key_id: String,
    pub api_key: String,
    pub name: Option<String>,
    pub role: String,
    pub expires_at: Time,
}

#[derive(Template)]
#[template(path = "secret.html")]
pub struct SecretPage {
    pub frame: Frame,
    pub heading: &'static str,
    pub key: NewKey,
    pub command: String,
    pub next: String,
    pub next_label: &'static str,
}

/// A command that shows that a key works.
pub fn curl(guest: &Guest, workspace: &str, key: &str) -> String {
    format!("curl -fsS {}/v1/workspaces/{workspace} \\\n  -H 'authorization: Bearer {key}'", guest.api_url())
}

pub async fn root(guest: Guest) -> Page {
    guest.go(if guest.session.is_some() { "/workspaces" } else { "/sign-in" })
}

pub async fn sign_in(guest: Guest) -> Page {
    let form = guest.form();
    show_sign_in(&guest, form)
}

fn show_sign_in(guest: &Guest, form: Form) -> Page {
    let frame = guest.frame("Sign in");
    let above = form.above(&["key"]);
    let ended = guest.query.get("why") == "ended" && form.problems.is_empty();
    let start = guest.console.host.bootstrap() != Start::Closed;
    page_of_form(&form.clone(), &SignIn { frame, form, above, ended, start })
}

pub async fn signed_in(GuestPost { guest, fields }: GuestPost) -> Page {
    let key = fields.get("key").to_owned();
    // The key stays out of the form that is shown again.
    let again = |problems| show_sign_in(&guest, guest.form_again(Fields::default(), problems));
    if key.is_empty() {
        return again(Problems::at_field("key", "Enter an API key."));
    }
    let known: Result<Me, _> =
        guest.api.bearing(Some(key.clone())).send(Method::GET, "/v1/me", None, None).await;
    match known {
        Ok(_) => with_session(&guest, &key, "/workspaces"),
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
            let said = "This key is not accepted. It may be mistyped, revoked or expired. A key that is bound to a public key \
                        cannot sign in here, so use another key.";
            again(Problems::at_field("key", said).with_status(refusal.status))
        }
        Err(refusal) => again(refusal.problems.with_status(refusal.status)),
    }
}

fn with_session(guest: &Guest, bearer: &str, path: &str) -> Page {
    let Some((_, cookie)) = guest.begin(bearer) else {
        let said = "This credential is too long for a browser's cookie.";
        return show_sign_in(guest, guest.form_again(Fields::default(), Problems::at_field("key", said)));
    };
    let mut response = guest.go(path)?;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

pub async fn sign_out(Post { visit, .. }: Post) -> Page {
    let mut response = visit.go("/sign-in?done=signed-out")?;
    if let Ok(cookie) = HeaderValue::from_str(&session::ending(&visit.console)) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

pub async fn start(State(_): State<Arc<Console>>, guest: Guest) -> Page {
    let form = guest.form();
    show_start(&guest, form, guest.form())
}

fn show_start(guest: &Guest, form: Form, claim: Form) -> Page {
    let frame = guest.frame("Create a workspace");
    let above =
        [form.above(&["name", "slug", "environment", "region", "token"]), claim.above(&["workspace_id"])];
    let token = guest.console.host.bootstrap() == Start::Token;
    let shown = if form.problems.status.is_some() { form.clone() } else { claim.clone() };
    page_of_form(&shown, &StartPage { frame, form, claim, above: above.concat(), token })
}

/// The body of the request for a new workspace, from its form.
pub fn new_workspace(fields: &Fields) -> Value {
    json!({
        "name": fields.get("name"),
        "slug": fields.get("slug"),
        "environment": fields.get("environment"),
        "region": fields.get("region"),
    })
}

pub async fn started(GuestPost { guest, fields }: GuestPost) -> Page {
    let token = fields.given("token").map(str::to_owned);
    let api = guest.api.bearing(token);
    let body = new_workspace(&fields);
    let made: Result<Value, _> =
        api.send(Method::POST, "/v1/workspaces", Some(&body), fields.given("repeat")).await;
    match made {
        Ok(made) => claim(&guest, made["id"].as_str().unwrap_or_default(), &fields).await,
        Err(refusal) => {
            let problems = refusal.problems.with_status(refusal.status);
            show_start(&guest, guest.form_again(fields, problems), guest.form())
        }
    }
}

pub async fn claimed(GuestPost { guest, fields }: GuestPost) -> Page {
    let workspace = fields.get("workspace_id").to_owned();
    claim(&guest, &workspace, &fields).await
}

/// Claims a workspace, and shows its first key with a session of that key.
async fn claim(guest: &Guest, workspace: &str, fields: &Fields) -> Page {
    let path = format!("/v1/{}/api-keys", segment(workspace));
    let body = json!({ "duration_days": 90, "name": "first key" });
    let api = guest.api.bearing(None);
    let key: Result<NewKey, _> = api.send(Method::POST, &path, Some(&body), fields.given("repeat")).await;
    match key {
        Ok(key) => first_key(guest, workspace, key),
        Err(refusal) => {
            let said = if refusal.status == StatusCode::UNAUTHORIZED {
                Problems::at_field("workspace_id", "No workspace with this id can be claimed.")
            } else {
                refusal.problems
            };
            let problems = said.with_status(refusal.status);
            show_start(guest, guest.form(), guest.form_again(fields.clone(), problems))
        }
    }
}

fn first_key(guest: &Guest, workspace: &str, key: NewKey) -> Page {
    let begun = guest.begin(&key.api_key);
    let mut frame = guest.frame("Your first key");
    if let Some((session, _)) = &begun {
        frame.csrf.clone_from(&session.csrf);
        frame.signed_in = true;
    }
    let command = curl(guest, workspace, &key.api_key);
    let next = format!("{}/w/{workspace}", frame.base);
    let heading = "Your workspace and its first key";
    let mut response: Response =
        page(&SecretPage { frame, heading, key, command, next, next_label: "To the workspace" })?;
    if let Some((_, cookie)) = begun {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}
