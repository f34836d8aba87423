//! The SQL of integrations and of their secrets.

use serde::de::DeserializeOwned;
use uuid::Uuid;
use ward_db::{Error, Json, Timestamp, Tx, Value, columns, decode, insert, select, sql, update};

use super::secrets::{Field, SealedSecret, SecretAt, StoredSecret};
use super::urls::{Parts, is_plain};
use super::{DeliverySettings, Integration, IntegrationConfig, MOST, Mcp};
use crate::guard::WorkspaceGuard;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::page::Page;
use crate::vault::SealedRow;

pub fn exists(tx: &mut Tx<'_>, workspace: WorkspaceId, name: &str) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM integrations WHERE workspace_id = $1 AND name = $2",
        &[workspace.into(), name.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

pub fn name(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<Option<String>, Error> {
    tx.optional(
        "SELECT name FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        decode,
    )
}

pub fn exists_by_id(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// The timestamp of an integration's last change.
pub fn changed_at(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<Timestamp>, Error> {
    tx.optional(
        "SELECT updated_at FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        decode,
    )
}

/// The facts that decide whether deliveries to an integration can be sent.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    pub enabled: bool,
    /// Whether the integration has an address.
    pub configured: bool,
    /// The timestamp of the integration's last change.
    pub updated_at: Timestamp,
}

columns! {
    Readiness { enabled, configured: "base_url <> ''", updated_at }
}

/// Whether deliveries to an integration can be sent, without parsing its configuration.
pub fn readiness(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<Readiness>, Error> {
    tx.optional(
        select!(Readiness, "FROM integrations WHERE workspace_id = $1 AND id = $2"),
        &[workspace.into(), id.into()],
        decode,
    )
}

pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM integrations WHERE workspace_id = $1", &[workspace.into()], decode)
}

/// The facts that a transaction needs before it changes an integration.
#[derive(Clone, Debug)]
pub struct IntegrationSummary {
    pub name: String,
    pub builtin: bool,
    pub updated_at: Timestamp,
}

columns! {
    IntegrationSummary { name, builtin, updated_at }
}

/// The name and version of an integration, without its configuration.
pub fn summary(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<IntegrationSummary>, Error> {
    tx.optional(
        select!(IntegrationSummary, "FROM integrations WHERE workspace_id = $1 AND id = $2"),
        &[workspace.into(), id.into()],
        decode,
    )
}

/// The JSON columns of a configuration, as text.
#[derive(Clone, Debug)]
pub struct Texts {
    auth: Option<String>,
    endpoints: String,
    mcp: String,
    delivery: String,
}

impl Texts {
    /// Writes the JSON columns of a configuration.
    pub fn of(config: &IntegrationConfig) -> Result<Self, Error> {
        let write = |written: serde_json::Result<String>| {
            written.map_err(|_| Error::unreadable("a configuration that cannot be written as JSON"))
        };
        Ok(Self {
            auth: config.auth.as_ref().map(|auth| write(serde_json::to_string(auth))).transpose()?,
            endpoints: write(serde_json::to_string(&config.endpoints))?,
            mcp: write(serde_json::to_string(&config.mcp))?,
            delivery: write(serde_json::to_string(&config.delivery))?,
        })
    }

    fn auth(&self) -> Value<'_> {
        self.auth.as_deref().map_or(Value::Null, Value::Json)
    }
}

pub fn insert(tx: &mut WorkspaceGuard<'_, '_>, new: &Integration, texts: &Texts) -> Result<(), Error> {
    insert!(tx, "integrations" {
        workspace_id: new.workspace,
        id: new.id,
        name: &new.name,
        display_name: &new.config.display_name,
        protocol: new.config.protocol.name(),
        base_url: &new.config.base_url,
        auth: texts.auth(),
        endpoints: Value::Json(&texts.endpoints),
        mcp: Value::Json(&texts.mcp),
        enabled: new.config.enabled,
        builtin: new.builtin,
        position: new.position,
        created_at: new.created_at,
        updated_at: new.updated_at,
        delivery: Value::Json(&texts.delivery),
    })?;
    Ok(())
}

/// Stores the result of a connection test, if the integration still has the version that was tested.
pub fn note_test(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
    configured_at: Timestamp,
    at: Timestamp,
    status: &str,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE integrations SET last_tested_at = $4, last_test_status = $5 \
         WHERE workspace_id = $1 AND id = $2 AND CASE WHEN updated_at = $3 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), id.into(), configured_at.into(), at.into(), status.into()],
    )?;
    Ok(())
}

/// Facts about a workspace's integrations that decide whether it is ready for production.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fitness {
    /// The connector's own integration: whether it is enabled, and whether its address is complete.
    pub built_in: Option<(bool, bool)>,
    /// Whether an enabled integration calls some URL without TLS.
    pub without_tls: bool,
}

