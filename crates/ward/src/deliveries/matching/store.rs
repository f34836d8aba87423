//! The SQL of matches and reviews.

use ward_db::{Error, Timestamp, Tx, Value, columns, decode, insert_later, select};

use super::wire::{OpenReviews, ReviewResponse};
use crate::guard::WorkspaceGuard;
use crate::ids::{DeliveryId, ReviewId, WorkspaceId};
use crate::page::Page;

/// A column with values that are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Matched,
    Offered,
}

impl Part {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matched => "match",
            Self::Offered => "candidates",
        }
    }
}

/// The key of a sealed column: workspace, delivery and column.
pub type MatchAt = (WorkspaceId, DeliveryId, Part);

columns! {
    ReviewResponse as "m" {
        review_id,
        delivery_id,
        integration_id: "d.integration_id",
        call_id: "d.call_id",
        call_sid: "c.call_sid",
        needs,
        because,
        candidate_count: "m.candidates",
        opened_at,
        position,
    }
}

/// Open reviews. A replica of an earlier version releases a delivery and leaves its review, so the delivery's state counts too.
const OPEN: &str = "FROM delivery_matches m \
     JOIN deliveries d ON d.id = m.delivery_id AND CASE WHEN d.workspace_id = m.workspace_id THEN 1 ELSE 0 END = 1 \
     JOIN calls c ON c.id = d.call_id AND CASE WHEN c.workspace_id = d.workspace_id THEN 1 ELSE 0 END = 1";
const IS_HELD: &str = "d.state = 'held' AND d.reason IN ('unmatched_patient', 'unmatched_encounter')";
const OURS: &str = "CASE WHEN m.workspace_id = $1 THEN 1 ELSE 0 END = 1";

/// The open reviews of a workspace after a position, in the order in which they were opened.
pub fn list(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<ReviewResponse>, Error> {
    tx.all(
        select!(
            ReviewResponse,
            OPEN,
            " WHERE m.workspace_id = $1 AND m.position > $2 AND ",
            IS_HELD,
            " ORDER BY m.position LIMIT $3"
        ),
        &[workspace.into(), page.after.into(), page.fetch().into()],
        decode,
    )
}

/// The number of open reviews, counted no further than `most`.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId, most: i64) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM (SELECT 1 FROM delivery_matches WHERE workspace_id = $1 AND position > 0 LIMIT $2) AS found",
        &[workspace.into(), most.into()],
        decode,
    )
}

/// A review with its sealed candidates.
type Sealed = (ReviewResponse, Option<Vec<u8>>);

/// The open review of a delivery.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, delivery: DeliveryId) -> Result<Option<Sealed>, Error> {
    tx.optional(
        ward_db::sql!(
            "SELECT ",
            ReviewResponse::COLUMNS,
            ", m.offered ",
            OPEN,
            " WHERE m.delivery_id = $2 AND ",
            OURS,
            " AND m.position IS NOT NULL AND ",
            IS_HELD
        ),
        &[workspace.into(), delivery.into()],
        decode,
    )
}

/// The sealed match of a delivery.
pub fn matched(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
) -> Result<Option<Vec<u8>>, Error> {
    let sealed = tx.optional(
        "SELECT matched FROM delivery_matches WHERE delivery_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into()],
        decode::<Option<Vec<u8>>>,
    )?;
    Ok(sealed.flatten())
}

/// Stores a match, and closes the delivery's review.
pub fn keep(tx: &mut WorkspaceGuard<'_, '_>, delivery: DeliveryId, sealed: &[u8]) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "delivery_matches" {
        workspace_id: workspace,
        delivery_id: delivery,
        matched: Value::Bytes(sealed),
    } "ON CONFLICT (delivery_id, workspace_id) DO UPDATE SET matched = excluded.matched, review_id = NULL, needs = NULL, \
       because = NULL, candidates = NULL, offered = NULL, position = NULL, opened_at = NULL")
}

