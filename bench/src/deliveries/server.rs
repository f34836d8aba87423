//! `ward serve` as a separate process, and the requests to it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::Failure;

/// How long Ward may take for its first answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running Ward. When it is dropped, the process ends.
pub struct Ward {
    process: Child,
    client: reqwest::Client,
    address: SocketAddr,
    metrics: SocketAddr,
}

/// A workspace with an owner's key and an integration that delivers to the receiver.
#[derive(Clone)]
pub struct Tenant {
    pub workspace: String,
    /// The API key of the owner.
    pub key: String,
    integration: String,
}

impl Ward {
    /// Starts the binary with this database and waits until it is ready. Its log is in `folder`.
    pub async fn start(binary: &Path, database: &str, folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        let (address, metrics) = (free_address()?, free_address()?);
        let file: PathBuf = folder.join("ward.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&file)?;
        let process = Command::new(binary)
            .args(["serve", "--database", database, "--listen", &address.to_string()])
            .args(["--metrics-listen", &metrics.to_string(), "--rates", "off", "--log-filter", "warn"])
            .args(["--outbound-allow", "127.0.0.0/8", "--outbound-plain-http", "on"])
            .args(["--quota-calls-per-day", "2000000000", "--quota-requests-per-second", "1000000"])
            .args(["--quota-stored-bytes", "1000000000000"])
            // The 32 bytes of a key for a temporary database.
            .env("WARD_MASTER_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", binary.display()))?;
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(super::CLIENTS).build()?;
        let mut ward = Self { process, client, address, metrics };
        let started = Instant::now();
        while ward.client.get(format!("http://{address}/readyz")).send().await.is_err() {
            if let Some(status) = ward.process.try_wait()? {
                return Err(format!("Ward ended ({status}); its log is {}", file.display()).into());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("Ward does not answer; its log is {}", file.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(ward)
    }

    /// Sends a request and returns the JSON of the answer. Every status except 2xx is an error.
    pub async fn send(
        &self,
        key: Option<&str>,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address)).json(body);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if !status.is_success() {
            return Err(format!("{path}: {status}: {text}").into());
        }
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// Creates and claims a workspace, and connects it to the EHR at `ehr`.
    pub async fn tenant(&self, slug: &str, ehr: &str) -> Result<Tenant, Failure> {
        let new =
            json!({ "slug": slug, "name": "Measured", "environment": "production", "region": "us-east-1" });
        let made = self.send(None, Method::POST, "/v1/workspaces", &new).await?;
        let workspace = text(&made, "id")?;
        let claim = json!({ "duration_days": 9, "name": "owner" });
        let claimed = self.send(None, Method::POST, &format!("/v1/{workspace}/api-keys"), &claim).await?;
        let key = text(&claimed, "api_key")?;
        let at = format!("/v1/workspaces/{workspace}");
        self.send(Some(&key), Method::PATCH, &at, &json!({ "connector_type": "fhir_store" })).await?;
        self.send(Some(&key), Method::POST, &format!("{at}/provision"), &json!({})).await?;
        let at = format!("/v1/{workspace}/integrations");
        let listed = self.send(Some(&key), Method::GET, &at, &Value::Null).await?;
        let integration = text(&listed["items"][0], "id")?;
        let change = json!({ "base_url": ehr, "enabled": true, "auth": null });
        self.send(Some(&key), Method::PUT, &format!("{at}/{integration}"), &change).await?;
        Ok(Tenant { workspace, key, integration })
    }

    /// Holds the tenant's deliveries, or releases them.
    pub async fn hold(&self, tenant: &Tenant, held: bool) -> Result<(), Failure> {
        let path = format!("/v1/{}/sync/{}/hold", tenant.workspace, tenant.integration);
        self.send(Some(&tenant.key), Method::PUT, &path, &json!({ "held": held })).await?;
        Ok(())
    }

    /// Reports a finished call. Ward then owes one delivery for it.
    pub async fn report(&self, tenant: &Tenant, call: &str) -> Result<(), Failure> {
        let body = json!({ "status": "completed", "caller_id": "+15550100002", "direction": "inbound" });
        let path = format!("/v1/{}/calls/{call}", tenant.workspace);
        self.send(Some(&tenant.key), Method::PUT, &path, &body).await?;
        Ok(())
    }

    /// Whether a delivery of the tenant is settled.
    pub async fn has_settled(&self, tenant: &Tenant) -> Result<bool, Failure> {
        let path = format!("/v1/{}/deliveries?state=synced", tenant.workspace);
        let listed = self.send(Some(&tenant.key), Method::GET, &path, &Value::Null).await?;
        Ok(listed["items"].as_array().is_some_and(|items| !items.is_empty()))
    }

    /// How often the worker has read the queue (the closure `….due`), and the total time in seconds.
    pub async fn looks(&self) -> Result<(f64, f64), Failure> {
        let page = self.client.get(format!("http://{}/metrics", self.metrics)).send().await?.text().await?;
        let sum = |of: &str| -> f64 {
            page.lines()
                .filter(|line| line.starts_with(&format!("ward_db_closure_seconds_{of}{{")))
                .filter(|line| line.contains(".due\""))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        let (count, seconds) = (sum("count"), sum("sum"));
        if count > 0.0 { Ok((count, seconds)) } else { Err("the closure `….due` has no metrics".into()) }
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn text(of: &Value, field: &str) -> Result<String, Failure> {
    of[field].as_str().map(str::to_owned).ok_or_else(|| format!("the answer has no {field}: {of}").into())
}
