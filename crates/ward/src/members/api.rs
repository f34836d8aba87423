//! The JSON routes of members and of transfers of ownership.

use http::StatusCode;
use uuid::Uuid;

use super::actions::{self, SetMemberRoleRequest};
use super::store;
use super::transfers::{self, NominateOwnerRequest};
use super::wire::MemberResponse;
use crate::error::ApiError;
use crate::gate::idempotency::Repeat;
use crate::http::{Reply, Request};
use crate::ids::PrincipalId;
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};

/// The member in the path. A text that is not a UUID is treated like an unknown id.
fn named(request: &Request) -> PrincipalId {
    PrincipalId(Uuid::try_parse(request.parameter("entity_id")).unwrap_or(Uuid::nil()))
}

/// `list-members`
pub async fn list(request: Request) -> Result<Reply, ApiError> {
    let (entry, query) = request.enter_with_query().await?;
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

/// `set-member-role`
pub async fn set_role(mut request: Request) -> Result<Reply, ApiError> {
    let (entry, sent) = request.enter_with_body::<SetMemberRoleRequest>().await?;
    let member = actions::set_role(&request.app, entry, named(&request), sent.value).await?;
    Reply::ok(&MemberResponse::from(member))
}

/// `remove-member`
pub async fn remove(request: Request) -> Result<Reply, ApiError> {
    let entry = request.enter().await?;
    actions::remove(&request.app, entry, named(&request)).await?;
    Ok(Reply::no_content())
}

/// `leave-workspace`
pub async fn leave(request: Request) -> Result<Reply, ApiError> {
    let entry = request.enter().await?;
    actions::leave(&request.app, entry).await?;
    Ok(Reply::no_content())
}

/// `get-ownership-transfer`
pub async fn transfer(request: Request) -> Result<Reply, ApiError> {
    let workspace = request.enter().await?.workspace()?.id;
    let now = request.context.now;
    let found = request
        .app
        .db
        .read("members.transfer", move |tx| store::transfer(tx, workspace, now).map_err(ApiError::from))
        .await?;
    Reply::ok(&found.ok_or(transfers::no_transfer())?)
}

/// `nominate-owner`
pub async fn nominate(mut request: Request) -> Result<Reply, ApiError> {
    let (entry, sent) = request.enter_with_body::<NominateOwnerRequest>().await?;
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    transfers::nominate(&request.app, entry, sent.value, repeat).await
}

/// `accept-ownership`
pub async fn accept(mut request: Request) -> Result<Reply, ApiError> {
    let (entry, bytes) = request.enter_with_ignored_body().await?;
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    transfers::accept(&request.app, entry, repeat).await
}

/// `cancel-ownership-transfer`
pub async fn cancel(request: Request) -> Result<Reply, ApiError> {
    let entry = request.enter().await?;
    transfers::cancel(&request.app, entry).await?;
    Ok(Reply::no_content())
}
