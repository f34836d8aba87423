//! The JSON routes of members and of transfers of ownership.

use bytes::Bytes;
use http::StatusCode;
use uuid::Uuid;

use super::actions::{self, SetMemberRoleRequest};
use super::store;
use super::transfers::{self, NominateOwnerRequest};
use super::wire::MemberResponse;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::PrincipalId;
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};

/// The member in the path. A text that is not a UUID is treated like an unknown id.
fn named(request: &Request) -> PrincipalId {
    PrincipalId(Uuid::try_parse(request.parameter("entity_id")).unwrap_or(Uuid::nil()))
}

pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let page = query.read::<PageQuery>()?.page();
    let listed = request
        .app
        .db
        .read("members.list", move |tx| {
            let rows = store::list(tx, workspace, page)?;
            let counted = store::count(tx, workspace, TOTAL_LIMIT + 1)?;
            Ok::<_, ward_db::Error>(Paginated::new(
                rows,
                page,
                counted,
                |member| member.seat,
                MemberResponse::from,
            ))
        })
        .await?;
    Reply::ok(&listed)
}

pub async fn set_role(
    request: Request,
    (entry, sent): (Entry, Sent<SetMemberRoleRequest>),
) -> Result<Reply, ApiError> {
    let member = actions::set_role(&request.app, entry, named(&request), sent.value).await?;
    Reply::ok(&MemberResponse::from(member))
}

pub async fn remove(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::remove(&request.app, entry, named(&request)).await?;
    Ok(Reply::no_content())
}

pub async fn leave(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::leave(&request.app, entry).await?;
    Ok(Reply::no_content())
}

pub async fn transfer(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let now = request.context.now;
    let found = request
        .app
        .db
        .read("members.transfer", move |tx| store::transfer(tx, workspace, now).map_err(ApiError::from))
        .await?;
    Reply::ok(&found.ok_or(transfers::no_transfer())?)
}

pub async fn nominate(
    request: Request,
    (entry, sent): (Entry, Sent<NominateOwnerRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    transfers::nominate(&request.app, entry, sent.value, repeat).await
}

pub async fn accept(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    transfers::accept(&request.app, entry, repeat).await
}

pub async fn cancel(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    transfers::cancel(&request.app, entry).await?;
    Ok(Reply::no_content())
}
