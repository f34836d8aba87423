//! A workspace at a glance: calls, deliveries, keys about to expire, quotas, and the next steps.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::Path;
use futures_util::future::{Either, ready, try_join, try_join4};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::address::segment;
use super::keys::Key;
use super::workspaces::Workspace;
use crate::chart;
use crate::frame::{Frame, List, VisitedWorkspace};
use crate::time::Time;
use crate::visit::{Page, Stop, Visit, page};
use crate::words;

/// Days of the chart of calls.
const DAYS: usize = 14;
/// A key that expires within these days is shown.
const SOON: i64 = 14;

#[derive(Deserialize)]
struct RecentCall {
    direction: Option<String>,
    started_at: Time,
}

#[derive(Deserialize)]
struct CallList {
    items: Vec<RecentCall>,
    total: i64,
}

/// The state of the integrations' queues.
#[derive(Deserialize)]
pub struct Sync {
    pub integrations: Vec<Queue>,
}

#[derive(Deserialize)]
pub struct Queue {
    pub integration_id: String,
    pub name: Option<String>,
    pub held: bool,
    pub held_because: Option<String>,
    pub waits_because: Option<String>,
    #[serde(default)]
    pub last_success_at: Time,
    pub pending: i64,
    #[serde(default)]
    pub oldest_pending_at: Time,
    pub held_deliveries: i64,
    pub failed: i64,
    pub synced: i64,
}

impl Queue {
    /// The reason for a waiting queue as a sentence. The text is empty if the queue does not wait.
    pub fn why(&self) -> &'static str {
        let held_because = self.held_because.as_deref().unwrap_or_default();
        // The API gives no reason for an empty queue, even a held one.
        let because = self.waits_because.as_deref().unwrap_or(if self.held { "held" } else { "" });
        words::waits(because, held_because)
    }
}

#[derive(Deserialize)]
struct Usage {
    quotas: Vec<Quota>,
}

/// A quota and what is used of it.
#[derive(Deserialize)]
pub struct Quota {
    pub name: String,
    pub used: Option<i64>,
    pub limit: i64,
}

impl Quota {
    pub fn value(&self) -> i64 {
        self.used.unwrap_or(0).clamp(0, self.limit.max(0))
    }

    pub fn said(&self) -> String {
        let limit = self.limit();
        self.used
            .map_or_else(|| format!("{limit} at most"), |used| format!("{} of {limit}", self.shown(used)))
    }

    /// An amount of this quota, with its unit.
    fn shown(&self, amount: i64) -> String {
        if self.name.ends_with("bytes") { words::bytes(amount) } else { words::count(&amount) }
    }

    /// The used amount with its unit, or a remark that it is not counted.
    pub fn used(&self) -> String {
        self.used.map_or_else(|| "not counted".to_owned(), |used| self.shown(used))
    }

    pub fn limit(&self) -> String {
        self.shown(self.limit)
    }
}

pub async fn quotas(visit: &Visit, workspace: &str) -> Result<Vec<Quota>, Stop> {
    let usage: Usage = visit.get(&format!("/v1/{}/usage", segment(workspace))).await?;
    Ok(usage.quotas)
}

struct Calls {
    chart: String,
    count: usize,
    total: i64,
}

impl Calls {
    fn of(list: &CallList) -> Self {
        let mut days: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for call in &list.items {
            let series = match call.direction.as_deref() {
                Some("inbound") => 0,
                Some("outbound") => 1,
                _ => 2,
            };
            days.entry(call.started_at.day().to_owned()).or_insert_with(|| vec![0; 3])[series] += 1;
        }
        days.remove("");
        while days.len() > DAYS {
            days.pop_first();
        }
        let count = days.values().flatten().sum();
        let series = [("in", "inbound"), ("out", "outbound"), ("test", "test")];
        Self { chart: chart::bars("Calls by day and direction", &days, &series), count, total: list.total }
    }
}

struct Deliveries {
    strip: String,
    parts: Vec<(&'static str, &'static str, i64)>,
    total: i64,
    oldest: Time,
    waits: Vec<String>,
}

