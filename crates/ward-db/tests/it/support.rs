//! Shared by the tests: a database in a directory of its own, and a way to hold its writer.
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use ward_db::{Db, Error, Migration, Options, Tx};
use ward_test_db::Engine;
use ward_test_db::postgres::{self, Database};

pub struct Fixture {
    pub db: Db,
    place: DatabasePlace,
}

/// The place of a test's database, which is deleted with this value.
pub enum DatabasePlace {
    File(TempDir, String),
    Server(Database),
}

impl DatabasePlace {
    pub fn url(&self) -> &str {
        match self {
            Self::File(_, url) => url,
            Self::Server(database) => &database.url,
        }
    }
}

pub fn fast() -> Options {
    Options { flush: false, ..Options::default() }
}

/// A place for an empty database on the test's engine.
pub fn place() -> DatabasePlace {
    match Engine::current() {
        Engine::Sqlite => file_place(),
        Engine::Postgres => DatabasePlace::Server(postgres::shared().database()),
    }
}

fn file_place() -> DatabasePlace {
    let dir = tempfile::tempdir().unwrap();
    let url = url(&dir);
    DatabasePlace::File(dir, url)
}

pub fn fixture() -> Fixture {
    fixture_with(fast())
}

pub fn fixture_with(options: Options) -> Fixture {
    at(place(), options)
}

/// A fixture for behaviour of SQLite alone.
pub fn sqlite() -> Fixture {
    sqlite_with(fast())
}

pub fn sqlite_with(options: Options) -> Fixture {
    at(file_place(), options)
}

pub fn at(place: DatabasePlace, options: Options) -> Fixture {
    Fixture { db: Db::open(place.url(), options).unwrap(), place }
}

pub fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("ward.db")
}

pub fn url(dir: &TempDir) -> String {
    format!("sqlite:{}", file(dir).display())
}

impl Fixture {
    pub fn url(&self) -> &str {
        self.place.url()
    }

    /// The folder that contains the SQLite file.
    pub fn dir(&self) -> &TempDir {
        let DatabasePlace::File(dir, _) = &self.place else { panic!("this test is about a file") };
        dir
    }

    pub fn parts(self) -> (Db, TempDir) {
        let DatabasePlace::File(dir, _) = self.place else { panic!("this test is about a file") };
        (self.db, dir)
    }

    /// Creates tables from the portable subset of SQL.
    pub fn tables(&self, sql: &str) {
        let sql = format!("-- oldest binary: 0.1.0\n{sql}").leak();
        self.db.migrate(&[Migration { name: "0001_test", sql }], "0.1.0").unwrap();
    }

    pub async fn script(&self, statements: &'static [&'static str]) {
        self.db
            .write("test.script", move |tx| {
                for sql in statements {
                    tx.execute(sql, &[])?;
                }
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        self.db
            .read("test.count", move |tx| tx.one(sql, &[], |row| row.get(0)))
            .await
            .unwrap_or_else(|e: Error| panic!("{e}"))
    }

    /// Keeps the writer inside a closure until released, so that the writes queued meanwhile are one batch.
    pub async fn hold(&self) -> HeldWriter {
        let (release, gate) = mpsc::channel::<()>();
        let (entered, inside) = tokio::sync::oneshot::channel();
        let (db, mut entered) = (self.db.clone(), Some(entered));
        let task = tokio::spawn(async move {
            db.write("test.hold", move |_: &mut Tx<'_>| {
                if let Some(entered) = entered.take() {
                    entered.send(()).unwrap();
                }
                gate.recv_timeout(Duration::from_secs(20)).ok();
                Ok::<_, Error>(())
            })
            .await
        });
        inside.await.unwrap();
        HeldWriter { release, task }
    }
}

pub struct HeldWriter {
    release: mpsc::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl HeldWriter {
    pub async fn release(self) {
        self.release.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}
