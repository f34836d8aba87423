//! Starts and stops the real binary.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use ward_test_db::Engine;
use ward_test_db::postgres::shared;

use crate::fleet::MASTER_KEY;

pub const WARD: &str = env!("CARGO_BIN_EXE_ward");

/// The binary in an empty folder, without settings from the environment.
pub fn ward(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(WARD);
    command.args(arguments).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    if let Ok(database) = std::fs::read_to_string(folder.join(DATABASE)) {
        command.env("WARD_DATABASE", database).env("WARD_MASTER_KEY_FILE", "ward.key");
    }
    command
}

/// The file in which a folder names its database, if that is not in the folder.
pub const DATABASE: &str = "database.url";

/// A folder for a Ward on the test's engine. A database on a server is dropped together with that server.
pub fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if Engine::is_postgres() {
        let database = shared().database();
        std::fs::write(folder.path().join(DATABASE), &database.url).unwrap();
        // A key is created beside a database file only, because other replicas may share a database on a
        // server.
        let key = folder.path().join("ward.key");
        let mut key = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(key).unwrap();
        key.write_all(MASTER_KEY.as_bytes()).unwrap();
        std::mem::forget(database);
    }
    folder
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    ward(folder, arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that ends with the test.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub welcome: String,
    pub folder: TempDir,
    /// A file instead of a pipe: a full pipe without a reader would block the server.
    log: File,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let folder = place();
        let arguments = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let command = ward(folder.path(), &arguments);
        Self::of(command, folder)
    }

    pub fn of(mut command: Command, folder: TempDir) -> Self {
        let log = tempfile::tempfile().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log.try_clone().unwrap()).spawn().unwrap();
        let mut welcome = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // The instructions for the first workspace come last, followed only by their two commands.
        while !welcome.contains("/api-keys ") && !welcome.contains("ward key issue") {
            let more = lines.read_line(&mut welcome).unwrap() > 0;
            assert!(more, "ward ended early after {welcome:?}:\n{}", read(&log));
        }
        let address = welcome.split_whitespace().nth(4).unwrap().trim_end_matches('.').parse().unwrap();
        Self { child, address, welcome, folder, log }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// The exit code and the log, once the process has ended.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(15), "ward does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        (self.child.wait().unwrap().code(), self.log())
    }

    /// The text that it has logged so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    pub fn stopped(mut self) -> String {
        self.signal("TERM");
        let (code, log) = self.ended();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    pub fn get(&self, path: &str) -> String {
        get(self.address, path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(log: &File) -> String {
    let mut bytes = vec![0; usize::try_from(log.metadata().unwrap().len()).unwrap()];
    std::os::unix::fs::FileExt::read_exact_at(log, &mut bytes, 0).unwrap();
    text(&bytes)
}

pub fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
