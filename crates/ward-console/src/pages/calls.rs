//! Calls, with the reason why one is a test, and the list of test callers.

use askama::Template;
use axum::extract::Path;
use futures_util::future::try_join;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::segment;
use crate::form::{Fields, Form};
use crate::frame::Frame;
use crate::time::{self, Time};
use crate::visit::{Page, Post, Visit, page, page_of_form};

#[derive(Deserialize)]
struct CallList {
    items: Vec<Call>,
    total: i64,
    has_more: bool,
    continuation_token: Option<i64>,
}

/// The fields of a call that the list and the page of one call show.
#[derive(Deserialize)]
struct Call {
    #[serde(rename = "call_sid")]
    sid: Option<String>,
    caller_id: Option<String>,
    phone_number: Option<String>,
    direction: Option<String>,
    status: Option<String>,
    duration_seconds: Option<f64>,
    #[serde(default)]
    started_at: Time,
}

impl Call {
    fn direction(&self) -> &str {
        self.direction.as_deref().unwrap_or("unknown")
    }

    fn status(&self) -> &str {
        self.status.as_deref().unwrap_or("unknown")
    }

    fn length(&self) -> String {
        self.duration_seconds.map(time::length).unwrap_or_default()
    }
}

#[derive(Template)]
#[template(path = "calls.html")]
struct ListPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    calls: CallList,
    next: Option<i64>,
    query: String,
}

const FILTERS: [&str; 5] = ["date_from", "date_to", "direction", "status", "real"];

/// The filters of a query, as the page repeats them and as the API takes them.
fn filters(query: &Fields) -> (String, String) {
    let mut own = form_urlencoded::Serializer::new(String::new());
    let others = query.get("real") != "yes";
    let all = format!("limit=50&include_test={others}&include_simulated={others}");
    let mut asked = form_urlencoded::Serializer::new(all);
    for name in FILTERS {
        let Some(value) = query.given(name) else { continue };
        own.append_pair(name, value);
        if name != "real" {
            asked.append_pair(name, value);
        }
    }
    if let Some(after) = query.given("after") {
        asked.append_pair("continuation_token", after);
    }
    (own.finish(), asked.finish())
}

pub async fn list(Path(workspace): Path<String>, visit: Visit) -> Page {
    let (query, asked) = filters(&visit.query);
    let path = format!("/v1/{}/calls?{asked}", segment(&workspace));
    let room = visit.room(&workspace).await?;
    let no_fields = Fields::default();
    let found = visit.send::<CallList>(Method::GET, &path, None, &no_fields).await?;
    let (calls, problems) = match found {
        Ok(calls) => (calls, crate::form::Problems::default()),
        Err(problems) => {
            (CallList { items: Vec::new(), total: 0, has_more: false, continuation_token: None }, problems)
        }
    };
    let form = visit.form_again(visit.query.clone(), problems);
    let above = form.above(&["date_from", "date_to", "direction", "status"]);
    let next = calls.continuation_token.filter(|_| calls.has_more);
    let frame = visit.frame("Calls").within(room, "/calls");
    page_of_form(&form.clone(), &ListPage { frame, form, above, calls, next, query })
}

#[derive(Deserialize)]
struct Detail {
    #[serde(flatten)]
    call: Call,
    completion_reason: Option<String>,
    #[serde(default)]
    ended_at: Time,
    reported_direction: String,
    reported_by: String,
    patient_id: Option<String>,
    summary: Option<String>,
    test: Option<Test>,
    sync: CallDelivery,
}

#[derive(Deserialize)]
struct Test {
    list_version: i64,
    explanation: String,
}

#[derive(Deserialize)]
struct CallDelivery {
    explanation: String,
    delivery_id: Option<String>,
    state: Option<String>,
    not_sent: Option<String>,
}

#[derive(Template)]
#[template(path = "call.html")]
struct CallPage {
    frame: Frame,
    sid: String,
    detail: Detail,
}

pub async fn show(Path((workspace, sid)): Path<(String, String)>, visit: Visit) -> Page {
    let path = format!("/v1/{}/calls/{}", segment(&workspace), segment(&sid));
    let (room, detail) = try_join(visit.room(&workspace), visit.get::<Detail>(&path)).await?;
    page(&CallPage { frame: visit.frame("Call").within(room, "/calls"), sid, detail })
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<String>,
}

#[derive(Template)]
#[template(path = "test_callers.html")]
struct TestCallersPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    numbers: Vec<String>,
}

fn path_of_numbers(workspace: &str) -> String {
    format!("/v1/workspaces/{}/test-caller-numbers", segment(workspace))
}

pub async fn test_callers(Path(workspace): Path<String>, visit: Visit) -> Page {
    let path = path_of_numbers(&workspace);
    let (room, Numbers { numbers }) = try_join(visit.room(&workspace), visit.get::<Numbers>(&path)).await?;
    let mut form = visit.form();
    form.fields = Fields::default().with("numbers", numbers.join("\n"));
    let frame = visit.frame("Test callers").within(room, "/test-callers");
    page(&TestCallersPage { frame, form, above: Vec::new(), numbers })
}

pub async fn set_test_callers(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let body = json!({ "numbers": fields.lines("numbers") });
    match visit.send::<Value>(Method::PUT, &path_of_numbers(&workspace), Some(body), &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/test-callers?done=saved")),
        Err(problems) => {
            let form = visit.form_again(fields, problems);
            let frame = visit.frame("Test callers").within(visit.room(&workspace).await?, "/test-callers");
            let above = form.above(&["numbers"]);
            page_of_form(&form.clone(), &TestCallersPage { frame, form, above, numbers: Vec::new() })
        }
    }
}
