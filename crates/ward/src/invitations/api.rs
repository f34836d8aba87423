//! The JSON routes of invitations.

use bytes::Bytes;
use http::StatusCode;
use uuid::Uuid;

use super::actions::{self, AcceptInvitationRequest, CreateInvitationRequest, ExtendInvitationRequest};
use super::wire::{InvitationResponse, OfferedInvitationResponse};
use super::{Invitation, store};
use crate::error::ApiError;
use crate::gate::idempotency::Repeat;
use crate::gate::{Entry, OwnOrder, admit_with_body, bearer_text};
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::InvitationId;
use crate::page::{self, Page, PageQuery, Paginated, TOTAL_LIMIT};

pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let page = query.read::<PageQuery>()?.page();
    let now = request.context.now;
    let listed = request
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

pub async fn create(
    request: Request,
    (entry, sent): (Entry, Sent<CreateInvitationRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&request.app, entry, sent.value, repeat).await
}

pub async fn revoke(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::revoke(&request.app, entry, invitation_id(&request)).await?;
    Ok(Reply::no_content())
}

pub async fn extend(
    request: Request,
    (entry, sent): (Entry, Sent<ExtendInvitationRequest>),
) -> Result<Reply, ApiError> {
    let extended = actions::extend(&request.app, entry, invitation_id(&request), sent.value).await?;
    Reply::ok(&InvitationResponse::from(extended))
}

pub async fn resend(
    request: Request,
    (entry, sent): (Entry, Sent<ExtendInvitationRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::OK)?;
    actions::resend(&request.app, entry, invitation_id(&request), sent.value, repeat).await
}

/// The invitation in the path. A text that is not an id is treated like an unknown id.
fn invitation_id(request: &Request) -> InvitationId {
    InvitationId(Uuid::try_parse(request.parameter("invitation_id")).unwrap_or(Uuid::nil()))
}

pub async fn list_own(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let page = query.read::<PageQuery>()?.page();
    let now = request.context.now;
    let token = bearer_text(&request).and_then(|text| std::str::from_utf8(text).ok());
    let Some(address) = actions::own_address(&entry, token).await? else {
        return Reply::ok(&Paginated::new(
            Vec::new(),
            page,
            0,
            |offer: &store::Offer| offer.invitation.position,
            OfferedInvitationResponse::from,
        ));
    };
    let listed = request
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

pub async fn accept_own(request: Request, (entry, bytes): (Entry, Bytes)) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &bytes, StatusCode::CREATED)?;
    let token = bearer_text(&request).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept_own(&request.app, entry, invitation_id(&request), token, repeat).await
}

/// `accept-invitation`: the values come before the permission, because only they name a workspace whose audit records a
/// refusal.
pub async fn accept(mut request: Request, _: OwnOrder) -> Result<Reply, ApiError> {
    let (admitted, body) = admit_with_body(&mut request).await?;
    let sent = body.valid::<AcceptInvitationRequest>(&request).await?;
    let repeat = Repeat::of(&request, Some(admitted.principal()), &sent.bytes, StatusCode::CREATED)?;
    let token = bearer_text(&request).and_then(|text| std::str::from_utf8(text).ok());
    actions::accept(&request.app, admitted, sent.value, token, repeat).await
}
