//! The built-in schema, and the opening of a database for it.

use ward_db::{Db, Migration, Options};

pub use ward_db::{CopiedTable, CopyProgress, Stage, backup};

use crate::config::Config;

/// Every file of `migrations/`, in the order of its names. The build script lists them.
pub const MIGRATIONS: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

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
