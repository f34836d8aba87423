//! Keys of a workspace whose calls and text turns count as tests.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::actions::event;
use super::store;
use crate::api_keys;
use crate::app::App;
use crate::audit::{self, Actor};
use crate::error::ApiError;
use crate::http::caller::{Entry, Held};
use crate::http::validate::{Json, Problem};
use crate::ids::CredentialId;

/// `TestCredentialIdsRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub struct Credentials {
    credential_ids: Vec<Uuid>,
}

/// Replaces the list of test credentials, without duplicates. Each must be a live key of the workspace
/// (422, naming every other).
pub async fn set(app: &Arc<App>, entry: Entry, sent: Credentials) -> Result<Vec<CredentialId>, ApiError> {
    let sent: Vec<CredentialId> = sent.credential_ids.into_iter().map(CredentialId).collect();
    app.db
        .write("workspaces.set_test_credentials", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let (id, now) = (seen.workspace.id, entry.context.now);
            let mut problems = Vec::new();
            let mut wanted: Vec<CredentialId> = Vec::with_capacity(sent.len());
            for (index, credential) in sent.iter().enumerate() {
                if wanted.contains(credential) {
                    continue;
                }
                if api_keys::is_live(tx, id, *credential, now)? {
                    wanted.push(*credential);
                } else {
                    let loc = vec!["body".into(), "credential_ids".into(), index.into()];
                    let input = Json::String(credential.0.to_string());
                    problems.push(Problem::value_error(loc, "Not a live API key of this workspace", input));
                }
            }
            if !problems.is_empty() {
                return Err(ApiError::invalid(problems));
            }
            let former = store::test_credentials(tx, id, now)?;
            if former != wanted {
                store::set_test_credentials(tx, id, &wanted)?;
                let what = json!({ "changes": { "credential_ids": { "from": former, "to": wanted } } });
                let actor = Actor::of(&caller);
                let action = "test_credentials.update";
                audit::record(tx, event(&entry.context, actor, action, &seen.workspace, what))?;
            }
            Ok(wanted)
        })
        .await
}
