//! Commands that only read, and backups, leave every file as it is: of a stopped server, a killed one and a running one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::SystemTime;

use crate::client::Call;
use crate::commands::{QUIET, folder_of, private, serve};
use crate::fleet::{Tenant, new_workspace};
use crate::support::{Server, place, run, text, ward};

/// Each file of a folder: its length, the time of its last change, and its content.
fn listing(folder: &Path) -> BTreeMap<String, (u64, SystemTime, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let meta = path.metadata().unwrap();
        let content = if meta.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, (meta.len(), meta.modified().unwrap(), content))
    });
    files.collect()
}

/// Every command that only reads the database, or does not even read it.
const READING: [&[&str]; 13] = [
    &["workspace", "list"],
    &["workspace", "show", "acme"],
    &["workspace", "limits", "acme"],
    &["workspace", "access", "acme"],
    &["key", "list", "acme"],
    &["member", "list", "acme"],
    &["sync", "status", "acme"],
    &["doctor"],
    &["doctor", "--config", "ward.toml"],
    &["config"],
    &["openapi"],
    &["completions", "bash"],
    &["workspace", "show", "nobody"],
];

/// Runs every reading command and a backup, and compares the folder after each with the folder before.
#[track_caller]
fn nothing_changes(folder: &Path, state: &str, slugs: &[&str]) {
    let before = listing(folder);
    let time = folder.metadata().unwrap().modified().unwrap();
    let unchanged = |command: &[&str], done: &Output| {
        let after = listing(folder);
        let names = |files: &BTreeMap<String, _>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before), "{state}: {command:?}: {done:?}");
        for (name, was) in &before {
            let is = &after[name];
            assert_eq!((is.0, is.1), (was.0, was.1), "{state}: {command:?} wrote into {name}");
            assert!(is.2 == was.2, "{state}: {command:?} changed {name}");
        }
        assert_eq!(folder.metadata().unwrap().modified().unwrap(), time, "{state}: {command:?}");
    };
    for command in READING {
        let done = run(folder, command);
        let code = done.status.code();
        let refused = command.contains(&"nobody");
        assert!(code == Some(i32::from(refused)) || command[0] == "doctor", "{state}: {command:?} {done:?}");
        assert!(refused || !done.stdout.is_empty(), "{state}: {command:?} {done:?}");
        unchanged(command, &done);
    }
    let listed = text(&run(folder, &["workspace", "list"]).stdout);
    for slug in slugs {
        assert!(listed.contains(slug), "{state}: {slug} is not in {listed}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy.db");
    let command = ["backup", "--to", copy.to_str().unwrap()];
    let done = run(folder, &command);
    assert!(done.status.success(), "{state}: {done:?}");
    unchanged(&command, &done);
    // The copy is a database that no server has opened yet.
    let beside = listing(elsewhere.path());
    let database = format!("sqlite:{}", copy.display());
    let listed = text(&run(folder, &["workspace", "list", "--database", &database]).stdout);
    for slug in slugs {
        assert!(listed.contains(slug), "{state}: {slug} is not in the copy: {listed}");
    }
    assert!(listing(elsewhere.path()) == beside, "{state}: a look at the copy changed it");
    let done = run(folder, &["restore", "--check", copy.to_str().unwrap()]);
    assert!(done.status.success(), "{state}: {done:?}");
    assert!(listing(elsewhere.path()) == beside, "{state}: the check changed the copy");
}

#[test]
fn commands_that_only_read_and_backups_write_nothing() {
    let server = serve(place(), &[]);
    private(&server.folder.path().join("ward.toml"), "export_dir = \"exports\"\n");
    let tenant = Tenant::new(server.address, "acme");
    let create = |server: &Server, slug: &str| {
        let made = Call::post("/v1/me/workspaces", new_workspace(slug)).by(&tenant.key).ask(server.address);
        assert_eq!(made.status, 201, "{made:?}");
    };
    // A stopped process cannot change its files between two looks.
    server.signal("STOP");
    nothing_changes(server.folder.path(), "running", &["acme"]);
    server.signal("CONT");

    let folder = folder_of(server);
    nothing_changes(folder.path(), "stopped", &["acme"]);

    let mut server = serve(folder, &[]);
    create(&server, "second");
    server.child.kill().unwrap();
    server.ended();
    let folder = server.folder.path();
    let log = folder.join("ward.db-wal");
    assert!(log.metadata().unwrap().len() > 0, "the killed server left no log");
    nothing_changes(folder, "killed", &["acme", "second"]);

    fs::remove_file(folder.join("ward.db-shm")).unwrap();
    nothing_changes(folder, "killed, without the log's index", &["acme", "second"]);

    // A server folds the log into the file again.
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    let server = serve(folder, &[]);
    create(&server, "third");
    let folder = folder_of(server);
    nothing_changes(folder.path(), "stopped again", &["acme", "second", "third"]);
}

/// How often the threads of a process have slept so far.
fn pauses(child: &Child) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let of = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    status.filter_map(of).sum()
}

/// Starts a command that opens the database while another one reads it, and shows that it waits.
fn waits_for_a_reader(folder: &Path, command: &[&str]) -> Child {
    let database = folder.join("ward.db");
    let reading = File::open(&database).unwrap();
    reading.lock_shared().unwrap();
    let mut child = ward(folder, command).stdout(Stdio::piped()).spawn().unwrap();
    let has_it_open = || {
        let files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
        files.filter_map(|file| file.path().read_link().ok()).any(|file| file == database)
    };
    while !has_it_open() {
        std::thread::yield_now();
    }
    let so_far = pauses(&child);
    while pauses(&child) < so_far + 10 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(child.try_wait().unwrap(), None, "{command:?} did not wait");
    assert!(!folder.join("ward.db-wal").exists(), "{command:?} opened the database");
    child
}

#[test]
fn a_server_and_a_writing_command_wait_for_a_command_that_reads() {
    let folder = folder_of(serve(place(), &[]));
    // The lock of the reader ends with the function, so both go on.
    let creating = waits_for_a_reader(folder.path(), &["workspace", "create", "acme", "--json"]);
    let done = creating.wait_with_output().unwrap();
    assert!(done.status.success() && text(&done.stdout).contains("acme"), "{done:?}");

    let mut serving = waits_for_a_reader(folder.path(), &[&["serve"][..], &QUIET].concat());
    let mut welcome = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut welcome).unwrap();
    assert_ne!(welcome, "");
    serving.kill().unwrap();
    serving.wait().unwrap();
}
