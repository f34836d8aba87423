//! The visitor's workspaces: the list with its search, and a new one.

use askama::Template;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::address::after;
use super::entry;
use crate::form::Form;
use crate::frame::{Frame, List, Me};
use crate::time::Time;
use crate::visit::{Page, Post, Visit, page, page_of_form};

/// Pages of the API's list that one search reads. The next page of the search goes on behind them.
const SEARCHED_PAGES: usize = 3;

/// A workspace, as the API describes it.
#[derive(Deserialize)]
pub struct Workspace {
    pub id: String,
    pub slug: String,
    pub name: String,
    pub environment: String,
    pub region: String,
    pub connector_type: Option<String>,
    pub provisioned_at: Time,
    pub created_at: Time,
}

impl Workspace {
    fn matches(&self, search: &str) -> bool {
        let search = search.to_lowercase();
        self.slug.contains(&search) || self.name.to_lowercase().contains(&search)
    }
}

#[derive(Template)]
#[template(path = "workspaces.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<Workspace>,
    search: String,
    looked_at: usize,
    total: Option<i64>,
    next: Option<i64>,
    may_create: bool,
    me: Me,
    now: i64,
}

pub async fn list(visit: Visit) -> Page {
    let search = visit.query.get("q").to_owned();
    let (mut rows, mut looked_at) = (Vec::new(), 0);
    let mut token = Some(after(&visit));
    let mut total = None;
    for _ in 0..if search.is_empty() { 1 } else { SEARCHED_PAGES } {
        let Some(from) = token else { break };
        let path = format!("/v1/workspaces?limit=20&continuation_token={from}");
        let found: List<Workspace> = visit.get(&path).await?;
        token = found.next();
        total = found.total.filter(|_| search.is_empty());
        looked_at += found.items.len();
        rows.extend(found.items.into_iter().filter(|row| search.is_empty() || row.matches(&search)));
    }
    let me = visit.me(0).await?;
    let frame = visit.frame("Workspaces");
    let may_create = me.kind == "user";
    page(&ListPage { frame, rows, search, looked_at, total, next: token, may_create, me, now: visit.now })
}

#[derive(Template)]
#[template(path = "workspace_new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
}

pub async fn new(visit: Visit) -> Page {
    let form = visit.form();
    show_new(&visit, form)
}

fn show_new(visit: &Visit, form: Form) -> Page {
    let above = form.above(&["name", "slug", "environment", "region"]);
    page_of_form(&form.clone(), &NewPage { frame: visit.frame("New workspace"), form, above })
}

pub async fn create(Post { visit, fields }: Post) -> Page {
    let body = entry::new_workspace(&fields);
    match visit.send::<Value>(Method::POST, "/v1/me/workspaces", Some(body), &fields).await? {
        Ok(made) => visit.go(&format!("/w/{}?done=created", made["id"].as_str().unwrap_or_default())),
        Err(problems) => show_new(&visit, visit.form_again(fields, problems)),
    }
}
