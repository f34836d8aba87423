//! Quotas: how much of everything one workspace may have.
//!
//! The counts stand in the workspace's guard row and change in the transaction of the write that they are about, so they are
//! exact under races and a write never counts rows. The operator may change each limit for a workspace.

pub mod api;
pub mod operator;
pub mod rate;
mod store;

use serde_json::{Map, Value, json};
use ward_db::{Error, Json, Row, Timestamp, Tx};

use crate::error::ApiError;
use crate::ids::WorkspaceId;

pub use store::give_back;

/// Microseconds of a day.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// Something that a workspace may have a limited amount of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// API keys that are listed.
    Keys,
    /// Members, services included.
    Members,
    /// Invitations that wait to be accepted.
    OpenInvitations,
    /// Integrations.
    Integrations,
    /// Webhooks.
    Webhooks,
    /// Bytes of texts, configurations, call details and answers kept for repeats.
    StoredBytes,
    /// Calls first reported on one day in UTC.
    CallsPerDay,
    /// Requests with a valid credential a second, on one replica.
    RequestsPerSecond,
    /// Requests to the outside under way at once, on one replica.
    OutboundCalls,
}

use Quota::{
    CallsPerDay, Integrations, Keys, Members, OpenInvitations, OutboundCalls, RequestsPerSecond, StoredBytes,
    Webhooks,
};

impl Quota {
    /// Every quota, in the order in which answers list them.
    pub const ALL: [Self; 9] = [
        Keys,
        Members,
        OpenInvitations,
        Integrations,
        Webhooks,
        StoredBytes,
        CallsPerDay,
        RequestsPerSecond,
        OutboundCalls,
    ];

    /// Its name in answers, in settings after `quota_`, and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Keys => "keys",
            Members => "members",
            OpenInvitations => "open_invitations",
            Integrations => "integrations",
            Webhooks => "webhooks",
            StoredBytes => "stored_bytes",
            CallsPerDay => "calls_per_day",
            RequestsPerSecond => "requests_per_second",
            OutboundCalls => "outbound_calls",
        }
    }

    /// The quota of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quota| quota.name() == name)
    }

    /// The limit of workspaces for which neither the operator nor a setting says another.
    pub const fn usual(self) -> i64 {
        match self {
            Keys => 10_000,
            Members => 20_000,
            OpenInvitations => 1_000,
            Integrations => 100,
            Webhooks => 20,
            StoredBytes => 1 << 30,
            CallsPerDay => 1_000_000,
            RequestsPerSecond => 5_000,
            OutboundCalls => 32,
        }
    }

    /// The greatest limit that can be set.
    pub const fn greatest(self) -> i64 {
        match self {
            StoredBytes => 1 << 50,
            RequestsPerSecond | OutboundCalls => 1_000_000,
            _ => 1_000_000_000,
        }
    }

    /// The sentence that refuses what would exceed it.
    const fn sentence(self) -> &'static str {
        match self {
            Keys => {
                "This workspace has as many API keys as its quota `keys` allows. Delete some, or ask the operator for more."
            }
            Members => {
                "This workspace has as many members as its quota `members` allows, services included. Remove some, or ask the operator for more."
            }
            OpenInvitations => {
                "This workspace has as many invitations as its quota `open_invitations` allows. Revoke some, or ask the operator for more."
            }
            Integrations => {
                "This workspace has as many integrations as its quota `integrations` allows. Delete some, or ask the operator for more."
            }
            Webhooks => {
                "This workspace has as many webhooks as its quota `webhooks` allows. Delete some, or ask the operator for more."
            }
            StoredBytes => {
                "This workspace stores as much as its quota `stored_bytes` allows. Answers kept for repeats go within a day; for more, ask the operator."
            }
            CallsPerDay => {
                "This workspace has had as many calls today as its quota `calls_per_day` allows. The next day begins at midnight in UTC."
            }
            RequestsPerSecond => {
                "This workspace sends more requests than its quota `requests_per_second` allows. Send them more slowly."
            }
            OutboundCalls => {
                "This workspace has as many requests to the outside under way as its quota `outbound_calls` allows. Try again."
            }
        }
    }
}

/// The limits of one workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([i64; Quota::ALL.len()]);

impl Default for Limits {
    fn default() -> Self {
        Self(Quota::ALL.map(Quota::usual))
    }
}

impl Limits {
    /// The limit of a quota.
    pub const fn of(&self, quota: Quota) -> i64 {
        self.0[quota as usize]
    }

