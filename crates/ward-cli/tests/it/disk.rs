//! A disk for one server that the test can fill, empty and make read-only.
//!
//! It is a small tmpfs in a mount namespace of its own. Nothing outside sees it, and nothing remains of it.
//! It needs no root where user namespaces are allowed. Where neither is available, limits of the process
//! replace it, and the test prints a warning. Writes then fail as on a broken disk instead of a full one.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::fleet::MASTER_KEY;
use crate::replicas::report;
use crate::support::{Server, WARD, text};

const SIZE: &str = "8m";
/// The space that remains when a disk is filled up to the last writes.
const LEFT: u64 = 192 << 10;

/// Whether limits should replace disks even where real ones are available, so that this can be tested too.
fn stood_in_for() -> bool {
    std::env::var_os("WARD_TEST_NO_DISK").is_some()
}

pub struct Disk {
    folder: TempDir,
    /// The process that keeps the namespace, and whether it is in a user namespace too; `None`: there is no
    /// disk.
    keeper: Option<(Child, bool)>,
}

impl Disk {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Self { folder, keeper: None };
        if !stood_in_for() {
            let root = text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0";
            disk.keeper = disk.mounted(&[]).map(|child| (child, false));
            if disk.keeper.is_none() && !root {
                disk.keeper = disk.mounted(&["--user", "--map-root-user"]).map(|child| (child, true));
            }
        }
        if disk.keeper.is_none() {
            report(
                "WARNING: no tmpfs can be mounted here (or WARD_TEST_NO_DISK is set): a REAL full disk is NOT tested. \
                 A limit on the size of the server's files stands in for it.",
            );
        }
        disk
    }

    /// A folder on the system's own disk.
    pub fn of_the_system() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keeper: None }
    }

    fn mounted(&self, more: &[&str]) -> Option<Child> {
        let script = "mount -t tmpfs -o size=\"$1\",mode=700 ward-test \"$2\" && echo mounted && read -r _";
        let mut keeper = Command::new("unshare")
            .arg("--mount")
            .args(more)
            .args(["--", "sh", "-c", script, "sh", SIZE])
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = String::new();
        let _ = BufReader::new(keeper.stdout.take()?).read_line(&mut said);
        if said.trim() == "mounted" {
            return Some(keeper);
        }
        let _ = keeper.wait();
        None
    }

    pub fn is_real(&self) -> bool {
        self.keeper.is_some()
    }

    /// The path of its files, as seen from outside.
    pub fn path(&self) -> PathBuf {
        match &self.keeper {
            Some((keeper, _)) => {
                let inside = self.folder.path().strip_prefix("/").unwrap();
                PathBuf::from(format!("/proc/{}/root", keeper.id())).join(inside)
            }
            None => self.folder.path().to_owned(),
        }
    }

    /// A copy of its database. SQLite itself cannot open the files from outside.
    pub fn copied(&self) -> TempDir {
        let image = tempfile::tempdir().unwrap();
        for name in ["ward.db", "ward.db-wal"] {
            let from = self.path().join(name);
            if from.exists() {
                std::fs::copy(from, image.path().join(name)).unwrap();
            }
        }
        image
    }

    /// A command with the disk as its working directory. A file that grows past a limit does not end it by a
    /// signal.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let enter = "trap '' XFSZ; cd \"$1\" && shift && exec \"$@\"";
        let mut command = match &self.keeper {
            Some((keeper, user)) => {
                let mut command = Command::new("nsenter");
                command.args(["--target", &keeper.id().to_string(), "--mount"]);
                if *user {
                    command.args(["--user", "--preserve-credentials"]);
                }
                command.args(["--", "sh"]);
                command
            }
            None => Command::new("sh"),
        };
        command.args(["-c", enter, "sh"]).arg(self.folder.path()).arg(program).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("WARD_MASTER_KEY", MASTER_KEY);
        command
    }

    /// The `ward` command on this disk.
    pub fn ward(&self, arguments: &[&str]) -> Command {
        self.command(WARD, arguments)
    }

    /// A server whose log is on the disk too, a common setup.
    pub fn serve(&self) -> Server {
        let log_here = ["-c", "exec \"$@\" 2>>log", "sh", WARD];
        let serve = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"];
        let command = self.command("sh", &[&log_here[..], &serve].concat());
        Server::of(command, tempfile::tempdir().unwrap())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills the disk except for the last few writes.
    pub fn nearly_fill(&self, server: &Server) {
        if !self.is_real() {
            let wal = self.path().join("ward.db-wal").metadata().unwrap().len();
            return limit(server, &format!("{}:", wal + LEFT));
        }
        self.fill(server);
        let ballast = File::options().write(true).open(self.ballast()).unwrap();
        ballast.set_len(ballast.metadata().unwrap().len().checked_sub(LEFT).unwrap()).unwrap();
    }

    /// Fills the disk to the last byte.
    pub fn fill(&self, server: &Server) {
        if !self.is_real() {
            let wal = self.path().join("ward.db-wal").metadata().unwrap().len();
            return limit(server, &format!("{wal}:"));
        }
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        for size in [1 << 13, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Deletes the filling, so that there is room again.
    pub fn make_room(&self, server: &Server) {
        if self.is_real() {
            std::fs::remove_file(self.ballast()).unwrap();
        } else {
            limit(server, "unlimited:");
        }
    }

    /// Mounts the disk read-only or writable. No process may have a file on it open for writing.
    pub fn remount(&self, how: &str) {
        let folder = self.folder.path().display().to_string();
        let mut mount =
            self.command("sh", &["-c", "cd / && mount -o \"remount,bind,$1\" \"$2\"", "sh", how, &folder]);
        let done = mount.output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((keeper, _)) = &mut self.keeper {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// Sets the soft limit on the size of the files that a running process may write: `BYTES:` or `unlimited:`.
pub fn limit(server: &Server, soft: &str) {
    let pid = server.child.id().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={soft}")]).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
}

/// Forbids all writes to files that are already open, like a disk that becomes read-only under a server. It
/// sets their immutable flag if the file system supports that, and removes it when dropped.
pub struct ReadOnly<'s> {
    files: Option<Vec<PathBuf>>,
    server: &'s Server,
}

impl<'s> ReadOnly<'s> {
    pub fn make(folder: &Path, server: &'s Server) -> Self {
        let files: Vec<PathBuf> = ["ward.db", "ward.db-wal"].map(|name| folder.join(name)).into();
        let flagged = Self { files: Some(files.clone()), server };
        let set = !stood_in_for()
            && Command::new("chattr").arg("+i").args(&files).output().is_ok_and(|done| done.status.success());
        // The file system supports the flag if not even root can open the file for writing.
        if set && File::options().write(true).open(&files[0]).is_err() {
            return flagged;
        }
        drop(flagged);
        report(
            "WARNING: files cannot be made immutable here: a REAL read-only disk under a running server is NOT tested. A \
             limit of nothing on the size of its files stands in for it.",
        );
        limit(server, "0:");
        Self { files: None, server }
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        match &self.files {
            Some(files) => {
                let _ = Command::new("chattr").arg("-i").args(files).output();
            }
            None => limit(self.server, "unlimited:"),
        }
    }
}
