//! The SQL of amendments.

use ward_db::{Error, Tx, columns, decode, select};

use super::rules::Amendments;
use crate::guard::WorkspaceGuard;
use crate::ids::{DeliveryId, WorkspaceId};

columns! {
    Amendments { wanted: "amendment", done: "amended", of: "amends" }
}

pub fn get(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
) -> Result<Option<Amendments>, Error> {
    tx.optional(
        select!(
            Amendments,
            "FROM deliveries WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1"
        ),
        &[workspace.into(), delivery.into()],
        decode,
    )
}

/// Stores that this amendment of a record is to be written. The delivery counts as possibly sent, so a replica that knows no
/// amendments searches first and finds the record.
pub fn want(tx: &mut WorkspaceGuard<'_, '_>, delivery: DeliveryId, number: i64) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE deliveries SET amendment = $3, amends = COALESCE(location, amends), maybe_sent = true, unknowns = 0 \
         WHERE id = $2 AND CASE WHEN workspace_id = $1 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), delivery.into(), number.into()],
    )?;
    Ok(())
}
