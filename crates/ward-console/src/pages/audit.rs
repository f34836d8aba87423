//! The audit: events with filters, patient-data access, and exports.

use askama::Template;
use axum::extract::Path;
use axum::response::IntoResponse as _;
use futures_util::future::{try_join, try_join3};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::segment;
use crate::form::{Fields, Form, Problems};
use crate::frame::Frame;
use crate::time::Time;
use crate::visit::{Page, Post, Visit, page_of_form};

#[derive(Deserialize)]
struct EventList {
    events: Vec<Event>,
    total: i64,
    next_offset: Option<i64>,
}

#[derive(Deserialize)]
struct Event {
    timestamp: Time,
    action: String,
    resource_type: String,
    resource_id: Option<String>,
    resource_name: Option<String>,
    actor_entity_id: Option<String>,
    ip_address: Option<String>,
    metadata: Option<Value>,
    phi_accessed: bool,
}

impl Event {
    /// The details of the action as indented JSON. The text is empty without any.
    fn more(&self) -> String {
        let said =
            self.metadata.as_ref().filter(|said| said.as_object().is_some_and(|said| !said.is_empty()));
        said.and_then(|said| serde_json::to_string_pretty(said).ok()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Summary {
    total_events: i64,
    phi_access_events: i64,
    unique_actors: i64,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    events: EventList,
    summary: Summary,
    query: String,
    phi: bool,
}

/// The filters that the page of events has.
const FILTERS: [&str; 5] = ["action", "resource_type", "actor_entity_id", "date_from", "date_to"];

/// The filters of a query, as the page repeats them and as the API takes them.
fn filters(query: &Fields, phi: bool) -> (String, String) {
    let mut own = form_urlencoded::Serializer::new(String::new());
    let mut asked = form_urlencoded::Serializer::new("limit=50".to_owned());
    for name in FILTERS {
        let Some(value) = query.given(name) else { continue };
        own.append_pair(name, value);
        // The report on patient data has fewer filters, and one of them has another name.
        match (name, phi) {
            ("actor_entity_id", true) => asked.append_pair("entity_id", value),
            ("action" | "resource_type", true) => &mut asked,
            _ => asked.append_pair(name, value),
        };
    }
    if let Some(offset) = query.given("offset") {
        asked.append_pair("offset", offset);
    }
    if phi {
        own.append_pair("phi", "yes");
    }
    (own.finish(), asked.finish())
}

pub async fn list(Path(workspace): Path<String>, visit: Visit) -> Page {
    let phi = visit.query.get("phi") == "yes";
    let (query, asked) = filters(&visit.query, phi);
    let id = segment(&workspace);
    let list = if phi { "/phi-access" } else { "" };
    let (path, of_summary) = (format!("/v1/{id}/audit{list}?{asked}"), format!("/v1/{id}/audit/summary"));
    let no_fields = Fields::default();
    let (room, summary, events) = try_join3(
        visit.room(&workspace),
        visit.get::<Summary>(&of_summary),
        visit.send::<EventList>(Method::GET, &path, None, &no_fields),
    )
    .await?;
    let (events, problems) = match events {
        Ok(events) => (events, Problems::default()),
        Err(problems) => (EventList { events: Vec::new(), total: 0, next_offset: None }, problems),
    };
    let form = visit.form_again(visit.query.clone(), problems);
    let above = form.above(&FILTERS);
    let frame = visit.frame("Audit").within(room, "/audit");
    page_of_form(&form.clone(), &AuditPage { frame, form, above, events, summary, query, phi })
}

#[derive(Deserialize)]
struct Exports {
    exports: Vec<Export>,
}

#[derive(Deserialize)]
struct Export {
    key: String,
    size: i64,
    state: Option<String>,
    row_count: Option<i64>,
    #[serde(default)]
    created_at: Time,
}

impl Export {
    fn file(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    fn state(&self) -> &str {
        self.state.as_deref().unwrap_or("done")
    }
}

#[derive(Template)]
#[template(path = "exports.html")]
struct ExportsPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    exports: Vec<Export>,
}

pub async fn exports(Path(workspace): Path<String>, visit: Visit) -> Page {
    let form = visit.form();
    show_exports(&workspace, &visit, form).await
}

async fn show_exports(workspace: &str, visit: &Visit, form: Form) -> Page {
    let path = format!("/v1/{}/audit/exports?limit=50", segment(workspace));
    let (room, Exports { exports }) = try_join(visit.room(workspace), visit.get(&path)).await?;
    let frame = visit.frame("Exports").within(room, "/audit");
    let above = form.above(&["date_from", "date_to"]);
    page_of_form(&form.clone(), &ExportsPage { frame, form, above, exports })
}

pub async fn export(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    // The form asks for days in UTC, both included.
    let day = |name: &str| fields.given(name).map_or(Value::Null, Value::from);
    let body = json!({
        "date_from": day("date_from"),
        "date_to": day("date_to"),
        "phi_only": fields.get("phi_only") == "yes",
    });
    let path = format!("/v1/{}/audit/export", segment(&workspace));
    match visit.send::<Value>(Method::POST, &path, Some(body), &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/audit/exports?done=export-queued")),
        Err(problems) => show_exports(&workspace, &visit, visit.form_again(fields, problems)).await,
    }
}

/// The file of an export, as the API streams it.
pub async fn download(Path((workspace, file)): Path<(String, String)>, visit: Visit) -> Page {
    let path = format!("/v1/{}/audit/exports/download/{}", segment(&workspace), segment(&file));
    let answer = visit.api.raw(&path).await.map_err(|refusal| visit.stop(refusal))?;
    if answer.status() != StatusCode::OK {
        return Err(visit.refused(Problems::general("The file is not there.").with_status(answer.status())));
    }
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    let mut response = answer.into_body().into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}
