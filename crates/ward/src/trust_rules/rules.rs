//! The value rules of a new trust rule. The schema gives the types and maxima.

use serde_json::Value;
use url::Url;
use ward_contract::RuleProblem;
use ward_contract::validate::Loc;

use super::{Condition, Path, Shape, TrustRule};
use crate::access::Role;
use crate::text;

/// Accepts the identifier of an issuer (`OpenID` Connect Discovery 1.0, section 4.1).
pub fn issuer(value: &Value) -> Vec<RuleProblem> {
    let text = value.as_str().unwrap_or_default();
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['?', '#', '@', '\\']);
    let url = Url::parse(text).ok().filter(|url| plain && matches!(url.scheme(), "https" | "http"));
    if url.is_some_and(|url| url.has_host()) {
        return Vec::new();
    }
    vec![RuleProblem::here(
        "must be an https URL without user, query or fragment, as the token has it in `iss`",
    )]
}

/// Accepts a text that a token can have: without characters that cannot be seen, and without white space around it. A rule
/// that no token can match looks like one that works.
pub fn exact(value: &Value) -> Vec<RuleProblem> {
    let text = value.as_str().unwrap_or_default();
    let unseen = text::first_unseen(text).map(|unseen| {
        let code = u32::from(unseen);
        format!("contains the character U+{code:04X}, which cannot be seen; remove it")
    });
    let padded = (text.trim() != text).then(|| "must not begin or end with white space".to_owned());
    unseen.or(padded).map(RuleProblem::here).into_iter().collect()
}

/// Accepts a role below owner. A service with a stored key can own a workspace, but a token of an outside issuer should not.
pub fn role(value: &Value) -> Vec<RuleProblem> {
    match value.as_str().and_then(Role::named) {
        Some(Role::Owner) | None => {
            vec![RuleProblem::here(
                "Unknown role of a workload. It must be viewer, member, operator or admin",
            )]
        }
        Some(_) => Vec::new(),
    }
}

/// Accepts a condition with exactly one comparison, on a claim that no other field decides.
pub fn condition(value: &Value) -> Vec<RuleProblem> {
    let Ok(condition) = serde_json::from_value::<Condition>(value.clone()) else { return Vec::new() };
    let mut problems = Vec::new();
    if condition.equals.is_some() == condition.starts_with.is_some() {
        problems.push(RuleProblem::here("must have exactly one of `equals` and `starts_with`"));
    }
    let mut wrong = |message: &str| {
        problems.push(RuleProblem { at: vec![Loc::from("claim")], message: message.to_owned() });
    };
    let path = condition.path();
    if path.iter().any(|step| step.is_empty()) {
        wrong("must be a claim's name, or a JSON Pointer such as /kubernetes.io/serviceaccount/uid");
    } else if let [only] = path.as_slice()
        && ["iss", "aud", "exp", "nbf", "iat"].contains(&only.as_ref())
    {
        wrong(
            "is judged by Ward itself: `issuer` and `audience` are fields of the rule, and times need no condition",
        );
    }
    for (field, text) in [("claim", &value["claim"]), ("equals", &value["equals"])] {
        problems.extend(exact(text).into_iter().map(|mut problem| {
            problem.at.push(field.into());
            problem
        }));
    }
    problems
}

/// Accepts conditions of which one is exact and on an immutable claim of the issuer, and of which no two are on the same claim.
pub fn conditions(request: &Value) -> Vec<RuleProblem> {
    let Some(issuer) = request["issuer"].as_str() else { return Vec::new() };
    let Ok(conditions) = serde_json::from_value::<Vec<Condition>>(request["conditions"].clone()) else {
        return Vec::new();
    };
    // Each condition's own problem comes first.
    if conditions.is_empty() || conditions.iter().any(|it| it.equals.is_some() == it.starts_with.is_some()) {
        return Vec::new();
    }
    let at = |message: String| RuleProblem { at: vec![Loc::from("conditions")], message };
    let mut problems = Vec::new();
    let mut paths: Vec<_> = conditions.iter().map(Condition::path).collect();
    paths.sort_unstable();
    if paths.windows(2).any(|pair| pair[0] == pair[1]) {
        problems.push(at("has two conditions on the same claim".to_owned()));
    }
    if TrustRule::anchored(issuer, &conditions).is_none() {
        let shape = Shape::of(issuer, &conditions);
        let names: Vec<String> = shape.immutable().iter().map(|path| format!("`{}`", shown(path))).collect();
        problems.push(at(format!(
            "has no exact condition on an immutable claim of {}. Add `equals` for {}: the values of other claims can pass to \
             somebody else",
            shape.title(),
            names.join(" or ")
        )));
    }
    problems
}

/// A claim as a condition names it.
fn shown(path: Path) -> String {
    match path {
        [only] => (*only).to_owned(),
        nested => format!("/{}", nested.join("/")),
    }
}
