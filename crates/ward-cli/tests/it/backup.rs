//! Backups of both engines: made while other processes write, checked, and restored.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use ward_test_db::postgres::{Server as Postgres, lines, shared};
use ward_test_db::postgres_only;
use ward_test_db::recovery::ArchivingServer;

use crate::client::Call;
use crate::fleet::{MASTER_KEY, Tenant, new_key, new_workspace, replica};
use crate::invariants::Look;
use crate::memory::{Shared, Writer};
use crate::replicas::report;
use crate::support::{Server, text, ward};

const WRITERS: usize = 4;

fn printed(done: &Output) -> Value {
    assert!(done.status.success(), "{}", text(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn refused(done: &Output, why: &str) {
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(text(&done.stderr).contains(why), "{}", text(&done.stderr));
}

fn sha256sum(file: &Path) -> String {
    let said = Command::new("sha256sum").arg(file).output().unwrap();
    text(&said.stdout).split_whitespace().next().unwrap().to_owned()
}

fn serve(folder: &Path, database: &str) -> Server {
    let mut command = ward(folder, &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    command.env("WARD_MASTER_KEY", MASTER_KEY).env("WARD_DATABASE", database);
    Server::of(command, tempfile::tempdir().unwrap())
}

/// Runs `work` while writers send every kind of write, and some of them record their answers.
fn under_load<T>(mut server: Server, tenant: &Tenant, work: impl FnOnce(&Mutex<Vec<String>>) -> T) -> T {
    let (at, shared) = (server.address, Shared::default());
    let told = Mutex::new(Vec::new());
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, 7, tenant)).collect();
    std::thread::scope(|scope| {
        for writer in &mut writers {
            let shared = &shared;
            scope.spawn(move || writer.write(at, shared));
        }
        for writer in 0..2 {
            let (told, shared) = (&told, &shared);
            scope.spawn(move || {
                for number in 0.. {
                    let slug = format!("told-{writer}-{number}");
                    let made =
                        Call::post("/v1/me/workspaces", new_workspace(&slug)).by(&tenant.key).attempt(at);
                    let Ok(made) = made else { break };
                    assert_eq!(made.status, 201, "{made:?}");
                    told.lock().unwrap().push(slug);
                }
                assert!(shared.doomed.load(Ordering::SeqCst), "the server is gone");
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let busy = (0..12_000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                shared.acknowledged.load(Ordering::SeqCst) > 150 && !told.lock().unwrap().is_empty()
            });
            assert!(busy, "the writers are stuck");
            let before = shared.acknowledged.load(Ordering::SeqCst);
            let done = work(&told);
            assert!(shared.acknowledged.load(Ordering::SeqCst) > before, "no write succeeded meanwhile");
            done
        }));
        shared.doomed.store(true, Ordering::SeqCst);
        server.child.kill().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn holds(look: &Look, slugs: &[String]) {
    let there = look.lines("SELECT slug FROM slugs");
    for slug in slugs {
        assert!(there.contains(slug), "{slug} was acknowledged before, and is not in it");
    }
}

/// Reports a finished call of a tenant with a connector, which creates a delivery.
fn owe(at: SocketAddr, tenant: &Tenant) {
    let workspace = format!("/v1/workspaces/{}", tenant.id);
    let call = json!({ "status": "completed", "caller_id": "+15550199", "direction": "inbound" });
    for call in [
        Call::patch(&*workspace, json!({ "connector_type": "hubspot" })),
        Call::post(format!("{workspace}/provision"), json!({})),
        Call::put(format!("/v1/{}/calls/CA1", tenant.id), call),
    ] {
        let answer = call.by(&tenant.key).ask(at);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn a_backup_beside_writers_holds_what_was_acknowledged_and_serves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = serve(folder, "sqlite:ward.db");
    let tenant = Tenant::new(server.address, "acme");
    owe(server.address, &tenant);
    let made = under_load(server, &tenant, |told| {
        ["one.db", "two.db", "three.db"].map(|name| {
            let before = told.lock().unwrap().clone();
            let made = ward(folder, &["backup", "--to", name, "--json"]).output().unwrap();
            (name, before, printed(&made))
        })
    });
    let mut held = 0;
    for (name, before, said) in &made {
        let file = folder.join(name);
        let digest = sha256sum(&file);
        let meta = file.metadata().unwrap();
        assert_eq!((&said["sha256"], &said["bytes"]), (&Value::from(&*digest), &meta.len().into()), "{said}");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);

        let checked = printed(&ward(folder, &["restore", "--check", name, "--json"]).output().unwrap());
        assert_eq!((&checked["sha256"], &checked["applied"]), (&said["sha256"], &Value::Array(vec![])));
        assert_eq!(
            (sha256sum(&file), file.metadata().unwrap().modified().unwrap()),
            (digest, meta.modified().unwrap())
        );
        let around: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|other| other.starts_with(&format!("{name}-")) || other.starts_with(".ward-"))
            .collect();
        assert!(around.is_empty(), "left behind: {around:?}");

        let restored = format!("sqlite:restored-{name}");
        let put =
            ward(folder, &["restore", name, "--json"]).env("WARD_DATABASE", &restored).output().unwrap();
        assert_eq!(printed(&put), checked);
        let look = Look::at(&format!("sqlite:{}/restored-{name}", folder.display()));
        look.assert_whole(name);
        holds(&look, before);
        held += before.len();
        for row in checked["tables"].as_array().unwrap() {
            let count = look.number(&format!("SELECT count(*) FROM {}", row["table"].as_str().unwrap()));
            assert_eq!(row["rows"], count, "{row}");
        }
        // Unsent deliveries of the backup may have been sent since. So the EHR is asked before anything is
        // sent.
        assert_eq!(look.number("SELECT count(*) FROM deliveries WHERE NOT maybe_sent"), 0);
        assert!(look.number("SELECT count(*) FROM deliveries") > 0);
        drop(look);
        let again = ward(folder, &["restore", name]).env("WARD_DATABASE", &restored).output().unwrap();
        refused(&again, "already exists");
    }
    let back = serve(folder, "sqlite:restored-three.db");
    let read = Call::get(format!("/v1/workspaces/{}", tenant.id)).by(&tenant.key).ask(back.address);
    assert_eq!(read.status, 200, "{read:?}");
    tenant.mint(back.address, "viewer");
    let served =
        ward(folder, &["restore", "one.db"]).env("WARD_DATABASE", "sqlite:restored-three.db").output();
    refused(&served.unwrap(), "another server");
    report(&format!(
        "3 backups beside {} writers: {held} creations told of before, all in them",
        WRITERS + 2
    ));
}

#[test]
fn what_cannot_be_backed_up_or_restored_is_said_and_touches_nothing() {
    let server = Server::start(&["--metrics-listen", "off"]);
    Tenant::new(server.address, "acme");
    let folder = server.folder.path();
    let ward =
        |arguments: &[&str]| ward(folder, arguments).env("WARD_MASTER_KEY", MASTER_KEY).output().unwrap();
    std::fs::write(folder.join("mine.txt"), "a file of mine").unwrap();
    refused(&ward(&["backup", "--to", "mine.txt"]), "already exists");
    assert_eq!(std::fs::read(folder.join("mine.txt")).unwrap(), b"a file of mine");
    refused(&ward(&["backup", "--to", "ward.db"]), "already exists");
    refused(&ward(&["backup", "--to", "no/such/folder.db"]), "no/such");
    refused(&ward(&["backup", "--database", "sqlite:none.db", "--to", "b.db"]), "there is no database");
    refused(&ward(&["backup", "--database", "postgres://db/ward", "--to", "b.db"]), "docs/operate/backup.md");
    refused(&ward(&["restore", "--check", "mine.txt"]), "is not a SQLite file");
    refused(&ward(&["restore", "--check", "missing.db"]), "missing.db");
    // A database in use is not a backup of itself: its last commits are in the log beside it.
    refused(&ward(&["restore", "--check", "ward.db"]), "-wal");

    printed(&ward(&["backup", "--to", "b.db", "--json"]));
    let whole = std::fs::read(folder.join("b.db")).unwrap();
    let cut = &whole[..whole.len() / 2];
    std::fs::write(folder.join("cut.db"), cut).unwrap();
    refused(&ward(&["restore", "--check", "cut.db"]), "");
    refused(&ward(&["restore", "cut.db", "--database", "sqlite:new.db"]), "");
    assert!(!folder.join("new.db").exists() && !folder.join("b.db-wal").exists());
    refused(&ward(&["restore", "b.db", "--database", "sqlite:ward.db"]), "another server");
    refused(&ward(&["restore", "b.db", "--database", "sqlite:mine.txt"]), "already exists");
    refused(&ward(&["restore", "b.db", "--database", "postgres://db/ward"]), "docs/operate/backup.md");
}

/// `pg_dump` of a database, put into a new one by `pg_restore`, as docs/operate/backup.md has it.
fn dumped_and_restored(server: &Postgres, from: &str, to: &str) -> usize {
    let dumped = server.tool("pg_dump").args(["--format=custom", "--no-owner", from]).output().unwrap();
    assert!(dumped.status.success(), "{}", text(&dumped.stderr));
    server.sql(format!("CREATE DATABASE {to} TEMPLATE template0"));
    let mut restore = server
        .tool("pg_restore")
        .args(["--no-owner", "--exit-on-error", "--single-transaction", &format!("--dbname={to}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut restore.stdin.take().unwrap(), &dumped.stdout).unwrap();
    let restored = restore.wait_with_output().unwrap();
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    dumped.stdout.len()
}

fn counts(url: &str) -> Vec<String> {
    let tables = lines(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1");
    assert!(tables.len() > 20, "{tables:?}");
    tables
        .iter()
        .map(|table| format!("{table} {}", lines(url, &format!("SELECT count(*) FROM {table}"))[0]))
        .collect()
}

postgres_only!(a_dump_of_postgresql_beside_writers_is_whole_and_a_quiet_one_equal, blocking);
fn a_dump_of_postgresql_beside_writers_is_whole_and_a_quiet_one_equal() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let fresh = || format!("restored_{}", NEXT.fetch_add(1, Ordering::SeqCst));
    let database = shared().database();
    let server = replica(&database.url, "127.0.0.1:0", 0);
    let tenant = Tenant::new(server.address, "acme");
    let beside = fresh();
    let before = under_load(server, &tenant, |told| {
        let before = told.lock().unwrap().clone();
        dumped_and_restored(shared(), &database.name, &beside);
        before
    });
    let look = Look::at(&shared().url(&beside));
    look.assert_whole("dumped beside writers");
    holds(&look, &before);

    // The server was killed. PostgreSQL has ended its open transactions by now, or never will.
    let quiet = fresh();
    shared().sql(format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{}'",
        database.name
    ));
    let bytes = dumped_and_restored(shared(), &database.name, &quiet);
    let there = counts(&shared().url(&quiet));
    assert_eq!(there, counts(&database.url));
    let back = replica(&shared().url(&quiet), "127.0.0.1:0", 0);
    let minted = Call::post(tenant.keys(), new_key("viewer")).by(&tenant.key).ask(back.address);
    assert_eq!(minted.status, 201, "{minted:?}");
    report(&format!(
        "pg_dump and pg_restore: {} tables, {bytes} bytes, equal counts, and it serves",
        there.len()
    ));
}

postgres_only!(a_base_backup_and_the_archived_log_bring_a_moment_back, blocking);
fn a_base_backup_and_the_archived_log_bring_a_moment_back() {
    let archived = ArchivingServer::start();
    archived.server.sql("CREATE DATABASE ward");
    let url = archived.server.url("ward");
    let server = replica(&url, "127.0.0.1:0", 0);
    let tenant = Tenant::new(server.address, "acme");
    // The backup is made beside writers. Their writes during and after it are in the log alone.
    let (base, told) = under_load(server, &tenant, |told| {
        let base = archived.base_backup();
        (base, told.lock().unwrap().clone())
    });
    let server = replica(&url, "127.0.0.1:0", 0);
    let write = |slug: &str| {
        let made = Call::post("/v1/me/workspaces", new_workspace(slug)).by(&tenant.key).ask(server.address);
        assert_eq!(made.status, 201, "{made:?}");
    };
    write("before-the-mistake");
    archived.mark("before_the_mistake");
    let at_that_moment = counts(&url);
    write("the-mistake");
    server.stopped();

    let recovered = archived.recovered(base, "before_the_mistake");
    let url = recovered.url("ward");
    assert_eq!(counts(&url), at_that_moment);
    let look = Look::at(&url);
    look.assert_whole("recovered");
    holds(&look, &told);
    holds(&look, &["before-the-mistake".to_owned()]);
    assert!(!look.lines("SELECT slug FROM slugs").contains(&"the-mistake".to_owned()));
    let back = replica(&url, "127.0.0.1:0", 0);
    tenant.mint(back.address, "viewer");
}
