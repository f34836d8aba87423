//! A Ward as a separate process on an empty database, with the settings of a public installation.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ward_test_db::postgres;

use super::Failure;

/// How long Ward may take for its first answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Settings with which a temporary `PostgreSQL` server waits for the disk, as in production.
const DURABLE: [&str; 5] =
    ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "autovacuum=on", "max_connections=200"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// SQLite, with the data in a file.
    Sqlite,
    /// PostgreSQL, with the data on a server.
    Postgres,
}

impl Engine {
    /// The name of the engine in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A running Ward. When it is dropped, the process ends.
pub struct Ward {
    process: Child,
    /// The address on which Ward listens.
    pub address: SocketAddr,
    /// The URL of its database, for direct writes.
    pub database: String,
    folder: PathBuf,
    _database: Option<postgres::Database>,
    _postgres: Option<postgres::Server>,
}

impl Ward {
    /// Starts the binary on an empty database. Its logs and its file are in `folder`. The name server is at `names`.
    pub fn start(binary: &Path, engine: Engine, folder: &Path, names: SocketAddr) -> Result<Self, Failure> {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        let server = (engine == Engine::Postgres).then(|| postgres::Server::start(&DURABLE, |_| {}));
        let database = server.as_ref().map(postgres::Server::database);
        let url = database.as_ref().map_or_else(
            || format!("sqlite:{}", folder.join("ward.db").display()),
            |database| database.url.clone(),
        );
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(folder.join("ward.log"))?;
        let process = Command::new(binary)
            .args(["serve", "--database", &url, "--listen", &address.to_string()])
            .args(["--metrics-listen", "off", "--rates", "on", "--trusted-proxies", "127.0.0.0/8"])
            .args(["--connections", "4096", "--log-filter", "warn"])
            .args(["--outbound-allow", "127.0.0.0/8", "--outbound-plain-http", "on"])
            .args(["--outbound-name-servers", &names.to_string()])
            // 32 bytes for a key that protects no real secrets.
            .env("WARD_MASTER_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", binary.display()))?;
        let mut ward = Self {
            process,
            address,
            database: url,
            folder: folder.to_owned(),
            _database: database,
            _postgres: server,
        };
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = ward.process.try_wait()? {
                return Err(format!(
                    "Ward ended ({status}); its log is {}",
                    ward.folder.join("ward.log").display()
                )
                .into());
            }
            if started.elapsed() > PATIENCE {
                return Err("Ward does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(ward)
    }

    /// The resident memory of the process, in MiB.
    pub fn memory(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("VmRSS is missing")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    /// The number of open files of the process.
    pub fn files(&self) -> Result<usize, Failure> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
