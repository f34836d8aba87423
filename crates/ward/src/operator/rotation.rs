//! The rotation of the master key: values under a previous key are sealed again under the current one.

use serde::Serialize;
use uuid::Uuid;
use ward_db::{Timestamp, Tx};

use super::OperatorError;
use crate::api_keys::handover;
use crate::app::App;
use crate::calls::{correcting, patients};
use crate::deliveries::{answers, matching};
use crate::error::ApiError;
use crate::gate::idempotency;
use crate::ids::{CallId, DeliveryId, IntegrationId, WorkspaceId};
use crate::integrations;
use crate::twilio;
use crate::vault::{self, ResealResult, Vault};

/// Rows of one kind that one transaction seals again.
const AT_ONCE: u32 = 200;
/// Passes over all values. A server that still seals under a previous key adds more in the meantime.
const PASSES: u32 = 3;

/// The progress of a rotation, counted in sealed values.
#[derive(Clone, Copy, Debug)]
pub struct RotationProgress {
    /// Values that were sealed again so far.
    pub done: usize,
    /// Values to seal again, as counted at the start.
    pub of: usize,
}

/// The result of a rotation. It counts secrets of integrations, Twilio tokens, corrections of calls, answers of EHRs,
/// secrets that wait for their handover, and answers kept for replays.
#[derive(Debug, Serialize)]
pub struct RotationReport {
    /// Values that this run sealed again.
    pub done: usize,
    /// Values to seal again, as counted at the start.
    pub of: usize,
    /// Values that none of the configured keys opens.
    pub unopened: Vec<String>,
    /// Values still sealed under another key. While there are any, the database keeps its record of the
    /// previous keys.
    pub left: usize,
}

/// The reason why the previous keys are not forgotten.
enum RetentionReason {
    /// The number of values that are still sealed under them.
    Left(i64),
    Failed(ApiError),
}

