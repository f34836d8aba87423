//! The JSON routes of access policies.

use super::actions::{self, SetAccessPolicyRequest};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Reply, Request, Sent};

pub async fn get(_: Request, entry: Entry) -> Result<Reply, ApiError> {
    Reply::ok(&entry.workspace()?.policy)
}

pub async fn set(
    request: Request,
    (entry, sent): (Entry, Sent<SetAccessPolicyRequest>),
) -> Result<Reply, ApiError> {
    Reply::ok(&actions::set(&request.app, entry, sent.value).await?)
}
