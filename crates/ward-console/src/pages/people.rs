//! Members, invitations, and the transfer of ownership.

use askama::Template;
use axum::extract::Path;
use futures_util::future::try_join3;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::{after, segment};
use crate::form::{Fields, Form};
use crate::frame::{Frame, List};
use crate::time::Time;
use crate::visit::{Page, Post, Stop, Visit, page, page_of_form};
use crate::words;

#[derive(Deserialize)]
struct Member {
    entity_id: String,
    kind: String,
    display_name: Option<String>,
    role: String,
    joined_at: Time,
}

#[derive(Deserialize)]
struct Invitation {
    id: String,
    role: String,
    email: Option<String>,
    expires_at: Time,
    created_at: Time,
}

#[derive(Deserialize)]
struct Transfer {
    nominee_entity_id: String,
    expires_at: Time,
}

#[derive(Template)]
#[template(path = "people.html")]
struct ListPage {
    frame: Frame,
    form: Form,
    members: List<Member>,
    invitations: Option<List<Invitation>>,
    transfer: Option<Transfer>,
}

fn path(workspace: &str, rest: &str) -> String {
    format!("/v1/workspaces/{}{rest}", segment(workspace))
}

pub async fn list(Path(workspace): Path<String>, visit: Visit) -> Page {
    let room = visit.room(&workspace).await?;
    let of_members = path(&workspace, &format!("/members?limit=20&continuation_token={}", after(&visit)));
    let of_invitations = path(&workspace, "/invitations?limit=20");
    let invitations = async {
        if room.can("Workspace.update") { visit.get(&of_invitations).await.map(Some) } else { Ok(None) }
    };
    let (members, invitations, transfer) =
        try_join3(visit.get::<List<Member>>(&of_members), invitations, transfer(&workspace, &visit)).await?;
    let frame = visit.frame("People").within(room, "/people");
    page(&ListPage { frame, form: visit.form(), members, invitations, transfer })
}

/// The open nomination. The API answers 404 if there is none.
async fn transfer(workspace: &str, visit: &Visit) -> Result<Option<Transfer>, Stop> {
    match visit.api.send(Method::GET, &path(workspace, "/ownership-transfer"), None, None).await {
        Ok(transfer) => Ok(Some(transfer)),
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
        Err(refusal) => Err(visit.stop(refusal)),
    }
}

/// The roles that the caller can give: those up to its own.
fn roles_of(frame: &Frame) -> Vec<(&'static str, String)> {
    let own = words::ROLES.iter().position(|role| *role == frame.role()).unwrap_or(0);
    words::ROLES[..=own].iter().map(|role| (*role, format!("{role}: {}", words::role(role)))).collect()
}

#[derive(Template)]
#[template(path = "invite.html")]
struct InvitePage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    roles: Vec<(&'static str, String)>,
}

#[derive(Deserialize)]
struct NewInvitation {
    invitation: String,
    role: String,
    expires_at: Time,
}

#[derive(Template)]
#[template(path = "invited.html")]
struct InvitedPage {
    frame: Frame,
    made: NewInvitation,
}

pub async fn invite(Path(workspace): Path<String>, visit: Visit) -> Page {
    let mut form = visit.form();
    form.fields = Fields::default().with("role", "member").with("duration_days", "7");
    show_invite(&workspace, &visit, form).await
}

async fn show_invite(workspace: &str, visit: &Visit, form: Form) -> Page {
    let frame = visit.frame("Invite someone").within(visit.room(workspace).await?, "/people");
    let above = form.above(&["email", "role", "duration_days"]);
    let roles = roles_of(&frame);
    page_of_form(&form.clone(), &InvitePage { frame, form, above, roles })
}

pub async fn invited(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let body = json!({
        "email": fields.text_or_null("email"),
        "role": fields.get("role"),
        "duration_days": fields.number("duration_days"),
    });
    match visit.send(Method::POST, &path(&workspace, "/invitations"), Some(body), &fields).await? {
        Ok(made) => {
            let frame = visit.frame("The invitation").within(visit.room(&workspace).await?, "/people");
            page(&InvitedPage { frame, made })
        }
        Err(problems) => show_invite(&workspace, &visit, visit.form_again(fields, problems)).await,
    }
}

pub async fn revoke(Path((workspace, id)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, &format!("/invitations/{}", segment(&id)));
    act(&workspace, &visit, Method::DELETE, &at, None, &fields, "invitation-revoked").await
}

/// A write without a form of its own: it goes back to the people, or says why it was refused.
async fn act(
    workspace: &str,
    visit: &Visit,
    method: Method,
    at: &str,
    body: Option<Value>,
    fields: &Fields,
    done: &str,
) -> Page {
    match visit.send::<Value>(method, at, body, fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/people?done={done}")),
        Err(problems) => Err(visit.refused(problems)),
    }
}

