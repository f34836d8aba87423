//! Writes on integrations: create, update, delete, and the records of test calls.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use ward_contract::validate::{Present, Problem};
use ward_db::{Timestamp, Tx};

use super::secrets::{AssociatedData, AuthConfigWithSecrets, SecretAt, SecretPlan, StoredSecret, strip};
use super::told::{destinations, differences, endpoint_differences};
use super::{
    AuthConfig, DeliverySettings, Endpoint, Integration, IntegrationConfig, Mcp, Protocol, connectors,
    own_base_url, store,
};
use crate::app::App;
use crate::audit::{Actor, Subject, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::IntegrationId;
use crate::quotas::{self, Change as Count};
use crate::shares::Holder;
use crate::vault::SealedRow;
use crate::{deliveries, workspaces};

#[derive(Clone, Debug, Deserialize)]
pub struct CreateIntegrationRequest {
    name: String,
    display_name: String,
    protocol: Protocol,
    base_url: String,
    auth: Option<AuthConfigWithSecrets>,
    endpoints: Vec<Endpoint<AuthConfigWithSecrets>>,
    delivery: Option<DeliverySettings>,
    enabled: bool,
    #[serde(flatten)]
    mcp: Mcp,
}

/// `UpdateIntegrationRequest`, validated. Absent and null leave a field unchanged. A null clears only
/// `auth` and the fields of a tool server, which have no other way to say "none".
#[derive(Clone, Debug, Deserialize)]
pub struct UpdateIntegrationRequest {
    display_name: Option<String>,
    protocol: Option<Protocol>,
    base_url: Option<String>,
    auth: Option<AuthConfigWithSecrets>,
    endpoints: Option<Vec<Endpoint<AuthConfigWithSecrets>>>,
    delivery: Option<DeliverySettings>,
    enabled: Option<bool>,
    #[serde(flatten)]
    mcp: Mcp,
    /// The fields that the request contains, null or not.
    #[serde(skip)]
    present: Present,
}

impl UpdateIntegrationRequest {
    /// The change, with the fields that the request contains.
    pub(super) fn given(mut self, present: Present) -> Self {
        self.present = present;
        self
    }

    fn gives(&self, field: &str) -> bool {
        self.present.gives(field)
    }
}

/// A configuration whose references and secrets are not decided yet.
struct RequestedConfig {
    config: IntegrationConfig,
    auth: Option<AuthConfigWithSecrets>,
    endpoints: Vec<Endpoint<AuthConfigWithSecrets>>,
}

/// The reason why a configuration cannot be stored.
#[derive(Clone)]
enum UnstorableConfig {
    Invalid(Vec<Problem>),
    Unfinished,
}

impl From<UnstorableConfig> for ApiError {
    fn from(unstorable: UnstorableConfig) -> Self {
        match unstorable {
            UnstorableConfig::Invalid(problems) => Self::invalid(problems),
            UnstorableConfig::Unfinished => Self::conflict(
                "integration_unfinished",
                "A base_url or token_url of this integration still has placeholders: fill them in before you enable it.",
            ),
        }
    }
}

impl RequestedConfig {
    /// Decides on the references and the secrets. Returns the configuration with its references, and the plan for its
    /// secrets. The work grows with the configuration, so it runs in [`Work`].
    ///
    /// [`Work`]: crate::work::Work
    fn resolve(self, stored: &[StoredSecret]) -> Result<(IntegrationConfig, SecretPlan), UnstorableConfig> {
        let Self { mut config, auth, endpoints } = self;
        let mut plan = SecretPlan::default();
        let own = AssociatedData { endpoint: None, base_url: &config.base_url };
        config.auth = auth.map(|auth| plan.resolve(&own, &auth, stored));
        config.endpoints = endpoints
            .into_iter()
            .enumerate()
            .map(|(index, mut endpoint)| {
                let base_url = own_base_url(&endpoint).map(str::to_owned);
                let name = endpoint.name.clone();
                let place = AssociatedData {
                    endpoint: Some((index, &name)),
                    base_url: base_url.as_deref().unwrap_or(&config.base_url),
                };
                let auth: Option<AuthConfig> =
                    endpoint.auth.take().map(|auth| plan.resolve(&place, &auth, stored));
                endpoint.with_auth(auth)
            })
            .collect();
        if !plan.problems.is_empty() {
            return Err(UnstorableConfig::Invalid(plan.problems));
        }
        if config.enabled && is_unfinished(&config) {
            return Err(UnstorableConfig::Unfinished);
        }
        Ok((config, plan))
    }
}

/// Whether a URL of the integration or of an endpoint still has a placeholder.
fn is_unfinished(config: &IntegrationConfig) -> bool {
    let token_url = |auth: Option<&AuthConfig>| {
        auth.and_then(|auth| auth.token_url.as_deref()).is_some_and(|url| url.contains('{'))
    };
    config.base_url.contains('{')
        || token_url(config.auth.as_ref())
        || config.endpoints.iter().any(|endpoint| {
            own_base_url(endpoint).is_some_and(|url| url.contains('{')) || token_url(endpoint.auth.as_ref())
        })
}

/// An integration as the subject of an audit event.
pub(super) const fn subject(id: IntegrationId, name: &str) -> Subject<'_> {
    Subject { service: "integrations", kind: "integration", id: Some(id.0), name: Some(name) }
}

