//! The SQL of Twilio accounts.

use ward_db::{Error, Row, Tx, Value};

use super::Account;
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

fn account(row: &Row<'_>) -> Result<Account, Error> {
    Ok(Account {
        account_sid: row.get(0)?,
        auth_token: row.get(1)?,
        created_at: row.get(2)?,
        updated_at: row.get(3)?,
        secondary_auth_token: row.get(4)?,
    })
}

/// The workspace's Twilio account, if there is one.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Option<Account>, Error> {
    tx.optional(
        "SELECT account_sid, auth_token, created_at, updated_at, secondary_auth_token FROM twilio_accounts WHERE workspace_id = $1",
        &[workspace.into()],
        account,
    )
}

/// The Twilio account of the workspace, if the workspace is active.
pub fn of_active(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Option<Account>, Error> {
    tx.optional(
        "SELECT t.account_sid, t.auth_token, t.created_at, t.updated_at, t.secondary_auth_token \
         FROM twilio_accounts t \
         JOIN workspaces w ON w.id = t.workspace_id WHERE t.workspace_id = $1 AND w.state = 'active'",
        &[workspace.into()],
        account,
    )
}

/// Stores the workspace's Twilio account in place of the current one.
pub fn set(tx: &mut WorkspaceGuard<'_, '_>, account: &Account) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute("DELETE FROM twilio_accounts WHERE workspace_id = $1", &[workspace.into()])?;
    tx.execute(
        "INSERT INTO twilio_accounts (workspace_id, account_sid, auth_token, created_at, updated_at, \
                secondary_auth_token) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            workspace.into(),
            account.account_sid.as_str().into(),
            Value::Bytes(&account.auth_token),
            account.created_at.into(),
            account.updated_at.into(),
            account.secondary_auth_token.as_deref().map_or(Value::Null, Value::Bytes),
        ],
    )?;
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
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

/// The number of accounts with a token that does not begin with this mark of a key.
pub fn count_under_other_keys(tx: &mut Tx<'_>, mark: &[u8]) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM twilio_accounts WHERE substr(auth_token, 2, 4) <> $1 \
         OR (secondary_auth_token IS NOT NULL AND substr(secondary_auth_token, 2, 4) <> $1)",
        &[Value::Bytes(mark)],
        |row| row.get(0),
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
