//! Writes on workspaces: create, update, provision, archive.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ward_contract::validate::{Json, Loc, Problem};
use ward_db::{Timestamp, Tx, Uuid};

use super::access_policy::AccessPolicy;
use super::store::UnclaimedCount;
use super::wire::ProvisionResponse;
use super::{Workspace, WorkspaceState, archives, slugs, store};
use crate::access::Role;
use crate::address::bucket;
use crate::app::App;
use crate::audit::{self, Actor, Event, Write};
use crate::context::Context;
use crate::deliveries;
use crate::endings::{self, AT_ONCE, Ending};
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::guard::NoGuard;
use crate::http::Reply;
use crate::identity::{self, Caller};
use crate::ids::{PrincipalId, WorkspaceId};
use crate::integrations;
use crate::quotas::{self, Change as Count, Overrides};

/// Due workspaces that a creation lapses before it looks for room again.
const LAPSED_AT_ONCE: u32 = 100;

#[derive(Clone, Debug, Deserialize)]
pub struct CreateWorkspaceRequest {
    slug: String,
    name: String,
    environment: String,
    region: String,
    backend_org_id: Option<String>,
}

impl CreateWorkspaceRequest {
    pub(super) fn at(&self, now: Timestamp) -> Workspace {
        Workspace {
            id: WorkspaceId::at(now),
            slug: self.slug.clone(),
            name: self.name.clone(),
            environment: self.environment.clone(),
            backend_org_id: self.backend_org_id.clone(),
            region: self.region.clone(),
            connector_type: None,
            provisioned_at: None,
            created_at: now,
            updated_at: now,
            limits: Overrides::default(),
            policy: AccessPolicy::default(),
        }
    }
}

/// Refuses a workspace of another region than this Ward's (422). The answer names the host of that region,
/// if it is known.
pub(super) fn only_own_region(app: &App, new: &CreateWorkspaceRequest) -> Result<(), ApiError> {
    let platform = &app.config.platform;
    let Some(own) = platform.region.as_ref().filter(|own| **own != new.region) else { return Ok(()) };
    let detail = match platform.host_of(&new.region) {
        Some(host) => format!("This server has only workspaces of {own}. {host} serves {}.", new.region),
        None => format!("This server has only workspaces of {own}, not of {}.", new.region),
    };
    Err(ApiError::unprocessable("wrong_region", "").saying(detail))
}

const fn slug_taken() -> ApiError {
    ApiError::conflict("slug_taken", "Workspace slug already taken.")
}

/// The fields of a new workspace, for its audit event.
pub(super) fn beginnings(new: &Workspace) -> Value {
    json!({ "name": new.name, "environment": new.environment, "region": new.region, "backend_org_id": new.backend_org_id })
}

/// Takes the slug, if necessary from an unclaimed workspace that is due to lapse, or from a workspace that has another slug and
/// whose quarantine is over (409 otherwise).
pub(super) fn take_slug(
    tx: &mut Tx<'_>,
    context: &Context,
    slug: &str,
    id: WorkspaceId,
) -> Result<(), ApiError> {
    if store::take_slug(tx, slug, id)? {
        return Ok(());
    }
    let lapsed = store::lapse_holder(tx, slug, context.now)?;
    let freed = slugs::store::free(tx, slug, context.now)?;
    if let Some(lapsed) = lapsed {
        record_lapse(tx, context, lapsed)?;
    } else if !freed {
        return Err(slug_taken());
    }
    if store::take_slug(tx, slug, id)? { Ok(()) } else { Err(slug_taken()) }
}

pub fn record_lapse(tx: &mut Tx<'_>, context: &Context, lapsed: WorkspaceId) -> Result<(), ApiError> {
    audit::record(
        tx,
        Event {
            workspace: lapsed,
            service: "workspaces",
            action: "workspace.lapse",
            resource_type: "workspace",
            resource_id: Some(lapsed.0),
            resource_name: None,
            actor: Actor::NOBODY,
            context,
            metadata: json!({}),
        },
    )
}

