//! The JSON form of deliveries and queues.

use serde::Serialize;
use serde_json::value::RawValue;
use ward_db::Timestamp;

use crate::ids::{CallId, DeliveryId, IntegrationId};

/// The JSON of the contract's schema `DeliveryResponse`.
#[derive(Serialize)]
pub struct DeliveryResponse {
    pub id: DeliveryId,
    /// The integration that receives the call.
    pub integration_id: IntegrationId,
    /// The id of the call in Ward.
    pub call_id: CallId,
    /// The provider's id of the call.
    pub call_sid: String,
    /// The direction of the call: `inbound` or `outbound`.
    pub direction: String,
    /// The state of the delivery, as one word.
    pub state: &'static str,
    /// The reason for the state, as one word.
    pub reason: Option<String>,
    /// The number of attempts so far.
    pub attempt_count: i64,
    /// Whether an attempt may have arrived, so that the next one searches the EHR first.
    pub maybe_sent: bool,
    /// The time of the next attempt; `None` if none is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// The location of its resource in the EHR.
    pub location: Option<String>,
    /// The number of the amendment that is to be written.
    pub amendment: Option<i64>,
    /// The number of amendments that the EHR has.
    pub amendments: i64,
    pub outcome: Option<Box<RawValue>>,
    /// The timestamp at which it was queued.
    pub created_at: Timestamp,
    /// The timestamp of its last final state.
    pub settled_at: Option<Timestamp>,
    /// The position in the list, which is the token of a page.
    #[serde(skip)]
    pub position: i64,
}

/// The JSON of the contract's schema `DeliveryAttempt`.
#[derive(Serialize)]
pub struct DeliveryAttempt {
    /// The number of the attempt, counted from 1.
    pub number: i64,
    /// The outcome as one word, such as `synced`.
    pub outcome: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<i64>,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// The duration in milliseconds, the search that came first included.
    pub duration_ms: i64,
    /// The content type of the EHR's answer.
    pub content_type: Option<String>,
    /// The beginning of the EHR's answer, a KiB at most.
    pub answer: Option<String>,
    /// The same, as it is stored.
    #[serde(skip)]
    pub sealed: Option<Vec<u8>>,
    /// The EHR's answer to this attempt.
    pub detail: Option<Box<RawValue>>,
}

/// The JSON of the contract's schema `IntegrationSyncStatus`.
#[derive(Debug, Serialize)]
pub struct IntegrationSyncStatus {
    pub integration_id: IntegrationId,
    /// The name; null if the integration was deleted.
    pub name: Option<String>,
    pub held: bool,
    /// The cause: `operator`, `unauthorized`, `misconfigured` or `refused`.
    pub held_because: Option<String>,
    pub held_at: Option<Timestamp>,
    /// The reason why the queue waits, as one word.
    pub waits_because: Option<String>,
    pub waits_since: Option<Timestamp>,
    /// The time of the next attempt; null if none is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// The number of failures since the last success.
    pub failures_in_a_row: i64,
    /// The timestamp of the last successful delivery.
    pub last_success_at: Option<Timestamp>,
    /// Deliveries that wait or are being sent.
    pub pending: i64,
    /// The timestamp at which the oldest of them was queued.
    pub oldest_pending_at: Option<Timestamp>,
    /// Deliveries that are held one by one, not with the queue.
    pub held_deliveries: i64,
    /// Deliveries that are not retried unless a person asks for it.
    pub failed: i64,
    /// Deliveries that arrived in the EHR.
    pub synced: i64,
}
