//! The SQL of attempts, and of their sealed answers for the rotation of the master key.

use ward_db::{Error, Timestamp, Tx, Value, decode, insert_later};

use crate::ids::{DeliveryId, WorkspaceId};

#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The outcome as one word, such as `synced`.
    pub outcome: &'a str,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// The answer of the EHR, or the reason why nothing was sent, as JSON.
    pub detail: Option<&'a str>,
    /// The content type of the answer.
    pub content_type: Option<&'a str>,
    /// The beginning of the answer, sealed.
    pub answer: Option<&'a [u8]>,
    /// Creates of the delivery whose outcome was unknown, this one included.
    pub unknowns: i64,
}

/// Stores an attempt of a delivery, unless it is stored already.
pub fn note_attempt(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
    number: i64,
    attempt: &Attempt<'_>,
) -> Result<(), Error> {
    insert_later!(tx, "delivery_attempts" {
        workspace_id: workspace,
        delivery_id: delivery,
        number: number,
        outcome: attempt.outcome,
        status: attempt.status.map(u32::from),
        started_at: attempt.started_at,
        ended_at: attempt.ended_at,
        detail: attempt.detail.map(Value::Json),
        content_type: attempt.content_type,
        answer: attempt.answer.map(Value::Bytes),
    } "ON CONFLICT (workspace_id, delivery_id, number) DO NOTHING")
}

/// The key of an attempt: workspace, delivery and number.
pub type AttemptAt = (WorkspaceId, DeliveryId, i64);

/// An attempt with its sealed answer, if it has one.
pub type SealedAnswer = (AttemptAt, Option<Vec<u8>>);

/// Up to `most` attempts of all workspaces after this one, with their sealed answers. Attempts without an answer are
/// among them, so that the time of one query has a bound.
pub fn answers(
    tx: &mut Tx<'_>,
    (workspace, delivery, number): AttemptAt,
    most: u32,
) -> Result<Vec<SealedAnswer>, Error> {
    tx.all(
        "SELECT workspace_id, delivery_id, number, answer FROM delivery_attempts \
         WHERE (workspace_id, delivery_id, number) > ($1, $2, $3) \
         ORDER BY workspace_id, delivery_id, number LIMIT $4",
        &[workspace.into(), delivery.into(), number.into(), most.into()],
        decode,
    )
}

/// The number of answers that do not begin with this mark of a key.
pub fn count_under_other_keys(tx: &mut Tx<'_>, mark: &[u8]) -> Result<i64, Error> {
    tx.one(
        "SELECT count(*) FROM delivery_attempts WHERE answer IS NOT NULL AND substr(answer, 2, 4) <> $1",
        &[Value::Bytes(mark)],
        decode,
    )
}

/// Replaces the sealed answer to an attempt by the same under the current key.
pub fn replace_answer(
    tx: &mut Tx<'_>,
    (workspace, delivery, number): AttemptAt,
    anew: &[u8],
) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE delivery_attempts SET answer = $4 WHERE workspace_id = $1 AND delivery_id = $2 AND number = $3",
        &[workspace.into(), delivery.into(), number.into(), Value::Bytes(anew)],
    )
}
