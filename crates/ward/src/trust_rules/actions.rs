//! Writes on trust rules: create and delete.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use ward_db::Timestamp;

use super::wire::TrustRuleResponse;
use super::{Condition, TrustRule, store};
use crate::access::{Reach, Role};
use crate::api_keys::networks::actions::within_networks_of;
use crate::api_keys::permissions_named;
use crate::app::App;
use crate::audit::{Subject, Write};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::identity::{self, PrincipalKind};
use crate::ids::PrincipalId;
use crate::members::beyond_caller;
use crate::networks::Networks;
use crate::quotas::{self, Change as Count};
use crate::workspaces;

#[derive(Clone, Debug, Deserialize)]
pub struct CreateTrustRuleRequest {
    name: String,
    issuer: String,
    audience: String,
    conditions: Vec<Condition>,
    role: String,
    #[serde(default)]
    permissions: Vec<String>,
    expires_at: Option<String>,
}

pub const fn no_rule() -> ApiError {
    ApiError::missing("trust_rule_not_found", "Trust rule not found.")
}

/// Refuses an issuer whose tokens no rule of a tenant can judge (422).
fn allowed_issuer(app: &App, issuer: &str) -> Result<(), ApiError> {
    if app.issuers.named(issuer).is_some() {
        return Err(ApiError::unprocessable(
            "issuer_configured",
            "The operator has configured this issuer, so its tokens already act for members of their own.",
        ));
    }
    if issuer.starts_with("http:") && !app.config.outbound.plain_http {
        return Err(ApiError::unprocessable("issuer_without_tls", "The issuer must be an https URL."));
    }
    Ok(())
}

/// Creates a rule with a service of its own. Its permissions must lie within the caller's, as those of a new key (403
/// otherwise).
pub async fn create(
    app: &Arc<App>,
    entry: Entry,
    new: CreateTrustRuleRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    allowed_issuer(app, &new.issuer)?;
    let role = Role::named(&new.role).ok_or_else(|| ApiError::internal("an unvalidated role"))?;
    let narrowed = permissions_named(&new.permissions);
    let reach = Reach::narrowed(role, narrowed);
    let time = |text: &String| text.parse().map_err(|_| ApiError::internal("a time that was not normalized"));
    let expires_at: Option<Timestamp> = new.expires_at.as_ref().map(time).transpose()?;
    if expires_at.is_some_and(|end| end <= entry.context.now) {
        return Err(ApiError::unprocessable("expires_in_the_past", "`expires_at` must be in the future."));
    }
    let usual = app.config.quotas;
    let create = move |write: &mut Write<'_, '_>, held: &Held| {
        let now = write.now();
        held.seen.authority.covers(reach).map_err(beyond_caller)?;
        // A rule has no networks, so a key with networks would free itself by one.
        within_networks_of(&held.caller, &Networks::default())?;
        repeat.once(write, Secrecy::Open, |write| {
            let kind = PrincipalKind::Service;
            let service = identity::create(write, kind, Some(&new.name), now)?;
            identity::join(write, (service, kind), role, now)?;
            let rule = TrustRule {
                id: service,
                workspace: write.row(),
                name: new.name.clone(),
                issuer: new.issuer.clone(),
                audience: new.audience.clone(),
                conditions: new.conditions.clone(),
                reach,
                created_by: held.caller.principal,
                created_with: held.caller.credential_id(),
                expires_at,
                created_at: now,
                position: workspaces::next_position(write, now)?,
            };
            let (look_up, anchor) =
                rule.anchors().ok_or_else(|| ApiError::internal("a rule without an anchor"))?;
            if store::is_full(write, &look_up)? {
                return Err(ApiError::conflict(
                    "too_many_trust_rules",
                    "This workspace has 20 rules for the same immutable claim. Delete some, or combine them.",
                ));
            }
            let more = Count { members: 1, ..Count::bytes(rule.bytes()) };
            let workspace = write.row();
            quotas::take(write, workspace, &usual, more, now)?;
            store::insert(write, &rule, narrowed, (&look_up, &anchor))?;
            record(write, "trust_rule.create", &rule)?;
            Ok(TrustRuleResponse::from(rule))
        })
    };
    entry.write(app, "trust_rules.create", create).await
}

/// Deletes a rule, whose tokens are refused from the commit on. Its service leaves the workspace.
pub async fn delete(app: &Arc<App>, entry: Entry, id: PrincipalId) -> Result<(), ApiError> {
    let delete = move |write: &mut Write<'_, '_>, held: &Held| {
        let workspace = held.seen.workspace.id;
        let rule = store::get(write, workspace, id)?.ok_or(no_rule())?;
        if held.caller.principal != rule.id {
            held.seen.authority.covers(rule.reach).map_err(beyond_caller)?;
        }
        end(write, &rule)?;
        quotas::give_back(write, workspace, Count { members: -1, ..Count::default() })?;
        Ok(identity::leave(write, rule.id)?)
    };
    entry.write(app, "trust_rules.delete", delete).await
}

/// Deletes the rule of a service that leaves the workspace in another way.
pub fn end_of_member(write: &mut Write<'_, '_>, member: PrincipalId) -> Result<(), ApiError> {
    let workspace = write.row();
    match store::get(write, workspace, member)? {
        Some(rule) => end(write, &rule),
        None => Ok(()),
    }
}

fn end(write: &mut Write<'_, '_>, rule: &TrustRule) -> Result<(), ApiError> {
    let bytes = -Count::bytes(rule.bytes()).bytes;
    let workspace = write.row();
    quotas::give_back(write, workspace, Count { bytes, ..Count::default() })?;
    store::delete(write, rule.id)?;
    record(write, "trust_rule.delete", rule)
}

fn record(write: &mut Write<'_, '_>, action: &'static str, rule: &TrustRule) -> Result<(), ApiError> {
    let name = Some(rule.name.as_str());
    let about = Subject { service: "trust_rules", kind: "trust_rule", id: Some(rule.id.0), name };
    let what = json!({
        "issuer": rule.issuer,
        "audience": rule.audience,
        "conditions": rule.conditions,
        "role": rule.reach.role,
        "permissions": rule.reach.permissions,
        "expires_at": rule.expires_at,
    });
    write.record(action, about, what)
}