/// Creates an unclaimed workspace for an anonymous caller.
pub async fn bootstrap(
    app: &Arc<App>,
    context: Arc<Context>,
    new: CreateWorkspaceRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    only_own_region(app, &new)?;
    let room = store::UnclaimedLimits {
        limit: app.config.unclaimed_limit,
        address: app
            .rates
            .as_ref()
            .map(|_| (bucket(context.address).to_string(), app.config.unclaimed_per_address)),
    };
    let lapses_at = context.now.saturating_add(app.config.unclaimed_lifetime);
    let create = move |tx: &mut Tx<'_>| {
        let mut write = Write::begin(tx, NoGuard, Actor::NOBODY, &context)?;
        repeat.once(&mut write, Secrecy::Open, |write| {
            let workspace = new.at(write.now());
            take_slug(write, &context, &workspace.slug, workspace.id)?;
            let mut counted = store::add_unclaimed(write, workspace.id, &room, lapses_at)?;
            if counted != UnclaimedCount::Counted {
                for lapsed in store::lapse_due(write, context.now, LAPSED_AT_ONCE)? {
                    record_lapse(write, &context, lapsed)?;
                }
                counted = store::add_unclaimed(write, workspace.id, &room, lapses_at)?;
            }
            match counted {
                UnclaimedCount::Counted => {}
                UnclaimedCount::AllFull => return Err(too_many_unclaimed()),
                UnclaimedCount::AddressFull => return Err(ApiError::too_many_unclaimed_of_address()),
            }
            let inserted = store::insert(write, &workspace, WorkspaceState::Unclaimed)?;
            let what = beginnings(&workspace);
            write.also(inserted)?.record("workspace.create", workspace.subject(), what)?;
            Ok(workspace)
        })
    };
    app.db.write("workspaces.create", create).await
}

const fn too_many_unclaimed() -> ApiError {
    ApiError::unavailable(
        "too_many_unclaimed",
        "Too many workspaces are waiting to be claimed. Try again later.",
        60,
    )
}

/// Creates a workspace that the calling user owns.
pub async fn create_own(
    app: &Arc<App>,
    entry: Entry,
    new: CreateWorkspaceRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    only_own_region(app, &new)?;
    let create = move |write: &mut Write<'_, '_, PrincipalId>, caller: &Caller| {
        repeat.once(write, Secrecy::Open, |write| {
            let (context, now) = (write.context, write.now());
            let workspace = new.at(now);
            take_slug(write, context, &workspace.slug, workspace.id)?;
            let inserted = store::insert(write, &workspace, WorkspaceState::Active)?;
            let write = &mut write.also(inserted)?;
            identity::join(write, (caller.principal, caller.kind), Role::Owner, now)?;
            quotas::give_back(write, workspace.id, Count { members: 1, ..Count::default() })?;
            write.record("workspace.create", workspace.subject(), beginnings(&workspace))?;
            Ok(workspace)
        })
    };
    entry.write_own(app, "workspaces.create_own", create).await
}

/// The body of `update-workspace`, a merge patch: an absent field stays unchanged.
#[derive(Clone, Debug, Deserialize)]
pub struct UpdateWorkspaceRequest {
    name: Option<String>,
    environment: Option<String>,
    region: Option<String>,
    /// Absent leaves the connector unchanged; null clears it.
    #[expect(
        clippy::option_option,
        reason = "absent, null and given are three different cases in a merge patch"
    )]
    #[serde(default, deserialize_with = "present")]
    connector_type: Option<Option<String>>,
}

/// Distinguishes an explicit null from an absent key.
#[expect(clippy::option_option, reason = "the type of the field it reads")]
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl UpdateWorkspaceRequest {
    /// Applies the patch, and returns the changes as `{"field": {"from", "to"}}`.
    fn apply(&self, to: &mut Workspace) -> Map<String, Value> {
        let mut changes = Map::new();
        let mut note = |field: &str, from: Value, to: Value| {
            if from != to {
                changes.insert(field.to_owned(), json!({ "from": from, "to": to }));
            }
        };
        for (field, change, current) in [
            ("name", &self.name, &mut to.name),
            ("environment", &self.environment, &mut to.environment),
            ("region", &self.region, &mut to.region),
        ] {
            if let Some(wanted) = change {
                note(field, json!(current), json!(wanted));
                current.clone_from(wanted);
            }
        }
        if let Some(wanted) = &self.connector_type {
            note("connector_type", json!(to.connector_type), json!(wanted));
            to.connector_type.clone_from(wanted);
        }
        changes
    }
}

