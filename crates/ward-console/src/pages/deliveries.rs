//! Deliveries: their state in words, their tries, and the actions of a person.

use askama::Template;
use axum::extract::Path;
use futures_util::future::{try_join, try_join3};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::{after, segment};
use super::overview::{Queue, Sync};
use crate::form::{Form, Problems};
use crate::frame::{Frame, List};
use crate::time::Time;
use crate::visit::{Page, Post, Visit, page, page_of_form};
use crate::words;

#[derive(Deserialize)]
struct Delivery {
    id: String,
    call_sid: String,
    state: String,
    reason: Option<String>,
    attempt_count: i64,
    maybe_sent: bool,
    next_attempt_at: Time,
    location: Option<String>,
    outcome: Value,
    created_at: Time,
    settled_at: Time,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Attempt {
    number: i64,
    outcome: String,
    status: Option<i64>,
    started_at: Time,
    ended_at: Time,
    detail: Value,
}

impl Delivery {
    fn why(&self) -> &'static str {
        words::reason(&self.state, self.reason.as_deref().unwrap_or_default())
    }

    fn words(&self) -> String {
        indented(&self.outcome)
    }
}

/// The open question about the patient or the encounter of a held delivery.
#[derive(Deserialize)]
struct Review {
    #[serde(rename = "review_id")]
    id: String,
    needs: String,
    because: String,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    id: String,
    display: Option<String>,
    birth_date: Option<String>,
    phone: Option<String>,
    status: Option<String>,
    grade: Option<String>,
    starts_at: Option<String>,
}

impl Review {
    fn why(&self) -> &'static str {
        words::review(&self.because)
    }
}

impl Candidate {
    /// Everything that the EHR told about it, in one line.
    fn shown(&self) -> String {
        let told = [&self.display, &self.birth_date, &self.phone, &self.starts_at, &self.status, &self.grade];
        told.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl Attempt {
    fn words(&self) -> String {
        indented(&self.detail)
    }
}

/// A value of an outside system as indented JSON. Empty if there is none.
fn indented(value: &Value) -> String {
    if value.is_null() { String::new() } else { serde_json::to_string_pretty(value).unwrap_or_default() }
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct ListPage {
    frame: Frame,
    form: Form,
    list: List<Delivery>,
    queues: Vec<Queue>,
    failed: i64,
}

pub async fn list(Path(workspace): Path<String>, visit: Visit) -> Page {
    let id = segment(&workspace);
    let state = visit.query.given("state").map(|state| format!("&state={}", segment(state)));
    let of_list = format!(
        "/v1/{id}/deliveries?limit=20&continuation_token={}{}",
        after(&visit),
        state.unwrap_or_default()
    );
    let of_sync = format!("/v1/{id}/sync");
    let (room, list, sync) =
        try_join3(visit.room(&workspace), visit.get::<List<Delivery>>(&of_list), visit.get::<Sync>(&of_sync))
            .await?;
    let mut form = visit.form();
    form.fields = visit.query.clone();
    let failed = sync.integrations.iter().map(|queue| queue.failed).sum();
    let frame = visit.frame("Deliveries").within(room, "/deliveries");
    page(&ListPage { frame, form, list, queues: sync.integrations, failed })
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    one: Delivery,
    review: Option<Review>,
}

pub async fn show(Path((workspace, delivery)): Path<(String, String)>, visit: Visit) -> Page {
    let form = visit.form();
    show_one(&workspace, &delivery, &visit, form).await
}

async fn show_one(workspace: &str, delivery: &str, visit: &Visit, form: Form) -> Page {
    let path = format!("/v1/{}/deliveries/{}", segment(workspace), segment(delivery));
    let (room, one) = try_join(visit.room(workspace), visit.get::<Delivery>(&path)).await?;
    let frame = visit.frame("Delivery").within(room, "/deliveries");
    let above = form.above(&["location", "id"]);
    let is_unmatched = one.reason.as_deref().is_some_and(|reason| reason.starts_with("unmatched_"));
    let review = if one.state == "held" && is_unmatched {
        let path = format!("/v1/{}/reviews/{}", segment(workspace), segment(delivery));
        // The review may be closed by now; the page is right without it.
        visit.get::<Review>(&path).await.ok()
    } else {
        None
    };
    page_of_form(&form.clone(), &DeliveryPage { frame, form, above, one, review })
}

/// A write about one delivery, which goes back to its page.
async fn act(
    (workspace, delivery): (String, String),
    Post { visit, fields }: Post,
    act: &str,
    body: Option<Value>,
    done: &str,
) -> Page {
    let path = format!("/v1/{}/deliveries/{}/{act}", segment(&workspace), segment(&delivery));
    match visit.send::<Value>(Method::POST, &path, body, &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/deliveries/{delivery}?done={done}")),
        Err(problems) => show_one(&workspace, &delivery, &visit, visit.form_again(fields, problems)).await,
    }
}

pub async fn retry(Path(ids): Path<(String, String)>, post: Post) -> Page {
    act(ids, post, "retry", None, "retried").await
}

pub async fn resolve(Path(ids): Path<(String, String)>, post: Post) -> Page {
    let in_ehr = post.fields.get("in_ehr") == "yes";
    let location = if in_ehr { post.fields.text_or_null("location") } else { Value::Null };
    let body = json!({ "in_ehr": in_ehr, "location": location });
    act(ids, post, "resolve", Some(body), "resolved").await
}

/// Chooses the patient or the encounter of a held delivery.
pub async fn choose(
    Path((workspace, delivery)): Path<(String, String)>,
    Post { visit, fields }: Post,
) -> Page {
    let path = format!("/v1/{}/reviews/{}/resolve", segment(&workspace), segment(&delivery));
    let body = json!({ "review_id": fields.get("review_id"), "id": fields.get("id").trim() });
    match visit.send::<Value>(Method::POST, &path, Some(body), &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/deliveries/{delivery}?done=chosen")),
        Err(problems) => show_one(&workspace, &delivery, &visit, visit.form_again(fields, problems)).await,
    }
}

pub async fn retry_all(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let path = format!("/v1/{}/deliveries/retry-failed", segment(&workspace));
    back(&workspace, &visit, visit.send(Method::POST, &path, Some(json!({})), &fields).await?, "retried-all")
}

pub async fn hold(
    Path((workspace, integration)): Path<(String, String)>,
    Post { visit, fields }: Post,
) -> Page {
    let held = fields.get("held") == "yes";
    let path = format!("/v1/{}/sync/{}/hold", segment(&workspace), segment(&integration));
    let said = visit.send(Method::PUT, &path, Some(json!({ "held": held })), &fields).await?;
    back(&workspace, &visit, said, if held { "held" } else { "released" })
}

fn back(workspace: &str, visit: &Visit, said: Result<Value, Problems>, done: &str) -> Page {
    match said {
        Ok(_) => visit.go(&format!("/w/{workspace}/deliveries?done={done}")),
        Err(problems) => Err(visit.refused(problems)),
    }
}
