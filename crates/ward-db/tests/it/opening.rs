//! Opening a database: the options, the refusals, and the locks.

use std::os::unix::fs::PermissionsExt;

use crate::support::{fast, file, sqlite, sqlite_with, url};
use ward_db::{Db, Error, ErrorKind, Options};

#[test]
fn a_url_that_means_nothing_here_is_refused_without_repeating_it() {
    for (url, says) in [
        ("mysql://user:secret@host/db", "`mysql`"),
        ("ward.db", "sqlite:PATH"),
        ("", "sqlite:PATH"),
        ("sqlite:", "sqlite:PATH"),
        ("sqlite::memory:", "sqlite:PATH"),
        ("sqlite://host/secret", "no host"),
    ] {
        let error = Db::open(url, Options::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says) && !error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_made_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let error = Db::open(&url(&dir), Options { create: false, ..fast() }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!file(&dir).exists());
    drop(Db::open(&url(&dir), fast()).unwrap());
    drop(
        Db::open(&format!("sqlite://{}", file(&dir).display()), Options { create: false, ..fast() }).unwrap(),
    );
    let nowhere = format!("sqlite:{}/none/ward.db", dir.path().display());
    assert_eq!(Db::open(&nowhere, fast()).err().unwrap().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        file(&dir),
        "not a database, but long enough to be taken for the header of one".repeat(99),
    )
    .unwrap();
    assert_eq!(Db::open(&url(&dir), fast()).err().unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_files_are_their_owner_s_alone() {
    let it = sqlite_with(Options { serve_lock: true, ..fast() });
    it.script(&["create table t (a integer) strict"]).await;
    for name in ["ward.db", "ward.db-wal", "ward.db-shm", "ward.db-lock"] {
        let mode = std::fs::metadata(it.dir().path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn one_server_per_file_and_commands_beside_it() {
    let serve = || Options { serve_lock: true, ..fast() };
    let it = sqlite_with(serve());
    let error = Db::open(&url(it.dir()), serve()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("another server already serves"), "{error}");
    drop(Db::open(&url(it.dir()), fast()).unwrap());
    it.db.close();
    let second = Db::open(&url(it.dir()), serve()).unwrap();
    drop(second);
    drop(Db::open(&url(it.dir()), serve()).unwrap());
}

#[tokio::test]
async fn every_connection_is_set_up() {
    let it = sqlite();
    let pragma = |sql: &'static str| it.count(sql);
    assert_eq!(pragma("pragma foreign_keys").await, 1);
    assert_eq!(pragma("pragma trusted_schema").await, 0);
    assert_eq!(pragma("pragma query_only").await, 1);
    let it = sqlite_with(Options::default());
    let writer = it
        .db
        .write("t", |tx| {
            Ok::<_, Error>([
                tx.one("pragma foreign_keys", &[], |row| row.get::<i64>(0))?,
                tx.one("pragma synchronous", &[], |row| row.get::<i64>(0))?,
                tx.one("pragma trusted_schema", &[], |row| row.get::<i64>(0))?,
            ])
        })
        .await
        .unwrap();
    assert_eq!(writer, [1, 2, 0], "foreign keys on, synchronous full, trusted schema off");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let it = sqlite_with(Options::default());
    it.script(&["create table t (a integer primary key) strict", "insert into t values (1)"]).await;
    let path = url(it.dir());
    drop(it.db);
    let db = Db::open(&path, Options { create: false, ..Options::default() }).unwrap();
    let count = db.read("t", |tx| tx.one("select count(*) from t", &[], |row| row.get::<i64>(0))).await;
    assert_eq!(count.unwrap_or_else(|e: Error| panic!("{e}")), 1);
    db.check().await.unwrap();
}
