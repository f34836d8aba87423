//! The operator's view of a workspace's keys and members.

use serde::Serialize;
use ward_db::{Timestamp, Tx};

use super::{OperatorError, RevokedKey, active_workspace, show_workspace};
use crate::access::Role;
use crate::api_keys::actions::{self as keys, CreateApiKeyResponse};
use crate::api_keys::ceilings::{self, LONGEST};
use crate::api_keys::secret::{KeyId, Presented};
use crate::api_keys::{self, ApiKey, KeyRecord, Secret};
use crate::app::App;
use crate::bounds::{LONGEST_NAME, unfit_message};
use crate::context::Context;
use crate::identity::Thumbprint;
use crate::ids::{CredentialId, PrincipalId, WorkspaceId};
use crate::legible;
use crate::members;
use crate::networks::Networks;
use crate::page::Page;

/// A key for the operator's eyes, without its secret.
#[derive(Debug, Serialize)]
pub struct KeySummary {
    /// The id of the credential, not the public key id.
    pub id: CredentialId,
    /// The public part of the key.
    pub key_id: String,
    pub name: Option<String>,
    /// The role that bounds the key's permissions.
    pub role: Role,
    /// The principal that it speaks for.
    pub entity_id: PrincipalId,
    /// Whether that principal is a `user` or a `service`.
    pub kind: &'static str,
    pub expired: bool,
    /// The timestamp since which the key only reads, because its secret leaked.
    pub quarantined_at: Option<Timestamp>,
    /// The timestamp from which the key is refused.
    pub expires_at: Timestamp,
    /// The timestamp of its last successful use, to the minute.
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The networks from which it may be used; an empty list is everywhere.
    pub networks: Networks,
    /// The thumbprint of the public key whose possession each use must prove.
    pub bound_jkt: Option<Thumbprint>,
}

impl KeySummary {
    fn at(key: ApiKey, now: Timestamp) -> Self {
        Self {
            id: key.id,
            key_id: key.key_id,
            name: key.name,
            role: key.reach.role,
            entity_id: key.principal,
            kind: key.kind.name(),
            expired: key.expires_at <= now,
            quarantined_at: key.quarantined_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
            networks: key.networks,
            bound_jkt: key.bound_to,
        }
    }
}

/// A page of a workspace's list.
#[derive(Debug, Serialize)]
pub struct OperatorPage<T> {
    /// The rows of this page, in list order.
    pub items: Vec<T>,
    /// The position after which the next page begins; `None` on the last page.
    pub next: Option<i64>,
}

impl<T> OperatorPage<T> {
    pub(super) fn of<R>(
        mut rows: Vec<R>,
        page: Page,
        position: impl Fn(&R) -> i64,
        show: impl FnMut(R) -> T,
    ) -> Self {
        let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        rows.truncate(most);
        let next = rows.last().map(position).filter(|_| more);
        Self { items: rows.into_iter().map(show).collect(), next }
    }
}

/// The keys of a workspace that were not revoked, in the order of their list.
pub async fn list_keys(
    app: &App,
    slug_or_id: &str,
    after: i64,
    limit: u32,
) -> Result<OperatorPage<KeySummary>, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let (page, now) = (Page { after: after.max(0), limit: limit.into() }, app.clock.now());
    let list = move |tx: &mut Tx<'_>| api_keys::list(tx, workspace, page);
    let rows = app.db.read_long("operator.list_keys", list).await?;
    Ok(OperatorPage::of(rows, page, |key| key.position, |key| KeySummary::at(key, now)))
}

/// Mints a key for an active workspace. It speaks for a new service principal. Without `days` it lives as long as the ceilings
/// allow.
pub async fn issue_key(
    app: &App,
    slug_or_id: &str,
    role: &str,
    name: &str,
    days: Option<u64>,
) -> Result<CreateApiKeyResponse, OperatorError> {
    let role = Role::named(role).ok_or_else(|| OperatorError::NoRole(role.to_owned()))?;
    let name = name.trim().to_owned();
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        return Err(OperatorError::KeyName("must have 1 to 256 characters: give one with --name".to_owned()));
    }
    if let Some(unfit) = legible::first_unfit(&name) {
        return Err(OperatorError::KeyName(unfit_message(unfit)));
    }
    if let Some(days) = days.filter(|days| !(1..=LONGEST).contains(days)) {
        return Err(OperatorError::Lifetime(days));
    }
    let workspace = active_workspace(app, slug_or_id).await?;
    let installation = app.config.key_ceilings.clone();
    let context = Context::of_operator(app.clock.now());
    app.db
        .write("operator.issue_key", move |tx| {
            let ceilings = ceilings::in_force(tx, workspace.id, &workspace.environment, &installation)?;
            let most = ceilings.of(role).unwrap_or(LONGEST);
            let days = days.unwrap_or(most);
            if days > most {
                return Err(OperatorError::Ceiling { role: role.name(), most });
            }
            keys::issue_as_operator(tx, &context, workspace.id, role, Some(name.clone()), days)
                .map_err(OperatorError::from)
        })
        .await
}