fn secrets_set(plan: &SecretPlan) -> Vec<&str> {
    plan.put.iter().map(|(field, ..)| field.0.as_str()).collect()
}

pub(super) async fn create(
    app: &Arc<App>,
    entry: Entry,
    new: CreateIntegrationRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let vault = app.vault.clone();
    let name = new.name.clone();
    let resolve = move || {
        let config = IntegrationConfig {
            display_name: new.display_name,
            protocol: new.protocol,
            base_url: new.base_url,
            auth: None,
            endpoints: Vec::new(),
            mcp: new.mcp,
            delivery: new.delivery.unwrap_or_default(),
            enabled: new.enabled,
        };
        let wanted = RequestedConfig { config, auth: new.auth, endpoints: new.endpoints };
        match wanted.resolve(&[]) {
            Ok((config, plan)) => store::Texts::of(&config).map(|texts| Ok((config, plan, texts))),
            Err(unstorable) => Ok(Err(unstorable)),
        }
    };
    let resolved = Arc::new(app.work.run(holder(&entry)?, resolve).await??);
    let usual = app.config.quotas;
    let create = move |write: &mut Write<'_, '_>, held: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let (workspace, now) = (write.row(), write.now());
            free_name(write, &held.seen.workspace, &name)?;
            let (config, plan, texts) =
                resolved.as_ref().as_ref().map_err(|wrong| ApiError::from(wrong.clone()))?;
            let integration = Integration {
                last_tested_at: None,
                last_test_status: None,
                id: IntegrationId::at(now),
                workspace,
                name: name.clone(),
                builtin: false,
                created_at: now,
                updated_at: now,
                position: workspaces::next_position(write, now)?,
                config: config.clone(),
            };
            store::insert(write, &integration, texts)?;
            plan.carry_out(write, &vault, integration.id, &[], now)?;
            let bytes = store::weigh(write, integration.id)?;
            let more = Count { bytes, integrations: 1, ..Count::default() };
            quotas::take(write, workspace, &usual, more, now)?;
            let what = json!({
                "protocol": integration.config.protocol,
                "enabled": integration.config.enabled,
                "destinations": destinations(&integration.config),
                "secrets_set": secrets_set(plan),
            });
            write.record("integration.create", subject(integration.id, &integration.name), what)?;
            Ok(super::api::IntegrationResponse::from(integration))
        })
    };
    entry.write(app, "integrations.create", create).await
}

/// The holder whose share pays for work in this caller's workspace.
pub(super) fn holder(entry: &Entry) -> Result<Holder, ApiError> {
    Ok(Holder::Workspace(entry.workspace()?.id))
}

/// Refuses a name that is taken, or reserved for a connector (409).
fn free_name(tx: &mut Tx<'_>, workspace: &workspaces::Workspace, name: &str) -> Result<(), ApiError> {
    if connectors::is_connector(name) {
        return Err(ApiError::conflict(
            "name_reserved",
            "This name is reserved for a connector's integration, which provisioning creates.",
        ));
    }
    if store::exists(tx, workspace.id, name)? {
        return Err(ApiError::conflict(
            "name_taken",
            "The workspace already has an integration of this name.",
        ));
    }
    Ok(())
}

/// An integration with its configuration, which is parsed as CPU work.
pub(super) async fn read(app: &Arc<App>, entry: &Entry, id: IntegrationId) -> Result<Integration, ApiError> {
    let workspace = entry.workspace()?.id;
    let found = app.db.read("integrations.get", move |tx| store::get(tx, workspace, id)).await?;
    let found = found.ok_or(ApiError::no_integration())?;
    Ok(app.work.run(holder(entry)?, move || found.parse()).await??)
}

/// How often an update is computed again because the integration changed in between.
const MOST_REWORKED: usize = 5;

/// An update, computed against the version of the integration that was read.
struct WorkedOut {
    integration: Integration,
    texts: store::Texts,
    plan: SecretPlan,
    stored: Vec<StoredSecret>,
    /// The version of the integration that was read.
    seen: Timestamp,
    /// The fields that differ. If it is empty and no secret is put, nothing is written.
    fields: Vec<&'static str>,
    /// The fields and headers that differ, by endpoint.
    endpoints: Value,
    /// The destinations before and after the update, if they differ.
    moved: Option<(Value, Value)>,
}

