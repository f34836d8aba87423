//! A person's corrections of a call before its EHR receives it.
//!
//! Reports only fill what is missing, because they can arrive late and in any order. A wrong patient needs a person, who
//! changes the call as long as its EHR does not have it. The former and the new values are kept sealed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ward_db::{Timestamp, Tx};

use super::actions::{stored, subject};
use super::patients::{self, Facts};
use super::{CallRecord, store};
use crate::app::App;
use crate::audit::Write;
use crate::deliveries::{self, Missing};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::{CallId, WorkspaceId};
use crate::quotas::{self, Change as Count};
use crate::vault::{self, ResealResult, SealedRow, Vault};

pub use super::store::CorrectionAt;

/// The fields that a correction may change.
pub const CORRECTABLE: [&str; 3] = ["patient_id", "encounter_id", "summary"];
/// Corrections of one call, at most. More of them are no correction of errors.
const MOST: i64 = 100;

/// The JSON of the contract's schema `CorrectCallRequest`. A field that is absent or null stays, and an empty text removes the
/// value.
#[derive(Deserialize)]
pub struct CorrectCallRequest {
    patient_id: Option<String>,
    encounter_id: Option<String>,
    summary: Option<String>,
    patient_birth_date: Option<String>,
    patient_phone: Option<String>,
}

/// The JSON of the contract's schema `AmendDeliveryRequest`. The EHR has the call, so its patient is not sought again.
#[derive(Deserialize)]
pub struct AmendDeliveryRequest {
    patient_id: Option<String>,
    encounter_id: Option<String>,
    summary: Option<String>,
}

/// The given fields by their names.
fn given<const N: usize>(names: [&str; N], values: [Option<String>; N]) -> Map<String, Value> {
    let given = names.into_iter().zip(values);
    given.filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?)))).collect()
}

impl CorrectCallRequest {
    /// The fields to change, by their names.
    pub fn fields(self) -> Map<String, Value> {
        let mut fields = given(CORRECTABLE, [self.patient_id, self.encounter_id, self.summary]);
        fields.extend(given(Facts::NAMES, [self.patient_birth_date, self.patient_phone]));
        fields
    }
}

impl AmendDeliveryRequest {
    /// The fields to change, by their names.
    pub fn fields(self) -> Map<String, Value> {
        given(CORRECTABLE, [self.patient_id, self.encounter_id, self.summary])
    }
}

/// The JSON of the contract's schema `CorrectCallResponse`.
#[derive(Serialize)]
pub struct CorrectCallResponse {
    /// The provider's id of the call.
    pub call_sid: String,
    /// The fields whose values have changed.
    pub changed: Vec<&'static str>,
    /// The state of the call's delivery after the correction, if it has one.
    pub delivery_state: Option<&'static str>,
}

/// A correction of a call, with its values.
#[derive(Serialize)]
pub struct Correction {
    /// The number of the correction, counted from 1.
    pub number: i64,
    pub corrected_at: Timestamp,
    /// The former and the new values. Null if they were sealed under a key that is gone.
    pub values: Option<Value>,
}

fn place(workspace: WorkspaceId, call: CallId, number: i64) -> String {
    format!("workspace/{workspace}/call/{call}/correction/{number}")
}

/// Changes what the EHR receives about a call. A call that is in the EHR or is being sent gets 409.
pub async fn correct(
    app: &Arc<App>,
    entry: Entry,
    sid: String,
    fields: Map<String, Value>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let correct = move |write: &mut Write<'_, '_>, _: &Held| {
        repeat.once(write, Secrecy::Open, |write| correct_within(write, &vault, &sid, &fields))
    };
    let reply = entry.write(app, "calls.correct", correct).await?;
    app.sync.wake();
    Ok(reply)
}

/// [`correct`] within a transaction of the operator or a caller. A field that is absent or null stays, and an empty text
/// removes the value.
pub fn correct_within(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    sid: &str,
    fields: &Map<String, Value>,
) -> Result<CorrectCallResponse, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let missing = ApiError::missing("call_not_found", "Call not found.");
    let mut call = store::by_sid(write, workspace, sid)?.ok_or(missing)?;
    deliveries::may_correct(write, call.id, now)?;
    let applied = apply(write, vault, &mut call, fields)?;
    if let Some(Applied { changed, number }) = &applied {
        let is_known = |fact: &Missing| call.detail(fact.detail()).is_some();
        deliveries::corrected(write, call.id, Missing::ALL.into_iter().filter(is_known), now)?;
        if changed.iter().any(|name| Facts::NAMES.contains(name)) {
            deliveries::matching::seek_again(write, call.id)?;
        }
        let what = json!({ "fields": changed, "correction": number });
        write.record("call.correct", subject(Some(call.id.0)), what)?;
    }
    let owed = deliveries::owed_for(write, workspace, call.id)?;
    Ok(CorrectCallResponse {
        call_sid: call.call_sid,
        changed: applied.map(|applied| applied.changed).unwrap_or_default(),
        delivery_state: owed.map(|owed| owed.state.name()),
    })
}

