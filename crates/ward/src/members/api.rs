//! The JSON routes of members and of transfers of ownership.

use http::StatusCode;
use uuid::Uuid;

use super::actions::{self, NewRole};
use super::store;
use super::transfers::{self, Nomination};
use super::wire::MemberResponse;
use crate::error::ApiError;
use crate::gate::idempotency::Repeat;
use crate::http::{Call, Reply};
use crate::ids::PrincipalId;
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};

/// The member in the path. A text that is not a UUID is treated like an unknown id.
fn named(call: &Call) -> PrincipalId {
    PrincipalId(Uuid::try_parse(call.parameter("entity_id")).unwrap_or(Uuid::nil()))
}

/// `list-members`
pub async fn list(call: Call) -> Result<Reply, ApiError> {
    let (entry, query) = call.enter_with_query().await?;
    let workspace = entry.workspace()?.id;
    let page = query.read::<PageQuery>()?.page();
    let listed = call
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
pub async fn set_role(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewRole>().await?;
    let member = actions::set_role(&call.app, entry, named(&call), sent.value).await?;
    Reply::ok(&MemberResponse::from(member))
}

/// `remove-member`
pub async fn remove(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    actions::remove(&call.app, entry, named(&call)).await?;
    Ok(Reply::no_content())
}

/// `leave-workspace`
pub async fn leave(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    actions::leave(&call.app, entry).await?;
    Ok(Reply::no_content())
}

/// `get-ownership-transfer`
pub async fn transfer(call: Call) -> Result<Reply, ApiError> {
    let workspace = call.enter().await?.workspace()?.id;
    let now = call.context.now;
    let found = call
        .app
        .db
        .read("members.transfer", move |tx| store::transfer(tx, workspace, now).map_err(ApiError::from))
        .await?;
    Reply::ok(&found.ok_or(transfers::no_transfer())?)
}

/// `nominate-owner`
pub async fn nominate(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Nomination>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    transfers::nominate(&call.app, entry, sent.value, repeat).await
}

/// `accept-ownership`
pub async fn accept(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, bytes) = call.enter_with_ignored_body().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &bytes, StatusCode::OK)?;
    transfers::accept(&call.app, entry, repeat).await
}

/// `cancel-ownership-transfer`
pub async fn cancel(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    transfers::cancel(&call.app, entry).await?;
    Ok(Reply::no_content())
}
