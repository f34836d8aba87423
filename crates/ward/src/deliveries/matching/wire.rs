//! The JSON form of reviews.

use serde::Serialize;
use ward_db::Timestamp;
use ward_ehr::look_up::Candidate;

use crate::ids::{CallId, DeliveryId, IntegrationId, ReviewId};

/// The JSON of the contract's schema `ReviewResponse`. It has no personal data.
#[derive(Clone, Debug, Serialize)]
pub struct ReviewResponse {
    pub review_id: ReviewId,
    pub delivery_id: DeliveryId,
    pub integration_id: IntegrationId,
    pub call_id: CallId,
    /// The provider's id of the call.
    pub call_sid: String,
    /// The missing fact: `patient` or `encounter`.
    pub needs: String,
    /// The reason why Ward does not know it, as one word.
    pub because: String,
    pub candidate_count: i64,
    pub opened_at: Timestamp,
    /// The position in the list, which is the token of a page.
    #[serde(skip)]
    pub position: i64,
}

/// The open reviews of all workspaces with one missing fact and one reason.
#[derive(Clone, Debug)]
pub struct OpenReviews {
    /// The missing fact: `patient` or `encounter`.
    pub needs: String,
    pub because: String,
    pub count: i64,
    /// The time at which the first of them was opened.
    pub since: Option<Timestamp>,
}

/// The JSON of the contract's schema `ReviewDetail`.
#[derive(Serialize)]
pub struct ReviewDetail {
    #[serde(flatten)]
    pub review: ReviewResponse,
    /// The EHR's id of the patient, if only the encounter is missing.
    pub patient_id: Option<String>,
    /// The number by which the patient was sought.
    pub patient_phone: Option<String>,
    pub patient_birth_date: Option<String>,
    pub candidates: Vec<Candidate>,
}
