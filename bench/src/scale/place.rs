//! The filled databases: their place, and their creation.

use std::path::{Path, PathBuf};
use std::process::Command;

use ward_test_db::postgres::{self, lines};

use crate::Failure;
use crate::fill::fill;
use crate::shape::Shape;

/// The version of the generated data. A database of another version is created again.
const VERSION: &str = "2";

/// The settings of the permanent PostgreSQL server, where it differs from a test's. It is durable, and its memory
/// suits a machine of this kind.
const SETTINGS: [&str; 10] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "autovacuum=on",
    "shared_buffers=10GB",
    "effective_cache_size=12GB",
    "maintenance_work_mem=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
    "max_connections=200",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// SQLite, with the data in a file.
    Sqlite,
    /// PostgreSQL, with the data on a server.
    Postgres,
}

impl Engine {
    /// The name of the engine in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// The databases of one engine, one for each size.
pub struct Places {
    pub engine: Engine,
    folder: PathBuf,
    server: Option<postgres::Server>,
    /// The `ward` binary, which creates the schema.
    ward: PathBuf,
}

impl Places {
    /// Opens the databases in a folder, and starts the PostgreSQL server if it is needed.
    pub fn open(engine: Engine, data: &Path, ward: &Path) -> Result<Self, Failure> {
        let folder = data.join(engine.name().to_lowercase());
        std::fs::create_dir_all(&folder)?;
        let server =
            (engine == Engine::Postgres).then(|| postgres::Server::kept(&folder.join("data"), &SETTINGS));
        Ok(Self { engine, folder, server, ward: ward.to_owned() })
    }

    /// The folder for other files that belong to a database.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of the database with this number of workspaces.
    pub fn url(&self, workspaces: u64) -> String {
        match &self.server {
            Some(server) => server.url(&format!("scale_{workspaces}")),
            None => format!("sqlite:{}", self.file(workspaces).display()),
        }
    }

    /// The SQLite file of the database with this number of workspaces.
    pub fn file(&self, workspaces: u64) -> PathBuf {
        self.folder.join(format!("{workspaces}.db"))
    }

    /// The process id of the PostgreSQL server.
    pub fn postmaster(&self) -> Result<Option<u32>, Failure> {
        if self.server.is_none() {
            return Ok(None);
        }
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        Ok(Some(pid.lines().next().unwrap_or_default().trim().parse()?))
    }

    /// Creates and fills the database, unless that is already done.
    pub fn filled(&self, shape: Shape) -> Result<(), Failure> {
        let url = self.url(shape.workspaces);
        let mark = self.folder.join(format!("{}.filled", shape.workspaces));
        // The migration of an existing database fails if its earlier migrations have changed.
        if std::fs::read_to_string(&mark).is_ok_and(|version| version == VERSION)
            && self.migrate(&url).is_ok()
        {
            return Ok(());
        }
        self.remove(shape.workspaces, &mark)?;
        if let Some(server) = &self.server {
            server.sql(format!("CREATE DATABASE scale_{}", shape.workspaces));
        }
        self.migrate(&url)?;
        fill(self.engine, &url, shape)?;
        if self.engine == Engine::Postgres {
            // Autovacuum would do this later.
            lines(&url, "VACUUM (ANALYZE)");
            lines(&url, "CHECKPOINT");
        }
        std::fs::write(&mark, VERSION)?;
        Ok(())
    }

    /// Migrates the database to the schema of the binary.
    fn migrate(&self, url: &str) -> Result<(), Failure> {
        let done = Command::new(&self.ward).args(["migrate", "--database", url]).output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(format!("ward migrate: {}", String::from_utf8_lossy(&done.stderr).trim()).into())
    }

    fn remove(&self, workspaces: u64, mark: &Path) -> Result<(), Failure> {
        let mut files = vec![mark.to_owned()];
        if let Some(server) = &self.server {
            server.sql(format!("DROP DATABASE IF EXISTS scale_{workspaces} WITH (FORCE)"));
        } else {
            for ending in ["", "-wal", "-shm", "-lock"] {
                files.push(self.folder.join(format!("{workspaces}.db{ending}")));
                files.push(self.folder.join(format!("limit-{workspaces}.db{ending}")));
            }
        }
        for file in files {
            remove(&file)?;
        }
        Ok(())
    }

    /// The size of the database on disk, in bytes.
    pub fn bytes(&self, workspaces: u64) -> Result<u64, Failure> {
        if self.server.is_none() {
            return Ok(std::fs::metadata(self.file(workspaces))?.len());
        }
        let size = lines(&self.url(workspaces), "SELECT pg_database_size(current_database())");
        Ok(size.first().ok_or("PostgreSQL did not report the size of the database")?.parse()?)
    }

    /// Reads the whole database once, so that every measurement starts with the same cached pages.
    pub fn warm(&self, workspaces: u64) -> Result<(), Failure> {
        if self.server.is_some() {
            // This removes the traces of the measurement before, for example the last uses of keys.
            lines(&self.url(workspaces), "VACUUM (ANALYZE)");
            let all = "CREATE EXTENSION IF NOT EXISTS pg_prewarm; \
                       SELECT pg_prewarm(oid) FROM pg_class \
                       WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')";
            lines(&self.url(workspaces), all);
            return Ok(());
        }
        std::io::copy(&mut std::fs::File::open(self.file(workspaces))?, &mut std::io::sink())?;
        Ok(())
    }
}

/// Removes a file, if it exists.
pub fn remove(file: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
