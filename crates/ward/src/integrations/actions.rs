//! Writes on integrations: create, update, delete, and the sending of a test call.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_db::{Timestamp, Tx};

use super::secrets::{AuthInput, Place, Plan, SecretAt, Stored, strip};
use super::{
    AuthConfig, Config, Endpoint, Integration, MOST, Mcp, Protocol, connectors, own_base_url, store,
};
use crate::app::App;
use crate::audit::{self, Actor, Event};
use crate::error::ApiError;
use crate::http::caller::{Caller, Entry, Held};
use crate::http::idempotency::{Repeat, Secrecy};
use crate::http::validate::Present;
use crate::http::{Context, Reply};
use crate::ids::IntegrationId;
use crate::vault::SealedRow;
use crate::{sync, workspaces};

/// `CreateIntegrationRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NewIntegration {
    name: String,
    display_name: String,
    protocol: Protocol,
    base_url: String,
    auth: Option<AuthInput>,
    endpoints: Vec<Endpoint<AuthInput>>,
    enabled: bool,
    #[serde(flatten)]
    mcp: Mcp,
}

/// `UpdateIntegrationRequest`, validated. Absent and null leave a field alone, but a null clears `auth` and what concerns
/// a tool server, which have no other way to say "none".
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Change {
    display_name: Option<String>,
    protocol: Option<Protocol>,
    base_url: Option<String>,
    auth: Option<AuthInput>,
    endpoints: Option<Vec<Endpoint<AuthInput>>>,
    enabled: Option<bool>,
    #[serde(flatten)]
    mcp: Mcp,
    /// Which fields the request holds, null or not.
    #[serde(skip)]
    present: Present,
}

impl Change {
    /// The change with which of its fields the request holds.
    pub fn given(mut self, present: Present) -> Self {
        self.present = present;
        self
    }

    fn gives(&self, field: &str) -> bool {
        self.present.gives(field)
    }
}

/// A configuration whose secrets are still to be settled.
struct Wanted {
    config: Config,
    auth: Option<AuthInput>,
    endpoints: Vec<Endpoint<AuthInput>>,
}

impl Wanted {
    /// The configuration with its references, and what becomes of the secrets.
    fn settle(self, stored: &[Stored]) -> Result<(Config, Plan), ApiError> {
        let Self { mut config, auth, endpoints } = self;
        let mut plan = Plan::default();
        let own = Place { endpoint: None, base_url: &config.base_url };
        config.auth = auth.map(|auth| plan.settle(&own, &auth, stored));
        config.endpoints = endpoints
            .into_iter()
            .enumerate()
            .map(|(index, mut endpoint)| {
                let base_url = own_base_url(&endpoint).map(str::to_owned);
                let name = endpoint.name.clone();
                let place = Place {
                    endpoint: Some((index, &name)),
                    base_url: base_url.as_deref().unwrap_or(&config.base_url),
                };
                let auth: Option<AuthConfig> =
                    endpoint.auth.take().map(|auth| plan.settle(&place, &auth, stored));
                endpoint.with_auth(auth)
            })
            .collect();
        if !plan.problems.is_empty() {
            return Err(ApiError::invalid(plan.problems));
        }
        if config.enabled && is_unfinished(&config) {
            return Err(ApiError::conflict(
                "integration_unfinished",
                "A base_url or token_url of it still has placeholders; fill them in before it is enabled.",
            ));
        }
        Ok((config, plan))
    }
}

/// Whether a URL of it, or of an endpoint, still has a placeholder.
fn is_unfinished(config: &Config) -> bool {
    let token_url = |auth: Option<&AuthConfig>| {
        auth.and_then(|auth| auth.token_url.as_deref()).is_some_and(|url| url.contains('{'))
    };
    config.base_url.contains('{')
        || token_url(config.auth.as_ref())
        || config.endpoints.iter().any(|endpoint| {
            own_base_url(endpoint).is_some_and(|url| url.contains('{')) || token_url(endpoint.auth.as_ref())
        })
}

fn event<'a>(
    context: &'a Context,
    caller: &Caller,
    action: &'static str,
    integration: &'a Integration,
    metadata: Value,
) -> Event<'a> {
    Event { actor: Actor::of(caller), ..plain_event(context, action, integration, metadata) }
}

/// The same event without an actor.
fn plain_event<'a>(
    context: &'a Context,
    action: &'static str,
    integration: &'a Integration,
    metadata: Value,
) -> Event<'a> {
    Event {
        workspace: integration.workspace,
        service: "integrations",
        action,
        resource_type: "integration",
        resource_id: Some(integration.id.0),
        resource_name: Some(&integration.name),
        actor: Actor::NOBODY,
        context,
        metadata,
    }
}

