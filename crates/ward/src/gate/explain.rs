//! The gate's decision about another caller.
//!
//! The gate itself makes it: the same look-up, the same judgement of the credential and the same requirements, for a credential
//! that is assumed instead of presented. Nothing else decides here, so an explanation cannot differ from the real answer.
//! It writes nothing, charges no rate and takes no `Idempotency-Key`. Rates are no part of it, and neither are rules about
//! the thing that a request names, such as the role of a member.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use ward_contract::{Access, Operation};
use ward_db::{Timestamp, Tx};

use super::decide::Need;
use super::{Proof, Recognized, recognize};
use crate::access::{Permission, Role};
use crate::api_keys;
use crate::api_keys::secret::{KeyId, Presented};
use crate::error::ApiError;
use crate::identity::issuers::Issuers;
use crate::identity::token::VerifiedToken;
use crate::identity::{self, Caller, Credential};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::members;
use crate::trust_rules;
use crate::workspaces;

/// The caller that a question is about.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// A member of the workspace, who would present an access token.
    Member(PrincipalId),
    /// A key of the workspace, with its present secret.
    Key(KeyId),
}

/// A question about a request that another caller would send.
#[derive(Clone, Debug)]
pub struct Question {
    /// The workspace of the caller, and of the request's path if that has one.
    pub workspace: WorkspaceId,
    /// The slug in the request's path, which must name that workspace.
    pub slug: Option<String>,
    pub caller: Asked,
    pub operation: Arc<Operation>,
    /// The permission that the query of `authorize` names.
    pub permission: Option<Permission>,
    pub now: Timestamp,
    /// The address from which the request would come.
    pub address: IpAddr,
}

/// The gate's answer to a question.
#[derive(Debug, Default)]
pub struct Explanation {
    /// The checks in their order, up to the first that fails.
    pub checks: Vec<Check>,
    /// The refusal that the request would get; `None` if the gate admits it.
    pub refusal: Option<ApiError>,
}

/// One check of the gate, with its result.
#[derive(Debug, Serialize)]
pub struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    passed: bool,
    /// The fixed word for the failure.
    reason: Option<&'static str>,
    detail: String,
}

impl Explanation {
    fn passed(&mut self, check: &'static str, detail: String) {
        self.checks.push(Check { name: check, passed: true, reason: None, detail });
    }

    fn failed(
        mut self,
        check: &'static str,
        reason: &'static str,
        detail: String,
        refusal: ApiError,
    ) -> Self {
        self.checks.push(Check { name: check, passed: false, reason: Some(reason), detail });
        self.refusal = Some(refusal);
        self
    }
}

/// The answer to a question about a request that is none of the workspace's own.
pub const NOT_OF_THIS_WORKSPACE: ApiError =
    ApiError::missing("operation_not_found", "No operation of this workspace is named so.");

/// Answers a question. An unknown caller, and one of another workspace, get the same 404.
pub fn explain(tx: &mut Tx<'_>, issuers: &Issuers, question: &Question) -> Result<Explanation, ApiError> {
    if let Some(slug) = &question.slug
        && workspaces::slugs::named(tx, slug, question.now)? != Some(question.workspace)
    {
        return Err(NOT_OF_THIS_WORKSPACE);
    }
    let proof = assumed(tx, issuers, question)?;
    let mut explained = Explanation::default();
    if question.operation.access == Access::Anonymous {
        explained.passed("credential", "The operation takes no credential of Ward.".to_owned());
        return Ok(explained);
    }
    let Some(proof) = proof else {
        let detail =
            "No configured issuer signs tokens for this member. Ask about one of its keys.".to_owned();
        return Ok(explained.failed("credential", "no_identity", detail, ApiError::unauthorized()));
    };
    let path = &question.operation.path;
    let names_one = path.contains("{workspace_id}") || path.contains("{slug}");
    let target = names_one.then_some(question.workspace);
    let when_and_where = (question.now, question.address);
    let Recognized { caller, seen, kept_out } = match recognize(tx, &proof, target, when_and_where)? {
        Ok(recognized) => recognized,
        Err(refused) => {
            let reason = refused.reason();
            let detail = format!("The credential is refused: {reason}.");
            return Ok(explained.failed("credential", reason, detail, ApiError::unauthorized()));
        }
    };
    explained.passed("credential", described(&caller));
    let need = Need::of(&question.operation);
    let need = if question.operation.id == "authorize" { need.judging(question.permission) } else { need };
    let decision = need.decide(target, &caller, seen.as_ref());
    let authority = match (&seen, target) {
        (Some(seen), _) => {
            let role = seen.authority.membership.map_or("", Role::name);
            explained.passed("workspace", format!("The caller is a member with the role {role}."));
            seen.authority
        }
        (None, None) => caller.authority(),
        (None, Some(_)) => {
            let reason = kept_out.unwrap_or("no_member");
            let detail = format!("The workspace does not admit the caller: {reason}.");
            return Ok(explained.failed("workspace", reason, detail, ApiError::no_workspace()));
        }
    };
    for requirement in need.requirements(&caller) {
        let name = requirement.name();
        match requirement.met_by(&caller, authority).err().and_then(|refusal| refusal.why()) {
            None => explained.passed(name, requirement.describe()),
            Some(why) => {
                let detail = format!("{} {}", requirement.describe(), why.because.detail());
                explained.checks.push(Check {
                    name,
                    passed: false,
                    reason: Some(why.because.reason()),
                    detail,
                });
                break;
            }
        }
    }
    explained.refusal = decision.err();
    Ok(explained)
}

/// The credential that the caller would present. `None`: the member cannot present a token.
fn assumed(tx: &mut Tx<'_>, issuers: &Issuers, question: &Question) -> Result<Option<Proof>, ApiError> {
    match question.caller {
        Asked::Key(key_id) => {
            let record = api_keys::look_up(tx, key_id)?.filter(|record| record.home == question.workspace);
            let record = record.ok_or(ApiError::no_api_key())?;
            Ok(Some(Proof::Key(Presented { key_id, hash: record.secret_hash })))
        }
        Asked::Member(principal) => {
            if !members::is_member(tx, question.workspace, principal)? {
                return Err(ApiError::missing("entity_not_found", "No such principal in this workspace."));
            }
            let subjects = identity::subjects_of(tx, principal)?;
            let token = subjects.into_iter().find_map(|subject| {
                let issuer = issuers.named(&subject.issuer)?.clone();
                Some(VerifiedToken::assumed(issuer, subject.subject, (principal, subject.kind), question.now))
            });
            if let Some(token) = token {
                return Ok(Some(Proof::Token(Arc::new(token))));
            }
            let rule = trust_rules::get(tx, question.workspace, principal)?;
            Ok(rule.map(|rule| Proof::Workload(Arc::new(rule.satisfying_token(question.now)))))
        }
    }
}

/// The valid credential, in one sentence.
fn described(caller: &Caller) -> String {
    let kind = caller.kind.name();
    match &caller.credential {
        Credential::Key(key) => {
            let role = caller.reach.role.name();
            let proof =
                if key.bound_to.is_some() { " Each request needs a proof of its public key." } else { "" };
            format!("The key is valid, has the role {role}, and speaks for a {kind}.{proof}")
        }
        Credential::Workload(_) => "A token that the trust rule accepts speaks for its service.".to_owned(),
        Credential::Token(token) => format!("A token of {} speaks for this {kind}.", token.issuer.name),
    }
}
