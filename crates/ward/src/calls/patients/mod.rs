//! The facts by which an EHR finds the patient of a call: the date of birth, and a number if it is not the other party's.
//!
//! They are sealed under the operator's key, unlike the call itself, because they identify a person outside of the practice. No
//! filter uses them.

mod store;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ward_contract::RuleProblem;
use ward_db::{Error, Timestamp, Tx};

use crate::audit::Write;
use crate::error::ApiError;
use crate::ids::{CallId, WorkspaceId};
use crate::phone;
use crate::vault::{self, ResealResult, SealedRow, Vault};

pub use store::{FactsAt, changed_at, get as stored};

/// The earliest year of a date of birth. An earlier one is a slip.
const EARLIEST_YEAR: i16 = 1850;

/// The facts about a patient, as far as they were reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth_date: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

impl Facts {
    /// The names of the facts in reports and corrections.
    pub const NAMES: [&str; 2] = ["patient_birth_date", "patient_phone"];

    fn field(&mut self, name: &str) -> &mut Option<String> {
        if name == Self::NAMES[0] { &mut self.birth_date } else { &mut self.phone }
    }

    /// Whether no report has named a fact.
    pub const fn is_empty(&self) -> bool {
        self.birth_date.is_none() && self.phone.is_none()
    }
}

/// A date of birth in the form of FHIR. `None` if the text is no such date.
pub fn birth_date(text: &str) -> Option<String> {
    let date: Date = text.parse().ok()?;
    let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    (is_plain && date.year() >= EARLIEST_YEAR).then(|| text.to_owned())
}

/// The value rule of a date of birth.
pub fn birth_date_rule(value: &Value) -> Vec<RuleProblem> {
    let wrong = value.as_str().is_some_and(|text| birth_date(text).is_none());
    let problem = || RuleProblem::here("must be a date of birth, such as 1980-02-29".to_owned());
    wrong.then(problem).into_iter().collect()
}

fn place(workspace: WorkspaceId, call: CallId) -> String {
    format!("workspace/{workspace}/call/{call}/patient")
}

/// The facts of a call, opened. Facts that were sealed under a key that is gone are lost, and a person has to decide then.
pub fn opened(vault: &Vault, (workspace, call): FactsAt, facts: Option<&[u8]>) -> Facts {
    let plain = facts.and_then(|facts| vault.open(facts, &place(workspace, call)).ok());
    plain.and_then(|plain| serde_json::from_slice(&plain).ok()).unwrap_or_default()
}

/// The facts about the patient of a call, and the time of their last change.
pub fn of(
    tx: &mut Tx<'_>,
    vault: &Vault,
    workspace: WorkspaceId,
    call: CallId,
) -> Result<(Facts, Option<Timestamp>), Error> {
    let stored = store::get(tx, workspace, call)?;
    let facts = opened(vault, (workspace, call), stored.as_ref().map(|(facts, _)| facts.as_slice()));
    Ok((facts, stored.map(|(_, at)| at)))
}

/// Stores reported facts. A late report only fills what is missing. Returns whether something has changed.
pub fn note(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    call: CallId,
    told: &Facts,
    is_late: bool,
) -> Result<bool, ApiError> {
    let (workspace, now) = (write.row(), write.now());
    let (known, changed_at) = of(write, vault, workspace, call)?;
    let mut facts = known.clone();
    for name in Facts::NAMES {
        let told = told.clone().field(name).take();
        let fact = facts.field(name);
        if told.is_some() && !(is_late && fact.is_some()) {
            *fact = told;
        }
    }
    if facts == known {
        return Ok(false);
    }
    put(write, vault, call, &facts, now.max(after(changed_at)))?;
    Ok(true)
}

/// A time after the last change, so that every change is seen.
fn after(changed_at: Option<Timestamp>) -> Timestamp {
    Timestamp::from_micros(changed_at.map_or(0, |at| at.micros() + 1))
}

fn put(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    call: CallId,
    facts: &Facts,
    at: Timestamp,
) -> Result<(), ApiError> {
    let workspace = write.row();
    vault::hold(write, vault)?;
    let plain = serde_json::to_vec(facts).map_err(ApiError::internal)?;
    let sealed = vault.seal(&plain, &place(workspace, call)).map_err(ApiError::internal)?;
    Ok(store::put(write, call, &sealed, at)?)
}

/// Applies the facts among the fields of a correction. `changed` receives each changed one by its name, with its former and its
/// new value.
pub fn correct(
    write: &mut Write<'_, '_>,
    vault: &Vault,
    call: CallId,
    fields: &Map<String, Value>,
    mut changed: impl FnMut(&'static str, Value, Value),
) -> Result<(), ApiError> {
    let wanted = |name: &str| fields.get(name).and_then(Value::as_str);
    if Facts::NAMES.into_iter().all(|name| wanted(name).is_none()) {
        return Ok(());
    }
    let (workspace, now) = (write.row(), write.now());
    let (known, changed_at) = of(write, vault, workspace, call)?;
    let mut facts = known.clone();
    for name in Facts::NAMES {
        let Some(wanted) = wanted(name) else { continue };
        let wanted =
            if name == Facts::NAMES[1] { phone::normalize(wanted).ok() } else { Some(wanted.to_owned()) };
        let fact = facts.field(name);
        if *fact != wanted {
            changed(name, Value::from(fact.clone()), Value::from(wanted.clone()));
            *fact = wanted;
        }
    }
    if facts == known { Ok(()) } else { put(write, vault, call, &facts, now.max(after(changed_at))) }
}

/// Seals the facts of up to `most` calls after this one again, under the current key.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: FactsAt,
    most: u32,
) -> Result<ResealResult<FactsAt>, Error> {
    let rows = store::all(tx, after, most)?.into_iter().map(|(at, bytes)| {
        let what = format!("the patient of call {} of workspace {}", at.1, at.0);
        SealedRow { at, place: place(at.0, at.1), bytes, what }
    });
    vault.reseal_rows(rows.collect(), |row, anew| store::replace(tx, row.at, anew))
}

/// The number of calls whose facts are sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, Error> {
    store::count_under_other_keys(tx, vault.key_mark())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_birth_is_a_day_that_exists() {
        for right in ["1980-02-29", "1850-01-01", "2026-11-30"] {
            assert_eq!(birth_date(right).as_deref(), Some(right));
        }
        for wrong in [
            "",
            "1980-02-30",
            "1981-02-29",
            "1849-12-31",
            "1980-2-9",
            "29.02.1980",
            "19800229",
            "1980-02-29T00:00",
            "١٩٨٠-02-29",
        ] {
            assert_eq!(birth_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_name_is_the_name_of_its_fact() {
        let mut facts = Facts::default();
        for name in Facts::NAMES {
            *facts.field(name) = Some(name.to_owned());
        }
        assert_eq!(facts.birth_date.as_deref(), Some("patient_birth_date"));
        assert_eq!(facts.phone.as_deref(), Some("patient_phone"));
    }
}