/// Changes the configuration. An update that changes nothing writes nothing.
///
/// The update is computed outside the transaction, because that work grows with the configuration. The
/// transaction writes it only if the integration still has the version that was read.
pub(super) async fn update(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    change: UpdateIntegrationRequest,
) -> Result<Integration, ApiError> {
    let change = Arc::new(change);
    for _ in 0..MOST_REWORKED {
        let worked_out = Arc::new(work_out(app, &entry, id, change.clone()).await?);
        if let Some(updated) = write_change(app, entry.clone(), id, worked_out).await? {
            app.sync.wake();
            return Ok(updated);
        }
    }
    Err(ApiError::unavailable("unavailable", "Other requests are changing this integration. Try again.", 1))
}

async fn work_out(
    app: &Arc<App>,
    entry: &Entry,
    id: IntegrationId,
    change: Arc<UpdateIntegrationRequest>,
) -> Result<Result<WorkedOut, UnstorableConfig>, ApiError> {
    let workspace = entry.workspace()?.id;
    let read = move |tx: &mut Tx<'_>| {
        let found = store::get(tx, workspace, id)?.ok_or(ApiError::no_integration())?;
        Ok::<_, ApiError>((found, store::secrets(tx, workspace, id)?))
    };
    let (found, stored) = app.db.read("integrations.get_with_secrets", read).await?;
    let worked_out = app.work.run(holder(entry)?, move || {
        let mut integration = found.parse()?;
        let (config, plan) = match merged(&integration.config, &change).resolve(&stored) {
            Ok(resolved) => resolved,
            Err(unstorable) => return Ok(Err(unstorable)),
        };
        let texts = store::Texts::of(&config)?;
        let fields = differences(&integration.config, &config);
        let endpoints = endpoint_differences(&integration.config.endpoints, &config.endpoints);
        let (before, after) = (destinations(&integration.config), destinations(&config));
        let moved = (before != after).then_some((before, after));
        let seen = integration.updated_at;
        integration.config = config;
        Ok::<_, ApiError>(Ok(WorkedOut { integration, texts, plan, stored, seen, fields, endpoints, moved }))
    });
    worked_out.await?
}

/// Writes an update. `None` if the integration no longer has the version that was read.
async fn write_change(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    worked_out: Arc<Result<WorkedOut, UnstorableConfig>>,
) -> Result<Option<Integration>, ApiError> {
    let vault = app.vault.clone();
    let usual = app.config.quotas;
    let update = move |write: &mut Write<'_, '_>, _: &Held| {
        let (workspace, now) = (write.row(), write.now());
        let present = store::summary(write, workspace, id)?.ok_or(ApiError::no_integration())?;
        let change = worked_out.as_ref().as_ref().map_err(|wrong| ApiError::from(wrong.clone()))?;
        if present.updated_at != change.seen {
            return Ok(None);
        }
        let mut integration = change.integration.clone();
        if integration.builtin && integration.config.enabled {
            is_complete(&integration, &change.plan)?;
        }
        if change.fields.is_empty() && change.plan.put.is_empty() {
            return Ok(Some(integration));
        }
        integration.updated_at = now.max(Timestamp::from_micros(change.seen.micros() + 1));
        (integration.last_tested_at, integration.last_test_status) = (None, None);
        store::update(write, &integration, &change.texts)?;
        let dropped = change.plan.carry_out(write, &vault, id, &change.stored, now)?;
        let more = Count { bytes: store::weigh(write, id)?, ..Count::default() };
        quotas::take(write, workspace, &usual, more, now)?;
        let mut what = json!({
            "fields": change.fields,
            "secrets_set": secrets_set(&change.plan),
            "secrets_dropped": dropped,
        });
        if change.fields.contains(&"endpoints") {
            what["endpoints_changed"] = change.endpoints.clone();
        }
        if let Some((before, after)) = &change.moved {
            what["destinations_before"] = before.clone();
            what["destinations"] = after.clone();
        }
        write.record("integration.update", subject(id, &integration.name), what)?;
        deliveries::integration_changed(write, id, now)?;
        Ok(Some(integration))
    };
    entry.write(app, "integrations.update", update).await
}

/// Refuses (409) to enable a connector's integration that could not send anything.
fn is_complete(integration: &Integration, plan: &SecretPlan) -> Result<(), ApiError> {
    let config = &integration.config;
    if config.base_url.is_empty() {
        return Err(ApiError::conflict(
            "integration_unfinished",
            "This integration has no base_url yet: set one before you enable it.",
        ));
    }
    let needs_auth = connectors::takes(&integration.name) == Some(connectors::Takes::HubSpotCall);
    let lacks_secret = config.auth.as_ref().map_or(needs_auth, |auth| !plan.keeps_secret_of(auth));
    if lacks_secret {
        return Err(ApiError::conflict(
            "integration_unfinished",
            "This integration has no credentials yet: give their secret, or generate a key pair, before you enable it.",
        ));
    }
    Ok(())
}