impl From<ward_db::Error> for RetentionReason {
    fn from(error: ward_db::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApiError> for RetentionReason {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// Seals every value under a previous key again, in small steps beside running servers, and then forgets
/// the previous keys. A process that has only those is then refused at start, and seals nothing. An
/// interrupted rotation can be started again.
pub async fn rotate_secrets(
    app: &App,
    progress: impl Fn(RotationProgress),
) -> Result<RotationReport, OperatorError> {
    let (vault, now) = (app.vault.clone(), app.clock.now());
    let counted = app.db.read_long("operator.count_sealed", move |tx| {
        Ok::<_, ApiError>(count(tx, &vault, now)? + answers::count_under_other_keys(tx, &vault)?)
    });
    let counted = counted.await?;
    let mut rotated = RotationReport {
        done: 0,
        of: usize::try_from(counted).unwrap_or_default(),
        unopened: Vec::new(),
        left: 0,
    };
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

/// The number of values sealed under another key than the current one, without the answers of EHRs. Those may be too
/// many to count in a write, and nothing depends on them.
fn count(tx: &mut Tx<'_>, vault: &Vault, now: Timestamp) -> Result<i64, ApiError> {
    Ok(integrations::count_under_other_keys(tx, vault)?
        + twilio::count_under_other_keys(tx, vault)?
        + correcting::count_under_other_keys(tx, vault)?
        + patients::count_under_other_keys(tx, vault)?
        + handover::count_under_other_keys(tx, vault)?
        + idempotency::count_under_other_keys(tx, vault, now)?)
}

impl RotationReport {
    /// Adds a step's counts, and returns the row after which the next step begins.
    fn add<A>(&mut self, step: ResealResult<A>, progress: &impl Fn(RotationProgress)) -> Option<A> {
        self.done += step.done;
        self.unopened.extend(step.unopened);
        if step.done > 0 {
            progress(RotationProgress { done: self.done, of: self.of });
        }
        step.last
    }
}

async fn pass(
    app: &App,
    rotated: &mut RotationReport,
    progress: &impl Fn(RotationProgress),
) -> Result<(), OperatorError> {
    const NIL: Uuid = Uuid::nil();
    let (none, now) = (WorkspaceId(NIL), app.clock.now());
    let mut pass = Pass { app, rotated, progress };
    let first = (none, IntegrationId(NIL), String::new());
    pass.over("operator.reseal", first, |tx, vault, at| integrations::reseal(tx, vault, Some(at))).await?;
    let twilio = |tx: &mut Tx<'_>, vault: &Vault, at: &_| twilio::reseal(tx, vault, *at, AT_ONCE);
    pass.over("operator.reseal_twilio", none, twilio).await?;
    let replays =
        move |tx: &mut Tx<'_>, vault: &Vault, at: &String| idempotency::reseal(tx, vault, now, at, AT_ONCE);
    pass.over("operator.reseal_answers", String::new(), replays).await?;
    let corrections = |tx: &mut Tx<'_>, vault: &Vault, at: &_| correcting::reseal(tx, vault, *at, AT_ONCE);
    pass.over("operator.reseal_corrections", (none, CallId(NIL), 0), corrections).await?;
    let people = |tx: &mut Tx<'_>, vault: &Vault, at: &_| patients::reseal(tx, vault, *at, AT_ONCE);
    pass.over("operator.reseal_patients", (none, CallId(NIL)), people).await?;
    let matches = |tx: &mut Tx<'_>, vault: &Vault, at: &_| matching::reseal(tx, vault, *at, AT_ONCE);
    pass.over("operator.reseal_matches", (none, DeliveryId(NIL), matching::Part::Matched), matches).await?;
    let handovers = |tx: &mut Tx<'_>, vault: &Vault, at: &String| handover::reseal(tx, vault, at, AT_ONCE);
    pass.over("operator.reseal_handovers", String::new(), handovers).await?;
    let attempts = |tx: &mut Tx<'_>, vault: &Vault, at: &_| answers::reseal(tx, vault, *at, AT_ONCE);
    pass.over("operator.reseal_attempts", (none, DeliveryId(NIL), 0), attempts).await
}

/// One pass over all rows with sealed values.
struct Pass<'a, P> {
    app: &'a App,
    rotated: &'a mut RotationReport,
    progress: &'a P,
}

impl<P: Fn(RotationProgress)> Pass<'_, P> {
    /// Seals the rows of one kind again, after the position `first`. Each step is a write of its own.
    async fn over<A, E>(
        &mut self,
        name: &'static str,
        first: A,
        step: impl Fn(&mut Tx<'_>, &Vault, &A) -> Result<ResealResult<A>, E> + Copy + Send + 'static,
    ) -> Result<(), OperatorError>
    where
        A: Send + 'static,
        E: From<ward_db::Error> + Send + 'static,
        OperatorError: From<E>,
    {
        let mut after = Some(first);
        while let Some(at) = after {
            let vault = self.app.vault.clone();
            let done = self.app.db.write(name, move |tx| step(tx, &vault, &at)).await?;
            after = self.rotated.add(done, self.progress);
        }
        Ok(())
    }
}

/// Forgets every key but the current one, unless values are still sealed under another. Returns their
/// number.
async fn forget_former_keys(app: &App) -> Result<usize, OperatorError> {
    let (vault, now) = (app.vault.clone(), app.clock.now());
    let forgotten = app
        .db
        .write("operator.forget_keys", move |tx| {
            // This statement waits for writes that are sealing under a previous key. Their rows are part of
            // the count that follows.
            vault::keep_only(tx, vault.check_value())?;
            match count(tx, &vault, now)? {
                0 => Ok(()),
                left => Err(RetentionReason::Left(left)),
            }
        })
        .await;
    match forgotten {
        Ok(()) => Ok(0),
        Err(RetentionReason::Left(left)) => Ok(usize::try_from(left).unwrap_or(usize::MAX)),
        Err(RetentionReason::Failed(error)) => Err(error.into()),
    }
}
