//! Writes on the list of test callers and on the list of test credentials.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use ward_contract::validate::{Json, Problem};

use super::store;
use crate::api_keys;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::{Entry, Held};
use crate::ids::CredentialId;
use crate::phone;
use crate::quotas::{self, Change};

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
    let set = move |write: &mut Write<'_, '_>, held: &Held| {
        let (workspace, now) = (&held.seen.workspace, write.now());
        let former = store::numbers(write, workspace.id)?;
        if former != numbers {
            let version = store::version(write, workspace.id)? + 1;
            if version == 1 {
                store::keep_numbers(write, 0, &former, workspace.created_at)?;
            }
            store::set_numbers(write, &numbers)?;
            store::keep_numbers(write, version, &numbers, now)?;
            quotas::give_back(write, workspace.id, Change::bytes(numbers.iter().map(String::len).sum()))?;
            let what = json!({ "changes": { "numbers": { "from": former, "to": numbers } }, "list_version": version });
            write.record("test_callers.update", workspace.subject(), what)?;
        }
        Ok(numbers.clone())
    };
    entry.write(app, "workspaces.set_test_callers", set).await
}

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
    let set = move |write: &mut Write<'_, '_>, held: &Held| {
        let (id, now) = (write.row(), write.now());
        let mut problems = Vec::new();
        let mut wanted: Vec<CredentialId> = Vec::with_capacity(sent.len());
        for (index, credential) in sent.iter().enumerate() {
            if wanted.contains(credential) {
                continue;
            }
            if api_keys::is_live(write, id, *credential, now)? {
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
        let former = store::credentials(write, id, now)?;
        if former != wanted {
            store::set_credentials(write, &wanted)?;
            let what = json!({ "changes": { "credential_ids": { "from": former, "to": wanted } } });
            write.record("test_credentials.update", held.seen.workspace.subject(), what)?;
        }
        Ok(wanted)
    };
    entry.write(app, "workspaces.set_test_credentials", set).await
}