/// Revokes a key, which ends it at once. The argument is its key id or the whole key, because a key that leaked is pasted as it
/// was found.
pub async fn revoke_key(app: &App, key: &str) -> Result<RevokedKey, OperatorError> {
    let context = Context::of_operator(app.clock.now());
    let whole = Presented::parse(key.trim().as_bytes()).map(|key| key.key_id);
    let wanted = whole.or_else(|| KeyId::parse(key)).ok_or(OperatorError::NotAKey)?;
    let revoke = move |tx: &mut Tx<'_>| keys::revoke_as_operator(tx, &context, wanted);
    let revoked = app.db.write("operator.revoke_key", revoke).await?;
    let key = revoked.ok_or_else(|| OperatorError::NoKey(wanted.to_string()))?;
    Ok(RevokedKey { key_id: key.key_id, name: key.name, workspace_id: key.workspace })
}

/// A live key whose text was found somewhere.
#[derive(Debug, Serialize)]
pub struct FoundKey {
    /// The public part of the key.
    pub key_id: String,
    pub workspace_id: WorkspaceId,
    pub name: Option<String>,
    /// The role that bounds the key's permissions.
    pub role: Role,
    /// Whether the text is the `current` secret, or the `previous` one of a rotation with an overlap.
    pub secret: &'static str,
    /// The timestamp from which this secret is refused.
    pub expires_at: Timestamp,
}

/// Looks the keys up whose texts were found, in their order. `None` for a text that is not a live key.
pub async fn found_keys(app: &App, texts: Vec<Presented>) -> Result<Vec<Option<FoundKey>>, OperatorError> {
    let now = app.clock.now();
    app.db
        .read_long("operator.found_keys", move |tx| {
            let mut found = Vec::with_capacity(texts.len());
            for text in &texts {
                let key = api_keys::valid_key(tx, text, now)?;
                found.push(key.map(|(record, secret)| FoundKey::of(text.key_id, record, secret)));
            }
            Ok(found)
        })
        .await
}

impl FoundKey {
    fn of(key_id: KeyId, record: KeyRecord, secret: Secret) -> Self {
        let (secret, expires_at) = match secret {
            Secret::Current => ("current", record.expires_at),
            Secret::Previous { ends_at } => ("previous", record.expires_at.min(ends_at)),
        };
        Self {
            key_id: key_id.to_string(),
            workspace_id: record.home,
            name: record.name,
            role: record.reach.role,
            secret,
            expires_at,
        }
    }
}

/// The members of a workspace, in the order of their list.
pub async fn list_members(
    app: &App,
    slug_or_id: &str,
    after: i64,
    limit: u32,
) -> Result<OperatorPage<members::MemberResponse>, OperatorError> {
    let workspace = show_workspace(app, slug_or_id).await?.workspace.id;
    let page = Page { after: after.max(0), limit: limit.into() };
    let list = move |tx: &mut Tx<'_>| members::list(tx, workspace, page);
    let rows = app.db.read_long("operator.list_members", list).await?;
    Ok(OperatorPage::of(rows, page, |member| member.seat, members::MemberResponse::from))
}

#[derive(Debug, Serialize)]
pub struct RemovedMember {
    /// The workspace that the member belonged to.
    pub workspace_id: WorkspaceId,
    /// The former member, as lists show it.
    #[serde(flatten)]
    pub member: members::MemberResponse,
}

/// Ends a membership and the keys that spoke for it in this workspace.
pub async fn remove_member(
    app: &App,
    slug_or_id: &str,
    entity: &str,
) -> Result<RemovedMember, OperatorError> {
    let none = || OperatorError::NoMember(entity.to_owned());
    let wanted = uuid::Uuid::try_parse(entity).map(PrincipalId).map_err(|_| none())?;
    let workspace_id = active_workspace(app, slug_or_id).await?.id;
    let context = Context::of_operator(app.clock.now());
    let remove =
        move |tx: &mut Tx<'_>| members::actions::remove_as_operator(tx, &context, workspace_id, wanted);
    let removed = app.db.write("operator.remove_member", remove).await?;
    let member = removed.ok_or_else(none)?.into();
    Ok(RemovedMember { workspace_id, member })
}
