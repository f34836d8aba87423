//! Trust rules: tokens of CI jobs and pods act in a workspace without a stored key.
//!
//! A rule names an issuer, an audience and conditions on claims. A token that satisfies all of them acts as the rule's service,
//! which is a member of the workspace. At least one condition is exact and on a claim that its issuer never gives to anyone
//! else. That condition is the rule's *anchor*: its hash finds the rule.

pub mod actions;
pub mod api;
pub mod issuers;
pub mod rules;
mod store;
pub mod token;
mod wire;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use strum::{EnumString, IntoStaticStr, VariantArray};
use ward_db::Timestamp;

use crate::access::Reach;
use crate::identity::WorkloadToken;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::names::named;

pub use store::{MOST_OFFERS, get, look_up};

/// Rules of a workspace with the same anchor. The look-up for a token reads all of them.
const MOST_ALIKE: i64 = 20;

/// A rule with the columns that lists show.
#[derive(Clone, Debug)]
pub struct TrustRule {
    /// The id of the rule and of its service.
    pub id: PrincipalId,
    pub workspace: WorkspaceId,
    pub name: String,
    /// The issuer, character for character as `iss` has it.
    pub issuer: String,
    /// The audience, which must be the only one of a token.
    pub audience: String,
    pub conditions: Vec<Condition>,
    /// The role and permissions of the workload.
    pub reach: Reach,
    pub created_by: PrincipalId,
    /// The key that created it; `None` for a token.
    pub created_with: Option<CredentialId>,
    /// The timestamp from which the rule trusts nothing.
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The position in its workspace's list.
    pub position: i64,
}

/// A condition on one claim, in the form of requests, answers and the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The name of a claim, or a JSON Pointer (RFC 6901) to a nested one.
    pub claim: String,
    /// The exact text of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// The beginning of the text of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<String>,
}

/// The kind of issuer, which decides what claims are immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Jobs of GitHub Actions. The names of repositories, owners and users can be registered again.
    GithubActions,
    /// Jobs of GitLab CI. The paths of projects and groups can be registered again.
    GitlabCi,
    /// Service accounts of Kubernetes. A deleted account can be created again under its name.
    Kubernetes,
    /// JWT-SVIDs of SPIFFE. The subject is the identity.
    Spiffe,
    /// Any other issuer. OpenID Connect Core 1.0, section 2, forbids it to give a subject to anyone else.
    Other,
}

named!(Shape);

/// The members on the way to a claim.
type Path = &'static [&'static str];

const REPOSITORY: Path = &["repository_id"];
const REPOSITORY_OWNER: Path = &["repository_owner_id"];
const PROJECT: Path = &["project_id"];
const NAMESPACE: Path = &["namespace_id"];
const SERVICE_ACCOUNT: Path = &["kubernetes.io", "serviceaccount", "uid"];
const SUBJECT: Path = &["sub"];

/// Every claim that can be an anchor.
const ANCHORS: [Path; 6] = [SUBJECT, REPOSITORY, REPOSITORY_OWNER, PROJECT, NAMESPACE, SERVICE_ACCOUNT];

impl Shape {
    /// The claims of which one must have an exact condition, the narrowest first.
    const fn immutable(self) -> &'static [Path] {
        match self {
            Self::GithubActions => &[REPOSITORY, REPOSITORY_OWNER],
            Self::GitlabCi => &[PROJECT, NAMESPACE],
            Self::Kubernetes => &[SERVICE_ACCOUNT],
            Self::Spiffe | Self::Other => &[SUBJECT],
        }
    }

    /// The name of the kind of issuer, for people.
    const fn title(self) -> &'static str {
        match self {
            Self::GithubActions => "GitHub Actions",
            Self::GitlabCi => "GitLab CI",
            Self::Kubernetes => "Kubernetes",
            Self::Spiffe => "SPIFFE",
            Self::Other => "this issuer",
        }
    }

    /// The shape of an issuer's tokens, from its address and from the claims and subjects that the conditions name. A rule
    /// cannot pass a mutable subject off as that of an unknown issuer, because the forms of those subjects are known.
    fn of(issuer: &str, conditions: &[Condition]) -> Self {
        const GITHUB: &str = "https://token.actions.githubusercontent.com";
        const SUBJECTS: [&str; 6] =
            ["repo:", "repository", "job_workflow_ref:", "workflow_ref:", "environment:", "enterprise"];
        let named = |prefix: &str| {
            conditions.iter().any(|it| it.path().first().is_some_and(|name| name.starts_with(prefix)))
        };
        let subject = |prefix: &str| {
            let of_subject = |it: &&Condition| it.path() == SUBJECT;
            conditions.iter().filter(of_subject).any(|it| it.text().starts_with(prefix))
        };
        // GitHub's Enterprise Server has its issuer below this path.
        let github = issuer.starts_with(GITHUB) || issuer.trim_end_matches('/').ends_with("/_services/token");
        if github
            || ["repository", "job_workflow_", "workflow_"].into_iter().any(named)
            || SUBJECTS.into_iter().any(subject)
        {
            Self::GithubActions
        } else if ["project_", "namespace_"].into_iter().any(named)
            || issuer == "https://gitlab.com"
            || subject("project_path:")
        {
            Self::GitlabCi
        } else if named("kubernetes.io") || subject("system:serviceaccount:") {
            Self::Kubernetes
        } else if subject("spiffe://") {
            Self::Spiffe
        } else {
            Self::Other
        }
    }
}

