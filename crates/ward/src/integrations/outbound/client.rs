//! The single HTTP client of all outbound calls, with the shares of the resources that the calls use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use ward_db::Timestamp;
use ward_ehr::{Budget, Limits, Tokens};

use super::credentials::Keys;
use crate::config::{Config, ConfigError};
use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::quotas::{self, Quota};
use crate::shares::{self as pool, Holder, Share, Shares};
use crate::text;
use crate::vault::Vault;
use crate::workspaces::Workspace;

/// Time limit of one integration's health check.
pub(super) const CHECK_TIME: Duration = Duration::from_secs(5);
/// Calls of one workspace that may wait for a share.
const WAITING_CALLS: usize = 64;
/// How long a call waits for a share: less than `request_time` leaves beside the call itself.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const KIB: usize = 1024;
/// Deliveries of one lane under way at once.
const CONNECTIONS_OF_A_LANE: usize = 4;
/// Outbound requests of one call: its tries, their redirects, and those for its tokens.
const MOST_REQUESTS: usize = 16;
/// The largest answers that the requests of one call may have in all.
const MOST_ANSWERS: usize = 8;
/// Outbound requests of one health check of a workspace, which has 100 integrations at most.
const MOST_CHECKING: usize = 300;
/// Bytes that the answers to them may have in all.
const MOST_CHECKED: usize = 32 << 20;
/// Time for a request's own work beside a call.
const OWN_TIME: Duration = Duration::from_secs(1);

/// The HTTP client for integrations, its tokens, and the shares that bound its calls.
pub struct Wire {
    pub(super) outbound: ward_ehr::Outbound,
    pub(super) tokens: Tokens,
    pub(super) keys: Arc<Keys>,
    /// The values of [`ward_ehr::HOP`] for this installation, that of the current key first.
    hops: Vec<HeaderValue>,
    calls: Shares,
    /// Calls of one workspace at once, unless the operator says otherwise for it.
    usual_calls: i64,
    trees: Shares,
}

