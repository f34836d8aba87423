//! The routes that describe the caller and decide for other services.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use uuid::Uuid;
use ward_contract::validate::{self, Json, Problem};
use ward_db::Timestamp;

use super::store;
use crate::access::{Permission, Permissions, Reach, Role};
use crate::api_keys::secret::KeyId;
use crate::error::ApiError;
use crate::forbidden::{Because, Missing};
use crate::gate::Entry;
use crate::gate::explain::{self, Asked, Check, Question};
use crate::http::{Query, Reply, Request, Sent, expires_soon};
use crate::identity::{Caller, Credential, Offer, Workload};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::page::{Page, PageQuery, Paginated, TOTAL_LIMIT};
use crate::workspaces;

#[derive(Serialize)]
struct MeResponse {
    entity_id: Option<PrincipalId>,
    kind: &'static str,
    display_name: Option<String>,
    credential: CredentialDescription,
    memberships: Paginated<MembershipResponse>,
}

impl MeResponse {
    /// A workload has no membership of its own. Its list is that of the workspaces whose rules trust its token.
    fn of_workload(workload: &Workload, caller: &Caller, page: Page, now: Timestamp) -> Self {
        let after = |offer: &&Offer| offer.position > page.after;
        let limit = usize::try_from(page.fetch()).unwrap_or(usize::MAX);
        let rows: Vec<_> = workload.offers.iter().filter(after).take(limit).cloned().collect();
        let counted = i64::try_from(workload.offers.len()).unwrap_or(i64::MAX);
        Self {
            entity_id: None,
            kind: caller.kind.name(),
            display_name: None,
            credential: CredentialDescription::of(caller, now),
            memberships: Paginated::new(
                rows,
                page,
                counted,
                |offer| offer.position,
                |Offer { workspace, slug, name, role, reach, position }| {
                    MembershipResponse::new(
                        store::Membership { workspace, slug, name, role, position },
                        reach,
                    )
                },
            ),
        }
    }
}

#[derive(Serialize)]
struct CredentialDescription {
    r#type: &'static str,
    key_id: Option<String>,
    issuer: Option<String>,
    expires_at: Timestamp,
    quarantined_at: Option<Timestamp>,
    /// Whether it is a key in its last 14 days, whose answers carry `x-api-key-expires`.
    expires_soon: bool,
}

impl CredentialDescription {
    fn of(caller: &Caller, now: Timestamp) -> Self {
        match &caller.credential {
            Credential::Key(key) => Self {
                r#type: "api_key",
                key_id: Some(key.key_id.to_string()),
                issuer: None,
                expires_at: key.expires_at,
                quarantined_at: key.quarantined_at,
                expires_soon: expires_soon(key.expires_at, now),
            },
            Credential::Token(token) => Self {
                r#type: "token",
                key_id: None,
                issuer: Some(token.issuer.name.to_string()),
                expires_at: token.expires_at,
                quarantined_at: None,
                expires_soon: false,
            },
            Credential::Workload(workload) => Self {
                r#type: "workload",
                key_id: None,
                issuer: Some(workload.token.issuer.to_string()),
                expires_at: workload.token.expires_at,
                quarantined_at: None,
                expires_soon: false,
            },
        }
    }
}

#[derive(Serialize)]
struct MembershipResponse {
    workspace_id: WorkspaceId,
    slug: Option<String>,
    name: Option<String>,
    role: Role,
    permissions: Permissions,
}

impl MembershipResponse {
    /// The membership within this credential's permissions. A key that may not view workspaces gets no
    /// names here either.
    fn new(membership: store::Membership, credential: Reach) -> Self {
        let permissions = credential.within(Reach::whole(membership.role)).permissions;
        let named = permissions.contains(Permission::WorkspaceView);
        Self {
            workspace_id: membership.workspace,
            slug: named.then_some(membership.slug),
            name: named.then_some(membership.name),
            role: membership.role,
            permissions,
        }
    }
}

pub async fn me(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let page = query.read::<PageQuery>()?.page();
    let caller = entry.caller.clone();
    if let Some(workload) = caller.workload() {
        return Reply::ok(&MeResponse::of_workload(workload, &caller, page, request.context.now));
    }
    let (principal, kind, reach) = (caller.principal, caller.kind, caller.reach);
    let address = entry.context.address;
    let (described, memberships) = request
        .app
        .db
        .read("identity.me", move |tx| {
            let described = store::describe(tx, principal)?;
            let rows = store::memberships(tx, principal, page)?;
            let counted = workspaces::count(tx, principal, (kind, address), TOTAL_LIMIT + 1)?;
            let listed = Paginated::some(
                rows,
                page,
                counted,
                |row| row.membership.position,
                |row| row.is_entered(kind, address).then(|| MembershipResponse::new(row.membership, reach)),
            );
            Ok::<_, ward_db::Error>((described, listed))
        })
        .await?;
    // A token has the current name; the stored one is from the last time the caller created or joined a
    // workspace.
    let told = caller.token().and_then(|token| token.name.clone());
    Reply::ok(&MeResponse {
        entity_id: caller.exists.then_some(principal),
        kind: caller.kind.name(),
        display_name: told.or_else(|| described.and_then(|(name, _)| name)),
        credential: CredentialDescription::of(&caller, request.context.now),
        memberships,
    })
}

