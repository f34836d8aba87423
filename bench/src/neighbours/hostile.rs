//! Hostile neighbours: the worst use of each pool that tenants share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::outside::{Outside, threads_behind};
use super::server::Ward;
use super::tenant::{Tenant, client, new_workspace};
use super::{Failure, history};

/// The clients of one neighbour that runs alone.
pub const CLIENTS: usize = 64;
/// The number of audit events of the tenant that searches.
const EVENTS: u64 = 400_000;
/// The number of workspaces with a slow EHR.
const SLOW_EHRS: usize = 128;

/// A resource that all tenants share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The threads that validate request bodies.
    Validation,
    /// The shares of calls to integrations.
    Outbound,
    /// The name look-ups of outbound calls.
    Names,
    Deliveries,
    /// The connections for reads that take long.
    LongReads,
    /// The single writer of a database.
    Writer,
    /// The queue of refusals that wait to be recorded.
    Refusals,
    /// The creation of workspaces without a key.
    Bootstrap,
}

impl Pool {
    /// All pools, in the order of the page.
    pub const ALL: [Self; 8] = [
        Self::Validation,
        Self::Outbound,
        Self::Names,
        Self::Deliveries,
        Self::LongReads,
        Self::Writer,
        Self::Refusals,
        Self::Bootstrap,
    ];

    /// The name of the pool in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Outbound => "outbound calls",
            Self::Names => "name look-ups",
            Self::Deliveries => "delivery workers",
            Self::LongReads => "long readers",
            Self::Writer => "writer",
            Self::Refusals => "refusals",
            Self::Bootstrap => "bootstrap",
        }
    }

    /// The activity of the neighbour, as a sentence for the page.
    pub const fn neighbour(self) -> &'static str {
        match self {
            Self::Validation => "64 clients post bodies of 250 KB in which 20,000 values are wrong",
            Self::Outbound => "64 clients check the health of 50 integrations whose EHR takes nine seconds",
            Self::Names => "64 clients test an endpoint in a zone that never answers",
            Self::Deliveries => "128 workspaces whose EHR takes nine seconds, each with 50 deliveries due",
            Self::LongReads => "64 clients search 400,000 events for something that is not there",
            Self::Writer => "64 clients change the name of their workspace",
            Self::Refusals => "64 clients of a viewer are refused from ever new addresses",
            Self::Bootstrap => "64 clients of one address create workspaces",
        }
    }
}

/// A neighbour at work. It stops when this is dropped.
///
/// Its clients have their own threads at the lowest priority. The quiet tenant's times then show the server, and not
/// the time that two clients on one machine wait for a processor.
pub struct Neighbour {
    _work: JoinSet<()>,
    done: Arc<AtomicU64>,
    threads: Option<Runtime>,
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // A runtime must not wait for its threads inside another runtime.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Neighbour {
    /// The number of answered requests, with any status.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// A prepared neighbour that is not at work yet.
#[derive(Clone)]
pub struct Ready {
    pool: Pool,
    tenants: Vec<Tenant>,
    path: String,
    body: Option<Vec<u8>>,
}

impl Ready {
    /// Creates the workspaces of the neighbour.
    pub async fn new(pool: Pool, ward: &Ward, outside: &Outside) -> Result<Self, Failure> {
        let client = client()?;
        let tenant = Tenant::new(&client, ward.address).await?;
        let mut ready = Self { pool, tenants: vec![tenant.clone()], path: String::new(), body: None };
        match pool {
            Pool::Validation => {
                ready.path = tenant.path("/api-keys");
                let wrong = vec![Value::from("Call.sing"); 20_000];
                ready.body =
                    Some(json!({ "duration_days": 1, "permissions": wrong }).to_string().into_bytes());
            }
            Pool::Outbound => {
                for _ in 0..50 {
                    tenant.integrate(&format!("http://{}/", outside.slow)).await?;
                }
                ready.path = tenant.path("/integrations/health-check");
            }
            Pool::Names => {
                let id = tenant.integrate("http://silent.zone.invalid-zone.test/").await?;
                ready.path = tenant.path(&format!("/integrations/{id}/endpoints/find/test"));
                ready.body = Some(b"{}".to_vec());
            }
            Pool::Deliveries => {
                let slow = format!("http://{}/fhir", outside.slow);
                ready.tenants.clear();
                for _ in 0..SLOW_EHRS {
                    let tenant = Tenant::new(&client, ward.address).await?;
                    tenant.connect(&slow).await?;
                    ready.tenants.push(tenant);
                }
            }
            Pool::LongReads => {
                history::fill(&ward.database, &tenant.id, EVENTS).await?;
                ready.path = tenant.path("/audit?service=zzz&resource_type=q");
            }
            Pool::Writer => ready.path = tenant.workspace(""),
            Pool::Refusals => {
                ready.tenants = vec![tenant.with_role("viewer").await?];
                ready.path = tenant.path("/audit");
            }
            Pool::Bootstrap => ready.tenants = vec![tenant.from("203.0.113.7".to_owned(), false)],
        }
        Ok(ready)
    }

    /// Starts the clients of the neighbour.
    pub async fn start(&self, clients: usize) -> Result<Neighbour, Failure> {
        let done = Arc::new(AtomicU64::new(0));
        let mut work = JoinSet::new();
        let threads = threads_behind()?;
        if self.pool == Pool::Deliveries {
            // All calls are reported at once. The EHRs need hours for them.
            for tenant in &self.tenants {
                let (tenant, done) = (tenant.clone(), done.clone());
                let work_of_tenant = async move {
                    for _ in 0..50 {
                        let _ = tenant.finish_call().await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                };
                work.spawn_on(work_of_tenant, threads.handle());
            }
            // The measurement starts after all reports. The first calls are then already at the EHRs.
            while work.join_next().await.is_some() {}
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Ok(Neighbour { _work: work, done, threads: Some(threads) });
        }
        for client in 0..clients {
            let (ready, done) = (self.clone(), done.clone());
            let requests = async move {
                for number in 0_u64.. {
                    if ready.once(client, number).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            work.spawn_on(requests, threads.handle());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Neighbour { _work: work, done, threads: Some(threads) })
    }

    /// Sends one request of the neighbour.
    async fn once(&self, client: usize, number: u64) -> Result<(), Failure> {
        let Some(tenant) = self.tenants.first() else { return Ok(()) };
        let answer = match self.pool {
            Pool::Writer => {
                let name = json!({ "name": format!("n{client}-{number}") });
                tenant.send(Method::PATCH, &self.path, Some(&name)).await?
            }
            Pool::Bootstrap => tenant.send(Method::POST, "/v1/workspaces", Some(&new_workspace())).await?,
            Pool::Refusals => {
                let address = format!("100.{}.{}.{}", client + 64, number / 250 % 250, number % 250);
                tenant.from(address, true).send(Method::GET, &self.path, None).await?
            }
            _ => {
                let method = if self.body.is_some() { Method::POST } else { Method::GET };
                tenant.send_bytes(method, &self.path, self.body.clone()).await?
            }
        };
        // A refused client tries again after a short pause, like an impolite client.
        if answer.status.as_u16() == 429 || answer.status.is_server_error() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