/// Opens a review in the place of an earlier one. The match stays.
pub fn open(
    tx: &mut WorkspaceGuard<'_, '_>,
    delivery: DeliveryId,
    (id, position, now): (ReviewId, i64, Timestamp),
    (needs, because, candidates): (&str, &str, i64),
    offered: Option<&[u8]>,
) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "delivery_matches" {
        workspace_id: workspace,
        delivery_id: delivery,
        review_id: id,
        needs: needs,
        because: because,
        candidates: candidates,
        offered: offered.map(Value::Bytes),
        position: position,
        opened_at: now,
    } "ON CONFLICT (delivery_id, workspace_id) DO UPDATE SET review_id = excluded.review_id, needs = excluded.needs, \
       because = excluded.because, candidates = excluded.candidates, offered = excluded.offered, \
       position = excluded.position, opened_at = excluded.opened_at")
}

/// The columns of a closed review.
const CLOSED: &str = "review_id = NULL, needs = NULL, because = NULL, candidates = NULL, offered = NULL, position = NULL, \
                      opened_at = NULL";

/// Closes the review of a delivery that is no longer held, if it has one.
pub fn close(tx: &mut Tx<'_>, workspace: WorkspaceId, delivery: DeliveryId) -> Result<(), Error> {
    tx.execute_later(
        ward_db::sql!(
            "UPDATE delivery_matches SET ",
            CLOSED,
            " WHERE delivery_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1 AND position IS NOT NULL"
        ),
        &[workspace.into(), delivery.into()],
    )
}

/// Forgets the match of a delivery.
pub fn forget(tx: &mut WorkspaceGuard<'_, '_>, delivery: DeliveryId) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute_later(
        "UPDATE delivery_matches SET matched = NULL \
         WHERE delivery_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into()],
    )
}

/// The open reviews of all workspaces, by missing fact and reason. `most` bounds the rows that are read.
pub fn waiting(tx: &mut Tx<'_>, most: i64) -> Result<Vec<OpenReviews>, Error> {
    tx.all(
        "SELECT needs, because, count(*), min(opened_at) FROM \
         (SELECT needs, because, opened_at FROM delivery_matches m WHERE opened_at IS NOT NULL AND CASE WHEN \
            (SELECT d.state FROM deliveries d WHERE d.id = m.delivery_id AND CASE WHEN d.workspace_id = m.workspace_id THEN 1 ELSE 0 END = 1) \
            = 'held' THEN 1 ELSE 0 END = 1 LIMIT $1) AS found \
         GROUP BY needs, because",
        &[most.into()],
        |row| {
            let (needs, because, count, since) = row.read()?;
            Ok(OpenReviews { needs, because, count, since })
        },
    )
}

/// The sealed match and the sealed candidates of a delivery.
pub type SealedColumns = (MatchAt, Option<Vec<u8>>, Option<Vec<u8>>);

/// The sealed columns of up to `most` deliveries of all workspaces, after this one.
pub fn all(
    tx: &mut Tx<'_>,
    (workspace, delivery, _): MatchAt,
    most: u32,
) -> Result<Vec<SealedColumns>, Error> {
    tx.all(
        "SELECT workspace_id, delivery_id, matched, offered FROM delivery_matches \
         WHERE (delivery_id, workspace_id) > ($1, $2) ORDER BY delivery_id, workspace_id LIMIT $3",
        &[delivery.into(), workspace.into(), most.into()],
        |row| {
            let (workspace, delivery, matched, offered) = row.read()?;
            Ok(((workspace, delivery, Part::Matched), matched, offered))
        },
    )
}

/// Replaces a sealed value by the same under the current key.
pub fn replace(tx: &mut Tx<'_>, (workspace, delivery, part): MatchAt, anew: &[u8]) -> Result<(), Error> {
    let sql = match part {
        Part::Matched => {
            "UPDATE delivery_matches SET matched = $3 WHERE delivery_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1"
        }
        Part::Offered => {
            "UPDATE delivery_matches SET offered = $3 WHERE delivery_id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1"
        }
    };
    tx.execute_later(sql, &[workspace.into(), delivery.into(), Value::Bytes(anew)])
}