/// Sets `updated_at`, strictly after the last change even if the clock was set back.
pub(super) fn touch(workspace: &mut Workspace, now: Timestamp) {
    workspace.updated_at = now.max(Timestamp::from_micros(workspace.updated_at.micros() + 1));
}

/// The fields that an update must not change, by the operator's settings.
#[derive(Clone, Copy)]
struct FixedFields {
    region: bool,
    environment: bool,
}

impl FixedFields {
    fn of(app: &App) -> Self {
        let platform = &app.config.platform;
        Self { region: platform.region.is_some(), environment: platform.environment_by_conversion }
    }

    /// Refuses a patch that would change such a field (422).
    fn allows(self, change: &UpdateWorkspaceRequest, workspace: &Workspace) -> Result<(), ApiError> {
        let changes = |wanted: &Option<String>, now: &String| wanted.as_ref().is_some_and(|it| it != now);
        if self.region && changes(&change.region, &workspace.region) {
            return Err(ApiError::unprocessable(
                "region_immutable",
                "A workspace's region cannot be changed here. Only the operator can move a workspace.",
            ));
        }
        if self.environment && changes(&change.environment, &workspace.environment) {
            return Err(ApiError::unprocessable(
                "environment_conversion_required",
                "This server changes an environment only by convert-environment.",
            ));
        }
        Ok(())
    }
}

/// Applies a merge patch. A patch that changes nothing writes nothing.
pub async fn update(
    app: &Arc<App>,
    entry: Entry,
    change: UpdateWorkspaceRequest,
) -> Result<Workspace, ApiError> {
    let fixed = FixedFields::of(app);
    let update = move |write: &mut Write<'_, '_>, held: &Held| {
        let mut workspace = held.seen.workspace.clone();
        fixed.allows(&change, &workspace)?;
        let former = Count::bytes(workspace.name.len()).bytes;
        let changes = change.apply(&mut workspace);
        if changes.is_empty() {
            return Ok(workspace);
        }
        touch(&mut workspace, write.now());
        store::update(write, &workspace)?;
        let bytes = Count::bytes(workspace.name.len()).bytes - former;
        quotas::give_back(write, workspace.id, Count { bytes, ..Count::default() })?;
        write.record("workspace.update", workspace.subject(), json!({ "changes": changes }))?;
        Ok(workspace)
    };
    entry.write(app, "workspaces.update", update).await
}

/// Seeds the connector's default integration, if it is missing, and sets `provisioned_at` once.
pub async fn provision(app: &Arc<App>, entry: Entry, repeat: Repeat) -> Result<Reply, ApiError> {
    let provision = move |write: &mut Write<'_, '_>, held: &Held| {
        repeat.once(write, Secrecy::Open, |write| {
            let (mut workspace, now) = (held.seen.workspace.clone(), write.now());
            let seeded = match &workspace.connector_type {
                Some(connector) => integrations::seed(write, connector, now)?,
                None => false,
            };
            let first = workspace.provisioned_at.is_none();
            if first {
                workspace.provisioned_at = Some(now);
                touch(&mut workspace, now);
                store::update(write, &workspace)?;
            }
            if first || seeded {
                let what =
                    json!({ "connector_type": workspace.connector_type, "integration_seeded": seeded });
                write.record("workspace.provision", workspace.subject(), what)?;
            }
            Ok(ProvisionResponse { workspace })
        })
    };
    entry.write(app, "workspaces.provision", provision).await
}

#[derive(Clone, Debug, Deserialize)]
pub struct ArchiveWorkspaceRequest {
    slug: String,
}

