//! The rotation of the master key: everything that is sealed under a former one is sealed anew.

use serde::Serialize;
use uuid::Uuid;
use ward_db::{Timestamp, Tx};

use super::OperatorError;
use crate::app::App;
use crate::calls::twilio;
use crate::error::ApiError;
use crate::http::idempotency;
use crate::ids::WorkspaceId;
use crate::integrations;
use crate::vault::{self, Resealed, Vault};

/// How many rows of one kind one transaction seals anew.
const AT_ONCE: u32 = 200;
/// How often everything is gone through: a server that still has a former key in force adds to it meanwhile.
const PASSES: u32 = 3;

/// How far a rotation is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What was sealed anew.
    pub done: usize,
    /// What there was at the start.
    pub of: usize,
}

/// What a rotation came to. Counted are the secrets of integrations, Twilio's tokens, and answers kept for a repeat.
#[derive(Debug, Serialize)]
pub struct Rotated {
    /// What was sealed anew.
    pub done: usize,
    /// What there was at the start.
    pub of: usize,
    /// What could not be opened with the keys here.
    pub unopened: Vec<String>,
    /// What is still sealed under another key. As long as there is anything, the former keys stay noted.
    pub left: usize,
}

/// Why the former keys are not forgotten.
enum Kept {
    /// So much is still sealed under them.
    Left(i64),
    Failed(ApiError),
}

impl From<ward_db::Error> for Kept {
    fn from(error: ward_db::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApiError> for Kept {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// Seals everything that is under a former key anew, in small steps beside running servers, and then forgets the former
/// keys: a process that has only those is refused at start, and seals nothing. Can be broken off and begun again.
pub async fn rotate_secrets(app: &App, progress: impl Fn(Progress)) -> Result<Rotated, OperatorError> {
    let (vault, now) = (app.vault.clone(), app.clock.now());
    let counted = app.db.read_long("operator.count_sealed", move |tx| count(tx, &vault, now)).await?;
    let mut rotated =
        Rotated { done: 0, of: usize::try_from(counted).unwrap_or_default(), unopened: Vec::new(), left: 0 };
    for _ in 0..PASSES {
        rotated.unopened.clear();
        pass(app, &mut rotated, &progress).await?;
        rotated.left = forget_former_keys(app).await?;
        if rotated.left <= rotated.unopened.len() {
            break;
        }
    }
    Ok(rotated)
}

/// How much is sealed under another key than the one in force.
fn count(tx: &mut Tx<'_>, vault: &Vault, now: Timestamp) -> Result<i64, ApiError> {
    Ok(integrations::count_under_other_keys(tx, vault)?
        + twilio::count_under_other_keys(tx, vault)?
        + idempotency::count_under_other_keys(tx, vault, now)?)
}

impl Rotated {
    /// Adds a step, and says after which row the next begins.
    fn add<A>(&mut self, step: Resealed<A>, progress: &impl Fn(Progress)) -> Option<A> {
        self.done += step.done;
        self.unopened.extend(step.unopened);
        if step.done > 0 {
            progress(Progress { done: self.done, of: self.of });
        }
        step.last
    }
}

async fn pass(app: &App, rotated: &mut Rotated, progress: &impl Fn(Progress)) -> Result<(), OperatorError> {
    let mut after = None;
    loop {
        let (vault, from) = (app.vault.clone(), after.clone());
        let step = app
            .db
            .write("operator.reseal", move |tx| integrations::reseal(tx, &vault, from.as_ref()))
            .await?;
        after = rotated.add(step, progress);
        if after.is_none() {
            break;
        }
    }
    let mut after = Some(WorkspaceId(Uuid::nil()));
    while let Some(workspace) = after {
        let vault = app.vault.clone();
        let step = app
            .db
            .write("operator.reseal_twilio", move |tx| twilio::reseal(tx, &vault, workspace, AT_ONCE))
            .await?;
        after = rotated.add(step, progress);
    }
    let now = app.clock.now();
    let mut after = Some(String::new());
    while let Some(scope) = after {
        let vault = app.vault.clone();
        let step = app
            .db
            .write("operator.reseal_answers", move |tx| idempotency::reseal(tx, &vault, now, &scope, AT_ONCE))
            .await?;
        after = rotated.add(step, progress);
    }
    Ok(())
}

/// Forgets every key but the one in force, unless something is still sealed under another. Returns how much.
async fn forget_former_keys(app: &App) -> Result<usize, OperatorError> {
    let (vault, now) = (app.vault.clone(), app.clock.now());
    let forgotten = app
        .db
        .write("operator.forget_keys", move |tx| {
            // First this, which waits for whoever seals under one of them at this moment; then what that led to counts.
            vault::keep_only(tx, vault.check_value())?;
            match count(tx, &vault, now)? {
                0 => Ok(()),
                left => Err(Kept::Left(left)),
            }
        })
        .await;
    match forgotten {
        Ok(()) => Ok(0),
        Err(Kept::Left(left)) => Ok(usize::try_from(left).unwrap_or(usize::MAX)),
        Err(Kept::Failed(error)) => Err(error.into()),
    }
}