/// A stored change of a call by a person.
pub(super) struct Applied {
    /// The fields whose values have changed.
    pub changed: Vec<&'static str>,
    /// The number of the correction that keeps the values.
    pub number: i64,
}

/// Changes a call and stores the former and the new values, sealed. `None` if no value changes.
pub(super) fn apply(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    call: &mut CallRecord,
    fields: &Map<String, Value>,
) -> Result<Option<Applied>, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let before = stored(call);
    let (mut changed, mut values) = change(call, fields);
    patients::correct(write, vault, call.id, fields, |name, former, new| {
        (values["former"][name], values["new"][name]) = (former, new);
        changed.push(name);
    })?;
    if changed.is_empty() {
        return Ok(None);
    }
    vault::hold(write, vault)?;
    let last = store::corrections(write, workspace, call.id, 1)?.first().map_or(0, |(number, ..)| *number);
    let number = last + 1;
    if number > MOST {
        return Err(ApiError::conflict(
            "too_many_corrections",
            "This call has been corrected 100 times, which is the limit.",
        ));
    }
    let sealed = vault.seal(values.to_string().as_bytes(), &place(workspace, call.id, number));
    let sealed = sealed.map_err(ApiError::internal)?;
    call.updated_at = now.max(Timestamp::from_micros(call.updated_at.micros() + 1));
    let more = Count::bytes(stored(call)).bytes - Count::bytes(before).bytes;
    quotas::give_back(write, workspace, Count { bytes: more, ..Count::default() })?;
    store::update(write, call)?;
    store::insert_correction(write, call.id, number, &sealed, now)?;
    Ok(Some(Applied { changed, number }))
}

/// Applies the fields to the call. Returns the changed ones, with their former and new values.
fn change(call: &mut CallRecord, fields: &Map<String, Value>) -> (Vec<&'static str>, Value) {
    let mut changed = Vec::new();
    let (mut former, mut new) = (Map::new(), Map::new());
    for name in CORRECTABLE {
        // The contract fills absent fields with null.
        let Some(wanted) = fields.get(name).filter(|wanted| !wanted.is_null()) else { continue };
        let wanted = if *wanted == "" { &Value::Null } else { wanted };
        let known = call.details.get(name).cloned().unwrap_or_default();
        if known == *wanted {
            continue;
        }
        if wanted.is_null() {
            call.details.remove(name);
        } else {
            call.details.insert(name.to_owned(), wanted.clone());
        }
        former.insert(name.to_owned(), known);
        new.insert(name.to_owned(), wanted.clone());
        changed.push(name);
    }
    (changed, json!({ "former": former, "new": new }))
}

/// The corrections of a call, the last first, with their values.
pub fn read(
    tx: &mut Tx<'_>,
    vault: &Vault,
    workspace: WorkspaceId,
    call: CallId,
) -> Result<Vec<Correction>, ward_db::Error> {
    let stored = store::corrections(tx, workspace, call, MOST)?;
    let opened = stored.into_iter().map(|(number, corrected_at, sealed)| {
        let opened = vault.open(&sealed, &place(workspace, call, number)).ok();
        let values = opened.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Correction { number, corrected_at, values }
    });
    Ok(opened.collect())
}

/// Seals the values of up to `most` corrections after this one again, under the current key.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: CorrectionAt,
    most: u32,
) -> Result<ResealResult<CorrectionAt>, ward_db::Error> {
    let rows = store::sealed_corrections(tx, after, most)?.into_iter().map(|(at, bytes)| {
        let (workspace, call, number) = at;
        let what = format!("correction {number} of call {call} of workspace {workspace}");
        SealedRow { at, place: place(workspace, call, number), bytes, what }
    });
    vault.reseal_rows(rows.collect(), |row, anew| store::replace_correction(tx, row.at, anew))
}

/// The number of corrections that are sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, ward_db::Error> {
    store::count_corrections_under_other_keys(tx, vault.key_mark())
}
