//! The SQL of integrations and of their secrets.

use serde::de::DeserializeOwned;
use uuid::Uuid;
use ward_db::{Error, Json, Row, Timestamp, Tx, Value};

use super::secrets::{Field, Sealed, SecretAt, Stored};
use super::{Config, Integration, MOST, Mcp, Protocol};
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

/// The integration that provisioning seeded for this connector, if it did.
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

/// The name of an integration.
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

/// When an integration last changed.
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

/// The facts that decide whether an integration can be sent to.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// Whether the integration is used at all.
    pub enabled: bool,
    /// Whether the integration has an address yet.
    pub configured: bool,
    /// The moment of the integration's last change.
    pub updated_at: Timestamp,
}

/// Whether an integration can be sent to, without a look at its configuration.
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

/// How many integrations the workspace has.
pub fn count(tx: &mut Tx<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM integrations WHERE workspace_id = $1", &[workspace.into()], |row| row.get(0))
}

/// The facts that a transaction needs before it changes an integration, without the configuration.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub builtin: bool,
    pub updated_at: Timestamp,
}

/// The name and the version of an integration.
pub fn named(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<Option<Named>, Error> {
    tx.optional(
        "SELECT name, builtin, updated_at FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |row| Ok(Named { name: row.get(0)?, builtin: row.get(1)?, updated_at: row.get(2)? }),
    )
}

/// The three parts of a configuration that are JSON, as text.
#[derive(Clone, Debug)]
pub struct Texts {
    auth: Option<String>,
    endpoints: String,
    mcp: String,
}

impl Texts {
    /// The JSON parts of a configuration, written.
    pub fn of(config: &Config) -> Result<Self, Error> {
        let write = |written: serde_json::Result<String>| {
            written.map_err(|_| Error::unreadable("a configuration that cannot be written as JSON"))
        };
        Ok(Self {
            auth: config.auth.as_ref().map(|auth| write(serde_json::to_string(auth))).transpose()?,
            endpoints: write(serde_json::to_string(&config.endpoints))?,
            mcp: write(serde_json::to_string(&config.mcp))?,
        })
    }

    fn auth(&self) -> Value<'_> {
        self.auth.as_deref().map_or(Value::Null, Value::Json)
    }
}

/// Inserts an integration.
pub fn insert(tx: &mut Tx<'_>, new: &Integration, texts: &Texts) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO integrations (workspace_id, id, name, display_name, protocol, base_url, auth, endpoints, mcp, \
                enabled, builtin, position, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
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
        ],
    )?;
    Ok(())
}

/// Notes what a test of a connection found, if the integration is still the one that was tested.
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

/// How fit the integrations of a workspace are for production.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fitness {
    /// The integration that provisioning seeded for the connector: whether it is used, and has a finished address.
    pub built_in: Option<(bool, bool)>,
    /// Whether an enabled integration has an address without TLS.
    pub without_tls: bool,
}

/// How fit the integrations of the workspace are, of which one belongs to this connector.
pub fn fitness(tx: &mut Tx<'_>, workspace: WorkspaceId, connector: Option<&str>) -> Result<Fitness, Error> {
    let mut found = Fitness::default();
    tx.all(
        "SELECT name, builtin, enabled, base_url FROM integrations WHERE workspace_id = $1 AND position > 0",
        &[workspace.into()],
        |row| {
            let (name, builtin, enabled) = (row.get::<String>(0)?, row.get::<bool>(1)?, row.get::<bool>(2)?);
            let base_url: String = row.get(3)?;
            if builtin && Some(name.as_str()) == connector {
                found.built_in = Some((enabled, !base_url.is_empty() && !base_url.contains('{')));
            }
            found.without_tls |= enabled && base_url.to_ascii_lowercase().starts_with("http://");
            Ok(())
        },
    )?;
    Ok(found)
}

/// Writes what an operator configures of an integration. What a test found of the former configuration goes.
pub fn update(tx: &mut Tx<'_>, changed: &Integration, texts: &Texts) -> Result<(), Error> {
    tx.execute(
        "UPDATE integrations SET display_name = $3, protocol = $4, base_url = $5, auth = $6, endpoints = $7, mcp = $8, \
                enabled = $9, updated_at = $10, last_tested_at = NULL, last_test_status = NULL \
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
        ],
    )?;
    Ok(())
}

