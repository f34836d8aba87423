//! The operator's work on reviews: questions about the patient or the encounter of a held delivery.

use serde_json::json;
use uuid::Uuid;
use ward_db::Tx;

use super::{OperatorError, OperatorPage, show_workspace, write};
use crate::app::App;
use crate::audit::{Subject, Write};
use crate::calls::resolving::{self, ResolveReviewRequest, ResolveReviewResponse};
use crate::deliveries::matching::{self, ReviewDetail, ReviewResponse};
use crate::error::ApiError;
use crate::ids::DeliveryId;
use crate::page::Page;

/// The open reviews of a workspace, the first opened first.
pub async fn list_reviews(
    app: &App,
    slug_or_id: &str,
    after: i64,
    limit: u32,
) -> Result<OperatorPage<ReviewResponse>, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let page = Page { after: after.max(0), limit: limit.into() };
    let list = move |tx: &mut Tx<'_>| matching::list(tx, workspace, page);
    let rows = app.db.read_long("operator.list_reviews", list).await?;
    Ok(OperatorPage::of(rows, page, |review| review.position, |review| review))
}

/// The open review of a delivery with its candidates. The read is recorded, because they are personal data.
pub async fn show_review(
    app: &App,
    slug_or_id: &str,
    delivery: DeliveryId,
) -> Result<ReviewDetail, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let show = move |write: &mut Write<'_, '_>| {
        let missing = ApiError::missing("review_not_found", "No review of this delivery is open.");
        let found = matching::found(write, workspace, delivery)?.ok_or(missing)?;
        let about = Subject { service: "sync", kind: "delivery", id: Some(delivery.0), name: None };
        write.record_phi_access("review.read", about, json!({}))?;
        Ok::<_, ApiError>(found)
    };
    Ok(write(app, "operator.show_review", workspace, show).await?.shown(&app.vault))
}

/// Decides a review: `id` is the EHR's id of the patient or the encounter.
pub async fn resolve_review(
    app: &App,
    slug_or_id: &str,
    delivery: DeliveryId,
    (review, id): (String, String),
) -> Result<ResolveReviewResponse, OperatorError> {
    let unusable = || OperatorError::Refused("the review must be given by its id".to_owned());
    let review_id = Uuid::try_parse(&review).map_err(|_| unusable())?;
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let (vault, decision) = (app.vault.clone(), ResolveReviewRequest { review_id, id });
    let resolve =
        move |write: &mut Write<'_, '_>| resolving::resolve_within(write, &vault, delivery, &decision);
    Ok(write(app, "operator.resolve_review", workspace, resolve).await?)
}
