//! The settings that an owner may change, provisioning, the environment, archiving; and the page of quotas.

use askama::Template;
use axum::extract::Path;
use futures_util::future::try_join;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::segment;
use super::overview::{self, Quota};
use super::workspaces::Workspace;
use crate::form::{Fields, Form, Problems};
use crate::frame::Frame;
use crate::visit::{Page, Post, Visit, page, page_of_form};
use crate::words;

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Frame,
    quotas: Vec<Quota>,
}

pub async fn usage(Path(workspace): Path<String>, visit: Visit) -> Page {
    let (room, quotas) = try_join(visit.room(&workspace), overview::quotas(&visit, &workspace)).await?;
    page(&UsagePage { frame: visit.frame("Usage").within(room, "/usage"), quotas })
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    workspace: Workspace,
    connectors: Vec<(&'static str, &'static str)>,
}

fn path(workspace: &str, rest: &str) -> String {
    format!("/v1/workspaces/{}{rest}", segment(workspace))
}

pub async fn show(Path(workspace): Path<String>, visit: Visit) -> Page {
    show_with(&workspace, &visit, None).await
}

/// The page, with a form that was sent and refused, if there is one.
async fn show_with(workspace: &str, visit: &Visit, sent: Option<(Fields, Problems)>) -> Page {
    let described = path(workspace, "");
    let (room, own) = try_join(visit.room(workspace), visit.get::<Workspace>(&described)).await?;
    let form = if let Some((fields, problems)) = sent {
        visit.form_again(fields, problems)
    } else {
        let fields = Fields::default()
            .with("name", own.name.clone())
            .with("region", own.region.clone())
            .with("connector_type", own.connector_type.clone().unwrap_or_default());
        Form { fields, ..visit.form() }
    };
    let connectors = [&[("", "none")], words::CONNECTORS].concat();
    let above = form.above(&["name", "region", "connector_type", "slug"]);
    let frame = visit.frame("Settings").within(room, "/settings");
    page_of_form(&form.clone(), &SettingsPage { frame, form, above, workspace: own, connectors })
}

/// The end of a change: the settings with a notice, or with the problems of the form.
async fn settle(
    workspace: &str,
    visit: Visit,
    fields: Fields,
    said: Result<Value, Problems>,
    done: &str,
) -> Page {
    match said {
        Ok(_) => visit.go(&format!("/w/{workspace}/settings?done={done}")),
        Err(problems) => show_with(workspace, &visit, Some((fields, problems))).await,
    }
}

pub async fn save(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let body = json!({
        "name": fields.get("name"),
        "region": fields.get("region"),
        "connector_type": fields.text_or_null("connector_type"),
    });
    let said = visit.send(Method::PATCH, &path(&workspace, ""), Some(body), &fields).await?;
    settle(&workspace, visit, fields, said, "saved").await
}

pub async fn provision(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let said = visit.send::<Value>(Method::POST, &path(&workspace, "/provision"), None, &fields).await?;
    match said {
        Ok(_) => visit.go(&format!("/w/{workspace}/settings?done=provisioned")),
        Err(problems) => Err(visit.refused(problems)),
    }
}

pub async fn archive(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let body = json!({ "slug": fields.get("slug") });
    match visit.send::<Value>(Method::POST, &path(&workspace, "/archive"), Some(body), &fields).await? {
        // The key may have belonged to this workspace only, so the session may be over.
        Ok(_) => visit.go("/workspaces?done=archived"),
        Err(problems) => Err(visit.refused(problems)),
    }
}

#[derive(Deserialize)]
struct Check {
    current: String,
    target: String,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    code: String,
    severity: String,
    message: String,
}

#[derive(Template)]
#[template(path = "environment.html")]
struct EnvironmentPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    check: Check,
}

pub async fn environment(Path((workspace, target)): Path<(String, String)>, visit: Visit) -> Page {
    let form = visit.form();
    show_environment(&workspace, &target, &visit, form).await
}

async fn show_environment(workspace: &str, target: &str, visit: &Visit, form: Form) -> Page {
    let at = path(workspace, &format!("/environment-check?target={}", segment(target)));
    let (room, check) = try_join(visit.room(workspace), visit.get::<Check>(&at)).await?;
    let above = form.above(&["confirm_slug", "accept"]);
    let frame = visit.frame("Change the environment").within(room, "/settings");
    page_of_form(&form.clone(), &EnvironmentPage { frame, form, above, check })
}

pub async fn convert(
    Path((workspace, target)): Path<(String, String)>,
    Post { visit, fields }: Post,
) -> Page {
    let body = json!({
        "target": target,
        "confirm_slug": fields.get("confirm_slug"),
        "accept": fields.all("accept").collect::<Vec<_>>(),
    });
    let at = path(&workspace, "/convert-environment");
    match visit.send::<Value>(Method::POST, &at, Some(body), &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/settings?done=converted")),
        Err(problems) => {
            show_environment(&workspace, &target, &visit, visit.form_again(fields, problems)).await
        }
    }
}
