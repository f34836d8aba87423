//! A server that archives its log, and a server recovered from a base backup and that archive.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::guarded::{folder, run, unprivileged};
use crate::postgres::{Server, lines, put};
use crate::replicated::{CAREFUL, base_backup};

const PATIENCE: Duration = Duration::from_mins(1);

/// A server with an archive of its log.
pub struct ArchivingServer {
    /// The server that writes the archive.
    pub server: Server,
    archive: PathBuf,
}

impl ArchivingServer {
    /// Starts the server with an empty archive.
    pub fn start() -> Self {
        let archive = folder();
        let command = format!("archive_command=test ! -f {0}/%f && cp %p {0}/%f", archive.display());
        let settings: Vec<&str> = CAREFUL.iter().copied().chain(["archive_mode=on", &command]).collect();
        Self { server: Server::start(&settings, |_| {}), archive }
    }

    /// A base backup of the server, made while others may write.
    pub fn base_backup(&self) -> PathBuf {
        base_backup(&self.server)
    }

    /// Creates a named restore point, and waits until the archive contains it.
    ///
    /// # Panics
    ///
    /// The archive does not receive it.
    pub fn mark(&self, name: &str) {
        let url = self.server.url("postgres");
        let segment = lines(&url, &format!("SELECT pg_walfile_name(pg_create_restore_point('{name}'))"));
        self.server.sql("SELECT pg_switch_wal()");
        let began = Instant::now();
        let archived = format!("SELECT 1 FROM pg_stat_archiver WHERE last_archived_wal >= '{}'", segment[0]);
        while lines(&url, &archived).is_empty() {
            assert!(began.elapsed() < PATIENCE, "the log is not archived");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A server on `base`, recovered to the restore point `name`. It takes writes.
    ///
    /// # Panics
    ///
    /// The recovery does not end.
    pub fn recovered(&self, base: PathBuf, name: &str) -> Server {
        put(&base.join("data"), "recovery.signal", b"");
        let restore = format!("restore_command=cp {}/%f %p", self.archive.display());
        let target = format!("recovery_target_name={name}");
        let more = [&*restore, &*target, "recovery_target_action=promote", "archive_mode=off"];
        let settings: Vec<&str> = CAREFUL.iter().copied().chain(more).collect();
        let server = Server::launch(base, &settings).expect("a free port");
        server.sql(
            "DO $$ BEGIN FOR i IN 1..600 LOOP IF NOT pg_is_in_recovery() THEN RETURN; END IF; \
               PERFORM pg_sleep(0.1); END LOOP; RAISE EXCEPTION 'recovery does not end'; END $$",
        );
        server
    }
}

impl Drop for ArchivingServer {
    fn drop(&mut self) {
        run(unprivileged("rm").arg("-rf").arg(&self.archive));
    }
}
