//! The keys of a workspace: list, mint, rotate, revoke.

use askama::Template;
use axum::extract::Path;
use futures_util::future::try_join;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::{after, segment};
use super::entry::{NewKey, SecretPage, curl};
use crate::form::{Fields, Form, Problems};
use crate::frame::{Frame, List};
use crate::time::Time;
use crate::visit::{Page, Post, Stop, Visit, page, page_of_form};

/// Pages of the list that a page reads to find one key.
const SEARCHED_PAGES: usize = 10;

/// A key, as the API lists it.
#[derive(Deserialize)]
pub struct Key {
    #[serde(rename = "key_id")]
    pub id: String,
    pub name: Option<String>,
    pub role: String,
    pub permissions: Vec<String>,
    pub expires_at: Time,
    pub last_used_at: Time,
    pub created_at: Time,
    /// The former secret, while a rotation keeps it valid.
    pub previous: Option<Previous>,
    /// Set for a key whose secret leaked, and that only reads until it ends.
    #[serde(default)]
    pub quarantined_at: Time,
}

/// A secret that a rotation replaced and that is still accepted.
#[derive(Deserialize)]
pub struct Previous {
    pub ends_at: Time,
    pub last_used_at: Time,
}

impl Key {
    /// The name that a person types, or the id of a key without one.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

#[derive(Template)]
#[template(path = "keys.html")]
struct ListPage {
    frame: Frame,
    form: Form,
    keys: List<Key>,
    now: i64,
}

fn path_of_list(workspace: &str, token: i64) -> String {
    format!("/v1/{}/api-keys?limit=20&continuation_token={token}", segment(workspace))
}

pub async fn list(Path(workspace): Path<String>, visit: Visit) -> Page {
    let path = path_of_list(&workspace, after(&visit));
    let (room, keys) = try_join(visit.room(&workspace), visit.get::<List<Key>>(&path)).await?;
    page(&ListPage {
        frame: visit.frame("API keys").within(room, "/keys"),
        form: visit.form(),
        keys,
        now: visit.now,
    })
}

#[derive(Deserialize)]
struct Catalog {
    roles: Vec<Role>,
    permissions: Vec<Permission>,
}

#[derive(Deserialize)]
struct Role {
    role: String,
    description: String,
}

#[derive(Deserialize)]
struct Permission {
    permission: String,
    description: String,
}

#[derive(Template)]
#[template(path = "key_new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    roles: Vec<Role>,
    permissions: Vec<Permission>,
}

pub async fn new(Path(workspace): Path<String>, visit: Visit) -> Page {
    let mut form = visit.form();
    form.fields = Fields::default().with("role", "member").with("duration_days", "90");
    show_new(&workspace, &visit, form).await
}

async fn show_new(workspace: &str, visit: &Visit, form: Form) -> Page {
    let path = format!("/v1/{}/api-keys/permission-catalog", segment(workspace));
    let (room, catalog) = try_join(visit.room(workspace), visit.get::<Catalog>(&path)).await?;
    let above = form.above(&["name", "role", "permissions", "duration_days", "speaks_for"]);
    let frame = visit.frame("New key").within(room, "/keys");
    let Catalog { roles, permissions } = catalog;
    page_of_form(&form.clone(), &NewPage { frame, form, above, roles, permissions })
}

pub async fn create(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let mut body = json!({
        "name": fields.text_or_null("name"),
        "role": fields.get("role"),
        "permissions": fields.all("permissions").collect::<Vec<_>>(),
        "duration_days": fields.number("duration_days"),
    });
    if let Some(speaks_for) = fields.given("speaks_for") {
        body["speaks_for"] = json!(speaks_for);
    }
    let path = format!("/v1/{}/api-keys", segment(&workspace));
    match visit.send::<NewKey>(Method::POST, &path, Some(body), &fields).await? {
        Ok(key) if fields.given("handover").is_some() => hand_over(&workspace, &visit, key, &fields).await,
        Ok(key) => show_secret(&workspace, &visit, "The new key", key).await,
        Err(problems) => show_new(&workspace, &visit, visit.form_again(fields, problems)).await,
    }
}

#[derive(Deserialize)]
struct Handover {
    url: Option<String>,
    token: String,
    expires_at: Time,
}

#[derive(Template)]
#[template(path = "handover.html")]
struct LinkPage {
    frame: Frame,
    key: NewKey,
    link: String,
    link_expires_at: Time,
    now: i64,
}

/// Shows the link for the receiver of a new key. Its secret is on no page of the creator.
async fn hand_over(workspace: &str, visit: &Visit, key: NewKey, fields: &Fields) -> Page {
    let path = format!("/v1/{}/api-keys/{}/handover", segment(workspace), segment(&key.key_id));
    let made = match visit.send::<Handover>(Method::POST, &path, None, fields).await? {
        Ok(made) => made,
        Err(problems) => return Err(visit.refused(problems)),
    };
    let link = made.url.unwrap_or_else(|| format!("{}/v1/keys/handover#{}", visit.api_url(), made.token));
    let frame = visit.frame("The new key").within(visit.room(workspace).await?, "/keys");
    page(&LinkPage { frame, key, link, link_expires_at: made.expires_at, now: visit.now })
}

