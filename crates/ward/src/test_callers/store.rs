//! The SQL of test callers and test credentials.

use ward_db::{Error, Json, Timestamp, Tx, Value, decode, insert_later, sql};

use super::{Former, TestParties};
use crate::api_keys;
use crate::guard::WorkspaceGuard;
use crate::ids::{CredentialId, WorkspaceId};

/// The numbers of the workspace's test callers, in the order in which they were set.
pub fn numbers(tx: &mut Tx<'_>, id: WorkspaceId) -> Result<Vec<String>, Error> {
    tx.all("SELECT number FROM test_callers WHERE workspace_id = $1 ORDER BY ordinal", &[id.into()], decode)
}

/// Looks up two numbers in the list of test callers, and two credentials in the list of test credentials.
/// The result also has the current version of the list of test callers.
pub fn parties(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    caller: Option<&str>,
    callee: Option<&str>,
    credentials: [Option<CredentialId>; 2],
) -> Result<TestParties, Error> {
    tx.one(
        "SELECT (SELECT 1 FROM test_callers WHERE workspace_id = $1 AND number = $2) IS NOT NULL, \
                (SELECT 1 FROM test_callers WHERE workspace_id = $1 AND number = $3) IS NOT NULL, \
                (SELECT 1 FROM test_credentials WHERE workspace_id = $1 AND credential_id = $4) IS NOT NULL, \
                (SELECT 1 FROM test_credentials WHERE workspace_id = $1 AND credential_id = $5) IS NOT NULL, \
                (SELECT version FROM test_caller_lists WHERE workspace_id = $1 ORDER BY version DESC LIMIT 1)",
        &[id.into(), caller.into(), callee.into(), credentials[0].into(), credentials[1].into()],
        |row| {
            let (caller, callee, first, second, version): (_, _, bool, bool, Option<i64>) = row.read()?;
            Ok(TestParties { caller, callee, credential: first || second, version: version.unwrap_or(0) })
        },
    )
}

/// Versions of the list that one look-up reads.
const VERSIONS_READ: i64 = 200;

/// Looks up two numbers in every version of the list of test callers that was in force at `since` or later, the newest first.
pub fn parties_since(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    (caller, callee): (Option<&str>, Option<&str>),
    since: Timestamp,
) -> Result<Former, Error> {
    let kept: Vec<(i64, Json, Timestamp)> = tx.all(
        "SELECT version, numbers, set_at FROM test_caller_lists WHERE workspace_id = $1 ORDER BY version DESC LIMIT $2",
        &[id.into(), VERSIONS_READ.into()],
        decode,
    )?;
    let read_all = i64::try_from(kept.len()).unwrap_or(i64::MAX) < VERSIONS_READ;
    for (version, Json(text), set_at) in kept {
        let numbers: Vec<String> = serde_json::from_str(&text).map_err(Error::unreadable)?;
        let has = |number: Option<&str>| number.is_some_and(|number| numbers.iter().any(|one| one == number));
        let listed = TestParties { caller: has(caller), callee: has(callee), credential: false, version };
        if listed.caller || listed.callee {
            return Ok(Former::Listed(listed));
        }
        if set_at <= since {
            return Ok(Former::NotListed);
        }
    }
    Ok(if read_all { Former::NotListed } else { Former::TooMany })
}

/// The version of the workspace's list of test callers. 0 is the list before its first change.
pub fn version(tx: &mut Tx<'_>, id: WorkspaceId) -> Result<i64, Error> {
    let latest = tx.optional(
        "SELECT version FROM test_caller_lists WHERE workspace_id = $1 ORDER BY version DESC LIMIT 1",
        &[id.into()],
        decode,
    )?;
    Ok(latest.unwrap_or(0))
}

/// The list of test callers in this version. A list that never changed has no stored version; version 0 is
/// then the current list.
pub fn numbers_of(tx: &mut Tx<'_>, id: WorkspaceId, version: i64) -> Result<Vec<String>, Error> {
    let kept = tx.optional(
        "SELECT numbers FROM test_caller_lists WHERE workspace_id = $1 AND version = $2",
        &[id.into(), version.into()],
        decode::<Json>,
    )?;
    match kept {
        Some(Json(text)) => serde_json::from_str(&text).map_err(Error::unreadable),
        None if version == 0 => numbers(tx, id),
        None => Ok(Vec::new()),
    }
}

