//! The patient and the encounter that Ward finds in an EHR by itself, and the questions that it leaves to people.
//!
//! Ward takes a match only if the EHR's answer leaves no other one. It stores the match before it sends anything, so every
//! retry goes into the same chart. Otherwise the delivery is held, and a review is open until a person decides. A review has an
//! id of its own, so a decision about an earlier answer of the EHR changes nothing.

pub mod api;
mod resolving;
mod store;
mod wire;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use strum::{EnumString, IntoStaticStr, VariantArray};
use ward_db::{Error, Timestamp, Tx};
use ward_ehr::look_up::Candidate;

use super::{DeliveryState, Missing, amendments, note, outbox, subject};
use crate::audit::Write;
use crate::calls::{self, CallRecord, patients};
use crate::error::ApiError;
use crate::ids::{CallId, DeliveryId, ReviewId, WorkspaceId};
use crate::names::named;
use crate::vault::{ResealResult, SealedRow, Vault};
use crate::workspaces;

pub use resolving::{Reviewed, resolved, reviewed};
pub use store::{MatchAt, Part, close, list, matched as stored, waiting};
pub use wire::{OpenReviews, ReviewDetail, ReviewResponse};

/// The reason why a person has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Because {
    /// Nothing was reported, and the settings look nothing up.
    NotReported,
    /// No number in international form is known by which the patient could be sought.
    NoNumber,
    /// The date of birth is not known.
    NoBirthDate,
    /// A complete answer of the EHR has none.
    None,
    /// The EHR has more than one.
    Several,
    /// The EHR has some that do not fit, or that it is not certain of.
    Uncertain,
    /// For a day, no answer of the EHR showed all that it has.
    Unproven,
}

named!(Because);

/// A question for a person, with the answers that the EHR offers.
#[derive(Clone, Debug)]
pub struct Review {
    /// The fact that is missing in the note.
    pub needs: Missing,
    /// The reason why Ward does not know it.
    pub because: Because,
    /// The results among which a person can choose.
    pub candidates: Vec<Candidate>,
    /// The last change of the facts that the EHR was asked with, if it was asked.
    pub asked_with: Option<Option<Timestamp>>,
}

impl Review {
    /// A question that the EHR was not asked.
    pub const fn unasked(needs: Missing, because: Because) -> Self {
        Self { needs, because, candidates: Vec::new(), asked_with: None }
    }
}

/// The resources that the EHR named for a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// The EHR's id of the patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// The EHR's ids of an encounter and of its patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encounter: Option<(String, String)>,
}

impl Matched {
    /// The encounter, if it is this patient's.
    pub fn encounter_of(&self, patient: &str) -> Option<&str> {
        self.encounter.as_ref().filter(|(_, of)| of == patient).map(|(id, _)| id.as_str())
    }
}

fn place(workspace: WorkspaceId, delivery: DeliveryId, part: Part) -> String {
    format!("workspace/{workspace}/delivery/{delivery}/{}", part.name())
}

/// A value sealed for a delivery's row. It is sealed before the transaction that stores it. `None` without a key to seal it under.
pub fn seal(vault: &Vault, (workspace, delivery, part): MatchAt, value: &impl Serialize) -> Option<Vec<u8>> {
    let plain = serde_json::to_vec(value).ok()?;
    vault.seal(&plain, &place(workspace, delivery, part)).ok()
}

/// A value that was sealed for a delivery's row. It is opened after the transaction that read it. One that was sealed under a key
/// that is gone counts as absent: a patient is then sought again.
pub fn opened<T: DeserializeOwned + Default>(
    vault: &Vault,
    (workspace, delivery, part): MatchAt,
    bytes: Option<&[u8]>,
) -> T {
    let plain = bytes.and_then(|bytes| vault.open(bytes, &place(workspace, delivery, part)).ok());
    plain.and_then(|plain| serde_json::from_slice(&plain).ok()).unwrap_or_default()
}

