//! Quotas: bounds on everything that a workspace may have.
//!
//! The counts are columns of the workspace's guard row and change in the transaction of the write. So they
//! are exact under concurrency, and no write counts rows. The operator can change each limit for a
//! workspace.

pub mod api;
pub mod operator;
pub mod rate;
mod store;

use serde_json::{Map, Value, json};
use ward_db::{Error, FromColumn, Json, Row, Timestamp, Tx};

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::names::named;

pub use store::give_back;

/// The length of a day in microseconds.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// A quantity that is limited per workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Quota {
    /// API keys in the workspace's list.
    Keys,
    /// Members of the workspace, services included.
    Members,
    /// Invitations that can still be accepted.
    OpenInvitations,
    /// Integrations, including those that connectors bring.
    Integrations,
    /// Webhooks; none can be created yet.
    Webhooks,
    /// Bytes of everything that the workspace's acts leave: audit events with the rows that they are about, call details,
    /// configurations, texts, exports, and answers kept for replays.
    StoredBytes,
    /// Calls whose first report came on the current day (UTC).
    CallsPerDay,
    /// Requests with a valid credential per second, on one replica.
    RequestsPerSecond,
    /// Concurrent outbound requests, on one replica.
    OutboundCalls,
}

named!(Quota);

impl Quota {
    /// The limit for workspaces for which neither the operator nor a setting gives another.
    pub const fn usual(self) -> i64 {
        match self {
            Self::Keys => 10_000,
            Self::Members => 20_000,
            Self::OpenInvitations => 1_000,
            Self::Integrations => 100,
            Self::Webhooks => 20,
            Self::StoredBytes => 16 << 30,
            Self::CallsPerDay => 1_000_000,
            Self::RequestsPerSecond => 5_000,
            Self::OutboundCalls => 32,
        }
    }

    /// The greatest limit that a setting or the operator may give.
    pub const fn greatest(self) -> i64 {
        match self {
            Self::StoredBytes => 1 << 50,
            Self::RequestsPerSecond | Self::OutboundCalls => 1_000_000,
            _ => 1_000_000_000,
        }
    }

    /// The refusal of a request that would exceed the quota.
    const fn sentence(self) -> &'static str {
        match self {
            Self::Keys => {
                "This workspace has as many API keys as its quota `keys` allows. Delete some, or ask the operator for more."
            }
            Self::Members => {
                "This workspace has as many members as its quota `members` allows, services included. Remove some, or ask the operator for more."
            }
            Self::OpenInvitations => {
                "This workspace has as many invitations as its quota `open_invitations` allows. Revoke some, or ask the operator for more."
            }
            Self::Integrations => {
                "This workspace has as many integrations as its quota `integrations` allows. Delete some, or ask the operator for more."
            }
            Self::Webhooks => {
                "This workspace has as many webhooks as its quota `webhooks` allows. Delete some, or ask the operator for more."
            }
            Self::StoredBytes => {
                "This workspace stores as much as its quota `stored_bytes` allows. Delete integrations, wait until answers kept for replays go, or ask the operator for more."
            }
            Self::CallsPerDay => {
                "This workspace has had as many calls today as its quota `calls_per_day` allows. The next day begins at midnight in UTC."
            }
            Self::RequestsPerSecond => {
                "This workspace sends more requests than its quota `requests_per_second` allows. Send them more slowly."
            }
            Self::OutboundCalls => {
                "This workspace has as many concurrent outbound requests as its quota `outbound_calls` allows. Try again."
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([i64; Quota::ALL.len()]);

impl Default for Limits {
    fn default() -> Self {
        Self(Quota::ALL.map(Quota::usual))
    }
}

impl Limits {
    pub const fn of(&self, quota: Quota) -> i64 {
        self.0[quota as usize]
    }

    pub const fn set(&mut self, quota: Quota, limit: i64) {
        self.0[quota as usize] = limit;
    }
}

/// The limits that the operator set for one workspace. The settings apply to the other quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides([Option<i64>; Quota::ALL.len()]);

impl Overrides {
    /// Reads the stored JSON. A quota that this version does not know has no effect.
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

    fn text(&self) -> Option<String> {
        let set = Quota::ALL
            .into_iter()
            .filter_map(|quota| Some((quota.name().to_owned(), json!(self.of(quota)?))));
        let set: Map<String, Value> = set.collect();
        (!set.is_empty()).then(|| Value::Object(set).to_string())
    }

    /// Sets the limit of a quota; `None` returns to the limit of the settings.
    pub const fn set(&mut self, quota: Quota, limit: Option<i64>) {
        self.0[quota as usize] = limit;
    }

    /// The operator's limit of a quota, if there is one.
    pub const fn of(&self, quota: Quota) -> Option<i64> {
        self.0[quota as usize]
    }

    /// The limits in force, with `usual` from the settings.
    pub fn over(&self, usual: &Limits) -> Limits {
        let mut limits = *usual;
        for quota in Quota::ALL {
            limits.set(quota, self.of(quota).unwrap_or(usual.of(quota)));
        }
        limits
    }
}

impl FromColumn for Overrides {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        let kept = Option::<Json>::from_column(row, index)?;
        Self::parse(kept.as_ref().map(|Json(text)| text.as_str()))
    }
}

/// A change of the counts of a workspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// API keys in the workspace's list.
    pub keys: i64,
    /// Members of the workspace, services included.
    pub members: i64,
    /// Invitations that can still be accepted.
    pub invitations: i64,
    /// Integrations, including those that connectors bring.
    pub integrations: i64,
    /// Bytes that count against the quota of stored bytes.
    pub bytes: i64,
    /// Calls whose first report arrived today.
    pub calls: i64,
}

impl Change {
    /// An increase by this many bytes.
    pub fn bytes(count: usize) -> Self {
        Self { bytes: i64::try_from(count).unwrap_or(i64::MAX), ..Self::default() }
    }