/// Archives a workspace: every row stays, access ends with the commit, and the slug stays taken.
pub async fn archive(
    app: &Arc<App>,
    entry: Entry,
    confirmation: ArchiveWorkspaceRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let purge_after = app.config.purge_after;
    let archive = move |write: &mut Write<'_, '_>, held: &Held| {
        let workspace = &held.seen.workspace;
        if confirmation.slug != workspace.slug {
            return Err(wrong_slug("slug", &confirmation.slug));
        }
        repeat.once(write, Secrecy::Open, |write| end(write, workspace.clone(), purge_after))
    };
    let reply = entry.write(app, "workspaces.archive", archive).await?;
    app.ended.notify_one();
    Ok(reply)
}

/// Removes an archived workspace from its members' lists, or puts a restored one back. This write handles
/// the first few lists and leaves an ending for the others. Until then, the lists skip workspaces that are
/// not active.
fn change_lists(write: &mut Write<'_, '_>, now_is: WorkspaceState) -> Result<(), ApiError> {
    let now = write.now();
    let all = Ending::of_lists(write.row(), PrincipalId(Uuid::nil()), now, (&write.actor, write.context));
    match change_some_lists(write, &all, now_is, AT_ONCE)? {
        Some(done_until) => Ending { done_until, ..all }.begin(write, now)?,
        None => endings::forget(write, &all)?,
    }
    Ok(())
}

/// Handles up to `most` of the lists of an ending. Returns the last member that was handled, or `None` if
/// no member is left.
fn change_some_lists(
    write: &mut Write<'_, '_>,
    ending: &Ending,
    state: WorkspaceState,
    most: u32,
) -> Result<Option<PrincipalId>, ApiError> {
    let (how, now) = ((ending.position, state != WorkspaceState::Active), write.now());
    Ok(identity::relist_some(write, ending.done_until, how, most, now)?)
}

/// One step of the sweep, which follows the current state of the workspace.
pub fn follow(
    write: &mut Write<'_, '_>,
    ending: &Ending,
    most: u32,
) -> Result<Option<PrincipalId>, ApiError> {
    let is_active = store::active(write, ending.workspace)?.is_some();
    let state = if is_active { WorkspaceState::Active } else { WorkspaceState::Archived };
    change_some_lists(write, ending, state, most)
}

/// Archives an active workspace whose guard row is held. Its last owners can restore it until `purge_after` has passed.
pub(super) fn end(
    write: &mut Write<'_, '_>,
    mut workspace: Workspace,
    purge_after: Duration,
) -> Result<Workspace, ApiError> {
    let now = write.now();
    touch(&mut workspace, now);
    archives::store::begin(write, now, now.saturating_add(purge_after))?;
    store::change_state(write, WorkspaceState::Active, WorkspaceState::Archived)?;
    store::update(write, &workspace)?;
    change_lists(write, WorkspaceState::Archived)?;
    write.record("workspace.archive", workspace.subject(), json!({}))?;
    Ok(workspace)
}

/// Makes an archived workspace active again, with its memberships and unexpired keys; `None` if it is not archived.
pub(super) fn revive(write: &mut Write<'_, '_>) -> Result<Option<Workspace>, ApiError> {
    let (id, now) = (write.row(), write.now());
    if !store::change_state(write, WorkspaceState::Archived, WorkspaceState::Active)? {
        return Ok(None);
    }
    let mut restored = store::active(write, id)?.ok_or(ApiError::no_workspace())?;
    touch(&mut restored, now);
    store::update(write, &restored)?;
    archives::store::end(write)?;
    change_lists(write, WorkspaceState::Active)?;
    deliveries::workspace_restored(write, now)?;
    write.record("workspace.restore", restored.subject(), json!({}))?;
    Ok(Some(restored))
}

/// Refuses a slug in this field that does not confirm the workspace's (422).
pub(super) fn wrong_slug(field: &'static str, given: &str) -> ApiError {
    let loc = vec![Loc::from("body"), Loc::from(field)];
    ApiError::invalid(vec![Problem::value_error(
        loc,
        "Workspace slug confirmation did not match",
        Json::String(given.to_owned()),
    )])
}