/// Reads these facts; `connector` names the workspace's connector.
pub fn fitness(tx: &mut Tx<'_>, workspace: WorkspaceId, connector: Option<&str>) -> Result<Fitness, Error> {
    let mut found = Fitness::default();
    tx.all(
        sql!(
            "SELECT name, builtin, enabled, base_url, ",
            Parts::COLUMNS,
            " FROM integrations WHERE workspace_id = $1 AND position > 0"
        ),
        &[workspace.into()],
        |row| {
            let mut columns = row.columns();
            let (name, builtin, enabled, base_url): (String, bool, bool, String) = columns.read()?;
            if builtin && Some(name.as_str()) == connector {
                found.built_in = Some((enabled, !base_url.is_empty() && !base_url.contains('{')));
            }
            if enabled && !found.without_tls {
                found.without_tls = is_plain(&base_url) || columns.read::<Parts>()?.any_is_plain()?;
            }
            Ok(())
        },
    )?;
    Ok(found)
}

columns! {
    Parts { auth, endpoints, mcp }
}

/// Writes the configuration of an integration, and clears the test result of the previous one.
pub fn update(tx: &mut WorkspaceGuard<'_, '_>, changed: &Integration, texts: &Texts) -> Result<(), Error> {
    update!(tx, "integrations" {
        display_name: &changed.config.display_name,
        protocol: changed.config.protocol.name(),
        base_url: &changed.config.base_url,
        auth: texts.auth(),
        endpoints: Value::Json(&texts.endpoints),
        mcp: Value::Json(&texts.mcp),
        enabled: changed.config.enabled,
        updated_at: changed.updated_at,
        delivery: Value::Json(&texts.delivery),
        last_tested_at: Value::Null,
        last_test_status: Value::Null,
    } "workspace_id = $1 AND id = $2", [changed.workspace, changed.id])?;
    Ok(())
}

/// The bytes of an integration in its workspace's count of stored bytes.
pub fn weight(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<i64, Error> {
    let bytes = tx.optional(
        "SELECT bytes FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        decode::<Option<i64>>,
    )?;
    Ok(bytes.flatten().unwrap_or(0))
}

/// Computes the bytes of an integration with its secrets again. Returns the difference to the stored
/// number.
pub fn weigh(tx: &mut WorkspaceGuard<'_, '_>, id: IntegrationId) -> Result<i64, Error> {
    let workspace = tx.row();
    let before = weight(tx, workspace, id)?;
    let now: i64 = tx.one(
        "UPDATE integrations SET bytes = length(name) + length(display_name) + length(base_url) \
                + length(CAST(endpoints AS text)) + COALESCE(length(CAST(auth AS text)), 0) \
                + COALESCE(length(CAST(mcp AS text)), 0) + COALESCE(length(CAST(delivery AS text)), 0) \
                + (SELECT COALESCE(sum(length(s.sealed)), 0) FROM integration_secrets s \
                   WHERE s.workspace_id = integrations.workspace_id AND s.integration_id = integrations.id) \
         WHERE workspace_id = $1 AND id = $2 RETURNING bytes",
        &[workspace.into(), id.into()],
        decode,
    )?;
    Ok(now - before)
}

pub fn delete(tx: &mut WorkspaceGuard<'_, '_>, id: IntegrationId) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "DELETE FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2",
        &[workspace.into(), id.into()],
    )?;
    tx.execute(
        "DELETE FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
    )?;
    Ok(())
}

