//! The JSON routes of test callers and test credentials.

use serde::Serialize;

use super::actions::{self, TestCallerNumbersRequest, TestCredentialIdsRequest};
use super::store;
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request, Sent};
use crate::ids::CredentialId;

#[derive(Serialize)]
struct TestCallerNumbersResponse {
    numbers: Vec<String>,
}

pub async fn numbers(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let numbers = request
        .app
        .db
        .read("workspaces.test_callers", move |tx| store::numbers(tx, workspace).map_err(ApiError::from))
        .await?;
    Reply::ok(&TestCallerNumbersResponse { numbers })
}

pub async fn set_numbers(
    request: Request,
    (entry, sent): (Entry, Sent<TestCallerNumbersRequest>),
) -> Result<Reply, ApiError> {
    Reply::ok(&TestCallerNumbersResponse {
        numbers: actions::set_numbers(&request.app, entry, sent.value).await?,
    })
}

#[derive(Serialize)]
struct TestCredentialIdsResponse {
    credential_ids: Vec<CredentialId>,
}

pub async fn credentials(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let now = request.context.now;
    let read = move |tx: &mut ward_db::Tx<'_>| store::credentials(tx, workspace, now);
    let credential_ids = request.app.db.read("workspaces.test_credentials", read).await?;
    Reply::ok(&TestCredentialIdsResponse { credential_ids })
}

pub async fn set_credentials(
    request: Request,
    (entry, sent): (Entry, Sent<TestCredentialIdsRequest>),
) -> Result<Reply, ApiError> {
    let credential_ids = actions::set_credentials(&request.app, entry, sent.value).await?;
    Reply::ok(&TestCredentialIdsResponse { credential_ids })
}
