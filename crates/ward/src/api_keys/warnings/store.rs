//! The SQL of warnings.

use ward_db::{Error, Timestamp, Tx, columns, decode, select, sql};

use super::{CLOCKS, DAYS, DueKey, days};
use crate::api_keys::LIVE;
use crate::guard::WorkspaceGuard;

/// The state of the workspace of key `k`, of which the keys of an archived one are refused.
const ACTIVE: &str = "(SELECT h.state FROM workspaces h WHERE h.id = k.workspace_id) = 'active'";

columns! {
    DueKey as "k" {
        id,
        key_id,
        workspace: "k.workspace_id",
        name,
        role,
        expires_at,
        passed: "k.warnings",
        live: sql!(ACTIVE, " AND ", LIVE),
    }
}

/// Keys that have passed more warnings, or fewer, than their rows count. Too many are counted only where an older Ward rotated
/// the key.
pub fn due(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<Vec<DueKey>, Error> {
    const BETWEEN: &str = select!(
        DueKey,
        "FROM api_keys k WHERE k.warnings = $1 AND k.revoked_at IS NULL AND k.expires_at > $2 AND k.expires_at <= $3 \
         ORDER BY k.expires_at LIMIT $4"
    );
    const AFTER: &str = select!(
        DueKey,
        "FROM api_keys k WHERE k.warnings = $1 AND k.revoked_at IS NULL AND k.expires_at > $2 \
         ORDER BY k.expires_at LIMIT $3"
    );
    let mut found = Vec::new();
    for (passed, before) in (0_i64..).zip(DAYS) {
        let until = now.saturating_add(days(before));
        found.extend(tx.all(BETWEEN, &[passed.into(), now.into(), until.into(), most.into()], decode)?);
        let too_late = until.saturating_add(CLOCKS);
        found.extend(tx.all(AFTER, &[(passed + 1).into(), too_late.into(), most.into()], decode)?);
    }
    Ok(found)
}

/// Stores the number of passed warnings. Returns `false` if the key was rotated, revoked or warned about since it was read.
pub fn pass(tx: &mut WorkspaceGuard<'_, '_>, key: &DueKey, passed: i64) -> Result<bool, Error> {
    let moved = tx.execute(
        "UPDATE api_keys SET warnings = $2 \
         WHERE key_id = $1 \
           AND CASE WHEN warnings = $3 AND expires_at = $4 AND revoked_at IS NULL THEN 1 ELSE 0 END = 1",
        &[key.key_id.as_str().into(), passed.into(), key.passed.into(), key.expires_at.into()],
    )?;
    Ok(moved == 1)
}

/// The keys of active workspaces that expire within each number of days, counted no further than `most` for each number of
/// passed warnings.
pub fn count(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<[i64; DAYS.len()], Error> {
    const COUNTED: &str = sql!(
        "SELECT count(*), count(CASE WHEN expires_at <= $4 THEN 1 END), count(CASE WHEN expires_at <= $5 THEN 1 END) \
         FROM (SELECT k.expires_at FROM api_keys k \
               WHERE k.warnings = $1 AND k.revoked_at IS NULL AND k.expires_at > $2 AND k.expires_at <= $3 AND ",
        ACTIVE,
        " LIMIT $6) AS counted"
    );
    let [first, second, third] = DAYS.map(|before| now.saturating_add(days(before)));
    let mut all = [0; DAYS.len()];
    for passed in (0_i64..).take(DAYS.len() + 1) {
        let values = [passed.into(), now.into(), first.into(), second.into(), third.into(), most.into()];
        let (one, two, three): (i64, i64, i64) = tx.one(COUNTED, &values, decode)?;
        for (sum, found) in all.iter_mut().zip([one, two, three]) {
            *sum += found;
        }
    }
    Ok(all)
}
