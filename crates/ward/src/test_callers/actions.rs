//! Writes on the list of test callers and on the list of test credentials.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use ward_contract::validate::{Json, Problem};

use super::store;
use crate::api_keys;
use crate::app::App;
use crate::audit::{self, Actor};
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::ids::CredentialId;
use crate::phone;
use crate::quotas::{self, Change};
use crate::workspaces;

/// `TestCallerNumbersRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub struct TestCallerNumbersRequest {
    numbers: Vec<String>,
}

/// Replaces the list of test callers, without duplicates.
pub async fn set_numbers(
    app: &Arc<App>,
    entry: Entry,
    sent: TestCallerNumbersRequest,
) -> Result<Vec<String>, ApiError> {
    let mut numbers: Vec<String> = Vec::with_capacity(sent.numbers.len());
    for text in &sent.numbers {
        let number = phone::normalize(text).map_err(ApiError::internal)?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    app.db
        .write("workspaces.set_test_callers", move |tx| {
            let Held { caller, seen } = entry.hold(tx)?;
            let former = store::numbers(tx, seen.workspace.id)?;
            if former != numbers {
                let id = seen.workspace.id;
                let version = store::version(tx, id)? + 1;
                if version == 1 {
                    store::keep_numbers(tx, id, 0, &former, seen.workspace.created_at)?;
                }
                store::set_numbers(tx, id, &numbers)?;
                store::keep_numbers(tx, id, version, &numbers, entry.context.now)?;
                quotas::give_back(tx, id, Change::bytes(numbers.iter().map(String::len).sum()))?;
                let what =
                    json!({ "changes": { "numbers": { "from": former, "to": numbers } }, "list_version": version });
                audit::record(
                    tx,
                    workspaces::event(&entry.context, Actor::of(&caller), "test_callers.update", &seen.workspace, what),
                )?;
            }
            Ok(numbers.clone())
        })
        .await
}

/// `TestCredentialIdsRequest`, validated.
#[derive(Clone, Debug, Deserialize)]
pub struct TestCredentialIdsRequest {
    credential_ids: Vec<Uuid>,
}

/// Replaces the list of test credentials, without duplicates. Each must be a live key of the workspace
/// (422, naming every other).
pub async fn set_credentials(
    app: &Arc<App>,
    entry: Entry,
    sent: TestCredentialIdsRequest,
) -> Result<Vec<CredentialId>, ApiError> {
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
            let former = store::credentials(tx, id, now)?;
            if former != wanted {
                store::set_credentials(tx, id, &wanted)?;
                let what = json!({ "changes": { "credential_ids": { "from": former, "to": wanted } } });
                let actor = Actor::of(&caller);
                let action = "test_credentials.update";
                audit::record(tx, workspaces::event(&entry.context, actor, action, &seen.workspace, what))?;
            }
            Ok(wanted)
        })
        .await
}