impl Condition {
    /// The members on the way to the claim.
    fn path(&self) -> Vec<Cow<'_, str>> {
        match self.claim.strip_prefix('/') {
            Some(pointer) if pointer.contains('~') => {
                pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~").into()).collect()
            }
            Some(pointer) => pointer.split('/').map(Cow::Borrowed).collect(),
            None => vec![Cow::Borrowed(self.claim.as_str())],
        }
    }

    fn text(&self) -> &str {
        self.equals.as_deref().or(self.starts_with.as_deref()).unwrap_or_default()
    }

    fn met_by(&self, claims: &Map<String, Value>) -> bool {
        let Some(value) = find(claims, &self.path()) else { return false };
        match (&self.equals, &self.starts_with) {
            (Some(wanted), None) => text_of(value).is_some_and(|text| text == *wanted),
            (None, Some(wanted)) => value.as_str().is_some_and(|text| text.starts_with(wanted)),
            _ => false,
        }
    }
}

/// The claim at the end of this way.
fn find<'a, S: AsRef<str>>(claims: &'a Map<String, Value>, path: &[S]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first.as_ref())?, |value, step| value.as_object()?.get(step.as_ref()))
}

/// The text of a claim. A list, an object or a fraction has none.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) if !number.is_f64() => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// The hash of an anchor, for all workspaces or for one.
type Hash = [u8; 32];