impl Wire {
    pub fn outbound(&self) -> &ward_ehr::Outbound {
        &self.outbound
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Creates the client with these settings. Blocking: it reads certificates and the system's resolver
    /// files.
    pub fn new(config: &Config, vault: &Arc<Vault>) -> Result<Self, ConfigError> {
        let settings = &config.outbound;
        let wrong = |message: String| ConfigError::one("outbound_ca_file", message);
        let extra_roots = match &settings.ca_file {
            Some(file) => std::fs::read(file)
                .map_err(|error| wrong(format!("{} cannot be read: {error}", file.display())))?,
            None => Vec::new(),
        };
        let left = config.limits.request_time.saturating_sub(OWN_TIME).max(config.limits.request_time / 2);
        let hops: Vec<HeaderValue> = vault.check_values().iter().map(|check| hop(check)).collect();
        let limits = Limits {
            allow: settings.allow.clone(),
            plain_http: settings.plain_http,
            total_time: settings.time.min(left),
            connect_time: CHECK_TIME.min(settings.time),
            body_bytes: settings.body_bytes,
            concurrency: settings.concurrency,
            extra_roots,
            name_servers: settings.name_servers.clone(),
            lookup_time: CHECK_TIME.min(settings.time),
            lookups: lookups(settings),
            installation: hops.first().cloned(),
            own_origin: config.public_url.clone(),
        };
        let outbound = ward_ehr::Outbound::new(limits).map_err(|failure| wrong(failure.message))?;
        let usual_calls = config.quotas.of(Quota::OutboundCalls);
        let calls = pool::Limits {
            total: settings.calls,
            each: units(usual_calls),
            first: 2,
            beyond: settings.calls / 2,
            waiting_each: WAITING_CALLS,
        };
        let kib = u32::try_from(settings.memory / KIB).unwrap_or(u32::MAX);
        let trees = pool::Limits {
            total: kib,
            each: kib / 4,
            first: kib / 64,
            beyond: kib / 4 * 3,
            waiting_each: WAITING_CALLS,
        };
        Ok(Self {
            outbound,
            tokens: Tokens::default(),
            keys: Arc::new(Keys::new(vault.clone(), config.public_url.clone())),
            hops,
            calls: Shares::new("outbound_calls", calls),
            usual_calls,
            trees: Shares::new("outbound_answers", trees),
        })
    }

    /// Takes the share of one call of this workspace. Dropping the share frees it.
    ///
    /// # Errors
    /// 429 if none becomes free soon. The error names the quota if the workspace has all calls that it may have.
    pub(crate) async fn place(&self, of: &Workspace, now: Timestamp) -> Result<Share, ApiError> {
        let holder = Holder::Workspace(of.id);
        let each = units(of.limits.of(Quota::OutboundCalls).unwrap_or(self.usual_calls));
        let taken = soon(self.calls.take_of(holder, 1, each)).await;
        taken.map_err(|used_up| {
            let own = self.calls.used_by(holder) >= each;
            if own { quotas::exceeded(Quota::OutboundCalls, now) } else { used_up }
        })
    }

    /// Calls of a workspace under way.
    pub fn calls_of(&self, workspace: WorkspaceId) -> u32 {
        self.calls.used_by(Holder::Workspace(workspace))
    }

    /// Takes a share of the memory for parsed answers of this workspace.
    ///
    /// # Errors
    /// 429 if the memory does not become free soon.
    pub(in crate::integrations) async fn memory_for(
        &self,
        holder: Holder,
        bytes: usize,
    ) -> Result<Share, ApiError> {
        soon(self.trees.take(holder, units_of(bytes))).await
    }

    /// Memory for answers that is in use, KiB.
    pub fn memory_used(&self) -> u32 {
        self.trees.used()
    }

    /// The client for one endpoint's call or one integration's check, with its retries, redirects and tokens.
    pub(super) fn for_one_call(&self) -> ward_ehr::Outbound {
        let bytes = self.outbound.limits().body_bytes.saturating_mul(MOST_ANSWERS);
        self.outbound.within(Budget::new(MOST_REQUESTS, bytes))
    }

    /// The client for the checks of all integrations of a workspace, which share one budget.
    pub(super) fn for_all_checks(&self) -> ward_ehr::Outbound {
        self.outbound.within(Budget::new(MOST_CHECKING, MOST_CHECKED))
    }

    /// The most memory that one answer may take, bytes.
    pub(in crate::integrations) fn most_memory(&self) -> usize {
        usize::try_from(self.trees.limits().each).unwrap_or(usize::MAX).saturating_mul(KIB)
    }

    /// Registers an address at which this server listens, so that no integration calls it.
    pub fn listens_at(&self, address: SocketAddr) {
        self.outbound.listens_at(address);
    }

    /// Whether this installation sent the request itself.
    pub fn is_own(&self, headers: &HeaderMap) -> bool {
        headers.get_all(ward_ehr::HOP).iter().any(|given| self.hops.contains(given))
    }
}

/// The limit on concurrent name look-ups: one for each call and each connection of a delivery. Each of those has its
/// workspace's share, so their look-ups have it too.
fn lookups(settings: &crate::config::Outbound) -> usize {
    let calls = usize::try_from(settings.calls).unwrap_or(usize::MAX);
    calls.saturating_add(settings.lanes.saturating_mul(CONNECTIONS_OF_A_LANE))
}

/// A limit as units of a pool. A limit of 0 becomes 1, because a call would otherwise wait for ever.
fn units(limit: i64) -> u32 {
    u32::try_from(limit.max(1)).unwrap_or(u32::MAX)
}

/// Bytes as units of the pool of memory.
pub(super) fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes / KIB).unwrap_or(u32::MAX).saturating_add(1)
}

/// Waits a few seconds for a share of a pool.
async fn soon(taking: impl Future<Output = Result<Share, pool::Full>>) -> Result<Share, ApiError> {
    match tokio::time::timeout(LONGEST_WAIT, taking).await {
        Ok(taken) => taken.map_err(ApiError::share_used_up),
        Err(elapsed) => Err(ApiError::share_used_up(elapsed)),
    }
}

/// The value by which an installation recognizes its own requests. It is the same on all replicas and
/// serves no other purpose.
fn hop(check_value: &str) -> HeaderValue {
    let digest = Sha256::digest(format!("ward hop {check_value}"));
    HeaderValue::from_str(&text::hex(&digest[..16])).unwrap_or(HeaderValue::from_static("ward"))
}
