//! Handover: a link that shows the new secret of a key once, so that its creator never sees the secret that the
//! receiver uses.
//!
//! Ward stores only hashes, so a handover gives a key that was never used another secret. That secret waits, sealed under the
//! operator's key, for an hour at most. The link has its token in the fragment, which no request carries. So no log has it, and
//! the preview of a chat program opens nothing.

pub mod actions;
pub mod api;
mod store;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use ward_db::Tx;
use zeroize::Zeroizing;

use super::secret::SecretHash;
use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::vault::{ResealResult, SealedRow, Vault};

pub use store::forget_old;

const PREFIX: &str = "ward_handover_";
/// How long a link waits to be opened.
const WAITS: Duration = Duration::from_hours(1);

/// The token of a link, with its hash.
struct Token {
    text: Zeroizing<String>,
    hash: SecretHash,
}

impl Token {
    fn generate() -> Result<Self, crate::random::Error> {
        let mut bits = Zeroizing::new([0; 32]);
        crate::random::fill(&mut *bits)?;
        let text = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*bits)));
        Ok(Self { hash: hash_of(&text), text })
    }
}

/// The stored hash of a token. A token of 256 random bits needs no slow hash.
fn hash_of(text: &str) -> SecretHash {
    Sha256::digest(text.as_bytes()).into()
}

/// The associated data of a sealed secret, so that it opens for this key only.
fn place(workspace: WorkspaceId, key_id: &str) -> String {
    format!("workspace/{workspace}/key/{key_id}/handover")
}

/// The 404 for every token that opens nothing: unknown, used, or too late.
const fn no_handover() -> ApiError {
    ApiError::missing(
        "handover_not_found",
        "This link shows no key. It may have been opened already, or its time is over.",
    )
}

/// Seals up to `most` waiting secrets after this key id again, under the current key.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: &str,
    most: u32,
) -> Result<ResealResult<String>, ward_db::Error> {
    let rows = store::sealed(tx, after, most)?.into_iter().map(|(key_id, workspace, bytes)| SealedRow {
        place: place(workspace, &key_id),
        what: format!("the secret of key {key_id} of workspace {workspace}, which waits for its handover"),
        at: key_id,
        bytes,
    });
    vault.reseal_rows(rows.collect(), |row, anew| store::replace_secret(tx, &row.at, anew))
}

/// The number of waiting secrets that are sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, ward_db::Error> {
    store::count_under_other_keys(tx, vault.key_mark())
}