/// Stores a sealed match, with its event. The event names no resource of the EHR.
pub fn keep(
    write: &mut Write<'_, '_>,
    delivery: DeliveryId,
    matched: &[u8],
    (found, by): (Missing, &'static str),
) -> Result<(), ApiError> {
    store::keep(write, delivery, matched)?;
    let what = json!({ "found": found.name(), "by": by });
    write.record("delivery.match", subject("delivery", Some(delivery.0)), what)
}

/// Opens a review of a held delivery with its sealed candidates, and records its event. It takes the place of an earlier one.
pub fn open(
    write: &mut Write<'_, '_>,
    delivery: DeliveryId,
    review: &Review,
    offered: Option<&[u8]>,
) -> Result<(), ApiError> {
    let now = write.now();
    let position = workspaces::next_position(write, now)?;
    let id = ReviewId::at(now);
    let candidates = i64::try_from(review.candidates.len()).unwrap_or(i64::MAX);
    let asked = (review.needs.name(), review.because.name(), candidates);
    store::open(write, delivery, (id, position, now), asked, offered)?;
    let what = json!({ "needs": asked.0, "because": asked.1, "candidates": candidates });
    write.record("delivery.review", subject("delivery", Some(delivery.0)), what)
}

/// Seeks the patient of a call again, because the facts about the person have changed. A delivery that the EHR has, or that is
/// being sent, stays.
pub fn seek_again(write: &mut Write<'_, '_>, call: CallId) -> Result<(), ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let Some(owed) = super::owed_for(write, workspace, call)? else { return Ok(()) };
    outbox::open_lane(write, workspace, owed.integration, now)?;
    // This second read follows the guard, because a worker may have had the queue until then.
    let Some(owed) = super::owed_for(write, workspace, call)? else { return Ok(()) };
    let has_it = amendments::of(write, workspace, owed.delivery)?.wanted.is_some();
    if has_it || matches!(owed.state, DeliveryState::Synced | DeliveryState::Sending) {
        return Ok(());
    }
    store::forget(write, owed.delivery)?;
    super::store::release_unmatched(write, workspace, call, Missing::Patient.reason(), now)?;
    Ok(())
}

/// An open review as it was read, with everything still sealed.
pub struct FoundReview {
    at: (WorkspaceId, DeliveryId),
    review: ReviewResponse,
    call: Option<CallRecord>,
    facts: Option<Vec<u8>>,
    matched: Option<Vec<u8>>,
    offered: Option<Vec<u8>>,
}

/// The open review of a delivery.
pub fn found(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
) -> Result<Option<FoundReview>, Error> {
    let Some((review, offered)) = store::get(tx, workspace, delivery)? else { return Ok(None) };
    let call = calls::by_id(tx, workspace, review.call_id)?;
    let facts = patients::stored(tx, workspace, review.call_id)?.map(|(facts, _)| facts);
    let matched = store::matched(tx, workspace, delivery)?;
    Ok(Some(FoundReview { at: (workspace, delivery), review, call, facts, matched, offered }))
}

impl FoundReview {
    /// The review as a person sees it.
    pub fn shown(self, vault: &Vault) -> ReviewDetail {
        let Self { at: (workspace, delivery), review, call, facts, matched, offered } = self;
        let facts = patients::opened(vault, (workspace, review.call_id), facts.as_deref());
        let matched: Matched = opened(vault, (workspace, delivery, Part::Matched), matched.as_deref());
        let reported = call.as_ref().and_then(|call| call.detail(Missing::Patient.detail()));
        ReviewDetail {
            patient_id: reported.map(str::to_owned).or(matched.patient),
            patient_phone: facts.phone.or_else(|| note::number_of(call.as_ref()?)),
            patient_birth_date: facts.birth_date,
            candidates: opened(vault, (workspace, delivery, Part::Offered), offered.as_deref()),
            review,
        }
    }
}

/// Seals the matches and candidates of up to `most` deliveries after this one again, under the current key. No decision
/// depends on one that no key opens, so that one does not count.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: MatchAt,
    most: u32,
) -> Result<ResealResult<MatchAt>, Error> {
    let found = store::all(tx, after, most)?;
    let last = found.last().map(|(at, ..)| *at);
    let rows = found.into_iter().flat_map(|((workspace, delivery, _), matched, offered)| {
        [(Part::Matched, matched), (Part::Offered, offered)].into_iter().filter_map(move |(part, bytes)| {
            let (at, place) = ((workspace, delivery, part), place(workspace, delivery, part));
            Some(SealedRow { at, place, bytes: bytes?, what: String::new() })
        })
    });
    let resealed = vault.reseal_rows(rows.collect(), |row, anew| store::replace(tx, row.at, anew))?;
    Ok(ResealResult { unopened: Vec::new(), last, ..resealed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encounter_counts_for_its_patient_only() {
        let encounter = Some(("e1".to_owned(), "p1".to_owned()));
        let matched = Matched { patient: Some("p1".to_owned()), encounter };
        assert_eq!(matched.encounter_of("p1"), Some("e1"));
        assert_eq!(matched.encounter_of("p2"), None, "a person has corrected the patient");
    }
}
