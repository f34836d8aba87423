//! The SQL of Twilio accounts.

use ward_db::{Error, Tx, Value, columns, decode, insert, select};

use super::{Account, Mode};
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

columns! {
    Account as "t" {
        account_sid,
        auth_token,
        created_at,
        updated_at,
        secondary_auth_token,
        reconciliation => |mode: Option<Mode>| Ok(mode.unwrap_or_default()),
    }
}

pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Option<Account>, Error> {
    tx.optional(
        select!(Account, "FROM twilio_accounts t WHERE t.workspace_id = $1"),
        &[workspace.into()],
        decode,
    )
}

pub fn of_active(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Option<Account>, Error> {
    tx.optional(
        select!(
            Account,
            "FROM twilio_accounts t JOIN workspaces w ON w.id = t.workspace_id \
             WHERE t.workspace_id = $1 AND w.state = 'active'"
        ),
        &[workspace.into()],
        decode,
    )
}

/// Stores the workspace's Twilio account in place of the current one.
pub fn set(tx: &mut WorkspaceGuard<'_, '_>, account: &Account) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute("DELETE FROM twilio_accounts WHERE workspace_id = $1", &[workspace.into()])?;
    insert!(tx, "twilio_accounts" {
        workspace_id: workspace,
        account_sid: &account.account_sid,
        auth_token: &account.auth_token,
        created_at: account.created_at,
        updated_at: account.updated_at,
        secondary_auth_token: account.secondary_auth_token.as_deref(),
        reconciliation: account.reconciliation,
    })?;
    Ok(())
}

/// A workspace with its sealed tokens of Twilio: the first, and the second if there is one.
type Tokens = (WorkspaceId, Vec<u8>, Option<Vec<u8>>);

/// The sealed tokens of up to `most` workspaces after this one.
pub fn tokens(tx: &mut Tx<'_>, after: WorkspaceId, most: u32) -> Result<Vec<Tokens>, Error> {
    tx.all(
        "SELECT workspace_id, auth_token, secondary_auth_token FROM twilio_accounts \
         WHERE workspace_id > $1 ORDER BY workspace_id LIMIT $2",
        &[after.into(), most.into()],
        decode,
    )
}

/// The number of accounts with a token that does not begin with this mark of a key.
pub fn count_under_other_keys(tx: &mut Tx<'_>, mark: &[u8]) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM twilio_accounts WHERE substr(auth_token, 2, 4) <> $1 \
         OR (secondary_auth_token IS NOT NULL AND substr(secondary_auth_token, 2, 4) <> $1)",
        &[Value::Bytes(mark)],
        decode,
    )
}

/// Replaces a sealed token by the same token under the current key, unless the token changed in the
/// meantime. No two sealed values are equal, so the previous value identifies which of the two tokens it
/// is.
pub fn replace_token(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    former: &[u8],
    anew: &[u8],
) -> Result<(), Error> {
    tx.execute(
        "UPDATE twilio_accounts SET auth_token = $3 WHERE workspace_id = $1 AND auth_token = $2",
        &[workspace.into(), Value::Bytes(former), Value::Bytes(anew)],
    )?;
    tx.execute(
        "UPDATE twilio_accounts SET secondary_auth_token = $3 WHERE workspace_id = $1 AND secondary_auth_token = $2",
        &[workspace.into(), Value::Bytes(former), Value::Bytes(anew)],
    )?;
    Ok(())
}

/// Removes the workspace's Twilio account. Returns `false` if there was none.
pub fn remove(tx: &mut WorkspaceGuard<'_, '_>) -> Result<bool, Error> {
    let workspace = tx.row();
    let removed = tx.execute("DELETE FROM twilio_accounts WHERE workspace_id = $1", &[workspace.into()])?;
    Ok(removed == 1)
}

/// Removes the second token of the workspace's Twilio account.
pub fn remove_secondary_token(tx: &mut WorkspaceGuard<'_, '_>) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "UPDATE twilio_accounts SET secondary_auth_token = NULL WHERE workspace_id = $1",
        &[workspace.into()],
    )?;
    Ok(())
}