impl Deliveries {
    fn of(sync: &Sync) -> Self {
        let sum = |count: fn(&Queue) -> i64| sync.integrations.iter().map(count).sum::<i64>();
        let parts = vec![
            ("good", "synced", sum(|one| one.synced)),
            ("busy", "pending", sum(|one| one.pending)),
            ("warn", "held", sum(|one| one.held_deliveries)),
            ("bad", "failed", sum(|one| one.failed)),
        ];
        let waiting = sync.integrations.iter().filter(|one| one.pending > 0);
        let oldest = waiting.clone().filter(|one| one.oldest_pending_at.is_set());
        let oldest = oldest.min_by_key(|one| one.oldest_pending_at.seconds());
        let waits = waiting
            .filter(|one| !one.why().is_empty())
            .map(|one| format!("{}: {}", one.name.as_deref().unwrap_or("A deleted integration"), one.why()));
        Self {
            strip: chart::parts("Deliveries by state", &parts),
            total: parts.iter().map(|(.., count)| count).sum(),
            oldest: oldest.map(|one| one.oldest_pending_at.clone()).unwrap_or_default(),
            waits: waits.collect(),
            parts,
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    workspace: Workspace,
    steps: Vec<(bool, &'static str, &'static str)>,
    calls: Option<Calls>,
    sync: Option<Deliveries>,
    keys: Option<Vec<Key>>,
    quotas: Vec<Quota>,
    now: i64,
}

/// The answer to a GET, if the visitor has this permission.
async fn if_allowed<T: DeserializeOwned>(
    visit: &Visit,
    room: &VisitedWorkspace,
    permission: &str,
    path: String,
) -> Result<Option<T>, Stop> {
    if !room.can(permission) {
        return Ok(None);
    }
    visit.get(&path).await.map(Some)
}

pub async fn show(Path(workspace): Path<String>, visit: Visit) -> Page {
    let id = segment(&workspace);
    let room = visit.room(&workspace).await?;
    let described = format!("/v1/workspaces/{id}");
    let (own, rest) = try_join(
        visit.get::<Workspace>(&described),
        try_join4(
            if_allowed::<CallList>(
                &visit,
                &room,
                "RecentCall.view",
                format!("/v1/{id}/calls?limit=100&include_test=true"),
            ),
            if_allowed::<Sync>(&visit, &room, "Integration.view", format!("/v1/{id}/sync")),
            if_allowed::<List<Key>>(&visit, &room, "ApiKey.view", format!("/v1/{id}/api-keys?limit=20")),
            if room.can("Workspace.view") {
                Either::Left(quotas(&visit, &workspace))
            } else {
                Either::Right(ready(Ok(Vec::new())))
            },
        ),
    )
    .await?;
    let (calls, sync, keys, quotas) = rest;
    let steps = steps(&own, calls.as_ref(), &room);
    let keys = keys.map(|keys| {
        keys.items.into_iter().filter(|key| key.expires_at.is_within_days(&visit.now, SOON)).collect()
    });
    page(&Overview {
        frame: visit.frame("Overview").within(room, ""),
        workspace: own,
        steps,
        calls: calls.as_ref().map(Calls::of),
        sync: sync.as_ref().map(Deliveries::of),
        keys,
        quotas,
        now: visit.now,
    })
}

/// The steps of a new workspace until its first call is delivered. The list is empty once it has calls and a connector.
fn steps(
    workspace: &Workspace,
    calls: Option<&CallList>,
    room: &VisitedWorkspace,
) -> Vec<(bool, &'static str, &'static str)> {
    let has_calls = calls.is_some_and(|calls| calls.total > 0);
    let connected = workspace.connector_type.is_some();
    let provisioned = workspace.provisioned_at.is_set();
    if has_calls && connected && provisioned || !room.can("Workspace.update") {
        return Vec::new();
    }
    vec![
        (connected, "Choose the connector of your EHR", "/settings"),
        (provisioned, "Provision the workspace", "/settings"),
        (false, "Complete the connector's integration", "/integrations"),
        (false, "Enter the phone numbers whose calls are tests", "/test-callers"),
        (has_calls, "Let the voice runtime report its first call", "/calls"),
    ]
}
