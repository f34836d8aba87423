//! The SQL of integrations and of their secrets.

use serde::de::DeserializeOwned;
use uuid::Uuid;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::secrets::{Field, Sealed, SecretAt, Stored};
use super::urls::{Parts, is_plain};
use super::{Config, DeliverySettings, Integration, MOST, Mcp, Protocol};
use crate::guard::WorkspaceGuard;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::page::Page;
use crate::vault::SealedRow;

/// Whether the workspace has an integration of this name.
pub fn exists(tx: &mut Tx<'_>, workspace: WorkspaceId, name: &str) -> Result<bool, Error> {
    let found = tx.optional(
        "SELECT 1 FROM integrations WHERE workspace_id = $1 AND name = $2",
        &[workspace.into(), name.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// The connector's integration that provisioning seeded, if there is one.
pub fn built_in(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    connector: &str,
) -> Result<Option<IntegrationId>, Error> {
    tx.optional(
        "SELECT id FROM integrations WHERE workspace_id = $1 AND name = $2 AND builtin",
        &[workspace.into(), connector.into()],
        |row| row.get(0),
    )
}

/// The name of an integration, if the workspace has it.
pub fn name(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<Option<String>, Error> {
    tx.optional(
        "SELECT name FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |row| row.get(0),
    )
}

/// Whether the workspace has an integration of this id.
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
        |row| row.get(0),
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

/// Whether deliveries to an integration can be sent, without parsing its configuration.
pub fn readiness(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    id: IntegrationId,
) -> Result<Option<Readiness>, Error> {
    tx.optional(
        "SELECT enabled, base_url <> '', updated_at FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |row| Ok(Readiness { enabled: row.get(0)?, configured: row.get(1)?, updated_at: row.get(2)? }),
    )
}

/// The number of integrations in the workspace.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM integrations WHERE workspace_id = $1", &[workspace.into()], |row| row.get(0))
}

/// The facts that a transaction needs before it changes an integration.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub builtin: bool,
    pub updated_at: Timestamp,
}

/// The name and version of an integration, without its configuration.
pub fn named(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<Option<Named>, Error> {
    tx.optional(
        "SELECT name, builtin, updated_at FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |row| Ok(Named { name: row.get(0)?, builtin: row.get(1)?, updated_at: row.get(2)? }),
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
    pub fn of(config: &Config) -> Result<Self, Error> {
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
    tx.execute(
        "INSERT INTO integrations (workspace_id, id, name, display_name, protocol, base_url, auth, endpoints, mcp, \
                enabled, builtin, position, created_at, updated_at, delivery) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        &[
            new.workspace.into(),
            new.id.into(),
            new.name.as_str().into(),
            new.config.display_name.as_str().into(),
            new.config.protocol.name().into(),
            new.config.base_url.as_str().into(),
            texts.auth(),
            Value::Json(&texts.endpoints),
            Value::Json(&texts.mcp),
            new.config.enabled.into(),
            new.builtin.into(),
            new.position.into(),
            new.created_at.into(),
            new.updated_at.into(),
            Value::Json(&texts.delivery),
        ],
    )?;
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
        "SELECT name, builtin, enabled, base_url, auth, endpoints, mcp FROM integrations \
         WHERE workspace_id = $1 AND position > 0",
        &[workspace.into()],
        |row| {
            let (name, builtin, enabled) = (row.get::<String>(0)?, row.get::<bool>(1)?, row.get::<bool>(2)?);
            let base_url: String = row.get(3)?;
            if builtin && Some(name.as_str()) == connector {
                found.built_in = Some((enabled, !base_url.is_empty() && !base_url.contains('{')));
            }
            if enabled && !found.without_tls {
                let parts = Parts { auth: row.get(4)?, endpoints: row.get(5)?, mcp: row.get(6)? };
                found.without_tls = is_plain(&base_url) || parts.any_is_plain()?;
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Writes the configuration of an integration, and clears the test result of the previous one.
pub fn update(tx: &mut WorkspaceGuard<'_, '_>, changed: &Integration, texts: &Texts) -> Result<(), Error> {
    tx.execute(
        "UPDATE integrations SET display_name = $3, protocol = $4, base_url = $5, auth = $6, endpoints = $7, mcp = $8, \
                enabled = $9, updated_at = $10, delivery = $11, last_tested_at = NULL, last_test_status = NULL \
         WHERE workspace_id = $1 AND id = $2",
        &[
            changed.workspace.into(),
            changed.id.into(),
            changed.config.display_name.as_str().into(),
            changed.config.protocol.name().into(),
            changed.config.base_url.as_str().into(),
            texts.auth(),
            Value::Json(&texts.endpoints),
            Value::Json(&texts.mcp),
            changed.config.enabled.into(),
            changed.updated_at.into(),
            Value::Json(&texts.delivery),
        ],
    )?;
    Ok(())
}

/// The bytes of an integration in its workspace's count of stored bytes.
pub fn weight(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<i64, Error> {
    let bytes = tx.optional(
        "SELECT bytes FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |row| row.get::<Option<i64>>(0),
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
        |row| row.get(0),
    )?;
    Ok(now - before)
}

/// Deletes an integration and its secrets.
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
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<Option<Unparsed>, Error> {
    Ok(some(tx, workspace, &[id])?.pop())
}

/// Integrations that [`some`] reads at most: each can be as large as a request's body.
pub const READ_AT_ONCE: usize = 4;

/// The existing ones of these integrations, in no order. Only the first [`READ_AT_ONCE`] are read.
pub fn some(tx: &mut Tx<'_>, workspace: WorkspaceId, ids: &[IntegrationId]) -> Result<Vec<Unparsed>, Error> {
    let id = |index: usize| ids.get(index).or(ids.first()).copied().unwrap_or(IntegrationId(Uuid::nil()));
    tx.all(
        "SELECT id, workspace_id, name, display_name, protocol, base_url, enabled, builtin, created_at, updated_at, position, \
                auth, endpoints, mcp, last_tested_at, last_test_status, delivery \
         FROM integrations WHERE workspace_id = $1 AND id IN ($2, $3, $4, $5)",
        &[workspace.into(), id(0).into(), id(1).into(), id(2).into(), id(3).into()],
        unparsed,
    )
}

/// The ids and positions of a page of the workspace's integrations, in the order of their list.
pub fn page(tx: &mut Tx<'_>, workspace: WorkspaceId, page: Page) -> Result<Vec<(IntegrationId, i64)>, Error> {
    tx.all(
        "SELECT id, position FROM integrations WHERE workspace_id = $1 AND position > $2 AND position > 0 \
         ORDER BY position LIMIT $3",
        &[workspace.into(), page.after.into(), page.fetch().into()],
        |row| Ok((row.get(0)?, row.get(1)?)),
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

/// The heads of all of the workspace's integrations, in list order. A workspace has few.
pub fn heads(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<Vec<Head>, Error> {
    tx.all(
        "SELECT id, name, display_name, protocol, enabled, position, created_at, updated_at FROM integrations \
         WHERE workspace_id = $1 AND position > 0 ORDER BY position LIMIT $2",
        &[workspace.into(), i64::try_from(MOST).unwrap_or(i64::MAX).into()],
        |row| {
            Ok(Head {
                id: row.get(0)?,
                name: row.get(1)?,
                display_name: row.get(2)?,
                protocol: row.get(3)?,
                enabled: row.get(4)?,
                position: row.get(5)?,
                created_at: row.get(6)?,
                updated_at: row.get(7)?,
            })
        },
    )
}

/// A stored integration with its JSON as text. Parsing takes time that the tenant decides, so it happens
/// outside the threads of the database and the runtime.
#[derive(Clone, Debug)]
pub struct Unparsed {
    /// The integration without its JSON columns.
    integration: Integration,
    auth: Option<String>,
    endpoints: Option<String>,
    mcp: Option<String>,
    delivery: Option<String>,
}

impl Unparsed {
    pub const fn id(&self) -> IntegrationId {
        self.integration.id
    }

    /// Parses the JSON columns.
    pub fn parse(self) -> Result<Integration, Error> {
        let mut integration = self.integration;
        integration.config.auth = parsed(self.auth.as_deref())?;
        integration.config.endpoints = parsed(self.endpoints.as_deref())?.unwrap_or_default();
        integration.config.mcp = parsed(self.mcp.as_deref())?.unwrap_or_default();
        integration.config.delivery = parsed(self.delivery.as_deref())?.unwrap_or_default();
        Ok(integration)
    }
}

fn parsed<T: DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, Error> {
    let Some(text) = text else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|_| Error::unreadable("an integration's JSON"))
}

fn read<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>, Error> {
    parsed(row.get::<Option<Json>>(column)?.as_ref().map(|Json(text)| text.as_str()))
}

fn unparsed(row: &Row<'_>) -> Result<Unparsed, Error> {
    let json = |column| row.get::<Option<Json>>(column).map(|text| text.map(|Json(text)| text));
    Ok(Unparsed {
        integration: Integration {
            id: row.get(0)?,
            workspace: row.get(1)?,
            name: row.get(2)?,
            builtin: row.get(7)?,
            created_at: row.get(8)?,
            updated_at: row.get(9)?,
            position: row.get(10)?,
            last_tested_at: row.get(14)?,
            last_test_status: row.get(15)?,
            config: Config {
                display_name: row.get(3)?,
                protocol: Protocol::named(row.text(4)?)
                    .ok_or_else(|| Error::unreadable("an unknown protocol"))?,
                base_url: row.get(5)?,
                enabled: row.get(6)?,
                auth: None,
                endpoints: Vec::new(),
                mcp: Mcp::default(),
                delivery: DeliverySettings::default(),
            },
        },
        auth: json(11)?,
        endpoints: json(12)?,
        mcp: json(13)?,
        delivery: json(16)?,
    })
}

/// The secrets of an integration, without their sealed bytes.
pub fn secrets(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Result<Vec<Stored>, Error> {
    tx.all(
        "SELECT field, reference, origins FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 \
         ORDER BY field",
        &[workspace.into(), integration.into()],
        |row| Ok(Stored { field: Field(row.get(0)?), reference: row.get(1)?, origins: row.get(2)? }),
    )
}

/// The secrets of an integration, with their sealed bytes.
pub fn sealed(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Result<Vec<Sealed>, Error> {
    tx.all(
        "SELECT workspace_id, integration_id, field, origins, sealed, \
                CASE WHEN key_state = 'active' THEN algorithm END FROM integration_secrets \
         WHERE workspace_id = $1 AND integration_id = $2 ORDER BY field",
        &[workspace.into(), integration.into()],
        sealed_row,
    )
}

fn sealed_row(row: &Row<'_>) -> Result<Sealed, Error> {
    Ok(Sealed {
        workspace: row.get(0)?,
        integration: row.get(1)?,
        field: Field(row.get(2)?),
        origins: row.get(3)?,
        bytes: row.get(4)?,
        signs_with: row.get(5)?,
    })
}

/// Stores a secret, and replaces that of the same field.
pub fn put_secret(
    tx: &mut WorkspaceGuard<'_, '_>,
    new: &Sealed,
    reference: &str,
    key_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    drop_secret(tx, new.integration, &new.field)?;
    tx.execute(
        "INSERT INTO integration_secrets (workspace_id, integration_id, field, reference, origins, key_id, sealed, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            new.workspace.into(),
            new.integration.into(),
            new.field.0.as_str().into(),
            reference.into(),
            new.origins.as_str().into(),
            key_id.into(),
            Value::Bytes(&new.bytes),
            now.into(),
        ],
    )?;
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
) -> Result<Vec<Sealed>, Error> {
    let none = (WorkspaceId(Uuid::nil()), IntegrationId(Uuid::nil()), String::new());
    let (workspace, integration, field) = after.unwrap_or(&none);
    tx.all(
        "SELECT workspace_id, integration_id, field, origins, sealed, \
                CASE WHEN key_state = 'active' THEN algorithm END FROM integration_secrets \
         WHERE key_id <> $1 AND (workspace_id, integration_id, field) > ($2, $3, $4) \
         ORDER BY workspace_id, integration_id, field LIMIT $5",
        &[key_id.into(), (*workspace).into(), (*integration).into(), field.as_str().into(), most.into()],
        sealed_row,
    )
}

/// The number of secrets under another key than this.
pub fn count_under_other_keys(tx: &mut Tx<'_>, key_id: &str) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM integration_secrets WHERE key_id <> $1", &[key_id.into()], |row| row.get(0))
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
        "SELECT workspace_id, id, name, display_name, base_url, auth, endpoints, mcp FROM integrations \
         WHERE (workspace_id, id) > ($1, $2) ORDER BY workspace_id, id LIMIT $3",
        &[workspace.into(), id.into(), i64::from(most).into()],
        |row| {
            let mut fields: serde_json::Map<String, serde_json::Value> = read(row, 7)?.unwrap_or_default();
            for (index, field) in [(2, "name"), (3, "display_name"), (4, "base_url")] {
                fields.insert(field.to_owned(), row.text(index)?.into());
            }
            for (index, field) in [(5, "auth"), (6, "endpoints")] {
                fields.insert(field.to_owned(), read(row, index)?.unwrap_or_default());
            }
            Ok(StoredConfiguration { workspace: row.get(0)?, id: row.get(1)?, fields: fields.into() })
        },
    )
}