fn merged(present: &IntegrationConfig, change: &UpdateIntegrationRequest) -> RequestedConfig {
    let as_input = |endpoint: &Endpoint<AuthConfig>| {
        let auth = endpoint.auth.clone().map(AuthConfigWithSecrets::from);
        endpoint.clone().with_auth(auth)
    };
    let auth = if change.gives("auth") {
        change.auth.clone()
    } else {
        present.auth.clone().map(AuthConfigWithSecrets::from)
    };
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
    RequestedConfig {
        auth,
        endpoints: change
            .endpoints
            .clone()
            .unwrap_or_else(|| present.endpoints.iter().map(as_input).collect()),
        config: IntegrationConfig {
            display_name: change.display_name.clone().unwrap_or_else(|| present.display_name.clone()),
            protocol: change.protocol.unwrap_or(present.protocol),
            base_url: change.base_url.clone().unwrap_or_else(|| present.base_url.clone()),
            auth: None,
            endpoints: Vec::new(),
            mcp,
            delivery: change.delivery.clone().unwrap_or_else(|| present.delivery.clone()),
            enabled: change.enabled.unwrap_or(present.enabled),
        },
    }
}

/// Deletes an integration with its secrets. A connector's integration can only be disabled.
pub(super) async fn delete(app: &Arc<App>, entry: Entry, id: IntegrationId) -> Result<(), ApiError> {
    let delete = move |write: &mut Write<'_, '_>, _: &Held| {
        let workspace = write.row();
        let integration = store::summary(write, workspace, id)?.ok_or(ApiError::no_integration())?;
        if integration.builtin {
            return Err(ApiError::conflict(
                "builtin_integration",
                "The connector's own integration cannot be deleted; disable it instead.",
            ));
        }
        let bytes = -store::weight(write, workspace, id)?;
        quotas::give_back(write, workspace, Count { bytes, integrations: -1, ..Count::default() })?;
        store::delete(write, id)?;
        deliveries::integration_deleted(write, id)?;
        write.record("integration.delete", subject(id, &integration.name), json!({}))
    };
    entry.write(app, "integrations.delete", delete).await
}

/// Deletes secrets of one integration that no key opens any more, for the operator. A secret that was
/// replaced in the meantime stays. Returns the number of deleted secrets.
pub fn forget_secrets(
    tx: &mut Tx<'_>,
    context: &Context,
    rows: &[SealedRow<SecretAt>],
) -> Result<usize, ApiError> {
    let Some((workspace, id, _)) = rows.first().map(|row| &row.at) else { return Ok(0) };
    let (workspace, id) = (*workspace, *id);
    let write = &mut Write::begin(tx, workspace, Actor::OPERATOR, context)?;
    let mut gone = Vec::new();
    for row in rows {
        if store::drop_sealed(write, row)? {
            gone.push(row.at.2.as_str());
        }
    }
    let Some(found) = store::get(write, workspace, id)?.filter(|_| !gone.is_empty()) else {
        return Ok(gone.len());
    };
    let mut integration = found.parse()?;
    if let Some(auth) = &mut integration.config.auth {
        strip(auth, &AssociatedData { endpoint: None, base_url: "" }, &gone);
    }
    for (index, endpoint) in integration.config.endpoints.iter_mut().enumerate() {
        if let Some(auth) = &mut endpoint.auth {
            strip(auth, &AssociatedData { endpoint: Some((index, &endpoint.name)), base_url: "" }, &gone);
        }
    }
    integration.updated_at = context.now.max(Timestamp::from_micros(integration.updated_at.micros() + 1));
    store::update(write, &integration, &store::Texts::of(&integration.config)?)?;
    let what = json!({ "secrets_forgotten": gone });
    write.record("integration.secrets_forgotten", subject(id, &integration.name), what)?;
    Ok(gone.len())
}

/// Records the call of an endpoint before it is made, because a call cannot be taken back. The caller gets
/// the answer, and Ward does not know whether it contains patient data. So every test counts as an access
/// to patient data.
pub(super) fn record_test(
    write: &mut Write<'_, '_>,
    integration: &Integration,
    endpoint: &Endpoint<AuthConfig>,
) -> Result<(), ApiError> {
    let what =
        json!({ "endpoint": endpoint.name, "method": endpoint.method, "builtin": integration.builtin });
    write.record_phi_access("integration.test", subject(integration.id, &integration.name), what)
}
