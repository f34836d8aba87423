//! The JSON routes of a workspace's ceilings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ward_db::{Timestamp, Tx};

use super::{Ceiling, Ceilings, KeyBeyond, LONGEST, actions, store};
use crate::access::Role;
use crate::api_keys::DAY;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request, Sent};
use crate::workspaces::Workspace;

/// The keys beyond a ceiling that an answer lists.
const MOST_LISTED: usize = 100;

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct KeyPolicyRequest {
    pub(super) ceiling_days: Ceilings,
}

/// `KeyPolicyResponse`: the ceilings by their origin, and the keys that they would not allow now.
#[derive(Serialize)]
pub struct KeyPolicyResponse {
    /// The ceilings that the workspace's owners chose.
    ceiling_days: Ceilings,
    installation_ceiling_days: Ceilings,
    ceiling_days_in_force: Ceilings,
    keys_beyond: Vec<KeyBeyond>,
    more_keys_beyond: bool,
}

impl KeyPolicyResponse {
    /// The policy of a workspace as it is now.
    pub(super) fn read(
        tx: &mut Tx<'_>,
        workspace: &Workspace,
        installation: &[Ceiling],
        now: Timestamp,
    ) -> Result<Self, ward_db::Error> {
        let ceiling_days = store::get(tx, workspace.id)?;
        let installation = Ceilings::of_installation(installation, &workspace.environment);
        let in_force = ceiling_days.lower(installation);
        let mut keys_beyond = Vec::new();
        for role in Role::ALL {
            if let Some(days) = in_force.of(role).filter(|days| *days < LONGEST) {
                let after = now.saturating_add(Duration::from_secs(days * DAY));
                let most = MOST_LISTED + 1 - keys_beyond.len();
                keys_beyond.extend(store::beyond(tx, workspace.id, role, after, most)?);
            }
        }
        let more_keys_beyond = keys_beyond.len() > MOST_LISTED;
        keys_beyond.truncate(MOST_LISTED);
        Ok(Self {
            ceiling_days,
            installation_ceiling_days: installation,
            ceiling_days_in_force: in_force.filled(),
            keys_beyond,
            more_keys_beyond,
        })
    }
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let (workspace, now) = (entry.workspace()?.clone(), request.context.now);
    let installation = request.app.config.key_ceilings.clone();
    let read = move |tx: &mut Tx<'_>| KeyPolicyResponse::read(tx, &workspace, &installation, now);
    Reply::ok(&request.app.db.read("api_keys.policy", read).await?)
}

pub async fn set(
    request: Request,
    (entry, sent): (Entry, Sent<KeyPolicyRequest>),
) -> Result<Reply, ApiError> {
    Reply::ok(&actions::set(&request.app, entry, sent.value).await?)
}