/// The hash by which rules are found: of the issuer, the audience, and an exact condition on an immutable claim.
fn anchor(workspace: Option<WorkspaceId>, issuer: &str, audience: &str, (path, value): (Path, &str)) -> Hash {
    let mut hash = Sha256::new();
    let workspace = workspace.map_or_else(String::new, |id| id.to_string());
    let path = path.join("/");
    for part in ["ward.trust_rule", &workspace, issuer, audience, &path, value] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// The hashes of all anchors that a rule for this token can have. A claim that the token lacks repeats the first one, so that
/// the statement is always the same.
fn anchors_of(token: &WorkloadToken, workspace: Option<WorkspaceId>) -> [Hash; ANCHORS.len()] {
    let of = |path: Path, value: &str| anchor(workspace, &token.issuer, &token.audience, (path, value));
    let first = of(SUBJECT, &token.subject);
    ANCHORS.map(|path| {
        let value = find(&token.claims, path).and_then(text_of);
        value.map_or(first, |value| of(path, &value))
    })
}

impl TrustRule {
    fn shape(&self) -> Shape {
        Shape::of(&self.issuer, &self.conditions)
    }

    /// The exact condition on the narrowest immutable claim.
    fn anchored(issuer: &str, conditions: &[Condition]) -> Option<(Path, String)> {
        Shape::of(issuer, conditions).immutable().iter().find_map(|path| {
            let exact = conditions.iter().find(|it| it.equals.is_some() && it.path() == *path)?;
            Some((*path, exact.equals.clone()?))
        })
    }

    /// The hashes of its anchor: for its workspace, and for all.
    fn anchors(&self) -> Option<(Hash, Hash)> {
        let (path, value) = Self::anchored(&self.issuer, &self.conditions)?;
        let of = |workspace| anchor(workspace, &self.issuer, &self.audience, (path, &value));
        Some((of(Some(self.workspace)), of(None)))
    }

    /// Whether this rule trusts a token; otherwise the reason for the audit.
    pub fn trusts(&self, token: &WorkloadToken, now: Timestamp) -> Result<(), &'static str> {
        if self.issuer != *token.issuer || self.audience != token.audience {
            return Err("trust_rule_audience");
        }
        if !self.conditions.iter().all(|it| it.met_by(&token.claims)) {
            return Err("trust_rule_conditions");
        }
        match self.expires_at {
            Some(end) if end <= now => Err("trust_rule_expired"),
            _ => Ok(()),
        }
    }

    /// A token that satisfies the conditions. Only the explanation of a decision uses it, because no issuer has signed it.
    pub fn satisfying_token(&self, now: Timestamp) -> WorkloadToken {
        let mut claims = Map::new();
        for condition in &self.conditions {
            let path = condition.path();
            let Some((last, above)) = path.split_last() else { continue };
            let mut at = Some(&mut claims);
            for step in above {
                let below =
                    at.map(|at| at.entry(step.to_string()).or_insert_with(|| Value::Object(Map::new())));
                at = below.and_then(Value::as_object_mut);
            }
            if let Some(at) = at {
                at.entry(last.to_string()).or_insert_with(|| condition.text().into());
            }
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (issuer, audience) = (self.issuer.as_str().into(), self.audience.clone());
        WorkloadToken { issuer, audience, subject, id: None, expires_at: now, claims }
    }

    /// The order of precedence between rules that trust the same token: the most exact conditions, then the most conditions,
    /// then the oldest rule.
    fn precedence(&self) -> (usize, usize, i64) {
        let exact = self.conditions.iter().filter(|it| it.equals.is_some()).count();
        (exact, self.conditions.len(), -self.position)
    }

    /// The bytes that it counts for in the workspace's stored bytes.
    fn bytes(&self) -> usize {
        let of_condition = |it: &Condition| it.claim.len() + it.text().len();
        let conditions: usize = self.conditions.iter().map(of_condition).sum();
        self.name.len() + self.issuer.len() + self.audience.len() + conditions
    }
}

/// The one rule that a token acts by, among those of one workspace that were found for it. Several rules are never combined.
///
/// # Errors
/// No rule trusts the token. The reason is that of the last rule.
pub fn chosen<T>(
    found: Vec<T>,
    rule: impl Fn(&T) -> &TrustRule,
    token: &WorkloadToken,
    now: Timestamp,
) -> Result<T, Option<&'static str>> {
    let mut reason = None;
    let trusting = found.into_iter().filter(|it| match rule(it).trusts(token, now) {
        Ok(()) => true,
        Err(why) => {
            reason = Some(why);
            false
        }
    });
    let best = trusting.max_by_key(|it| rule(it).precedence());
    best.ok_or(reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conditions(given: Value) -> Vec<Condition> {
        serde_json::from_value(given).unwrap()
    }

    #[test]
    fn the_shape_is_known_from_issuer_claims_and_subject() {
        let other = "https://id.example";
        for (issuer, given, shape) in [
            (other, json!([{ "claim": "sub", "equals": "abc" }]), Shape::Other),
            (other, json!([{ "claim": "sub", "equals": "spiffe://a/b" }]), Shape::Spiffe),
            (
                other,
                json!([{ "claim": "sub", "equals": "repo:a/b:ref:refs/heads/main" }]),
                Shape::GithubActions,
            ),
            (other, json!([{ "claim": "repository", "equals": "a/b" }]), Shape::GithubActions),
            (other, json!([{ "claim": "/sub", "equals": "project_path:a/b" }]), Shape::GitlabCi),
            (other, json!([{ "claim": "sub", "equals": "system:serviceaccount:a:b" }]), Shape::Kubernetes),
            (other, json!([{ "claim": "/kubernetes.io/namespace", "equals": "a" }]), Shape::Kubernetes),
            ("https://ghes.example/_services/token", json!([]), Shape::GithubActions),
            (
                "https://token.actions.githubusercontent.com/octo",
                json!([{ "claim": "sub", "equals": "x" }]),
                Shape::GithubActions,
            ),
        ] {
            assert_eq!(Shape::of(issuer, &conditions(given.clone())), shape, "{given}");
        }
    }

    #[test]
    fn a_condition_reads_one_claim_of_a_simple_type() {
        let claims = json!({
            "ref": "refs/heads/main", "n": 7, "b": true, "f": 1.5, "list": ["a"],
            "kubernetes.io": { "serviceaccount": { "uid": "u-1" } }, "a/b": { "~": "x" },
        });
        let claims = claims.as_object().unwrap();
        for (given, met) in [
            (json!({ "claim": "ref", "equals": "refs/heads/main" }), true),
            (json!({ "claim": "/ref", "equals": "refs/heads/main" }), true),
            (json!({ "claim": "ref", "equals": "refs/heads/main2" }), false),
            (json!({ "claim": "ref", "starts_with": "refs/heads/" }), true),
            (json!({ "claim": "ref", "starts_with": "refs/tags/" }), false),
            (json!({ "claim": "n", "equals": "7" }), true),
            (json!({ "claim": "n", "starts_with": "7" }), false),
            (json!({ "claim": "b", "equals": "true" }), true),
            (json!({ "claim": "f", "equals": "1.5" }), false),
            (json!({ "claim": "list", "equals": "a" }), false),
            (json!({ "claim": "/list/0", "equals": "a" }), false),
            (json!({ "claim": "/kubernetes.io/serviceaccount/uid", "equals": "u-1" }), true),
            (json!({ "claim": "kubernetes.io", "equals": "u-1" }), false),
            (json!({ "claim": "/a~1b/~0", "equals": "x" }), true),
            (json!({ "claim": "absent", "equals": "" }), false),
        ] {
            assert_eq!(conditions(json!([given]))[0].met_by(claims), met, "{given}");
        }
    }

    #[test]
    fn an_anchor_is_of_its_workspace_issuer_audience_and_claim_alone() {
        let of = |issuer, audience, claim| anchor(None, issuer, audience, claim);
        let one = of("i", "a", (SUBJECT, "x"));
        for other in [
            of("i2", "a", (SUBJECT, "x")),
            of("i", "a2", (SUBJECT, "x")),
            of("i", "a", (REPOSITORY, "x")),
            of("i", "a", (SUBJECT, "y")),
            of("ia", "", (SUBJECT, "x")),
            anchor(Some(WorkspaceId(uuid::Uuid::nil())), "i", "a", (SUBJECT, "x")),
        ] {
            assert_ne!(one, other);
        }
    }
}
