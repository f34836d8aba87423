//! Single flushes fail under real servers, and the disk is examined as after a power cut.
//!
//! `disk.c` intercepts the calls of a process to the system. It fails the flushes that a test names. Beside
//! the database it keeps the disk's content: only flushed data. A failed flush discards its data, as on
//! Linux, so a later flush does not write it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::json;
use tempfile::TempDir;
use ward_test_db::sqlite::OpenDatabase;

use crate::client::Call;
use crate::fleet::{MASTER_KEY, Tenant, at_once, new_workspace};
use crate::invariants::Look;
use crate::support::{Server, text, ward};

const DATABASE: &str = "ward.db";
const LOG: &str = "ward.db-wal";
const MARK: &str = "ward.db-flush-failed";
/// The exit code of a server whose database file could not be flushed.
const FAILED_FLUSH: Option<i32> = Some(74);

/// The library that intercepts a process's calls to the system, compiled once per run.
fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/flushes/disk.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .arg(&library)
            .args([source, "-ldl", "-lpthread"])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", text(&built.stderr));
        (folder, library)
    });
    library
}

/// A folder with a database, and the simulated disk under it.
struct Disk {
    folder: TempDir,
    disk: TempDir,
}

impl Disk {
    fn new() -> Self {
        let it = Self { folder: tempfile::tempdir().unwrap(), disk: tempfile::tempdir().unwrap() };
        for part in ["image", "dirty"] {
            fs::create_dir(it.disk.path().join(part)).unwrap();
        }
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ward(self.folder.path(), arguments);
        command
            .env("WARD_MASTER_KEY", MASTER_KEY)
            .env("LD_PRELOAD", library())
            .env("WARD_TEST_FOLDER", self.folder.path().canonicalize().unwrap())
            .env("WARD_TEST_DISK", self.disk.path());
        command
    }

    fn serving(&self) -> Command {
        self.command(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
    }

    fn serve(&self) -> Server {
        Server::of(self.serving(), tempfile::tempdir().unwrap())
    }

    /// The error text of a start that must be refused.
    #[track_caller]
    fn refused(&self) -> String {
        let refused = self.serving().output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        text(&refused.stderr)
    }

    /// Makes all flushes of this file fail.
    fn fail_always(&self, name: &str) {
        fs::write(self.disk.path().join("always"), name).unwrap();
    }

    /// Makes only the next flush of this file fail.
    fn fail_once(&self, name: &str) {
        fs::write(self.disk.path().join("fail"), name).unwrap();
    }

    /// Makes all writes of this file fail.
    fn fail_writes(&self, name: &str) {
        fs::write(self.disk.path().join("unwritable"), name).unwrap();
    }

    fn has_failed(&self) -> bool {
        !self.disk.path().join("fail").exists()
    }

    fn repair(&self) {
        let _ = fs::remove_file(self.disk.path().join("always"));
        let _ = fs::remove_file(self.disk.path().join("unwritable"));
        let _ = fs::remove_file(self.disk.path().join("fail"));
    }

    /// The files that a machine finds on the disk after a power cut.
    fn after_power_cut(&self) -> TempDir {
        let found = tempfile::tempdir().unwrap();
        for name in [DATABASE, LOG] {
            let image = self.disk.path().join("image").join(name);
            if image.exists() {
                fs::copy(image, found.path().join(name)).unwrap();
            }
        }
        found
    }

    /// Checks that all of `slugs` are on the disk, and that the database there is whole.
    #[track_caller]
    fn holds(&self, slugs: &[String], when: &str) {
        let found = self.after_power_cut();
        let look = Look::at(&format!("sqlite:{}", found.path().join(DATABASE).display()));
        look.assert_whole(when);
        let there = look.lines("SELECT slug FROM workspaces");
        let lost: Vec<_> = slugs.iter().filter(|slug| !there.contains(slug)).collect();
        assert!(
            lost.is_empty(),
            "{when}: of {} acknowledged workspaces, these are lost: {lost:?}",
            slugs.len()
        );
        drop(look);
        let checked =
            Command::new("sqlite3").arg(found.path().join(DATABASE)).arg("PRAGMA integrity_check").output();
        if let Ok(checked) = checked {
            assert_eq!(text(&checked.stdout).trim(), "ok", "{when}");
        }
    }
}

fn kill(mut server: Server) {
    server.child.kill().unwrap();
    server.child.wait().unwrap();
}

/// Creates `count` workspaces; returns their slugs.
#[track_caller]
fn create(server: &Server, tenant: &Tenant, prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| {
            let slug = format!("{prefix}-{number}");
            let made =
                Call::post("/v1/me/workspaces", new_workspace(&slug)).by(&tenant.key).ask(server.address);
            assert_eq!(made.status, 201, "{made:?}");
            slug
        })
        .collect()
}