/// Stores a version of the list. Versions are never deleted.
pub fn keep_numbers(
    tx: &mut WorkspaceGuard<'_, '_>,
    version: i64,
    numbers: &[String],
    set_at: Timestamp,
) -> Result<(), Error> {
    let id = tx.row();
    let numbers = serde_json::Value::from(numbers.to_vec()).to_string();
    insert_later!(tx, "test_caller_lists" {
        workspace_id: id,
        version: version,
        numbers: Value::Json(&numbers),
        set_at: set_at,
    } "ON CONFLICT (workspace_id, version) DO NOTHING")?;
    Ok(())
}

pub fn set_numbers(tx: &mut WorkspaceGuard<'_, '_>, numbers: &[String]) -> Result<(), Error> {
    let id = tx.row();
    tx.execute_later("DELETE FROM test_callers WHERE workspace_id = $1", &[id.into()])?;
    for (ordinal, number) in (0_i64..).zip(numbers) {
        insert_later!(tx, "test_callers" { workspace_id: id, ordinal: ordinal, number: number })?;
    }
    Ok(())
}

/// The workspace's test credentials whose keys are live, in the order in which they were set.
pub fn credentials(tx: &mut Tx<'_>, id: WorkspaceId, now: Timestamp) -> Result<Vec<CredentialId>, Error> {
    const SQL: &str = sql!(
        "SELECT t.ordinal, t.credential_id FROM test_credentials t JOIN api_keys k ON k.id = t.credential_id \
         WHERE t.workspace_id = $1 AND k.revoked_at IS NULL AND k.expires_at > $2 AND ",
        api_keys::LIVE
    );
    let mut found: Vec<(i64, CredentialId)> = tx.all(SQL, &[id.into(), now.into()], decode)?;
    // The list has at most a hundred entries, so it is sorted here.
    found.sort_by_key(|(ordinal, _)| *ordinal);
    Ok(found.into_iter().map(|(_, credential)| credential).collect())
}

pub fn set_credentials(tx: &mut WorkspaceGuard<'_, '_>, credentials: &[CredentialId]) -> Result<(), Error> {
    let id = tx.row();
    tx.execute_later("DELETE FROM test_credentials WHERE workspace_id = $1", &[id.into()])?;
    for (ordinal, credential) in (0_i64..).zip(credentials) {
        insert_later!(tx, "test_credentials" { workspace_id: id, credential_id: *credential, ordinal: ordinal })?;
    }
    Ok(())
}

/// Removes ended keys from the list of test credentials, which has at most a hundred entries.
pub fn forget_ended_credentials(tx: &mut WorkspaceGuard<'_, '_>, now: Timestamp) -> Result<(), Error> {
    let id = tx.row();
    let listed: Vec<CredentialId> =
        tx.all("SELECT credential_id FROM test_credentials WHERE workspace_id = $1", &[id.into()], decode)?;
    if listed.is_empty() {
        return Ok(());
    }
    let live = credentials(tx, id, now)?;
    for ended in listed.into_iter().filter(|credential| !live.contains(credential)) {
        tx.execute_later(
            "DELETE FROM test_credentials WHERE workspace_id = $1 AND credential_id = $2",
            &[id.into(), ended.into()],
        )?;
    }
    Ok(())
}

/// Whether the workspace has test callers, and whether it has live test credentials.
pub fn has_test_lists(tx: &mut Tx<'_>, id: WorkspaceId, now: Timestamp) -> Result<(bool, bool), Error> {
    let callers = tx.one(
        "SELECT (SELECT 1 FROM test_callers WHERE workspace_id = $1 LIMIT 1) IS NOT NULL",
        &[id.into()],
        decode,
    )?;
    Ok((callers, !credentials(tx, id, now)?.is_empty()))
}
