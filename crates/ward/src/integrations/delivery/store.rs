//! The SQL of the settings for deliveries. The contract bounds their length, so they are parsed within the transaction.

use ward_db::{Error, Json, Tx, columns, decode, select};

use super::DeliverySettings;
use crate::ids::{IntegrationId, WorkspaceId};

/// The integration that receives the calls of a workspace.
pub struct Receiver {
    pub id: IntegrationId,
    /// Which calls it receives, and how.
    pub delivery: DeliverySettings,
}

columns! {
    Receiver { id, delivery => parsed }
}

fn parsed(stored: Option<Json>) -> Result<DeliverySettings, Error> {
    let Some(Json(text)) = stored else { return Ok(DeliverySettings::default()) };
    serde_json::from_str(&text).map_err(|_| Error::unreadable("an integration's settings for deliveries"))
}

/// The connector's integration that provisioning seeded, if there is one.
pub fn receiver(tx: &mut Tx<'_>, workspace: WorkspaceId, connector: &str) -> Result<Option<Receiver>, Error> {
    tx.optional(
        select!(Receiver, "FROM integrations WHERE workspace_id = $1 AND name = $2 AND builtin"),
        &[workspace.into(), connector.into()],
        decode,
    )
}

/// The settings of an integration for its deliveries; the defaults if there is no such integration.
pub fn settings(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<DeliverySettings, Error> {
    let stored = tx.optional(
        "SELECT delivery FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        decode::<Option<Json>>,
    )?;
    parsed(stored.flatten())
}