/// Creates workspaces from several threads until the server refuses or is gone; returns the acknowledged
/// slugs.
fn create_to_the_end(server: &Server, tenant: &Tenant) -> Vec<String> {
    let made = at_once((0..4).collect(), |writer: usize| {
        let mut made = Vec::new();
        for number in 0..20_000 {
            let slug = format!("crowd-{writer}-{number}");
            let call = Call::post("/v1/me/workspaces", new_workspace(&slug)).by(&tenant.key);
            match call.attempt(server.address) {
                Ok(answer) if answer.status == 201 => made.push(slug),
                _ => return made,
            }
        }
        panic!("the server never ends");
    });
    made.concat()
}

fn metrics(server: &Server) -> String {
    let address = server.welcome.split_whitespace().find(|word| word.ends_with("/metrics")).unwrap();
    crate::support::get(
        address.trim_start_matches("http://").trim_end_matches("/metrics").parse().unwrap(),
        "/metrics",
    )
}

fn ready(server: &Server) -> u16 {
    Call::get("/readyz").ask(server.address).status
}

#[test]
fn a_failed_flush_of_the_log_is_refused_and_shown_and_heals_by_itself() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let mut made = create(&server, &tenant, "before", 5);
    assert_eq!(ready(&server), 200);
    let figure = "ward_db_flushes_failed_total{file=\"log\"}";
    assert!(metrics(&server).contains(&format!("{figure} 0")), "{}", metrics(&server));

    disk.fail_always(LOG);
    let refused =
        Call::post("/v1/me/workspaces", new_workspace("refused")).by(&tenant.key).ask(server.address);
    assert_eq!((refused.status, refused.text("error_code")), (503, "outcome_unknown"), "{refused:?}");
    assert_eq!(ready(&server), 503, "a load balancer sends requests elsewhere");
    assert!(!metrics(&server).contains(&format!("{figure} 0")), "{}", metrics(&server));
    let read = Call::get(format!("/v1/workspaces/{}", tenant.id)).by(&tenant.key).ask(server.address);
    assert_eq!(read.status, 200, "{read:?}");

    disk.repair();
    assert_eq!(ready(&server), 200, "without a write from outside");
    made.extend(create(&server, &tenant, "after", 5));
    disk.fail_once(LOG);
    let refused = Call::post("/v1/me/workspaces", new_workspace("once")).by(&tenant.key).ask(server.address);
    assert_eq!(refused.status, 503, "{refused:?}");
    made.extend(create(&server, &tenant, "again", 5));
    assert_eq!(ready(&server), 200, "a commit that was flushed shows it too");
    kill(server);
    disk.holds(&made, "after failed flushes of the log");
}

#[test]
fn a_failed_write_of_the_log_is_shown_like_a_failed_flush() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let mut made = create(&server, &tenant, "before", 3);
    disk.fail_writes(LOG);
    for attempt in 0..3 {
        let slug = format!("refused-{attempt}");
        let call = Call::post("/v1/me/workspaces", new_workspace(&slug)).by(&tenant.key);
        assert_eq!(call.ask(server.address).status, 503);
        assert_eq!(ready(&server), 503, "every write fails");
    }
    let figure = "ward_db_flushes_failed_total{file=\"log\"} 0";
    assert!(!metrics(&server).contains(figure), "{}", metrics(&server));
    let read = Call::get(format!("/v1/workspaces/{}", tenant.id)).by(&tenant.key).ask(server.address);
    assert_eq!(read.status, 200, "{read:?}");
    disk.repair();
    assert_eq!(ready(&server), 200, "without a write from outside");
    made.extend(create(&server, &tenant, "after", 3));
    kill(server);
    disk.holds(&made, "after failed writes of the log");
}

