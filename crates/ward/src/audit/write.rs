//! One write: a transaction that holds a guard row, with the actor and the request that its audit events name.

use std::ops::{Deref, DerefMut};

use serde_json::Value;
use uuid::Uuid;
use ward_db::{Timestamp, Tx};
use ward_guard::{Guarded, Lock};

use super::{Actor, Event, record, record_phi_access};
use crate::context::Context;
use crate::error::ApiError;
use crate::ids::WorkspaceId;

/// A write that holds the guard row `K`. It can be used like its [`Guarded`] transaction.
pub struct Write<'a, 't, K = WorkspaceId> {
    tx: Guarded<'a, Tx<'t>, K>,
    /// The actor of its audit events.
    pub actor: Actor,
    /// The request, or the command or the task, that writes.
    pub context: &'a Context,
}

/// The resource that an audit event is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The room of the action, such as `workspaces`.
    pub service: &'static str,
    /// The kind of the resource, such as `api_key`.
    pub kind: &'static str,
    pub id: Option<Uuid>,
    /// The display name of the resource.
    pub name: Option<&'a str>,
}

impl<'e> Subject<'e> {
    /// An event about it, for [`record`].
    pub const fn event(
        self,
        (workspace, context): (WorkspaceId, &'e Context),
        actor: Actor,
        action: &'static str,
        metadata: Value,
    ) -> Event<'e> {
        Event {
            workspace,
            service: self.service,
            action,
            resource_type: self.kind,
            resource_id: self.id,
            resource_name: self.name,
            actor,
            context,
            metadata,
        }
    }
}

impl<'a, 't, K: Copy> Write<'a, 't, K> {
    pub const fn of(tx: Guarded<'a, Tx<'t>, K>, actor: Actor, context: &'a Context) -> Self {
        Self { tx, actor, context }
    }

    /// Takes the guard row, for a write of this actor.
    pub fn begin<L: Lock<Tx<'t>, Row = K>>(
        tx: &'a mut Tx<'t>,
        guard: L,
        actor: Actor,
        context: &'a Context,
    ) -> Result<Self, L::Error> {
        Ok(Self::of(Guarded::take(tx, guard)?, actor, context))
    }

    /// Takes another guard row in the same transaction, for the same actor.
    pub fn also<L: Lock<Tx<'t>, Row: Copy>>(&mut self, guard: L) -> Result<Write<'_, 't, L::Row>, L::Error> {
        Write::begin(&mut self.tx, guard, self.actor.clone(), self.context)
    }

    pub const fn now(&self) -> Timestamp {
        self.context.now
    }
}

impl Write<'_, '_, WorkspaceId> {
    /// Records an event of the held workspace.
    pub fn record(
        &mut self,
        action: &'static str,
        about: Subject<'_>,
        metadata: Value,
    ) -> Result<(), ApiError> {
        let event = about.event((self.row(), self.context), self.actor.clone(), action, metadata);
        record(&mut self.tx, event)
    }

    /// Records an event of the held workspace in which patient data was read.
    pub fn record_phi_access(
        &mut self,
        action: &'static str,
        about: Subject<'_>,
        metadata: Value,
    ) -> Result<(), ApiError> {
        let event = about.event((self.row(), self.context), self.actor.clone(), action, metadata);
        record_phi_access(&mut self.tx, event)
    }
}

impl<'a, 't, K> Deref for Write<'a, 't, K> {
    type Target = Guarded<'a, Tx<'t>, K>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl<K> DerefMut for Write<'_, '_, K> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tx
    }
}
