//! The SQL of quotas: counts in the workspace's guard row.

use ward_db::{Error, Row, Tx, Value};

use super::{Change, Overrides, Used};
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

/// Applies a change and returns the new counts. The count of bytes never falls below zero.
pub(super) fn change(tx: &mut Tx<'_>, workspace: WorkspaceId, by: Change, day: i64) -> Result<Used, Error> {
    tx.one(
        "UPDATE workspaces SET used_keys = used_keys + $2, used_members = used_members + $3, \
                used_invitations = used_invitations + $4, used_integrations = used_integrations + $5, \
                used_bytes = CASE WHEN used_bytes + $6 > 0 THEN used_bytes + $6 ELSE 0 END, \
                used_calls = CASE WHEN CAST($7 AS bigint) = 0 OR calls_day = $8 THEN used_calls + $7 ELSE $7 END, \
                calls_day = CASE WHEN CAST($7 AS bigint) = 0 THEN calls_day ELSE $8 END \
         WHERE id = $1 RETURNING used_keys, used_members, used_invitations, used_integrations, used_bytes, used_calls, \
                limits",
        &[
            workspace.into(),
            by.keys.into(),
            by.members.into(),
            by.invitations.into(),
            by.integrations.into(),
            by.bytes.into(),
            by.calls.into(),
            day.into(),
        ],
        used,
    )
}

/// Counts so many more bytes, and says how many there are then and which limits the operator set.
pub(super) fn add_bytes(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    more: i64,
) -> Result<(i64, Overrides), Error> {
    tx.one(
        "UPDATE workspaces SET used_bytes = used_bytes + $2 WHERE id = $1 RETURNING used_bytes, limits",
        &[workspace.into(), more.into()],
        |row| Ok((row.get(0)?, Overrides::column(row, 1)?)),
    )
}

/// Applies a change that no quota can refuse.
pub fn give_back(tx: &mut Tx<'_>, workspace: WorkspaceId, by: Change) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE workspaces SET used_keys = used_keys + $2, used_members = used_members + $3, \
                used_invitations = used_invitations + $4, used_integrations = used_integrations + $5, \
                used_bytes = CASE WHEN used_bytes + $6 > 0 THEN used_bytes + $6 ELSE 0 END WHERE id = $1",
        &[
            workspace.into(),
            by.keys.into(),
            by.members.into(),
            by.invitations.into(),
            by.integrations.into(),
            by.bytes.into(),
        ],
    )
}

/// The counts of a workspace, with those of calls for this day.
pub(super) fn read(tx: &mut Tx<'_>, workspace: WorkspaceId, day: i64) -> Result<Option<Used>, Error> {
    tx.optional(
        "SELECT used_keys, used_members, used_invitations, used_integrations, used_bytes, \
                CASE WHEN calls_day = $2 THEN used_calls ELSE 0 END, limits FROM workspaces WHERE id = $1",
        &[workspace.into(), day.into()],
        used,
    )
}

fn used(row: &Row<'_>) -> Result<Used, Error> {
    Ok(Used {
        counts: Change {
            keys: row.get(0)?,
            members: row.get(1)?,
            invitations: row.get(2)?,
            integrations: row.get(3)?,
            bytes: row.get(4)?,
            calls: row.get(5)?,
        },
        limits: Overrides::column(row, 6)?,
    })
}

/// Stores the operator's limits of a workspace.
pub(super) fn set_limits(tx: &mut WorkspaceGuard<'_, '_>, limits: &Overrides) -> Result<(), Error> {
    let workspace = tx.row();
    let text = limits.text();
    tx.execute_later(
        "UPDATE workspaces SET limits = $2 WHERE id = $1",
        &[workspace.into(), text.as_deref().map_or(Value::Null, Value::Json)],
    )
}