#[test]
fn a_restart_builds_on_no_log_that_the_disk_does_not_have() {
    for graceful in [false, true] {
        let disk = Disk::new();
        let server = disk.serve();
        let tenant = Tenant::new(server.address, "acme");
        let mut made = create(&server, &tenant, "before", 20);
        disk.fail_always(LOG);
        let refused =
            Call::post("/v1/me/workspaces", new_workspace("refused")).by(&tenant.key).ask(server.address);
        assert_eq!(refused.status, 503, "{refused:?}");
        if graceful {
            let mut server = server;
            server.signal("TERM");
            let (code, said) = server.ended();
            assert_eq!(code, FAILED_FLUSH, "the log cannot be copied at the end: {said}");
            assert!(disk.path(MARK).exists());
        } else {
            kill(server);
        }
        disk.holds(&made, "at the failure");

        disk.repair();
        let server = disk.serve();
        assert_eq!(
            disk.path(LOG).metadata().map_or(0, |log| log.len()),
            0,
            "the log is emptied before serving"
        );
        assert!(!disk.path(MARK).exists());
        disk.holds(&made, "after the restart");
        made.extend(create(&server, &tenant, "after", 20));
        kill(server);
        disk.holds(&made, "after a restart on top of a failed flush");
    }
}

#[test]
fn a_start_that_cannot_flush_serves_nothing_and_loses_nothing() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let mut made = create(&server, &tenant, "before", 20);
    kill(server);
    for name in [LOG, DATABASE] {
        disk.fail_always(name);
        let said = disk.refused();
        assert!(said.contains("the log"), "{said}");
        disk.holds(&made, "after a start that was refused");
        disk.repair();
    }
    let server = disk.serve();
    made.extend(create(&server, &tenant, "after", 5));
    kill(server);
    disk.holds(&made, "after the repair");
}

#[test]
fn a_failed_flush_of_the_file_ends_the_server_and_the_next_start_insists_on_being_alone() {
    let disk = Disk::new();
    let mut server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let shell = OpenDatabase::hold(&disk.path(DATABASE), false);
    disk.fail_once(DATABASE);
    let mut made = create_to_the_end(&server, &tenant);
    assert!(disk.has_failed(), "the log was never copied");
    let (code, said) = server.ended();
    assert_eq!(code, FAILED_FLUSH, "{said}");
    // Requests that fail meanwhile may log their own line after it.
    let parts = ["flush", "server ends", "All acknowledged writes are in the log", "start Ward again"];
    assert!(said.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{said}");
    assert!(disk.path(MARK).exists());
    disk.holds(&made, "at the failure");

    // SQLite's count of copied pages survives in the shell's process.
    let said = disk.refused();
    assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    let key = disk.command(&["key", "issue", "acme", "--role", "owner", "--name", "first"]).output().unwrap();
    assert_eq!(key.status.code(), Some(1), "a command does not write either: {key:?}");
    drop(shell);

    let server = disk.serve();
    assert!(!disk.path(MARK).exists());
    disk.holds(&made, "after the restart");
    made.extend(create(&server, &tenant, "after", 5));
    assert!(server.stopped().contains("nothing is lost"));
    disk.holds(&made, "after the next stop");
}

#[test]
fn a_command_ends_at_a_failed_flush_of_the_file_too() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let made = create(&server, &tenant, "before", 5);
    server.stopped();
    disk.fail_once(DATABASE);
    let issued: Output =
        disk.command(&["key", "issue", "acme", "--role", "owner", "--name", "first"]).output().unwrap();
    assert!(disk.has_failed());
    assert_eq!(issued.status.code(), FAILED_FLUSH, "{issued:?}");
    assert!(text(&issued.stderr).contains("start Ward again"), "{issued:?}");
    assert!(disk.path(MARK).exists());
    let server = disk.serve();
    let keys = Call::get(tenant.keys()).by(&tenant.key).ask(server.address);
    assert_eq!(
        keys.body["items"].as_array().or_else(|| keys.body.as_array()).map(Vec::len),
        Some(2),
        "{keys:?}"
    );
    kill(server);
    disk.holds(&made, "after a command's failed flush");
}

