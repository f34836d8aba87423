//! The quiet tenant: a few requests per second, with times that count from the due time of each request.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::Failure;
use super::hostile::Pool;
use super::outside::{KNOWN, Outside};
use super::server::Ward;
use super::tenant::{Tenant, client, fresh_address, new_workspace};

/// The rate of requests per second.
const RATE: u32 = 25;
/// How long the last delivery may take to arrive.
const PATIENCE: Duration = Duration::from_mins(1);

/// A quiet tenant with the data that its requests need.
pub struct Quiet {
    pool: Pool,
    tenant: Tenant,
    path: String,
}

#[derive(Clone, Debug, Default)]
pub struct Times {
    /// The times of the answered requests in seconds, ascending.
    times: Vec<f64>,
    /// The number of requests that were refused or failed.
    pub refused: usize,
}

impl Times {
    /// The quantile `part` of the times.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "small"
        )]
        let index = (last as f64 * part).ceil() as usize;
        self.times.get(index).copied().unwrap_or(f64::NAN)
    }

    /// Adds the times of another round.
    pub fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_by(f64::total_cmp);
        self.refused += other.refused;
    }

    /// The number of requests that were neither refused nor failed.
    pub fn count(&self) -> usize {
        self.times.len()
    }
}

impl Quiet {
    /// Creates the workspace of the tenant, with the data for this pool.
    pub async fn new(pool: Pool, ward: &Ward, outside: &Outside) -> Result<Self, Failure> {
        let tenant = Tenant::new(&client()?, ward.address).await?;
        let mut quiet = Self { pool, tenant: tenant.clone(), path: tenant.workspace("") };
        match pool {
            Pool::Outbound | Pool::Names => {
                let host = if pool == Pool::Names { KNOWN } else { "127.0.0.1" };
                let id = tenant.integrate(&format!("http://{host}:{}/", outside.quick.port())).await?;
                quiet.path = tenant.path(&format!("/integrations/{id}/endpoints/find/test"));
            }
            Pool::Deliveries => tenant.connect(&format!("http://{}/fhir", outside.quick)).await?,
            Pool::LongReads => quiet.path = tenant.path("/audit?limit=20"),
            Pool::Refusals => {
                quiet.tenant = tenant.with_role("viewer").await?;
                quiet.path = tenant.path("/audit");
            }
            Pool::Validation | Pool::Writer | Pool::Bootstrap => {}
        }
        Ok(quiet)
    }

    /// The activity of the tenant, as a sentence for the page.
    pub const fn asks(pool: Pool) -> &'static str {
        match pool {
            Pool::Validation => "reads its workspace",
            Pool::Outbound | Pool::Names => "tests an endpoint of a quick EHR",
            Pool::Deliveries => "finishes calls; until one is in its quick EHR",
            Pool::LongReads => "lists its audit",
            Pool::Writer => "changes its name",
            Pool::Refusals => "is refused once in a while",
            Pool::Bootstrap => "creates workspaces, each from an address of its own",
        }
    }

    /// Sends requests at the fixed rate for `time`, then waits for the answers that are due.
    pub async fn measure(&self, time: Duration, outside: &mut Outside) -> Result<Times, Failure> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let until = Instant::now() + time;
        let mut asked = JoinSet::new();
        while Instant::now() < until {
            let due = ticks.tick().await.into_std();
            let (tenant, pool, path) = (self.tenant.clone(), self.pool, self.path.clone());
            asked.spawn(async move {
                let answer = once(&tenant, pool, &path).await;
                (due, Instant::now(), answer)
            });
        }
        let mut found = Times::default();
        let mut calls = HashMap::new();
        while let Some(done) = asked.join_next().await {
            let (due, ended, answer) = done?;
            match answer {
                Ok(Some(call)) => drop(calls.insert(call, due)),
                Ok(None) => found.times.push((ended - due).as_secs_f64()),
                Err(_) => found.refused += 1,
            }
        }
        let patience = Instant::now() + PATIENCE;
        while !calls.is_empty() && Instant::now() < patience {
            let arrived = tokio::time::timeout(Duration::from_secs(1), outside.arrived.recv()).await;
            let Ok(Some((at, body))) = arrived else { continue };
            let Some(call) = calls.keys().find(|call| body.contains(*call)).cloned() else { continue };
            let due = calls.remove(&call).unwrap_or(at);
            found.times.push((at - due).as_secs_f64());
        }
        found.refused += calls.len();
        found.times.sort_by(f64::total_cmp);
        Ok(found)
    }
}

/// Sends one request. For deliveries, the result is the id of the reported call.
async fn once(tenant: &Tenant, pool: Pool, path: &str) -> Result<Option<String>, Failure> {
    let answer = match pool {
        Pool::Deliveries => return tenant.finish_call().await.map(Some),
        Pool::Outbound | Pool::Names => {
            let answer = tenant.send(Method::POST, path, Some(&json!({}))).await?.good()?;
            return if answer["error"].is_null() {
                Ok(None)
            } else {
                Err(answer["error"].to_string().into())
            };
        }
        Pool::Writer => {
            let name = json!({ "name": super::tenant::fresh_slug() });
            tenant.send(Method::PATCH, path, Some(&name)).await?
        }
        Pool::Bootstrap => {
            // One address may create one workspace a second, which gives too few times for a p99.
            let stranger = tenant.from(fresh_address(), false);
            stranger.send(Method::POST, "/v1/workspaces", Some(&new_workspace())).await?
        }
        Pool::Refusals => {
            let answer = tenant.send(Method::GET, path, None).await?;
            return if answer.status.as_u16() == 403 { Ok(None) } else { Err(answer.body.into()) };
        }
        Pool::Validation | Pool::LongReads => tenant.send(Method::GET, path, None).await?,
    };
    answer.good().map(|_| None)
}
