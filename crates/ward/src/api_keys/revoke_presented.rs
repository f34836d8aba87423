//! A secret is revoked by its presentation, without any other credential: for a key that was found in a log or a repository.
//!
//! Possession is the proof. The holder of a key could misuse it in every other way, so the revocation is never refused, not even
//! for the last way into a workspace. The operator can issue another key.

use std::sync::Arc;

use ward_db::{Timestamp, Tx};

use super::actions::{end, end_previous};
use super::secret::Presented;
use super::{KeyRecord, Secret, store};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::context::Context;
use crate::error::ApiError;

/// Revokes the presented key, or only the previous secret of a rotation with an overlap. Returns whether the secret was valid
/// until now.
///
/// An unknown secret costs a read and never reaches the writer.
pub async fn revoke_presented(
    app: &App,
    context: Arc<Context>,
    presented: Presented,
) -> Result<bool, ApiError> {
    let now = context.now;
    let found = app.db.read("api_keys.presented", move |tx| valid_key(tx, &presented, now)).await?;
    let Some((KeyRecord { home, .. }, _)) = found else { return Ok(false) };
    let revoke = move |tx: &mut Tx<'_>| {
        let mut write = Write::begin(tx, home, Actor::NOBODY, &context)?;
        // Another transaction may have ended the secret before this one took the guard row.
        let Some((record, secret)) = valid_key(&mut write, &presented, now)? else { return Ok(false) };
        let Some(key) = store::get_anywhere(&mut write, presented.key_id)? else { return Ok(false) };
        write.actor = Actor::new(record.principal, record.credential);
        match secret {
            Secret::Current => end(&mut write, &key, None)?,
            Secret::Previous { .. } => drop(end_previous(&mut write, key, None)?),
        }
        Ok::<_, ApiError>(true)
    };
    app.db.write("api_keys.revoke_presented", revoke).await
}

/// The key with the presented secret, if the secret is valid now.
pub fn valid_key(
    tx: &mut Tx<'_>,
    presented: &Presented,
    now: Timestamp,
) -> Result<Option<(KeyRecord, Secret)>, ward_db::Error> {
    let Some(record) = store::look_up(tx, presented.key_id)? else { return Ok(None) };
    let secret = record.proven_by(&presented.hash, now).ok();
    Ok(secret.map(|secret| (record, secret)))
}