/// An integration of the workspace, not parsed yet.
pub fn get(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<IntegrationRow>, Error> {
    Ok(some(tx, workspace, &[id])?.pop())
}

/// Integrations that [`some`] reads at most: each can be as large as a request's body.
pub const READ_AT_ONCE: usize = 4;

/// The existing ones of these integrations, in no order. Only the first [`READ_AT_ONCE`] are read.
pub fn some(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    ids: &[IntegrationId],
) -> Result<Vec<IntegrationRow>, Error> {
    let id = |index: usize| ids.get(index).or(ids.first()).copied().unwrap_or(IntegrationId(Uuid::nil()));
    tx.all(
        select!(IntegrationRow, "FROM integrations WHERE workspace_id = $1 AND id IN ($2, $3, $4, $5)"),
        &[workspace.into(), id(0).into(), id(1).into(), id(2).into(), id(3).into()],
        decode,
    )
}

/// The ids and positions of a page of the workspace's integrations, in the order of their list.
pub fn page(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<(IntegrationId, i64)>, Error> {
    tx.all(
        "SELECT id, position FROM integrations WHERE workspace_id = $1 AND position > $2 AND position > 0 \
         ORDER BY position LIMIT $3",
        &[workspace.into(), page.after.into(), page.fetch().into()],
        decode,
    )
}

/// The columns by which integrations are listed, sorted and filtered.
#[derive(Clone, Debug)]
pub struct Head {
    pub id: IntegrationId,
    pub name: String,
    pub display_name: String,
    pub protocol: String,
    pub enabled: bool,
    pub position: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

columns! {
    Head { id, name, display_name, protocol, enabled, position, created_at, updated_at }
}

/// The heads of all of the workspace's integrations, in list order. A workspace has few.
pub fn heads(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Vec<Head>, Error> {
    tx.all(
        select!(
            Head,
            "FROM integrations WHERE workspace_id = $1 AND position > 0 ORDER BY position LIMIT $2"
        ),
        &[workspace.into(), i64::try_from(MOST).unwrap_or(i64::MAX).into()],
        decode,
    )
}

/// A stored integration with its JSON as text. Parsing takes time that the tenant decides, so it happens
/// outside the threads of the database and the runtime.
#[derive(Clone, Debug)]
pub struct IntegrationRow {
    /// The integration without its JSON columns.
    integration: Integration,
    auth: Option<Json>,
    endpoints: Option<Json>,
    mcp: Option<Json>,
    delivery: Option<Json>,
}

columns! {
    IntegrationRow { integration: Integration::COLUMNS, auth, endpoints, mcp, delivery }
}

columns! {
    Integration {
        id, workspace: "workspace_id", name, config: IntegrationConfig::COLUMNS, builtin, created_at, updated_at, position,
        last_tested_at, last_test_status
    }
}

columns! {
    IntegrationConfig {
        display_name, protocol, base_url, enabled;
        auth: None, endpoints: Vec::new(), mcp: Mcp::default(), delivery: DeliverySettings::default()
    }
}

impl IntegrationRow {
    pub const fn id(&self) -> IntegrationId {
        self.integration.id
    }

    /// Parses the JSON columns, which takes the longer the larger they are ([`crate::work::Work`]).
    pub fn parse(self) -> Result<Integration, Error> {
        let mut integration = self.integration;
        integration.config.auth = parsed(self.auth.as_ref())?;
        integration.config.endpoints = parsed(self.endpoints.as_ref())?.unwrap_or_default();
        integration.config.mcp = parsed(self.mcp.as_ref())?.unwrap_or_default();
        integration.config.delivery = parsed(self.delivery.as_ref())?.unwrap_or_default();
        Ok(integration)
    }
}

fn parsed<T: DeserializeOwned>(json: Option<&Json>) -> Result<Option<T>, Error> {
    let Some(Json(text)) = json else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|_| Error::unreadable("an integration's JSON"))
}

columns! {
    StoredSecret { field => |name| Ok(Field(name)), reference, origins }
}

/// The secrets of an integration, without their sealed bytes.
pub fn secrets(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Result<Vec<StoredSecret>, Error> {
    tx.all(
        select!(
            StoredSecret,
            "FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 ORDER BY field"
        ),
        &[workspace.into(), integration.into()],
        decode,
    )
}

/// The secrets of an integration, with their sealed bytes.
pub fn sealed(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Result<Vec<SealedSecret>, Error> {
    tx.all(
        select!(
            SealedSecret,
            "FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 ORDER BY field"
        ),
        &[workspace.into(), integration.into()],
        decode,
    )
}

columns! {
    SealedSecret {
        workspace: "workspace_id", integration: "integration_id", field => |name| Ok(Field(name)), origins, bytes: "sealed",
        signs_with: "CASE WHEN key_state = 'active' THEN algorithm END"
    }
}

/// Stores a secret, and replaces that of the same field.
pub fn put_secret(
    tx: &mut WorkspaceGuard<'_, '_>,
    new: &SealedSecret,
    reference: &str,
    key_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    drop_secret(tx, new.integration, &new.field)?;
    insert!(tx, "integration_secrets" {
        workspace_id: new.workspace,
        integration_id: new.integration,
        field: &new.field.0,
        reference: reference,
        origins: &new.origins,
        key_id: key_id,
        sealed: &new.bytes,
        created_at: now,
    })?;
    Ok(())
}

pub fn drop_secret(
    tx: &mut WorkspaceGuard<'_, '_>,
    integration: IntegrationId,
    field: &Field,
) -> Result<(), Error> {
    let workspace = tx.row();
    tx.execute(
        "DELETE FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 AND field = $3",
        &[workspace.into(), integration.into(), field.0.as_str().into()],
    )?;
    Ok(())
}

/// Deletes a secret, if its sealed bytes are still these. Returns whether it did.
pub fn drop_sealed(tx: &mut WorkspaceGuard<'_, '_>, row: &SealedRow<SecretAt>) -> Result<bool, Error> {
    let (workspace, integration, field) = &row.at;
    let dropped = tx.execute(
        "DELETE FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 AND field = $3 AND sealed = $4",
        &[(*workspace).into(), (*integration).into(), field.as_str().into(), Value::Bytes(&row.bytes)],
    )?;
    Ok(dropped == 1)
}

/// Some secrets of all workspaces that are sealed under another key than this, from the row after `after`.
pub fn under_other_keys(
    tx: &mut Tx<'_>,
    key_id: &str,
    after: Option<&SecretAt>,
    most: i64,
) -> Result<Vec<SealedSecret>, Error> {
    let none = (WorkspaceId(Uuid::nil()), IntegrationId(Uuid::nil()), String::new());
    let (workspace, integration, field) = after.unwrap_or(&none);
    tx.all(
        select!(SealedSecret, "FROM integration_secrets WHERE key_id <> $1 AND (workspace_id, integration_id, field) > ($2, $3, $4) \
             ORDER BY workspace_id, integration_id, field LIMIT $5"),
        &[key_id.into(), (*workspace).into(), (*integration).into(), field.as_str().into(), most.into()],
        decode,
    )
}

/// The number of secrets under another key than this.
pub fn count_under_other_keys(tx: &mut Tx<'_>, key_id: &str) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM integration_secrets WHERE key_id <> $1", &[key_id.into()], decode)
}

/// Replaces sealed bytes, if they have not changed in the meantime.
pub fn replace_sealed(
    tx: &mut Tx<'_>,
    old: &SealedRow<SecretAt>,
    anew: &[u8],
    key_id: &str,
) -> Result<(), Error> {
    let (workspace, integration, field) = &old.at;
    tx.execute(
        "UPDATE integration_secrets SET sealed = $5, key_id = $6 \
         WHERE workspace_id = $1 AND integration_id = $2 AND field = $3 AND sealed = $4",
        &[
            (*workspace).into(),
            (*integration).into(),
            field.as_str().into(),
            Value::Bytes(&old.bytes),
            Value::Bytes(anew),
            key_id.into(),
        ],
    )?;
    Ok(())
}

/// A stored configuration, which may break rules of today.
pub struct StoredConfiguration {
    pub workspace: WorkspaceId,
    pub id: IntegrationId,
    /// The fields under the names that a request gives them.
    pub fields: serde_json::Value,
}

/// Up to `most` configurations of all workspaces, after this row.
pub fn configurations_after(
    tx: &mut Tx<'_>,
    (workspace, id): (WorkspaceId, IntegrationId),
    most: u32,
) -> Result<Vec<StoredConfiguration>, Error> {
    tx.all(
        select!(
            StoredConfiguration,
            "FROM integrations WHERE (workspace_id, id) > ($1, $2) ORDER BY workspace_id, id LIMIT $3"
        ),
        &[workspace.into(), id.into(), i64::from(most).into()],
        decode,
    )
}

columns! {
    StoredConfiguration { workspace: "workspace_id", id, fields: Fields::COLUMNS => |fields: Fields| fields.document() }
}

/// The columns of a configuration. `mcp` holds the other fields.
struct Fields {
    name: String,
    display_name: String,
    base_url: String,
    auth: Option<Json>,
    endpoints: Option<Json>,
    mcp: Option<Json>,
}

columns! {
    Fields { name, display_name, base_url, auth, endpoints, mcp }
}

impl Fields {
    fn document(self) -> Result<serde_json::Value, Error> {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            parsed(self.mcp.as_ref())?.unwrap_or_default();
        let texts = [("name", self.name), ("display_name", self.display_name), ("base_url", self.base_url)];
        fields.extend(texts.map(|(field, text)| (field.to_owned(), text.into())));
        for (field, json) in [("auth", self.auth), ("endpoints", self.endpoints)] {
            fields.insert(field.to_owned(), parsed(json.as_ref())?.unwrap_or_default());
        }
        Ok(fields.into())
    }
}