fn secrets_set(plan: &Plan) -> Vec<&str> {
    plan.put.iter().map(|(field, ..)| field.0.as_str()).collect()
}

/// Adds an integration.
pub(super) async fn create(
    app: &Arc<App>,
    entry: Entry,
    new: NewIntegration,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    app.db
        .write("integrations.create", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            repeat.once(tx, &vault, Secrecy::Open, |tx| {
                let (workspace, now) = (seen.workspace.id, entry.context.now);
                free_name(tx, &seen.workspace, &new.name)?;
                let new = new.clone();
                let config = Config {
                    display_name: new.display_name,
                    protocol: new.protocol,
                    base_url: new.base_url,
                    auth: None,
                    endpoints: Vec::new(),
                    mcp: new.mcp,
                    enabled: new.enabled,
                };
                let wanted = Wanted { config, auth: new.auth, endpoints: new.endpoints };
                let (config, plan) = wanted.settle(&[])?;
                let integration = Integration {
                    id: IntegrationId::at(now),
                    workspace,
                    name: new.name,
                    builtin: false,
                    created_at: now,
                    updated_at: now,
                    position: workspaces::next_position(tx, workspace, now)?,
                    config,
                };
                store::insert(tx, &integration)?;
                plan.carry_out(tx, &vault, (workspace, integration.id), &[], now)?;
                let what = json!({
                    "protocol": integration.config.protocol,
                    "enabled": integration.config.enabled,
                    "secrets_set": secrets_set(&plan),
                });
                audit::record(tx, event(&entry.context, &caller, "integration.create", &integration, what))?;
                Ok(super::api::Shown::from(integration))
            })
        })
        .await
}

/// Refuses a name that is taken or kept for a connector, and one integration too many (409).
fn free_name(tx: &mut Tx<'_>, workspace: &workspaces::Workspace, name: &str) -> Result<(), ApiError> {
    if connectors::is_connector(name) {
        return Err(ApiError::conflict(
            "name_reserved",
            "This name is a connector's: provisioning a workspace with that connector adds it.",
        ));
    }
    if store::exists(tx, workspace.id, name)? {
        return Err(ApiError::conflict("name_taken", "An integration of this name is there already."));
    }
    if store::count(tx, workspace.id)?.unsigned_abs() >= MOST as u64 {
        return Err(ApiError::conflict("too_many_integrations", "A workspace has at most 100 integrations."));
    }
    Ok(())
}

fn found(
    tx: &mut Tx<'_>,
    workspace: crate::ids::WorkspaceId,
    id: IntegrationId,
) -> Result<Integration, ApiError> {
    store::get(tx, workspace, id)?.ok_or(ApiError::no_integration())
}

/// Changes what an operator configures. A change that changes nothing writes nothing.
pub(super) async fn update(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    change: Change,
) -> Result<Integration, ApiError> {
    let vault = app.vault.clone();
    let updated = app
        .db
        .write("integrations.update", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let mut integration = found(tx, seen.workspace.id, id)?;
            let stored = store::secrets(tx, integration.workspace, id)?;
            let (config, plan) = merged(&integration.config, change.clone()).settle(&stored)?;
            if integration.builtin && config.enabled && config.base_url.is_empty() {
                return Err(ApiError::conflict(
                    "integration_unfinished",
                    "It has no base_url yet; set one before it is enabled.",
                ));
            }
            let fields = differences(&integration.config, &config);
            if fields.is_empty() && plan.put.is_empty() {
                return Ok::<_, ApiError>(integration);
            }
            let now = entry.context.now;
            integration.config = config;
            integration.updated_at = now.max(Timestamp::from_micros(integration.updated_at.micros() + 1));
            store::update(tx, &integration)?;
            let dropped = plan.carry_out(tx, &vault, (integration.workspace, id), &stored, now)?;
            let what =
                json!({ "fields": fields, "secrets_set": secrets_set(&plan), "secrets_dropped": dropped });
            audit::record(tx, event(&entry.context, &caller, "integration.update", &integration, what))?;
            sync::integration_changed(tx, integration.workspace, id, now)?;
            Ok(integration)
        })
        .await?;
    app.sync.wake();
    Ok(updated)
}

