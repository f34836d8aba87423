//! The JSON routes of workspaces.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use ward_db::Tx;

use super::actions::{self, ArchiveWorkspaceRequest, CreateWorkspaceRequest, UpdateWorkspaceRequest};
use super::environment::{self, ConvertEnvironmentRequest};
use super::store;
use crate::config::Bootstrap;
use crate::error::ApiError;
use crate::forbidden::{Because, Forbidden, Rule};
use crate::gate::idempotency::Repeat;
use crate::gate::{Entry, bearer_text};
use crate::http::{Open, Query, Reply, Request, Sent};
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};

pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let (principal, kind) = (entry.caller.principal, entry.caller.kind);
    let address = entry.context.address;
    let page = query.read::<PageQuery>()?.page();
    let most = TOTAL_LIMIT + 1;
    let db = &request.app.db;
    let (rows, counted) =
        db.read("workspaces.list", move |tx| store::list(tx, principal, page, most)).await?;
    let counted = match counted {
        Some(counted) if !rows.is_empty() || page.after == 0 => counted,
        // The count has a read of its own: a read that sends a second statement even once becomes a
        // transaction for ever.
        _ => {
            let count = move |tx: &mut Tx<'_>| store::count(tx, principal, (kind, address), most);
            db.read("workspaces.count", count).await?
        }
    };
    // A workspace that its policy closes to this caller does not exist for it, here neither.
    let entered = |row: store::ListedWorkspace| row.entered(kind, address);
    Reply::ok(&Paginated::some(rows, page, counted, |row| row.position, entered))
}

/// `create-workspace`: the open bootstrap call.
pub async fn create(mut request: Request, _: Open) -> Result<Reply, ApiError> {
    match &request.app.config.bootstrap {
        Bootstrap::Open => {}
        Bootstrap::Token(token) => {
            let given = bearer_text(&request).unwrap_or_default();
            if !bool::from(token.as_bytes().ct_eq(given)) {
                return Err(ApiError::unauthorized());
            }
        }
        Bootstrap::Closed => {
            return Err(ApiError::forbidden_because(
                "bootstrap_closed",
                "This server creates no workspaces for anonymous callers.",
                Forbidden::by_rule(Rule::OpenBootstrap, Because::ServerSetting),
            ));
        }
    }
    // The charge follows the token check, so a caller without the token uses up nothing of the others'
    // share.
    request.charge_bootstrap()?;
    let sent = request.read_body().await?.valid::<CreateWorkspaceRequest>(&request).await?;
    let repeat = Repeat::of(&request, None, &sent.bytes, StatusCode::CREATED)?;
    actions::bootstrap(&request.app, request.context.clone(), sent.value, repeat).await
}

/// `create-self-service-workspace` and `create-my-workspace`
pub async fn create_own(
    request: Request,
    (entry, sent): (Entry, Sent<CreateWorkspaceRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create_own(&request.app, entry, sent.value, repeat).await
}

pub async fn get(_: Request, entry: Entry) -> Result<Reply, ApiError> {
    Reply::ok(entry.workspace()?)
}

pub async fn update(
    request: Request,
    (entry, sent): (Entry, Sent<UpdateWorkspaceRequest>),
) -> Result<Reply, ApiError> {
    Reply::ok(&actions::update(&request.app, entry, sent.value).await?)
}

pub async fn provision(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    actions::provision(&request.app, entry, repeat).await
}

pub async fn archive(
    request: Request,
    (entry, sent): (Entry, Sent<ArchiveWorkspaceRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::archive(&request.app, entry, sent.value, repeat).await
}

#[derive(Deserialize)]
struct CheckQuery {
    target: String,
}

pub async fn check_environment(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let target = query.read::<CheckQuery>()?.target;
    Reply::ok(&environment::check(&request.app, &entry, target).await?)
}

pub async fn convert_environment(
    request: Request,
    (entry, sent): (Entry, Sent<ConvertEnvironmentRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    environment::convert(&request.app, entry, sent.value, repeat).await
}