#[derive(Deserialize)]
struct AuthorizeQuery {
    permission: Option<String>,
}

pub async fn authorize(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    only_permission(request.parts.uri.query())?;
    let needed = match query.read::<AuthorizeQuery>()?.permission {
        Some(name) => {
            Some(Permission::named(&name).ok_or_else(|| ApiError::internal("an unknown permission"))?)
        }
        None => None,
    };
    let seen = entry.seen()?;
    entry.judge(&request.app, needed)?;
    let caller = &entry.caller;
    let key = caller.key().map(|key| ("x-ward-key-id", key.key_id.to_string()));
    let facts = [
        ("x-ward-workspace-id", seen.workspace.id.to_string()),
        ("x-ward-workspace-environment", seen.workspace.environment.clone()),
        ("x-ward-principal-id", caller.principal.to_string()),
        ("x-ward-principal-kind", caller.kind.name().to_owned()),
        ("x-ward-role", seen.reach.role.name().to_owned()),
    ];
    let mut reply = Reply::no_content();
    for (name, value) in facts.into_iter().chain(key) {
        let value = HeaderValue::try_from(value).map_err(ApiError::internal)?;
        reply.headers.push((HeaderName::from_static(name), value));
    }
    Ok(reply)
}

/// Refuses a misspelt or repeated parameter (422). Other operations ignore it, but here it would ask for less than its
/// author means.
fn only_permission(query: Option<&str>) -> Result<(), ApiError> {
    let mut is_given = false;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name != "permission" || std::mem::replace(&mut is_given, true) {
            let loc = vec!["query".into(), name.into_owned().into()];
            let message = "This operation takes one parameter, `permission`, once";
            return Err(ApiError::invalid(vec![Problem::value_error(
                loc,
                message,
                Json::String(value.into_owned()),
            )]));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
pub struct ExplainAccessRequest {
    caller: String,
    operation: String,
    address: Option<String>,
}

#[derive(Serialize)]
struct ExplainAccessResponse<'a> {
    operation_id: &'a str,
    admitted: bool,
    status: Option<u16>,
    error_code: Option<&'a str>,
    missing: Option<Missing>,
    because: Option<Because>,
    checks: Vec<Check>,
}

/// `explain-access`: an answer with status 200, also about a refusal.
pub async fn explain(
    request: Request,
    (entry, sent): (Entry, Sent<ExplainAccessRequest>),
) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let question = question(&request, workspace, &sent.value)?;
    let operation = question.operation.clone();
    let issuers = request.app.issuers.clone();
    let explained =
        request.app.db.read("gate.explain", move |tx| explain::explain(tx, &issuers, &question)).await?;
    let refusal = explained.refusal.as_ref();
    let why = refusal.and_then(ApiError::why);
    Reply::ok(&ExplainAccessResponse {
        operation_id: &operation.id,
        admitted: refusal.is_none(),
        status: refusal.map(|refusal| refusal.status().as_u16()),
        error_code: refusal.map(ApiError::code),
        missing: why.map(|why| why.missing),
        because: why.map(|why| why.because),
        checks: explained.checks,
    })
}

/// The question of a request: its operation is named by its id, or by a method and a path within this workspace.
fn question(
    request: &Request,
    workspace: WorkspaceId,
    asked: &ExplainAccessRequest,
) -> Result<Question, ApiError> {
    const UNKNOWN: ApiError = explain::NOT_OF_THIS_WORKSPACE;
    let contract = &request.app.contract;
    let (operation, query, slug) = match asked.operation.split_once(' ') {
        None => (contract.operation(&asked.operation).ok_or(UNKNOWN)?, None, None),
        Some((method, target)) => {
            let method = Method::from_bytes(method.as_bytes()).map_err(|_| UNKNOWN)?;
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            let path = path.strip_prefix(request.app.config.path_prefix()).unwrap_or(path);
            let operation = contract.operation_at(&method, path).ok_or(UNKNOWN)?;
            let named = operation.path_parameter(path, "workspace_id").map(WorkspaceId::of_path);
            if named.is_some_and(|named| named != workspace) {
                return Err(UNKNOWN);
            }
            let slug = operation.path_parameter(path, "slug").map(str::to_owned);
            (operation, query, slug)
        }
    };
    // Only the query of `authorize` takes part in its decision.
    let given = query.filter(|_| operation.id == "authorize");
    only_permission(given)?;
    let given =
        given.map(|query| validate::query(operation, Some(query)).map_err(ApiError::refused)).transpose()?;
    let permission =
        given.as_ref().and_then(|given| given.get("permission")?.as_str()).and_then(Permission::named);
    let caller = match Uuid::try_parse(&asked.caller) {
        Ok(id) => Asked::Member(PrincipalId(id)),
        Err(_) => Asked::Key(KeyId::parse(&asked.caller).unwrap_or(KeyId::none())),
    };
    let (now, asker) = (request.context.now, request.context.address);
    let asked_about = asked.address.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
    // An IPv4-mapped address is the IPv4 address, as it is in a real request.
    let address = asked_about.map_or(asker, |address| address.to_canonical());
    Ok(Question { workspace, slug, caller, operation: operation.clone(), permission, now, address })
}
