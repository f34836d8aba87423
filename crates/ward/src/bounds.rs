//! Bounds that the given schemas lack. The bounds of Ward's own schemas are in `contract/openapi.json`.

use serde_json::Value;
use ward_contract::RuleProblem;

/// The longest name of a workspace or a key, in characters.
pub const LONGEST_NAME: usize = 256;
/// The longest text of a phone number in a request, in characters.
pub const LONGEST_NUMBER: usize = 64;

/// The value rule for the length of names.
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
