//! A primary and its synchronous standby, for tests of a failover's losses.

use std::path::PathBuf;
use std::time::Duration;

use crate::guarded::{folder, run};
use crate::postgres::{Server, lines, put};

/// Settings of a durable server, which waits for its disk.
pub const CAREFUL: [&str; 8] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_level=replica",
    "wal_log_hints=on",
    "max_wal_senders=4",
    "max_connections=100",
    "wal_retrieve_retry_interval=200ms",
];

/// A copy of a running server's files, in `data` of a new folder.
pub(crate) fn base_backup(server: &Server) -> PathBuf {
    let folder = folder();
    let mut backup = server.tool("pg_basebackup");
    run(backup.arg("-D").arg(folder.join("data")).args(["-X", "stream", "-c", "fast"]));
    folder
}

/// A primary that acknowledges only what its standby has stored too.
pub struct Pair {
    /// The server that takes writes until it is killed.
    pub primary: Server,
    /// The server that takes writes after its promotion.
    pub standby: Server,
}

impl Pair {
    /// Starts both servers, and waits until the primary waits for the standby.
    pub fn start() -> Self {
        let primary = Server::start(&CAREFUL, |_| {});
        for _ in 0..5 {
            let folder = base_backup(&primary);
            let data = folder.join("data");
            let port = primary.port;
            put(&data, "standby.signal", b"");
            let from =
                format!("primary_conninfo=host=127.0.0.1 port={port} user=ward application_name=standby");
            let settings: Vec<&str> = CAREFUL.iter().copied().chain([from.as_str()]).collect();
            if let Some(standby) = Server::launch(folder, &settings) {
                primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby)'");
                primary.sql("SELECT pg_reload_conf()");
                wait_for_the_standby(&primary);
                return Self { primary, standby };
            }
        }
        panic!("no port stayed free for a standby");
    }

    /// The URL of a database on the server of the two that takes writes.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://ward@127.0.0.1:{},127.0.0.1:{}/{database}?target_session_attrs=read-write",
            self.primary.port, self.standby.port
        )
    }

    /// Promotes the standby to the primary.
    pub fn promote(&self) {
        self.standby.sql("SELECT pg_promote(true, 60)");
    }
}

/// Each check uses a new session, because a session keeps the settings of its start, and the standby's name
/// is new.
fn wait_for_the_standby(primary: &Server) {
    let url = primary.url("postgres");
    for _ in 0..600 {
        let there = lines(&url, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'");
        if !there.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the standby does not connect");
}
