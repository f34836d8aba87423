//! A tenant that uses Ward over HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Failure;

static NEXT: AtomicU64 = AtomicU64::new(1);
static NEXT_ADDRESS: AtomicU64 = AtomicU64::new(1);

/// A workspace, the key of its owner, and the client's address in the form that a proxy reports.
#[derive(Clone)]
pub struct Tenant {
    client: reqwest::Client,
    root: String,
    pub id: String,
    key: String,
    address: String,
}

pub struct Answer {
    pub status: StatusCode,
    pub body: String,
}

impl Answer {
    /// The body as JSON. An answer without a 2xx status is an error.
    pub fn good(&self) -> Result<Value, Failure> {
        if !self.status.is_success() {
            return Err(format!("{}: {}", self.status, self.body).into());
        }
        Ok(if self.body.is_empty() { Value::Null } else { serde_json::from_str(&self.body)? })
    }
}

/// An HTTP client with its own connections.
pub fn client() -> Result<reqwest::Client, Failure> {
    Ok(reqwest::Client::builder().no_proxy().pool_max_idle_per_host(512).build()?)
}

/// A name that no other workspace has.
pub fn fresh_slug() -> String {
    format!("w{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A client address that no earlier call returned, in the form that a proxy reports.
pub fn fresh_address() -> String {
    let number = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed);
    format!("198.18.{}.{}", number / 250 % 250, number % 250 + 1)
}

/// The request body that creates a workspace.
pub fn new_workspace() -> Value {
    json!({ "slug": fresh_slug(), "name": "Measured", "environment": "production", "region": "us-east-1" })
}

impl Tenant {
    /// A new tenant. Each has its own address, so that it does not share a rate limit with others.
    pub async fn new(client: &reqwest::Client, to: SocketAddr) -> Result<Self, Failure> {
        let mut tenant = Self {
            client: client.clone(),
            root: format!("http://{to}"),
            id: String::new(),
            key: String::new(),
            address: fresh_address(),
        };
        let made = tenant.send(Method::POST, "/v1/workspaces", Some(&new_workspace())).await?.good()?;
        tenant.id = made["id"].as_str().ok_or("no id in the answer")?.to_owned();
        let claim = json!({ "duration_days": 9, "name": "owner" });
        let claimed = tenant.send(Method::POST, &tenant.path("/api-keys"), Some(&claim)).await?.good()?;
        claimed["api_key"].as_str().ok_or("no api_key")?.clone_into(&mut tenant.key);
        Ok(tenant)
    }

    /// The path `/v1/{id}` with `rest` at its end.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/{}{rest}", self.id)
    }

    /// The path `/v1/workspaces/{id}` with `rest` at its end.
    pub fn workspace(&self, rest: &str) -> String {
        format!("/v1/workspaces/{}{rest}", self.id)
    }

    /// The same tenant with a key of this role.
    pub async fn with_role(&self, role: &str) -> Result<Self, Failure> {
        let body = json!({ "duration_days": 9, "role": role });
        let minted = self.send(Method::POST, &self.path("/api-keys"), Some(&body)).await?.good()?;
        Ok(Self { key: minted["api_key"].as_str().ok_or("no api_key")?.to_owned(), ..self.clone() })
    }

    /// The same tenant with another address, with or without its key.
    pub fn from(&self, address: String, with_key: bool) -> Self {
        let key = if with_key { self.key.clone() } else { String::new() };
        Self { key, address, ..self.clone() }
    }

    /// Sends a request with an optional JSON body.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.send_bytes(method, path, body.map(|body| body.to_string().into_bytes())).await
    }

    /// Sends a request with the bytes of a body.
    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Failure> {
        let mut request = self.client.request(method, format!("{}{path}", self.root));
        request = request.header("x-forwarded-for", &self.address);
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        Ok(Answer { status: response.status(), body: response.text().await? })
    }

    /// Connects the workspace to the EHR at `base_url`.
    pub async fn connect(&self, base_url: &str) -> Result<(), Failure> {
        let patch = json!({ "connector_type": "fhir_store" });
        self.send(Method::PATCH, &self.workspace(""), Some(&patch)).await?.good()?;
        self.send(Method::POST, &self.workspace("/provision"), Some(&json!({}))).await?.good()?;
        let listed = self.send(Method::GET, &self.path("/integrations"), None).await?.good()?;
        let id = listed["items"][0]["id"].as_str().ok_or("the workspace has no integration")?.to_owned();
        let change = json!({ "base_url": base_url, "enabled": true, "auth": null });
        let path = self.path(&format!("/integrations/{id}"));
        self.send(Method::PUT, &path, Some(&change)).await?.good()?;
        Ok(())
    }

    /// Creates an integration with one endpoint, `find`. The result is the id of the integration.
    pub async fn integrate(&self, base_url: &str) -> Result<String, Failure> {
        let body = json!({
            "name": fresh_slug(), "display_name": "Measured", "base_url": base_url,
            "endpoints": [{ "name": "find", "description": "Finds.", "path": "/x", "method": "GET" }],
        });
        let made = self.send(Method::POST, &self.path("/integrations"), Some(&body)).await?.good()?;
        Ok(made["id"].as_str().ok_or("no id in the answer")?.to_owned())
    }

    /// Reports a finished call, whose delivery Ward then owes. The result is the id of the call.
    pub async fn finish_call(&self) -> Result<String, Failure> {
        let sid = format!("CA{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let body = json!({
            "status": "completed", "caller_id": "+15550100002", "direction": "inbound", "duration_seconds": 61.25
        });
        let path = self.path(&format!("/calls/{sid}"));
        let call = self.send(Method::PUT, &path, Some(&body)).await?.good()?;
        Ok(call["entity_id"].as_str().ok_or("no entity_id in the answer")?.to_owned())
    }
}
