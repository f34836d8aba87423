//! The JSON routes of test callers and test credentials.

use serde::Serialize;

use super::actions::{self, Credentials, Numbers};
use super::store;
use crate::error::ApiError;
use crate::http::{Call, Reply};
use crate::ids::CredentialId;

/// `TestCallerNumbersResponse`
#[derive(Serialize)]
struct TestCallers {
    numbers: Vec<String>,
}

/// `get-test-caller-numbers`
pub async fn numbers(call: Call) -> Result<Reply, ApiError> {
    let workspace = call.enter().await?.workspace()?.id;
    let numbers = call
        .app
        .db
        .read("workspaces.test_callers", move |tx| store::numbers(tx, workspace).map_err(ApiError::from))
        .await?;
    Reply::ok(&TestCallers { numbers })
}

/// `update-test-caller-numbers`
pub async fn set_numbers(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Numbers>().await?;
    Reply::ok(&TestCallers { numbers: actions::set_numbers(&call.app, entry, sent.value).await? })
}

/// `TestCredentialIdsResponse`
#[derive(Serialize)]
struct TestCredentials {
    credential_ids: Vec<CredentialId>,
}

/// `get-test-credential-ids`
pub async fn credentials(call: Call) -> Result<Reply, ApiError> {
    let workspace = call.enter().await?.workspace()?.id;
    let now = call.context.now;
    let read = move |tx: &mut ward_db::Tx<'_>| store::credentials(tx, workspace, now);
    let credential_ids = call.app.db.read("workspaces.test_credentials", read).await?;
    Reply::ok(&TestCredentials { credential_ids })
}

/// `update-test-credential-ids`
pub async fn set_credentials(mut call: Call) -> Result<Reply, ApiError> {
    let (entry, sent) = call.enter_with_body::<Credentials>().await?;
    let credential_ids = actions::set_credentials(&call.app, entry, sent.value).await?;
    Reply::ok(&TestCredentials { credential_ids })
}