fn merged(present: &Config, change: Change) -> Wanted {
    let as_input = |endpoint: &Endpoint<AuthConfig>| {
        let auth = endpoint.auth.clone().map(AuthInput::from);
        endpoint.clone().with_auth(auth)
    };
    let auth =
        if change.gives("auth") { change.auth.clone() } else { present.auth.clone().map(AuthInput::from) };
    let mut mcp = present.mcp.clone();
    if change.gives("mcp_transport") {
        mcp.mcp_transport.clone_from(&change.mcp.mcp_transport);
    }
    if change.gives("mcp_url") {
        mcp.mcp_url.clone_from(&change.mcp.mcp_url);
    }
    if change.gives("mcp_command") {
        mcp.mcp_command.clone_from(&change.mcp.mcp_command);
    }
    if change.gives("mcp_args") {
        mcp.mcp_args.clone_from(&change.mcp.mcp_args);
    }
    if change.gives("mcp_headers") {
        mcp.mcp_headers.clone_from(&change.mcp.mcp_headers);
    }
    Wanted {
        auth,
        endpoints: change.endpoints.unwrap_or_else(|| present.endpoints.iter().map(as_input).collect()),
        config: Config {
            display_name: change.display_name.unwrap_or_else(|| present.display_name.clone()),
            protocol: change.protocol.unwrap_or(present.protocol),
            base_url: change.base_url.unwrap_or_else(|| present.base_url.clone()),
            auth: None,
            endpoints: Vec::new(),
            mcp,
            enabled: change.enabled.unwrap_or(present.enabled),
        },
    }
}

/// The names of the fields that differ: their values could be anything, and some are nearly secrets.
fn differences(from: &Config, to: &Config) -> Vec<&'static str> {
    [
        ("display_name", from.display_name != to.display_name),
        ("protocol", from.protocol != to.protocol),
        ("base_url", from.base_url != to.base_url),
        ("auth", from.auth != to.auth),
        ("endpoints", from.endpoints != to.endpoints),
        ("mcp", from.mcp != to.mcp),
        ("enabled", from.enabled != to.enabled),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

/// Deletes an integration with its secrets. What provisioning seeded can only be disabled.
pub(super) async fn delete(app: &Arc<App>, entry: Entry, id: IntegrationId) -> Result<(), ApiError> {
    app.db
        .write("integrations.delete", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let integration = found(tx, seen.workspace.id, id)?;
            if integration.builtin {
                return Err(ApiError::conflict(
                    "builtin_integration",
                    "The connector's own integration cannot be deleted; disable it instead.",
                ));
            }
            store::delete(tx, integration.workspace, id)?;
            audit::record(tx, event(&entry.context, &caller, "integration.delete", &integration, json!({})))
        })
        .await
}

/// Forgets secrets of one integration that no key opens any more, for the operator. A secret that was replaced since stays.
/// Returns how many are gone.
pub fn forget_secrets(
    tx: &mut Tx<'_>,
    context: &Context,
    rows: &[SealedRow<SecretAt>],
) -> Result<usize, ApiError> {
    let Some((workspace, id, _)) = rows.first().map(|row| &row.at) else { return Ok(0) };
    let (workspace, id) = (*workspace, *id);
    workspaces::guard(tx, workspace)?;
    let mut gone = Vec::new();
    for row in rows {
        if store::drop_sealed(tx, row)? {
            gone.push(row.at.2.as_str());
        }
    }
    let Some(mut integration) = store::get(tx, workspace, id)?.filter(|_| !gone.is_empty()) else {
        return Ok(gone.len());
    };
    if let Some(auth) = &mut integration.config.auth {
        strip(auth, &Place { endpoint: None, base_url: "" }, &gone);
    }
    for (index, endpoint) in integration.config.endpoints.iter_mut().enumerate() {
        if let Some(auth) = &mut endpoint.auth {
            strip(auth, &Place { endpoint: Some((index, &endpoint.name)), base_url: "" }, &gone);
        }
    }
    integration.updated_at = context.now.max(Timestamp::from_micros(integration.updated_at.micros() + 1));
    store::update(tx, &integration)?;
    let what = json!({ "secrets_forgotten": gone });
    audit::record(
        tx,
        Event {
            actor: Actor::OPERATOR,
            ..plain_event(context, "integration.secrets_forgotten", &integration, what)
        },
    )?;
    Ok(gone.len())
}

/// Records that an endpoint is about to be called, before it is: what was done elsewhere cannot be taken back.
pub(super) fn record_test(
    tx: &mut Tx<'_>,
    context: &Context,
    caller: &Caller,
    integration: &Integration,
    endpoint: &Endpoint<AuthConfig>,
) -> Result<(), ApiError> {
    let what = json!({ "endpoint": endpoint.name, "method": endpoint.method });
    audit::record(tx, event(context, caller, "integration.test", integration, what))
}
