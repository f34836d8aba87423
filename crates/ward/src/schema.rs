//! The built-in schema, and the opening of a database for it.

use ward_db::{Db, Migration, Options};

pub use ward_db::{Copied, CopyProgress, Stage, backup};

use crate::config::Config;

/// Every migration, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_workspaces", sql: include_str!("../../../migrations/0001_workspaces.sql") },
    Migration { name: "0002_identity", sql: include_str!("../../../migrations/0002_identity.sql") },
    Migration { name: "0003_integrations", sql: include_str!("../../../migrations/0003_integrations.sql") },
    Migration { name: "0004_calls", sql: include_str!("../../../migrations/0004_calls.sql") },
    Migration { name: "0005_sync", sql: include_str!("../../../migrations/0005_sync.sql") },
    Migration { name: "0006_identity_ends", sql: include_str!("../../../migrations/0006_identity_ends.sql") },
    Migration { name: "0007_indexes", sql: include_str!("../../../migrations/0007_indexes.sql") },
    Migration { name: "0008_endings", sql: include_str!("../../../migrations/0008_endings.sql") },
    Migration { name: "0009_quotas", sql: include_str!("../../../migrations/0009_quotas.sql") },
    Migration {
        name: "0010_unclaimed_and_twilio",
        sql: include_str!("../../../migrations/0010_unclaimed_and_twilio.sql"),
    },
    Migration { name: "0011_audit_exports", sql: include_str!("../../../migrations/0011_audit_exports.sql") },
    Migration { name: "0013_test_rules", sql: include_str!("../../../migrations/0013_test_rules.sql") },
    Migration {
        name: "0014_test_credentials",
        sql: include_str!("../../../migrations/0014_test_credentials.sql"),
    },
    Migration {
        name: "0015_invitation_addresses",
        sql: include_str!("../../../migrations/0015_invitation_addresses.sql"),
    },
    Migration { name: "0016_stored_events", sql: include_str!("../../../migrations/0016_stored_events.sql") },
    Migration { name: "0017_proof", sql: include_str!("../../../migrations/0017_proof.sql") },
    Migration { name: "0018_corrections", sql: include_str!("../../../migrations/0018_corrections.sql") },
    Migration {
        name: "0019_integration_keys",
        sql: include_str!("../../../migrations/0019_integration_keys.sql"),
    },
    Migration { name: "0020_call_legs", sql: include_str!("../../../migrations/0020_call_legs.sql") },
    Migration {
        name: "0024_previous_secrets",
        sql: include_str!("../../../migrations/0024_previous_secrets.sql"),
    },
];

/// This binary's version, which migrations check.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Opens the database of these settings read-only. Blocking.
pub(crate) fn open_to_read(config: &Config) -> Result<Db, ward_db::Error> {
    Db::open(&config.database, Options { create: false, read_only: true, ..options(config) })
}

/// The options of the database. The closures of a request end with the request, by its `Deadline`.
/// Background tasks have at least the usual time, and more if requests have more.
pub(crate) fn options(config: &Config) -> Options {
    let usual = Options::default();
    let time = config.limits.request_time;
    Options {
        closure_time: usual.closure_time.max(time * 2 / 3),
        statement_time: usual.statement_time.max(time * 8 / 15),
        connections: config.database_connections.unwrap_or(usual.connections),
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_database_s_limits_follow_the_settings() {
        let usual = Options::default();
        let mut config = Config::default();
        assert_eq!(options(&config).connections, usual.connections);
        assert_eq!(options(&config).closure_time, Duration::from_secs(10));
        config.database_connections = Some(3);
        config.limits.request_time = Duration::from_mins(1);
        let chosen = options(&config);
        assert_eq!(chosen.connections, 3);
        assert_eq!(
            (chosen.closure_time, chosen.statement_time),
            (Duration::from_secs(40), Duration::from_secs(32))
        );
        config.limits.request_time = Duration::from_millis(100);
        assert_eq!(options(&config).statement_time, usual.statement_time, "the sweep has no less for that");
    }
}
