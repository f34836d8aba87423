//! The JSON routes of reviews. `calls` has the route of a decision, because a decision changes the call.

use serde_json::json;
use ward_db::Uuid;

use super::store;
use crate::audit::{self, Actor};
use crate::deliveries::subject;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Query, Reply, Request};
use crate::ids::DeliveryId;
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};

/// The list has no personal data, so the audit does not record that it was read.
pub async fn list(request: Request, (entry, sent): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let page = sent.read::<PageQuery>()?.page();
    let read = request.app.read_long(workspace, "sync.reviews", move |tx| {
        let rows = store::list(tx, workspace, page)?;
        Ok::<_, ward_db::Error>((rows, store::count(tx, workspace, TOTAL_LIMIT + 1)?))
    });
    let (rows, counted) = read.await?;
    Reply::ok(&Paginated::new(rows, page, counted, |shown| shown.position, |shown| shown))
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    // A text that is not an id gets the answer for an unknown id.
    let id = DeliveryId(Uuid::try_parse(request.parameter("delivery_id")).unwrap_or(Uuid::nil()));
    let read = request.app.db.read("sync.review", move |tx| {
        let found: Result<_, ward_db::Error> = super::found(tx, workspace, id);
        found
    });
    let missing = ApiError::missing("review_not_found", "No review of this delivery is open.");
    let found = read.await.map_err(ApiError::from)?.ok_or(missing)?;
    let (context, actor) = (entry.context.clone(), Actor::of(&entry.caller));
    let noted = request.app.db.write("sync.note_review_read", move |tx| {
        let about = subject("delivery", Some(id.0));
        let event = about.event((workspace, &context), actor.clone(), "review.read", json!({}));
        audit::record_phi_access(tx, event)
    });
    noted.await?;
    Reply::ok(&found.shown(&request.app.vault))
}