#[test]
fn a_start_waits_for_no_reader_for_ever_and_names_it() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let made = create(&server, &tenant, "before", 5);
    let reader = OpenDatabase::hold(&disk.path(DATABASE), true);
    kill(server);
    let said = disk.refused();
    assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    drop(reader);
    // An open shell that reads nothing does not prevent the start.
    let _shell = OpenDatabase::hold(&disk.path(DATABASE), false);
    let server = disk.serve();
    kill(server);
    disk.holds(&made, "after the start beside a shell");
}

#[test]
fn one_file_has_one_server_whatever_its_name() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    create(&server, &tenant, "before", 5);
    let folder = disk.folder.path();
    let elsewhere = tempfile::tempdir_in(folder).unwrap();
    symlink(disk.path(DATABASE), elsewhere.path().join("symbolic.db")).unwrap();
    fs::hard_link(disk.path(DATABASE), disk.path("hard.db")).unwrap();
    fs::hard_link(disk.path(DATABASE), elsewhere.path().join("hard.db")).unwrap();
    let names =
        [elsewhere.path().join("symbolic.db"), disk.path("hard.db"), elsewhere.path().join("hard.db")];
    let refused = |name: &Path, arguments: &[&str]| {
        let output = ward(folder, arguments)
            .env("WARD_MASTER_KEY", MASTER_KEY)
            .env("WARD_DATABASE", format!("sqlite:{}", name.display()))
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let serve = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"];
    for name in &names {
        let (code, said) = refused(name, &serve);
        assert_eq!(code, Some(1), "{}: {said}", name.display());
        assert!(said.contains("only one server can use a file"), "{said}");
    }
    // A command finds the server's log through a symbolic link, but not through a hard link.
    assert_eq!(refused(&names[0], &["workspace", "list"]).0, Some(0));
    for name in &names[1..] {
        let (code, said) = refused(name, &["workspace", "list"]);
        assert_eq!(code, Some(1), "{}: {said}", name.display());
        assert!(said.contains("under another name"), "{said}");
    }
    // The file is renamed, and the server still has it open.
    fs::rename(disk.path(DATABASE), disk.path("moved.db")).unwrap();
    let (code, said) = refused(&disk.path("moved.db"), &serve);
    assert_eq!(code, Some(1), "{said}");
    fs::rename(disk.path("moved.db"), disk.path(DATABASE)).unwrap();
    let look = Call::patch(format!("/v1/workspaces/{}", tenant.id), json!({ "name": "New" })).by(&tenant.key);
    assert_eq!(look.ask(server.address).status, 200);

    // The log is beside one of the names only.
    kill(server);
    let (code, said) = refused(&disk.path("hard.db"), &serve);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(DATABASE), "{said}");
    fs::remove_file(disk.path("hard.db")).unwrap();
    // The other name is in a folder that Ward does not know, and its log may have acknowledged writes.
    for name in [disk.path(DATABASE), elsewhere.path().join("hard.db")] {
        for arguments in [&serve[..], &["workspace", "list"]] {
            let (code, said) = refused(&name, arguments);
            assert_eq!(code, Some(1), "{}: {said}", name.display());
            assert!(said.contains("2 names (hard links)"), "{said}");
        }
    }
    fs::remove_file(elsewhere.path().join("hard.db")).unwrap();
    disk.serve().stopped();
}
