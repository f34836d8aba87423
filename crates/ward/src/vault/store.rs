//! The SQL of the operator's keys. Only their check values are ever stored.

use ward_db::{Error, Tx, decode, insert};

/// The row of the key that the database was first used with or last rotated to. The first insert of it
/// wins.
const FIRST: &str = "master_key_check";

fn name_of(check: &str) -> String {
    format!("{FIRST}:{}", &check[..16])
}

/// Whether the key of this check value is recorded. If so, its row stays until this transaction ends.
pub(super) fn hold(tx: &mut Tx<'_>, check: &str) -> Result<bool, Error> {
    for name in [&*name_of(check), FIRST] {
        // An update takes the row on every engine, so a rotation that forgets the key waits for writes that
        // seal under it.
        let held = tx.execute(
            "UPDATE settings SET value = value WHERE name = $1 AND value = $2",
            &[name.into(), check.into()],
        )?;
        if held == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records the check value of the current key, the first of `known` (the check values of all keys of this
/// process). Returns `false`, and records nothing more, if a recorded key is not in `known`.
pub fn note_check_value(tx: &mut Tx<'_>, known: &[String]) -> Result<bool, Error> {
    let Some(current) = known.first() else { return Ok(false) };
    insert(tx, FIRST, current)?;
    let noted = check_values(tx)?;
    if noted.iter().any(|value| !known.contains(value)) {
        return Ok(false);
    }
    if !noted.contains(current) {
        // From now on a replica without this key is refused, because it could not open values sealed here.
        insert(tx, &name_of(current), current)?;
    }
    Ok(true)
}

/// Forgets every key but the current one. The current key's own rows stay: a transaction that seals under
/// it holds one of them, and would not find a replacement.
pub fn keep_only(tx: &mut Tx<'_>, current: &str) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM settings WHERE name >= 'master_key_check' AND name < 'master_key_checl' AND value <> $1",
        &[current.into()],
    )?;
    insert(tx, FIRST, current)
}

#[derive(Clone, Copy, Debug)]
pub struct RecordedKeys {
    pub all: usize,
    /// The number of recorded keys that the caller does not have.
    pub foreign: usize,
}

/// Counts the recorded keys, and those of them that are not in `known`.
pub fn recorded_keys(tx: &mut Tx<'_>, known: &[String]) -> Result<RecordedKeys, Error> {
    let all = check_values(tx)?;
    Ok(RecordedKeys { all: all.len(), foreign: all.iter().filter(|value| !known.contains(value)).count() })
}

fn check_values(tx: &mut Tx<'_>) -> Result<Vec<String>, Error> {
    tx.all(
        "SELECT value FROM settings WHERE name >= 'master_key_check' AND name < 'master_key_checl' ORDER BY name",
        &[],
        decode,
    )
}

/// Whether a key was ever recorded, and so may have sealed something.
pub fn is_used(tx: &mut Tx<'_>) -> Result<bool, Error> {
    let noted = tx.optional(
        "SELECT 1 FROM settings WHERE name >= 'master_key_check' AND name < 'master_key_checl' LIMIT 1",
        &[],
        |_| Ok(()),
    )?;
    Ok(noted.is_some())
}

/// Forgets every key, for a database without sealed values. The next server records its own key.
pub fn forget_all(tx: &mut Tx<'_>) -> Result<(), Error> {
    tx.execute("DELETE FROM settings WHERE name >= 'master_key_check' AND name < 'master_key_checl'", &[])?;
    Ok(())
}

fn insert(tx: &mut Tx<'_>, name: &str, value: &str) -> Result<(), Error> {
    insert!(tx, "settings" { name: name, value: value } "ON CONFLICT (name) DO NOTHING")?;
    Ok(())
}
