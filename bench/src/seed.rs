//! The data for the measured requests: a user with twenty workspaces, a revoked key, and tenants that write.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::client::{Answer, send};

/// The ids and keys that the measured requests use.
pub struct SeedData {
    /// The id of the workspace that is read.
    pub workspace: String,
    /// A key of a user who is a member of that workspace and of nineteen others.
    pub key: String,
    /// A revoked key. The refusal takes a query and an audit event.
    pub revoked: String,
    /// The tenants that write. Each has its own user, so that their writes share only the engine.
    pub tenants: Vec<Tenant>,
}

/// A workspace with an owner and a service, for writes.
pub struct Tenant {
    pub workspace: String,
    /// The key of the owner, who is a user.
    pub key: String,
    /// The public part of the service's key, which the requests rotate.
    pub service: String,
}

impl SeedData {
    /// The path that reads the workspace.
    pub fn get_path(&self) -> String {
        format!("/v1/workspaces/{}", self.workspace)
    }

    /// The path that asks whether the reading user may see the workspace.
    pub fn authorize_path(&self) -> String {
        format!("/v1/{}/authorize?permission=Workspace.view", self.workspace)
    }
}

impl Tenant {
    /// The path of the tenant's workspace.
    pub fn path(&self) -> String {
        format!("/v1/workspaces/{}", self.workspace)
    }

    /// The path that rotates the service's key.
    pub fn rotate_path(&self) -> String {
        format!("/v1/{}/api-keys/{}/rotate", self.workspace, self.service)
    }
}

/// The path that lists the workspaces of a user.
pub const LIST: &str = "/v1/workspaces?limit=20";
/// The number of workspaces of the reading user.
const LISTED: usize = 20;
/// The number of tenants that write. With more connections than this, several share a tenant.
const TENANTS: usize = 64;

/// The request body that creates a workspace.
pub fn new_workspace(slug: &str) -> Value {
    json!({ "slug": slug, "name": "The Corner Clinic", "environment": "production" })
}

/// Creates all data on the server at `to`.
pub fn seed(to: SocketAddr) -> Result<SeedData, Failure> {
    let (workspace, key) = tenant(to, "corner-clinic")?;
    for number in 1..LISTED {
        let body = new_workspace(&format!("corner-clinic-{number}"));
        send(to, "POST", "/v1/workspaces/self-service", Some(&key), Some(&body))?.expect(201)?;
    }
    let (revoked, id) = service(to, &workspace, &key)?;
    let deleted = send(to, "DELETE", &format!("/v1/{workspace}/api-keys/{id}"), Some(&key), None)?;
    if !(200..300).contains(&deleted.status) {
        return Err(format!("the revocation of a key failed: {} {}", deleted.status, deleted.body).into());
    }
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        let (workspace, key) = tenant(to, &format!("writing-clinic-{number}"))?;
        let (_, service) = service(to, &workspace, &key)?;
        tenants.push(Tenant { workspace, key, service });
    }
    Ok(SeedData { workspace, key, revoked, tenants })
}

/// Requests each kind of answer once and checks it. The result is the answers by name and status.
pub fn answers(to: SocketAddr, seeded: &SeedData) -> Result<Vec<(&'static str, u16, Answer)>, Failure> {
    let tenant = &seeded.tenants[0];
    let create = new_workspace("b000000-0000-0000000000");
    let patch = json!({ "name": "The Corner Clinic b000000-0000 0" });
    let rotation = json!({ "duration_days": 30 });
    let read = |path: &str, key: &str| send(to, "GET", path, Some(key), None);
    let answers = vec![
        ("get", 200, read(&seeded.get_path(), &seeded.key)?),
        ("list", 200, read(LIST, &seeded.key)?),
        ("refused", 401, read(&seeded.get_path(), &seeded.revoked)?),
        ("create", 201, send(to, "POST", "/v1/workspaces", None, Some(&create))?),
        ("patch", 200, send(to, "PATCH", &tenant.path(), Some(&tenant.key), Some(&patch))?),
        ("rotate", 200, send(to, "POST", &tenant.rotate_path(), Some(&tenant.key), Some(&rotation))?),
    ];
    for (name, status, answer) in &answers {
        let body = answer.expect(*status).map_err(|error| format!("{name}: {error}"))?;
        let items = body["items"].as_array().map_or(0, Vec::len);
        if *name == "list" && items != LISTED {
            return Err(format!("the list has {items} workspaces instead of {LISTED}").into());
        }
    }
    Ok(answers)
}

/// Writes the answers into files `NAME.STATUS`, for the routes that return them unchanged.
pub fn keep(answers: &[(&'static str, u16, Answer)], fixed: &Path) -> Result<(), Failure> {
    for (name, status, answer) in answers {
        std::fs::write(fixed.join(format!("{name}.{status}")), &answer.body)?;
    }
    Ok(())
}

/// Creates a workspace. The result is its id and the key of the user who claimed it.
fn tenant(to: SocketAddr, slug: &str) -> Result<(String, String), Failure> {
    let created = send(to, "POST", "/v1/workspaces", None, Some(&new_workspace(slug)))?.expect(201)?;
    let id = text(&created, "id")?;
    let body = json!({ "duration_days": 90, "name": "owner" });
    let claimed = send(to, "POST", &format!("/v1/{id}/api-keys"), None, Some(&body))?.expect(201)?;
    Ok((id, text(&claimed, "api_key")?))
}

/// Creates a service. The result is its key and the public part of the key.
fn service(to: SocketAddr, workspace: &str, key: &str) -> Result<(String, String), Failure> {
    let body = json!({ "duration_days": 30, "name": "service" });
    let path = format!("/v1/{workspace}/api-keys");
    let minted = send(to, "POST", &path, Some(key), Some(&body))?.expect(201)?;
    Ok((text(&minted, "api_key")?, text(&minted, "key_id")?))
}

fn text(of: &Value, field: &str) -> Result<String, Failure> {
    of[field].as_str().map(str::to_owned).ok_or_else(|| format!("the answer has no {field}: {of}").into())
}
