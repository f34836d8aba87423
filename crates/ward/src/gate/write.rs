//! The frame of every write by a caller: guard row, second authorization, work, refusal.

use ward_db::Tx;

use super::{Entry, Proof, Recognized, VisibleWorkspace};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::error::ApiError;
use crate::guard::{PrincipalGuard, WorkspaceGuard};
use crate::identity::{self, Caller};
use crate::ids::{PrincipalId, WorkspaceId};

/// The caller as seen by a transaction that holds the guard row of the workspace.
pub struct Held {
    /// The caller as this transaction sees it.
    pub caller: Caller,
    /// The workspace, and the caller's authority in it.
    pub seen: VisibleWorkspace,
}

impl Entry {
    /// Writes in the workspace of the path, as the transaction `name`.
    ///
    /// It takes the guard row of the workspace, authorizes the caller again by the data that the transaction then sees, and
    /// runs `work`. A 403 is recorded for the audit.
    pub async fn write<T: Send + 'static>(
        &self,
        app: &App,
        name: &'static str,
        mut work: impl FnMut(&mut Write<'_, '_, WorkspaceId>, &Held) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let entry = self.clone();
        let written = app.db.write(name, move |tx| {
            let (mut write, held) = entry.hold(tx)?;
            work(&mut write, &held)
        });
        self.note_if_forbidden(app, written.await)
    }

    /// As [`Self::write`], on the caller's own list, for operations without a workspace.
    pub async fn write_own<T: Send + 'static>(
        &self,
        app: &App,
        name: &'static str,
        mut work: impl FnMut(&mut Write<'_, '_, PrincipalId>, &Caller) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let entry = self.clone();
        let written = app.db.write(name, move |tx| {
            let (mut write, caller) = entry.hold_own(tx)?;
            work(&mut write, &caller)
        });
        self.note_if_forbidden(app, written.await)
    }

    /// As [`Self::write_own`], in a workspace that the caller joins. The caller's refusals are the work's to record.
    ///
    /// The guard of the workspace comes before the caller's, the order in which every other write takes them.
    pub async fn write_joining<T: Send + 'static>(
        &self,
        app: &App,
        name: &'static str,
        workspace: WorkspaceId,
        mut work: impl FnMut(&mut Write<'_, '_, WorkspaceId>, &Caller) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let entry = self.clone();
        let written = app.db.write(name, move |tx| {
            let mut guard = WorkspaceGuard::take(tx, workspace)?;
            let (_, caller) = entry.hold_own(&mut guard)?;
            work(&mut Write::of(guard, Actor::of(&caller), &entry.context), &caller)
        });
        written.await
    }

    /// Takes the guard row of the workspace, then authorizes the caller again.
    fn hold<'a, 't>(&'a self, tx: &'a mut Tx<'t>) -> Result<(Write<'a, 't, WorkspaceId>, Held), ApiError> {
        let target = self.target.ok_or(ApiError::no_workspace())?;
        let mut guard = WorkspaceGuard::take(tx, target)?;
        let Recognized { caller, seen, .. } = self.recognized(&mut guard, Some(target))?;
        self.need.decide(Some(target), &caller, seen.as_ref())?;
        let seen = seen.ok_or(ApiError::no_workspace())?;
        Ok((Write::of(guard, Actor::of(&caller), &self.context), Held { caller, seen }))
    }

    /// Takes the guard row of the caller's own list, then authorizes the caller again. A token's subject gets its
    /// principal's row here.
    fn hold_own<'a, 't>(
        &'a self,
        tx: &'a mut Tx<'t>,
    ) -> Result<(Write<'a, 't, PrincipalId>, Caller), ApiError> {
        if let Proof::Token(token) = &self.proof {
            identity::enroll(tx, token, self.context.now)?;
        }
        let mut guard = PrincipalGuard::take(tx, self.caller.principal)?;
        if let Some(name) = self.caller.token().and_then(|token| token.name.as_deref()) {
            identity::set_name(&mut guard, name)?;
        }
        let Recognized { caller, .. } = self.recognized(&mut guard, None)?;
        self.need.decide(None, &caller, None)?;
        Ok((Write::of(guard, Actor::of(&caller), &self.context), caller))
    }
}
