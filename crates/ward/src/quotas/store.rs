//! The SQL of quotas: counts in the workspace's guard row.

use ward_db::{Error, Tx, Value, columns, decode, sql};

use super::{Change, Overrides, Usage};
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

/// The assignments of a change whose values are `$2` to `$6`.
const COUNTED: &str = "used_keys = used_keys + $2, used_members = used_members + $3, \
    used_invitations = used_invitations + $4, used_integrations = used_integrations + $5, \
    used_bytes = CASE WHEN used_bytes + $6 > 0 THEN used_bytes + $6 ELSE 0 END";

/// Applies a change and returns the new counts. The count of bytes never falls below zero.
pub(super) fn change(tx: &mut Tx<'_>, workspace: WorkspaceId, by: Change, day: i64) -> Result<Usage, Error> {
    tx.one(
        sql!(
            "UPDATE workspaces SET ",
            COUNTED,
            ", \
                used_calls = CASE WHEN CAST($7 AS bigint) = 0 OR calls_day = $8 THEN used_calls + $7 ELSE $7 END, \
                calls_day = CASE WHEN CAST($7 AS bigint) = 0 THEN calls_day ELSE $8 END \
         WHERE id = $1 RETURNING ",
            Change::COLUMNS,
            ", used_calls, limits"
        ),
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
        |row| row.read().map(used),
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
        decode,
    )
}

/// Applies a change that no quota can refuse.
pub fn give_back(tx: &mut Tx<'_>, workspace: WorkspaceId, by: Change) -> Result<(), Error> {
    tx.execute_later(
        sql!("UPDATE workspaces SET ", COUNTED, " WHERE id = $1"),
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
pub(super) fn read(tx: &mut Tx<'_>, workspace: WorkspaceId, day: i64) -> Result<Option<Usage>, Error> {
    tx.optional(
        sql!(
            "SELECT ",
            Change::COLUMNS,
            ", CASE WHEN calls_day = $2 THEN used_calls ELSE 0 END, limits FROM workspaces WHERE id = $1"
        ),
        &[workspace.into(), day.into()],
        |row| row.read().map(used),
    )
}

columns! {
    Change {
        keys: "used_keys",
        members: "used_members",
        invitations: "used_invitations",
        integrations: "used_integrations",
        bytes: "used_bytes";
        calls: 0,
    }
}

fn used((counts, calls, limits): (Change, i64, Overrides)) -> Usage {
    Usage { counts: Change { calls, ..counts }, limits }
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
