//! The JSON routes of API keys.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use ward_contract::validate::{self, Json, Loc, Problem};
use ward_guard::Authorized;

use super::actions::{self, AuthInfo, CreateApiKeyRequest, RotateApiKeyRequest};
use super::secret::{KeyId, Presented};
use super::wire::ApiKeyResponse;
use super::{ApiKey, revoke_presented, store};
use crate::access::{Permission, Permissions, Role};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, ReplayableRotation};
use crate::gate::{Entry, OwnOrder, bearer_text};
use crate::http::{Open, Query, Reply, Request, Sent};
use crate::page::{self, PageQuery, Paginated, TOTAL_LIMIT};
use crate::workspaces;

#[derive(Deserialize)]
struct ListQuery {
    mine_only: bool,
}

pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let creator = query.read::<ListQuery>()?.mine_only.then_some(entry.caller.principal);
    let page = query.read::<PageQuery>()?.page();
    let now = request.context.now;
    let listed = request
        .app
        .db
        .read("api_keys.list", move |tx| {
            let (rows, until) = page::fill(
                page,
                |(key, _): &(ApiKey, bool)| key.position,
                |(_, live)| *live,
                |page| store::list(tx, workspace, creator, page),
            )?;
            let counted = store::count(tx, workspace, creator, TOTAL_LIMIT + 1)?;
            let shown = |(key, _)| ApiKeyResponse::of(&key, now);
            let listed = Paginated::new(rows, page, counted, |(key, _)| key.position, shown);
            Ok::<_, ward_db::Error>(listed.looked_through(until))
        })
        .await?;
    Reply::ok(&listed)
}

/// `create-api-key`: a request without a credential is a claim; one with a credential creates a key.
pub async fn create(mut request: Request, _: OwnOrder) -> Result<Reply, ApiError> {
    if request.is_claim() {
        return claim(request).await;
    }
    let (entry, sent) = <(Entry, Sent<CreateApiKeyRequest>)>::authorize(&mut request).await?;
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&request.app, entry, sent.value, repeat).await
}

async fn claim(mut request: Request) -> Result<Reply, ApiError> {
    // An address with too many failed claims is checked before its body is read and before anything is
    // written.
    if let Some(share) = request.failing_claim_share().await? {
        let workspace = request.workspace().ok_or(ApiError::no_workspace())?;
        let (now, scope) = (request.context.now, Repeat::scope_of(&request, None)?);
        let may_succeed = request.app.db.read("api_keys.may_claim", move |tx| {
            let claimable = workspaces::is_claimable(tx, workspace, now)?;
            Ok::<_, ward_db::Error>(Repeat::is_known(tx, scope.as_deref())? || claimable)
        });
        if !may_succeed.await? {
            return Err(ApiError::unauthorized());
        }
        drop(share);
    }
    let body = request.read_body().await?;
    let sent = body.valid_and::<CreateApiKeyRequest>(&request, claim_problems).await?;
    let repeat = Repeat::of(&request, None, &sent.bytes, StatusCode::CREATED)?;
    let workspace = request.workspace().ok_or(ApiError::no_workspace())?;
    actions::claim(&request.app, request.context.clone(), workspace, sent.value, repeat).await
}

/// The messages about a claim that asks for less than an owner. A caller who forgot the bearer reads them too.
const ROLE_OF_CLAIM: &str = "Without a key this call claims the workspace and creates its owner's key: leave role out or set \
                             it to owner. To mint another key, send yours as the bearer";
const PERMISSIONS_OF_CLAIM: &str = "Without a key this call claims the workspace and creates its owner's unrestricted key: leave \
                                    permissions out. To mint another key, send yours as the bearer";

/// A claim always creates an unrestricted owner key. A request for anything else is a mistake that the
/// client should see.
fn claim_problems(given: &Json) -> Vec<Problem> {
    let Json::Object(fields) = given else { return Vec::new() };
    // Another rule already reports an unknown role.
    let other = |name: &str| Role::named(name).is_some_and(|role| role != Role::Owner);
    let role = fields.get("role").filter(|role| matches!(role, Json::String(name) if other(name)));
    let permissions =
        fields.get("permissions").filter(|list| matches!(list, Json::Array(items) if !items.is_empty()));
    let problem = |field: &'static str, message: &str, input: &Json| {
        Problem::value_error(vec![Loc::from("body"), Loc::from(field)], message, validate::shown(input))
    };
    let role = role.map(|role| problem("role", ROLE_OF_CLAIM, role));
    let permissions = permissions.map(|list| problem("permissions", PERMISSIONS_OF_CLAIM, list));
    role.into_iter().chain(permissions).collect()
}