/// What an integration counts for in its workspace's stored bytes.
pub fn weight(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<i64, Error> {
    let bytes = tx.optional(
        "SELECT bytes FROM integrations WHERE workspace_id = $1 AND id = $2",
        &[workspace.into(), id.into()],
        |row| row.get::<Option<i64>>(0),
    )?;
    Ok(bytes.flatten().unwrap_or(0))
}

/// Weighs an integration as it is now, with its secrets. Returns how many bytes more that is than before.
pub fn weigh(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<i64, Error> {
    let before = weight(tx, workspace, id)?;
    let now: i64 = tx.one(
        "UPDATE integrations SET bytes = length(name) + length(display_name) + length(base_url) \
                + length(CAST(endpoints AS text)) + COALESCE(length(CAST(auth AS text)), 0) \
                + COALESCE(length(CAST(mcp AS text)), 0) \
                + (SELECT COALESCE(sum(length(s.sealed)), 0) FROM integration_secrets s \
                   WHERE s.workspace_id = integrations.workspace_id AND s.integration_id = integrations.id) \
         WHERE workspace_id = $1 AND id = $2 RETURNING bytes",
        &[workspace.into(), id.into()],
        |row| row.get(0),
    )?;
    Ok(now - before)
}

/// Deletes an integration and its secrets.
pub fn delete(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<(), Error> {
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

/// An integration of the workspace.
pub fn get(tx: &mut Tx<'_>, workspace: WorkspaceId, id: IntegrationId) -> Result<Option<Unparsed>, Error> {
    Ok(some(tx, workspace, &[id])?.pop())
}

/// How many integrations [`some`] reads at once: each can be as large as a request's body.
pub const READ_AT_ONCE: usize = 4;

/// Those of these integrations that are there, in no order. At most [`READ_AT_ONCE`] are looked for.
pub fn some(tx: &mut Tx<'_>, workspace: WorkspaceId, ids: &[IntegrationId]) -> Result<Vec<Unparsed>, Error> {
    let id = |index: usize| ids.get(index).or(ids.first()).copied().unwrap_or(IntegrationId(Uuid::nil()));
    tx.all(
        "SELECT id, workspace_id, name, display_name, protocol, base_url, enabled, builtin, created_at, updated_at, position, \
                auth, endpoints, mcp, last_tested_at, last_test_status \
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

/// The facts by which integrations are listed, sorted and filtered.
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

/// The heads of all of the workspace's integrations, in the order of their list. A workspace has few.
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

/// An integration as it is stored, its JSON as text. Parsing takes time that its tenant decides, so it happens outside the
/// database's threads and the runtime's.
#[derive(Clone, Debug)]
pub struct Unparsed {
    /// Without the three parts that are JSON.
    integration: Integration,
    auth: Option<String>,
    endpoints: Option<String>,
    mcp: Option<String>,
}

impl Unparsed {
    pub const fn id(&self) -> IntegrationId {
        self.integration.id
    }

    /// The integration with its JSON parsed.
    pub fn parse(self) -> Result<Integration, Error> {
        let mut integration = self.integration;
        integration.config.auth = parsed(self.auth.as_deref())?;
        integration.config.endpoints = parsed(self.endpoints.as_deref())?.unwrap_or_default();
        integration.config.mcp = parsed(self.mcp.as_deref())?.unwrap_or_default();
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
            },
        },
        auth: json(11)?,
        endpoints: json(12)?,
        mcp: json(13)?,
    })
}

/// The secrets of an integration, without what is sealed.
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

/// What is sealed of an integration's secrets.
pub fn sealed(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Result<Vec<Sealed>, Error> {
    tx.all(
        "SELECT workspace_id, integration_id, field, origins, sealed FROM integration_secrets \
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
    })
}

/// Stores a secret in the place of the one that its field had.
pub fn put_secret(
    tx: &mut Tx<'_>,
    new: &Sealed,
    reference: &str,
    key_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    drop_secret(tx, new.workspace, new.integration, &new.field)?;
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

/// Deletes a secret.
pub fn drop_secret(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    integration: IntegrationId,
    field: &Field,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 AND field = $3",
        &[workspace.into(), integration.into(), field.0.as_str().into()],
    )?;
    Ok(())
}

/// Deletes a secret, if what is sealed is still this. `false`: it is not.
pub fn drop_sealed(tx: &mut Tx<'_>, row: &SealedRow<SecretAt>) -> Result<bool, Error> {
    let (workspace, integration, field) = &row.at;
    let dropped = tx.execute(
        "DELETE FROM integration_secrets WHERE workspace_id = $1 AND integration_id = $2 AND field = $3 AND sealed = $4",
        &[(*workspace).into(), (*integration).into(), field.as_str().into(), Value::Bytes(&row.bytes)],
    )?;
    Ok(dropped == 1)
}

/// Some of the secrets, of all workspaces, that are sealed under another key than this, those after this one.
pub fn under_other_keys(
    tx: &mut Tx<'_>,
    key_id: &str,
    after: Option<&SecretAt>,
    most: i64,
) -> Result<Vec<Sealed>, Error> {
    let none = (WorkspaceId(Uuid::nil()), IntegrationId(Uuid::nil()), String::new());
    let (workspace, integration, field) = after.unwrap_or(&none);
    tx.all(
        "SELECT workspace_id, integration_id, field, origins, sealed FROM integration_secrets \
         WHERE key_id <> $1 AND (workspace_id, integration_id, field) > ($2, $3, $4) \
         ORDER BY workspace_id, integration_id, field LIMIT $5",
        &[key_id.into(), (*workspace).into(), (*integration).into(), field.as_str().into(), most.into()],
        sealed_row,
    )
}

/// How many those are.
pub fn count_under_other_keys(tx: &mut Tx<'_>, key_id: &str) -> Result<i64, Error> {
    tx.one("SELECT count(*) FROM integration_secrets WHERE key_id <> $1", &[key_id.into()], |row| row.get(0))
}

/// Replaces what is sealed, if it is still what it was.
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

/// A configuration as it is stored, whatever today's rules say of it.
pub struct StoredConfiguration {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The integration.
    pub id: IntegrationId,
    /// Its fields, by the names that a request gives them.
    pub fields: serde_json::Value,
}

/// Up to `most` configurations after this one, over all workspaces.
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
