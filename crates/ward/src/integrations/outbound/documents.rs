//! Public documents of servers that a tenant names, such as the keys of an issuer. The guarded client fetches them within the
//! tenant's share of outbound calls.

use serde_json::Value;
use tokio::time::Instant;
use ward_db::Timestamp;
use ward_ehr::{Budget, Outbound, Request};

use super::client::{CHECK_TIME, Wire};
use crate::error::ApiError;
use crate::shares::Share;
use crate::workspaces::Workspace;

/// Requests for all documents of one fetch, redirects included.
const MOST_REQUESTS: usize = 6;
/// Bytes of all documents of one fetch. Parsing them takes less than a millisecond.
const MOST_BYTES: usize = 128 * 1024;

/// The place of one fetch in its workspace's share, and the client for it.
pub struct Documents {
    outbound: Outbound,
    _place: Share,
}

impl Wire {
    /// Takes the place of one fetch for this workspace.
    ///
    /// # Errors
    /// 429 if none becomes free soon.
    pub async fn documents(&self, of: &Workspace, now: Timestamp) -> Result<Documents, ApiError> {
        let place = self.place(of, now).await?;
        Ok(Documents {
            outbound: self.outbound().within(Budget::new(MOST_REQUESTS, MOST_BYTES)),
            _place: place,
        })
    }
}

impl Documents {
    /// Fetches a JSON document. The error is a phrase without the URL or the content.
    pub async fn get(&self, url: &str) -> Result<Value, String> {
        let url = url.parse().map_err(|_| "the URL is malformed".to_owned())?;
        let request = Request {
            method: http::Method::GET,
            url,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        let answer = self.outbound.send(&request, Instant::now() + CHECK_TIME).await;
        let answer = answer.map_err(|failure| failure.message)?;
        if answer.status != http::StatusCode::OK {
            return Err(format!("the answer has the status {}", answer.status.as_u16()));
        }
        serde_json::from_slice(&answer.body).map_err(|_| "the answer is not JSON".to_owned())
    }
}
