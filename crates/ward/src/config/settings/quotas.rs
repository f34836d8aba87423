//! The settings of quotas: the limits of a workspace for which the operator set no other.

use crate::config::setting::Setting;
use crate::config::value::number;
use crate::quotas::Quota;

macro_rules! quota {
    ($key:literal, $quota:expr, $help:literal) => {
        Setting {
            key: $key,
            chapter: "Quotas",
            form: "COUNT",
            help: $help,
            secret: false,
            apply: |draft, text| {
                draft.config.quotas.set($quota, number(text, 0..=$quota.greatest())?);
                Ok(())
            },
            show: |config| config.quotas.of($quota).to_string(),
        }
    };
}

pub(super) const KEYS: Setting = quota!(
    "quota_keys",
    Quota::Keys,
    "API keys that one workspace may have, expired ones included until they are deleted."
);
pub(super) const MEMBERS: Setting =
    quota!("quota_members", Quota::Members, "Members that one workspace may have, services included.");
pub(super) const OPEN_INVITATIONS: Setting = quota!(
    "quota_open_invitations",
    Quota::OpenInvitations,
    "Invitations of one workspace that wait to be accepted."
);
pub(super) const INTEGRATIONS: Setting =
    quota!("quota_integrations", Quota::Integrations, "Integrations that one workspace may have.");
pub(super) const STORED_BYTES: Setting = quota!(
    "quota_stored_bytes",
    Quota::StoredBytes,
    "Bytes that one workspace may store: audit events, details of calls, integrations, exports, and answers kept for replays."
);
pub(super) const CALLS_PER_DAY: Setting = quota!(
    "quota_calls_per_day",
    Quota::CallsPerDay,
    "New calls that one workspace may report per day (UTC)."
);
pub(super) const REQUESTS_PER_SECOND: Setting = quota!(
    "quota_requests_per_second",
    Quota::RequestsPerSecond,
    "Requests per second with valid credentials of one workspace, on one replica. Enforced together with the rates."
);
