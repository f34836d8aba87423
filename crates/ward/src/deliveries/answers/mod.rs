//! The attempts of deliveries, and the sealed beginnings of EHRs' answers, which they keep for people.

mod store;

use ward_db::{Error, Tx};

use crate::ids::{DeliveryId, WorkspaceId};
use crate::vault::{ResealResult, SealedRow, Vault};

pub use store::{Attempt, AttemptAt, note_attempt};

/// The associated data of the sealed answer to an attempt.
pub fn answer_place(workspace: WorkspaceId, delivery: DeliveryId, number: i64) -> String {
    format!("workspace/{workspace}/delivery/{delivery}/attempt/{number}")
}

/// Seals the answers of up to `most` attempts after this one again, under the current key. No decision depends on an
/// answer. So one that no key opens is left as it is, and does not count.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: AttemptAt,
    most: u32,
) -> Result<ResealResult<AttemptAt>, Error> {
    let attempts = store::answers(tx, after, most)?;
    let last = attempts.last().map(|(at, _)| *at);
    let rows = attempts.into_iter().filter_map(|(at, bytes)| {
        let place = answer_place(at.0, at.1, at.2);
        Some(SealedRow { at, place, bytes: bytes?, what: String::new() })
    });
    let resealed = vault.reseal_rows(rows.collect(), |row, anew| store::replace_answer(tx, row.at, anew))?;
    Ok(ResealResult { unopened: Vec::new(), last, ..resealed })
}

/// The number of answers that are sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, Error> {
    store::count_under_other_keys(tx, vault.key_mark())
}
