//! The JSON routes of invitations.

use http::StatusCode;
use uuid::Uuid;

use super::actions::{self, Acceptance, NewEnd, NewInvitation};
use super::wire::{InvitationResponse, OfferedInvitationResponse};
use super::{Invitation, store};
use crate::error::ApiError;
use crate::gate::bearer_text;
use crate::gate::idempotency::Repeat;
use crate::http::{Call, Reply};
use crate::ids::InvitationId;
use crate::page::{self, Page, PageQuery, Paginated, TOTAL_LIMIT};

/// `list-invitations`
pub async fn list(call: Call) -> Result<Reply, ApiError> {
    let (entry, query) = call.enter_with_query().await?;
    let workspace = entry.workspace()?.id;
    let page = query.read::<PageQuery>()?.page();
    let now = call.context.now;
    let listed = call
        .app
        .db
        .read("invitations.list", move |tx| {
            let (rows, until) = page::fill(
                page,
                |it: &Invitation| it.position,
                |it| it.holds,
                |page| store::list(tx, workspace, now, page),
            )?;
            let counted = store::count(tx, workspace, now, TOTAL_LIMIT + 1)?;
            let listed = Paginated::new(rows, page, counted, |it| it.position, InvitationResponse::from);
            Ok::<_, ward_db::Error>(listed.looked_through(until))
        })
        .await?;
    Reply::ok(&listed)
}

/// `create-invitation`
pub async fn create(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewInvitation>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&call.app, entry, sent.value, repeat).await
}

/// `revoke-invitation`
pub async fn revoke(call: Call) -> Result<Reply, ApiError> {
    let entry = call.enter().await?;
    actions::revoke(&call.app, entry, invitation_id(&call)).await?;
    Ok(Reply::no_content())
}

/// `extend-invitation`
pub async fn extend(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewEnd>().await?;
    let extended = actions::extend(&call.app, entry, invitation_id(&call), sent.value).await?;
    Reply::ok(&InvitationResponse::from(extended))
}

/// `resend-invitation`
pub async fn resend(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<NewEnd>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::resend(&call.app, entry, invitation_id(&call), sent.value, repeat).await
}

/// The invitation in the path. A text that is not an id is treated like an unknown id.
fn invitation_id(call: &Call) -> InvitationId {
    InvitationId(Uuid::try_parse(call.parameter("invitation_id")).unwrap_or(Uuid::nil()))
}

/// `list-my-invitations`
pub async fn list_own(call: Call) -> Result<Reply, ApiError> {
    let (entry, query) = call.enter_with_query().await?;
    let page = query.read::<PageQuery>()?.page();
    let now = call.context.now;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    let Some(address) = actions::own_address(&entry, token).await? else {
        return Reply::ok(&Paginated::new(
            Vec::new(),
            page,
            0,
            |offer: &store::Offer| offer.invitation.position,
            OfferedInvitationResponse::from,
        ));
    };
    let listed = call
        .app
        .db
        .read("invitations.list_own", move |tx| {
            let rows = store::offers(tx, &address, now, page)?;
            let counted = store::count_offers(tx, &address, now, TOTAL_LIMIT + 1)?;
            let page = before_tie(&rows, page);
            Ok::<_, ward_db::Error>(Paginated::new(
                rows,
                page,
                counted,
                |it| it.invitation.position,
                OfferedInvitationResponse::from,
            ))
        })
        .await?;
    Reply::ok(&listed)
}

/// Removes the last rows of the page if the row after the page has their position. The next page begins
/// after a position, so rows with equal positions must stay together.
fn before_tie(rows: &[store::Offer], page: Page) -> Page {
    let Some(next) = usize::try_from(page.limit).ok().and_then(|limit| rows.get(limit)) else { return page };
    let before = rows.iter().filter(|row| row.invitation.position < next.invitation.position).count();
    match i64::try_from(before) {
        Ok(limit @ 1..) => Page { limit, ..page },
        _ => page,
    }
}

/// `accept-my-invitation`
pub async fn accept_own(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, bytes) = call.enter_with_ignored_body().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &bytes, StatusCode::CREATED)?;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept_own(&call.app, entry, invitation_id(&call), token, repeat).await
}

/// `accept-invitation`
pub async fn accept(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Acceptance>().await?;
    let repeat = Repeat::of(&call, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    let token = bearer_text(&call).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept(&call.app, entry, sent.value, token, repeat).await
}