/// `rotate-api-key`
///
/// A retry may present the secret that the rotation itself ended. It gets the stored answer although its
/// key is no longer valid. The answer is looked up twice, because the rotation may commit while its own
/// retry is being judged.
pub async fn rotate(mut request: Request, _: OwnOrder) -> Result<Reply, ApiError> {
    if let Some(ended) = ReplayableRotation::find(&request).await? {
        let body = request.read_body().await?.checked_bytes(&request).await?;
        return ended.repeat(&request, &body);
    }
    let mut read = None;
    match rotate_as_caller(&mut request, &mut read).await {
        Err(refused) if refused.is_unauthorized() => {
            let Some(ended) = ReplayableRotation::find(&request).await? else { return Err(refused) };
            let body = match read {
                Some(body) => body,
                None => request.read_body().await?.checked_bytes(&request).await?,
            };
            ended.repeat(&request, &body)
        }
        outcome => outcome,
    }
}

/// Leaves the body in `read`, because a body can be read only once.
async fn rotate_as_caller(request: &mut Request, read: &mut Option<Bytes>) -> Result<Reply, ApiError> {
    let (entry, sent) = <(Entry, Sent<RotateApiKeyRequest>)>::authorize(request).await?;
    *read = Some(sent.bytes.clone());
    let repeat = Repeat::of(request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    let key_id = key_id(request);
    actions::rotate(&request.app, entry, key_id, sent.value, repeat).await
}

pub async fn finish_rotation(request: Request, (entry, body): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &body, StatusCode::OK)?;
    actions::finish_rotation(&request.app, entry, key_id(&request), repeat).await
}

/// The key id in the path. A text that is not a key id is treated like an unknown key id.
pub(super) fn key_id(request: &Request) -> KeyId {
    KeyId::parse(request.parameter("key_id")).unwrap_or(KeyId::none())
}

pub async fn delete(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::revoke(&request.app, entry, key_id(&request)).await?;
    Ok(Reply::no_content())
}

#[derive(Deserialize)]
struct RevokePresentedKeyRequest {
    api_key: String,
}

/// `revoke-presented-api-key`: the secret is in the body, or is the bearer of a request without a body.
///
/// A key that is bound to a public key needs no proof here, because whoever finds it must be able to end it. An unknown secret gets the same answer, and is charged to its address like a refused credential.
pub async fn revoke_presented(mut request: Request, _: Open) -> Result<Reply, ApiError> {
    let body = request.read_body().await?;
    let presented = match bearer_text(&request).map(Presented::parse) {
        Some(presented) if body.is_empty() => presented,
        _ => {
            let sent = body.valid::<RevokePresentedKeyRequest>(&request).await?;
            Presented::parse(sent.value.api_key.as_bytes())
        }
    };
    let was_valid = match presented {
        Some(presented) => {
            let _share = request.look_up_share_of(&presented.hash).await?;
            revoke_presented::revoke_presented(&request.app, request.context.clone(), presented).await?
        }
        None => false,
    };
    if !was_valid {
        request.charge_unknown_key()?;
    }
    Ok(Reply::no_content())
}

pub async fn me(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    Reply::ok(&AuthInfo::of(&entry.caller, request.context.now)?)
}

#[derive(Serialize)]
struct Catalog {
    roles: Vec<RoleDescription>,
    permissions: Vec<PermissionDescription>,
}

/// `RoleDescription`: the platform's field names, followed by Ward's.
#[derive(Serialize)]
struct RoleDescription {
    name: Role,
    priority: usize,
    description: &'static str,
    permission_names: Permissions,
    role: Role,
    permissions: Permissions,
}

/// `PermissionDescription`: the platform's field names, followed by Ward's.
#[derive(Serialize)]
struct PermissionDescription {
    name: Permission,
    namespace: &'static str,
    action: &'static str,
    permission: Permission,
    description: &'static str,
}

pub async fn catalog(_: Request, _: Entry) -> Result<Reply, ApiError> {
    let roles = Role::ALL.into_iter().zip(1..).map(|(role, priority)| RoleDescription {
        name: role,
        priority,
        description: role.description(),
        permission_names: role.permissions(),
        role,
        permissions: role.permissions(),
    });
    let permissions = Permission::ALL.into_iter().map(|permission| {
        let (namespace, action) = permission.name().split_once('.').unwrap_or((permission.name(), ""));
        PermissionDescription {
            name: permission,
            namespace,
            action,
            permission,
            description: permission.description(),
        }
    });
    Reply::ok(&Catalog { roles: roles.collect(), permissions: permissions.collect() })
}
