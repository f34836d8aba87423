//! Bounds that the given schemas lack. The bounds of Ward's own schemas are in `contract/openapi.json`.

use serde_json::Value;
use ward_contract::RuleProblem;

use crate::legible;

/// The longest name of a workspace or a key, in characters.
pub const LONGEST_NAME: usize = 256;
/// The longest text of a phone number in a request, in characters.
pub const LONGEST_NUMBER: usize = 64;

/// The value rule of the names of workspaces, and of keys in part: their length and their characters.
pub fn name(value: &Value) -> Vec<RuleProblem> {
    let problems = at_most(value, LONGEST_NAME);
    if problems.is_empty() { fit(value, legible::first_unfit_of_workspace) } else { problems }
}

/// The value rule of other names that people read. The schema bounds their length.
pub fn title(value: &Value) -> Vec<RuleProblem> {
    fit(value, legible::first_unfit)
}

/// The value rule of a request for a key. The rule of [`name`] holds by the schema, and leaves out one character.
pub fn key_name(request: &Value) -> Vec<RuleProblem> {
    let name = &request["name"];
    if !self::name(name).is_empty() {
        return Vec::new();
    }
    let mut problems = title(name);
    for problem in &mut problems {
        problem.at.push("name".into());
    }
    problems
}

fn fit(value: &Value, unfit: fn(&str) -> Option<char>) -> Vec<RuleProblem> {
    let unfit = value.as_str().and_then(unfit);
    unfit.map(|unfit| RuleProblem::here(unfit_message(unfit))).into_iter().collect()
}

/// Names a character that a name may not contain.
pub fn unfit_message(unfit: char) -> String {
    format!(
        "must not contain the character U+{:04X}, which cannot be seen or changes the direction of the text",
        u32::from(unfit)
    )
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