    fn of(&self, quota: Quota) -> i64 {
        match quota {
            Quota::Keys => self.keys,
            Quota::Members => self.members,
            Quota::OpenInvitations => self.invitations,
            Quota::Integrations => self.integrations,
            Quota::StoredBytes => self.bytes,
            Quota::CallsPerDay => self.calls,
            Quota::Webhooks | Quota::RequestsPerSecond | Quota::OutboundCalls => 0,
        }
    }
}

/// The counts of a workspace, with the operator's limits.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    counts: Change,
    limits: Overrides,
}

impl Usage {
    /// The count of a quota that the database keeps; `None` for the others.
    fn of(&self, quota: Quota) -> Option<i64> {
        match quota {
            Quota::Webhooks => Some(0),
            Quota::RequestsPerSecond | Quota::OutboundCalls => None,
            kept => Some(self.counts.of(kept)),
        }
    }
}

/// The day of a timestamp (UTC), in days since 1970.
const fn day(at: Timestamp) -> i64 {
    at.micros().div_euclid(DAY)
}

/// Counts a change of a workspace whose guard row the transaction holds. It refuses a change that exceeds a
/// quota.
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

/// The bound on stored bytes that an act must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteLimit {
    /// The act may use the quota and no more.
    Quota,
    /// The act may use an eighth of the quota more, because a full workspace still needs such acts.
    Reserve,
}

impl ByteLimit {
    fn limit(self, limits: Overrides, usual: &Limits) -> i64 {
        let limit = limits.over(usual).of(Quota::StoredBytes);
        match self {
            Self::Quota => limit,
            Self::Reserve => limit.saturating_add(limit / 8),
        }
    }
}

/// Counts so many more bytes, and refuses them where there is no room.
pub fn take_bytes(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    usual: &Limits,
    (bytes, bound): (usize, ByteLimit),
    now: Timestamp,
) -> Result<(), ApiError> {
    let (used, limits) = store::add_bytes(tx, workspace, Change::bytes(bytes).bytes)?;
    if used > bound.limit(limits, usual) { Err(exceeded(Quota::StoredBytes, now)) } else { Ok(()) }
}

/// Whether a workspace whose guard row is held has so much room, its reserve included.
pub fn has_room(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    usual: &Limits,
    bytes: usize,
) -> Result<bool, Error> {
    let (used, limits) = store::add_bytes(tx, workspace, 0)?;
    Ok(used.saturating_add(Change::bytes(bytes).bytes) <= ByteLimit::Reserve.limit(limits, usual))
}

/// The refusal of a request that exceeds a quota: 429 for quotas that recover with time, otherwise 409.
pub fn exceeded(quota: Quota, now: Timestamp) -> ApiError {
    metrics::counter!("ward_quota_refusals_total", "quota" => quota.name()).increment(1);
    let wait = match quota {
        Quota::CallsPerDay => {
            Some((DAY - now.micros().rem_euclid(DAY)).div_euclid(1_000_000).max(1).unsigned_abs())
        }
        Quota::RequestsPerSecond | Quota::OutboundCalls => Some(1),
        _ => None,
    };
    ApiError::quota_exceeded(quota.name(), quota.sentence(), wait)
}