    /// Sets the limit of a quota.
    pub const fn set(&mut self, quota: Quota, limit: i64) {
        self.0[quota as usize] = limit;
    }
}

/// The limits that the operator set for one workspace; the settings' hold for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides([Option<i64>; Quota::ALL.len()]);

impl Overrides {
    /// Reads them from what the database keeps. A quota that this version does not know has no effect.
    pub fn parse(text: Option<&str>) -> Result<Self, Error> {
        let mut overrides = Self::default();
        let Some(text) = text else { return Ok(overrides) };
        let kept: Map<String, Value> = serde_json::from_str(text).map_err(Error::unreadable)?;
        for (name, limit) in kept {
            if let Some(quota) = Quota::named(&name) {
                overrides.0[quota as usize] = limit.as_i64();
            }
        }
        Ok(overrides)
    }

    /// Reads them from a row.
    pub fn column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        let kept: Option<Json> = row.get(index)?;
        Self::parse(kept.as_ref().map(|Json(text)| text.as_str()))
    }

    fn text(&self) -> Option<String> {
        let set = Quota::ALL
            .into_iter()
            .filter_map(|quota| Some((quota.name().to_owned(), json!(self.of(quota)?))));
        let set: Map<String, Value> = set.collect();
        (!set.is_empty()).then(|| Value::Object(set).to_string())
    }

    /// Sets the limit of a quota; `None`: the settings' limit holds.
    pub const fn set(&mut self, quota: Quota, limit: Option<i64>) {
        self.0[quota as usize] = limit;
    }

    /// The operator's limit of a quota, if there is one.
    pub const fn of(&self, quota: Quota) -> Option<i64> {
        self.0[quota as usize]
    }

    /// The limits that hold, where the settings say `usual`.
    pub fn over(&self, usual: &Limits) -> Limits {
        let mut limits = *usual;
        for quota in Quota::ALL {
            limits.set(quota, self.of(quota).unwrap_or(usual.of(quota)));
        }
        limits
    }
}

/// A change of how much a workspace has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Listed API keys.
    pub keys: i64,
    /// Members.
    pub members: i64,
    /// Open invitations.
    pub invitations: i64,
    /// Integrations.
    pub integrations: i64,
    /// Stored bytes.
    pub bytes: i64,
    /// Calls of the day.
    pub calls: i64,
}

impl Change {
    /// So many bytes more.
    pub fn bytes(count: usize) -> Self {
        Self { bytes: i64::try_from(count).unwrap_or(i64::MAX), ..Self::default() }
    }

    fn of(&self, quota: Quota) -> i64 {
        match quota {
            Keys => self.keys,
            Members => self.members,
            OpenInvitations => self.invitations,
            Integrations => self.integrations,
            StoredBytes => self.bytes,
            CallsPerDay => self.calls,
            Webhooks | RequestsPerSecond | OutboundCalls => 0,
        }
    }
}

/// How much a workspace has.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    counts: Change,
    limits: Overrides,
}

impl Used {
    /// The count of a quota that the database keeps; `None` for the others.
    fn of(&self, quota: Quota) -> Option<i64> {
        match quota {
            Webhooks => Some(0),
            RequestsPerSecond | OutboundCalls => None,
            kept => Some(self.counts.of(kept)),
        }
    }
}

/// The day of a moment, in days since 1970.
const fn day(at: Timestamp) -> i64 {
    at.micros().div_euclid(DAY)
}

/// Counts a change of a workspace whose guard row the transaction holds, and refuses it beyond a quota.
pub fn take(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    usual: &Limits,
    change: Change,
    now: Timestamp,
) -> Result<(), ApiError> {
    let used = store::change(tx, workspace, change, day(now))?;
    let limits = used.limits.over(usual);
    for quota in Quota::ALL {
        if change.of(quota) > 0 && used.counts.of(quota) > limits.of(quota) {
            return Err(exceeded(quota, now));
        }
    }
    Ok(())
}

/// The refusal of what would exceed a quota: 429 for those that time lifts, otherwise 409.
pub fn exceeded(quota: Quota, now: Timestamp) -> ApiError {
    metrics::counter!("ward_quota_refusals_total", "quota" => quota.name()).increment(1);
    let wait = match quota {
        CallsPerDay => Some((DAY - now.micros().rem_euclid(DAY)).div_euclid(1_000_000).max(1).unsigned_abs()),
        RequestsPerSecond | OutboundCalls => Some(1),
        _ => None,
    };
    ApiError::quota_exceeded(quota.name(), quota.sentence(), wait)
}
