//! What the measured requests are about: a user with twenty workspaces, a revoked key, a second user to create with.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::client::send;

/// What the measured requests need to know.
pub struct Seeded {
    /// The workspace that is read.
    pub workspace: String,
    /// A key of the user who is in it and in nineteen more.
    pub key: String,
    /// A key that was good once: refusing it takes the look-up and the note for the audit.
    pub revoked: String,
    /// A key of another user, whose own list grows under load.
    pub creator: String,
}

/// How many workspaces the reading user has.
const LISTED: usize = 20;

/// Body of a creation.
pub fn new_workspace(slug: &str) -> Value {
    json!({ "slug": slug, "name": "The Corner Clinic", "environment": "production" })
}

/// Fills the server at `to`, and writes into `fixed` the bytes that the measured requests are answered with.
pub fn seed(to: SocketAddr, fixed: &Path) -> Result<Seeded, Failure> {
    let (workspace, key) = tenant(to, "corner-clinic")?;
    for number in 1..LISTED {
        let body = new_workspace(&format!("corner-clinic-{number}"));
        send(to, "POST", "/v1/workspaces/self-service", Some(&key), Some(&body))?.expect(201)?;
    }
    let (_, creator) = tenant(to, "creating-clinic")?;

    let keys = format!("/v1/{workspace}/api-keys");
    let minted =
        send(to, "POST", &keys, Some(&key), Some(&json!({ "duration_days": 1, "name": "revoked" })))?;
    let minted = minted.expect(201)?;
    let (revoked, id) = (text(&minted, "api_key")?, text(&minted, "key_id")?);
    let deleted = send(to, "DELETE", &format!("{keys}/{id}"), Some(&key), None)?;
    if !(200..300).contains(&deleted.status) {
        return Err(format!("a key that cannot be revoked: {} {}", deleted.status, deleted.body).into());
    }

    let created = send(to, "POST", "/v1/workspaces", None, Some(&new_workspace("wrk-00000000-0000000000")))?;
    let got = send(to, "GET", &format!("/v1/workspaces/{workspace}"), Some(&key), None)?;
    let listed = send(to, "GET", "/v1/workspaces?limit=20", Some(&key), None)?;
    let refused = send(to, "GET", &format!("/v1/workspaces/{workspace}"), Some(&revoked), None)?;
    let items = listed.expect(200)?["items"].as_array().map_or(0, Vec::len);
    if items != LISTED {
        return Err(format!("a list of {items}, not of {LISTED}").into());
    }
    for (name, answer, status) in
        [("get", got, 200), ("list", listed, 200), ("refused", refused, 401), ("create", created, 201)]
    {
        answer.expect(status)?;
        std::fs::write(fixed.join(format!("{name}.{status}")), answer.body)?;
    }
    Ok(Seeded { workspace, key, revoked, creator })
}

/// A workspace and the key of the user who claimed it.
fn tenant(to: SocketAddr, slug: &str) -> Result<(String, String), Failure> {
    let created = send(to, "POST", "/v1/workspaces", None, Some(&new_workspace(slug)))?.expect(201)?;
    let id = text(&created, "id")?;
    let body = json!({ "duration_days": 90, "name": "owner" });
    let claimed = send(to, "POST", &format!("/v1/{id}/api-keys"), None, Some(&body))?.expect(201)?;
    Ok((id, text(&claimed, "api_key")?))
}

fn text(of: &Value, field: &str) -> Result<String, Failure> {
    of[field].as_str().map(str::to_owned).ok_or_else(|| format!("no {field} in {of}").into())
}
