//! Bounds that the given schemas leave out. Where a schema is Ward's own, its bounds stand in `contract/openapi.json`.

use serde_json::Value;

use crate::http::contract::RuleProblem;

/// The longest name of a workspace or a key, in characters.
pub const LONGEST_NAME: usize = 256;
/// The longest text of a phone number as it is sent, in characters.
pub const LONGEST_NUMBER: usize = 64;

/// The value rule of names.
pub fn name(value: &Value) -> Vec<RuleProblem> {
    at_most(value, LONGEST_NAME)
}

/// The value rule of a phone number's length.
pub fn number(value: &Value) -> Vec<RuleProblem> {
    at_most(value, LONGEST_NUMBER)
}

fn at_most(value: &Value, most: usize) -> Vec<RuleProblem> {
    let length = value.as_str().unwrap_or_default().chars().count();
    if length > most {
        vec![RuleProblem::here(format!("must be at most {most} characters"))]
    } else {
        Vec::new()
    }
}