async fn show_secret(workspace: &str, visit: &Visit, heading: &'static str, key: NewKey) -> Page {
    let frame = visit.frame(heading).within(visit.room(workspace).await?, "/keys");
    let command = curl(visit, workspace, &key.api_key);
    let next = format!("{}/keys", frame.here());
    page(&SecretPage { frame, heading, key, command, next, next_label: "To the keys" })
}

#[derive(Template)]
#[template(path = "key_rotate.html")]
struct RotatePage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    key_id: String,
}

pub async fn rotate(Path((workspace, key)): Path<(String, String)>, visit: Visit) -> Page {
    let mut form = visit.form();
    form.fields = Fields::default().with("duration_days", "90");
    show_rotate(&workspace, key, &visit, form).await
}

async fn show_rotate(workspace: &str, key_id: String, visit: &Visit, form: Form) -> Page {
    let frame = visit.frame("Rotate a key").within(visit.room(workspace).await?, "/keys");
    let above = form.above(&["duration_days", "grace_seconds"]);
    page_of_form(&form.clone(), &RotatePage { frame, form, above, key_id })
}

pub async fn rotated(Path((workspace, key)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let path = format!("/v1/{}/api-keys/{}/rotate", segment(&workspace), segment(&key));
    let mut body = json!({ "duration_days": fields.number("duration_days") });
    if fields.given("grace_seconds").is_some() {
        body["grace_seconds"] = fields.number("grace_seconds");
    }
    let rotated = match visit.send::<NewKey>(Method::POST, &path, Some(body), &fields).await? {
        Ok(rotated) => rotated,
        Err(problems) => {
            return show_rotate(&workspace, key, &visit, visit.form_again(fields, problems)).await;
        }
    };
    let own = visit.session.as_ref().is_some_and(|session| session.bearer.contains(&key));
    if !own {
        return show_secret(&workspace, &visit, "The key's new secret", rotated).await;
    }
    // The session's own key has a new secret, so the session goes on with it.
    let begun = visit.begin(&rotated.api_key);
    let mut visit = visit;
    visit.guest.api = visit.api.bearing(Some(rotated.api_key.clone()));
    let mut shown = show_secret(&workspace, &visit, "The key's new secret", rotated).await?;
    if let Some((_, cookie)) = begun {
        shown.headers_mut().insert(http::header::SET_COOKIE, cookie);
    }
    Ok(shown)
}

/// Ends the former secret of a key before its time.
pub async fn finished(Path((workspace, key)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let path = format!("/v1/{}/api-keys/{}/rotate/finish", segment(&workspace), segment(&key));
    match visit.send::<Value>(Method::POST, &path, None, &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/keys?done=rotation-finished")),
        Err(problems) => Err(visit.refused(problems)),
    }
}

#[derive(Template)]
#[template(path = "key_revoke.html")]
struct RevokePage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    key_id: String,
    expected: String,
}

/// The name of a key, which the person who revokes it types. It is the id of a key without a name.
async fn name_of(workspace: &str, key: &str, visit: &Visit) -> Result<String, Stop> {
    let mut token = Some(0);
    for _ in 0..SEARCHED_PAGES {
        let Some(from) = token else { break };
        let keys: List<Key> = visit.get(&path_of_list(workspace, from)).await?;
        if let Some(found) = keys.items.iter().find(|one| one.id == key) {
            return Ok(found.label().to_owned());
        }
        token = keys.next();
    }
    Ok(key.to_owned())
}

pub async fn revoke(Path((workspace, key)): Path<(String, String)>, visit: Visit) -> Page {
    let form = visit.form();
    show_revoke(&workspace, key, &visit, form).await
}

async fn show_revoke(workspace: &str, key_id: String, visit: &Visit, form: Form) -> Page {
    let (room, expected) = try_join(visit.room(workspace), name_of(workspace, &key_id, visit)).await?;
    let frame = visit.frame("Revoke a key").within(room, "/keys");
    let above = form.above(&["confirm"]);
    page_of_form(&form.clone(), &RevokePage { frame, form, above, key_id, expected })
}

pub async fn revoked(Path((workspace, key)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let expected = name_of(&workspace, &key, &visit).await?;
    if fields.get("confirm") != expected {
        let problems = Problems::at_field("confirm", "This is not the name of the key.");
        return show_revoke(&workspace, key, &visit, visit.form_again(fields, problems)).await;
    }
    let path = format!("/v1/{}/api-keys/{}", segment(&workspace), segment(&key));
    match visit.send::<Value>(Method::DELETE, &path, None, &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/keys?done=key-revoked")),
        Err(problems) => show_revoke(&workspace, key, &visit, visit.form_again(fields, problems)).await,
    }
}
