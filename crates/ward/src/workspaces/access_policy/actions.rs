//! Writes on access policies.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ward_contract::validate::{Json, Problem};

use super::{AcceptedIssuers, AccessPolicy, store};
use crate::api_keys::last_way_in;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::identity;
use crate::networks::Networks;
use crate::quotas::{self, Change as Count};
use crate::workspaces::{Workspace, operator};

#[derive(Clone, Debug, Deserialize)]
pub struct SetAccessPolicyRequest {
    networks: Vec<String>,
    issuers: Vec<String>,
}

/// Replaces the policy. The same policy writes nothing. The caller must be admitted by the new one (409).
pub async fn set(
    app: &Arc<App>,
    entry: Entry,
    sent: SetAccessPolicyRequest,
) -> Result<AccessPolicy, ApiError> {
    let wanted = AccessPolicy {
        networks: Networks::parse(&sent.networks).map_err(ApiError::internal)?,
        issuers: AcceptedIssuers::new(sent.issuers.clone()),
    };
    let configured = app.issuers.names();
    let set = move |write: &mut Write<'_, '_>, held: &Held| {
        let workspace = &held.seen.workspace;
        let known =
            |name: &str| configured.iter().any(|it| **it == *name) || workspace.policy.issuers.contains(name);
        let unknown = sent.issuers.iter().enumerate().filter(|(_, name)| !known(name));
        let problems: Vec<Problem> = unknown.map(|(index, name)| unknown_issuer(index, name)).collect();
        if !problems.is_empty() {
            return Err(ApiError::invalid(problems));
        }
        if wanted == workspace.policy {
            return Ok(wanted.clone());
        }
        admit_caller(write, held, &wanted)?;
        change(write, workspace, &wanted)?;
        if wanted.issuers != workspace.policy.issuers {
            last_way_in::keep_way_in(write)?;
        }
        Ok(wanted.clone())
    };
    entry.write(app, "workspaces.set_access_policy", set).await
}

/// An issuer whose tokens this Ward does not take would keep every user out.
fn unknown_issuer(index: usize, name: &str) -> Problem {
    let loc = vec!["body".into(), "issuers".into(), index.into()];
    Problem::value_error(loc, "Not an issuer of this server's settings", Json::String(name.to_owned()))
}

/// Refuses a policy that would keep its caller out (409).
fn admit_caller(write: &mut Write<'_, '_>, held: &Held, wanted: &AccessPolicy) -> Result<(), ApiError> {
    wanted.networks.keep_caller(write.context)?;
    let caller = &held.caller;
    let accepted = match caller.token() {
        Some(token) => wanted.issuers.accept(caller.kind, Some(&token.issuer.name)),
        None => identity::is_accepted(write, &wanted.issuers, caller.principal)?,
    };
    if accepted {
        return Ok(());
    }
    Err(ApiError::conflict(
        "would_lock_out",
        "You are not a user of these issuers, so you would lock yourself out. Sign in with one of them first.",
    ))
}

/// Stores another policy, and records both.
fn change(write: &mut Write<'_, '_>, workspace: &Workspace, wanted: &AccessPolicy) -> Result<(), ApiError> {
    let former = &workspace.policy;
    store::set(write, wanted)?;
    quotas::give_back(
        write,
        workspace.id,
        Count { bytes: bytes(wanted) - bytes(former), ..Count::default() },
    )?;
    let mut changes = Map::new();
    let mut note = |field: &str, from: Value, to: Value| {
        if from != to {
            changes.insert(field.to_owned(), json!({ "from": from, "to": to }));
        }
    };
    note("networks", json!(former.networks), json!(wanted.networks));
    note("issuers", json!(former.issuers), json!(wanted.issuers));
    write.record("workspace.access_policy", workspace.subject(), json!({ "changes": changes }))
}

/// The bytes that a policy counts for as stored.
fn bytes(policy: &AccessPolicy) -> i64 {
    let texts = [policy.networks.stored(), policy.issuers.stored()];
    Count::bytes(texts.iter().flatten().map(String::len).sum()).bytes
}

/// The parts of a policy that the operator lifts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifted {
    pub networks: bool,
    pub issuers: bool,
}

/// Lifts parts of a workspace's policy as the operator, for people who have locked themselves out. Returns the remaining
/// policy.
pub fn lift(write: &mut Write<'_, '_>, lifted: Lifted) -> Result<AccessPolicy, ApiError> {
    let workspace = write.row();
    let found = operator::find(write, &workspace.to_string())?.ok_or(ApiError::no_workspace())?;
    let mut policy = found.workspace.policy.clone();
    if lifted.networks {
        policy.networks = Networks::default();
    }
    if lifted.issuers {
        policy.issuers = AcceptedIssuers::default();
    }
    if policy != found.workspace.policy {
        change(write, &found.workspace, &policy)?;
    }
    Ok(policy)
}