#[derive(Template)]
#[template(path = "member.html")]
struct MemberPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    entity: String,
    roles: Vec<(&'static str, String)>,
}

pub async fn member(Path((workspace, entity)): Path<(String, String)>, visit: Visit) -> Page {
    let form = visit.form();
    show_member(&workspace, entity, &visit, form).await
}

async fn show_member(workspace: &str, entity: String, visit: &Visit, form: Form) -> Page {
    let frame = visit.frame("Change a member").within(visit.room(workspace).await?, "/people");
    let (above, roles) = (form.above(&["role"]), roles_of(&frame));
    page_of_form(&form.clone(), &MemberPage { frame, form, above, entity, roles })
}

pub async fn set_role(
    Path((workspace, entity)): Path<(String, String)>,
    Post { visit, fields }: Post,
) -> Page {
    let at = path(&workspace, &format!("/members/{}", segment(&entity)));
    let body = json!({ "role": fields.get("role") });
    match visit.send::<Value>(Method::PATCH, &at, Some(body), &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/people?done=role-set")),
        Err(problems) => show_member(&workspace, entity, &visit, visit.form_again(fields, problems)).await,
    }
}

pub async fn remove(Path((workspace, entity)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, &format!("/members/{}", segment(&entity)));
    act(&workspace, &visit, Method::DELETE, &at, None, &fields, "removed").await
}

pub async fn nominate(
    Path((workspace, entity)): Path<(String, String)>,
    Post { visit, fields }: Post,
) -> Page {
    let body = Some(json!({ "entity_id": entity }));
    act(
        &workspace,
        &visit,
        Method::POST,
        &path(&workspace, "/ownership-transfer"),
        body,
        &fields,
        "nominated",
    )
    .await
}

pub async fn cancel(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, "/ownership-transfer");
    act(&workspace, &visit, Method::DELETE, &at, None, &fields, "nomination-cancelled").await
}

pub async fn accept(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, "/ownership-transfer/accept");
    act(&workspace, &visit, Method::POST, &at, None, &fields, "ownership-accepted").await
}

#[derive(Template)]
#[template(path = "leave.html")]
struct LeavePage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
}

pub async fn leave(Path(workspace): Path<String>, visit: Visit) -> Page {
    let form = visit.form();
    show_leave(&workspace, &visit, form).await
}

async fn show_leave(workspace: &str, visit: &Visit, form: Form) -> Page {
    let frame = visit.frame("Leave").within(visit.room(workspace).await?, "/people");
    let above = form.above(&[]);
    page_of_form(&form.clone(), &LeavePage { frame, form, above })
}

pub async fn left(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    match visit.send::<Value>(Method::DELETE, &path(&workspace, "/members/me"), None, &fields).await? {
        Ok(_) => visit.go("/workspaces?done=left"),
        Err(problems) => show_leave(&workspace, &visit, visit.form_again(fields, problems)).await,
    }
}

#[derive(Deserialize)]
struct Offer {
    id: String,
    name: String,
    role: String,
    expires_at: Time,
}

#[derive(Template)]
#[template(path = "join.html")]
struct JoinPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    offers: List<Offer>,
}

pub async fn join(visit: Visit) -> Page {
    let form = visit.form();
    show_join(&visit, form).await
}

async fn show_join(visit: &Visit, form: Form) -> Page {
    let offers = visit.api.send(Method::GET, "/v1/me/invitations?limit=20", None, None).await;
    let offers: List<Offer> = match offers {
        Ok(offers) => offers,
        // A credential without an email address has no invitations of its own.
        Err(refusal) if refusal.status == StatusCode::FORBIDDEN => List::default(),
        Err(refusal) => return Err(visit.stop(refusal)),
    };
    let above = form.above(&["invitation"]);
    page_of_form(&form.clone(), &JoinPage { frame: visit.frame("Invitations"), form, above, offers })
}

fn joined_at(answer: &Value) -> String {
    format!("/w/{}?done=joined", answer["workspace_id"].as_str().unwrap_or_default())
}

pub async fn joined(Post { visit, fields }: Post) -> Page {
    let body = json!({ "invitation": fields.get("invitation") });
    match visit.send::<Value>(Method::POST, "/v1/invitations/accept", Some(body), &fields).await? {
        Ok(answer) => visit.go(&joined_at(&answer)),
        Err(problems) => show_join(&visit, visit.form_again(Fields::default(), problems)).await,
    }
}

pub async fn accept_offer(Path(id): Path<String>, Post { visit, fields }: Post) -> Page {
    let at = format!("/v1/me/invitations/{}/accept", segment(&id));
    match visit.send::<Value>(Method::POST, &at, None, &fields).await? {
        Ok(answer) => visit.go(&joined_at(&answer)),
        Err(problems) => show_join(&visit, visit.form_again(Fields::default(), problems)).await,
    }
}
