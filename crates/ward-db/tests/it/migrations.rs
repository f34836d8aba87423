//! Each step of a schema is applied once, by any of several processes.

use std::time::Duration;

use crate::support::{fast, fixture, fixture_with, place};
use ward_db::{Db, Error, ErrorKind, Migration, MigrationReport, Options, Timestamp};
use ward_test_db::{Engine, both, postgres_only, sqlite_only};

const FIRST: Migration = Migration {
    name: "0001_first",
    sql: "-- oldest binary: 0.1.0
-- The first tables.
create table a (id uuid primary key, at timestamptz not null, flag boolean not null default false);
create index a_at on a (at);
-- step
create table b (name text collate \"C\" not null primary key, n bigint, body jsonb, seal bytea)
",
};
const SECOND: Migration =
    Migration { name: "0002_second", sql: "-- oldest binary: 0.2.0\nalter table b add column m bigint;\n" };

fn names(migrated: &MigrationReport) -> Vec<&str> {
    migrated.applied.iter().map(String::as_str).collect()
}

both!(a_fresh_file_gets_every_step_once);
async fn a_fresh_file_gets_every_step_once() {
    let it = fixture();
    assert_eq!(it.db.schema().unwrap(), []);
    let first = it.db.migrate(&[FIRST], "0.1.0").unwrap();
    assert_eq!((names(&first), first.present, first.newer), (vec!["0001_first/1", "0001_first/2"], 0, 0));
    let again = it.db.migrate(&[FIRST], "0.1.0").unwrap();
    assert_eq!((names(&again), again.present, again.newer), (vec![], 2, 0));
    let second = it.db.migrate(&[FIRST, SECOND], "0.2.0-dev").unwrap();
    assert_eq!((names(&second), second.present), (vec!["0002_second/1"], 2));
    let steps = it.db.schema().unwrap();
    let told: Vec<_> = steps
        .iter()
        .map(|s| (s.migration.as_str(), s.step, s.oldest_binary.as_str(), s.checksum.len()))
        .collect();
    assert_eq!(
        told,
        [("0001_first", 1, "0.1.0", 64), ("0001_first", 2, "0.1.0", 64), ("0002_second", 1, "0.2.0", 64)]
    );
    assert!(steps.iter().all(|s| s.applied_at > Timestamp::from_micros(1_700_000_000_000_000)));
    if Engine::current() == Engine::Postgres {
        return;
    }
    let strict = "select count(*) from pragma_table_list where name in ('a','b','schema_steps') and wr = 1 and strict = 1";
    assert_eq!(it.count(strict).await, 3);
}

both!(a_step_whose_text_changed_is_named);
async fn a_step_whose_text_changed_is_named() {
    let it = fixture();
    it.db.migrate(&[FIRST], "0.1.0").unwrap();
    let changed = Migration {
        sql: "-- oldest binary: 0.1.0\n-- The first tables.\ncreate table a (id uuid primary key)",
        ..FIRST
    };
    let error = it.db.migrate(&[changed], "0.1.0").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("migration 0001_first step 1"), "{error}");
    let windows: &'static str = FIRST.sql.replace('\n', "\r\n").leak();
    it.db.migrate(&[Migration { sql: windows, ..FIRST }], "0.1.0").unwrap();
}

both!(a_newer_schema_is_run_on_only_by_a_binary_new_enough);
async fn a_newer_schema_is_run_on_only_by_a_binary_new_enough() {
    let it = fixture();
    it.db.migrate(&[FIRST, SECOND], "0.3.0").unwrap();
    let older = it.db.migrate(&[FIRST], "0.2.0").unwrap();
    assert_eq!((older.present, older.newer), (2, 1));
    let error = it.db.migrate(&[FIRST], "0.1.9").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(
        error.to_string().contains("0002_second step 1") && error.to_string().contains("0.2.0"),
        "{error}"
    );
}

sqlite_only!(a_file_that_keeps_its_times_as_text_is_not_touched);
async fn a_file_that_keeps_its_times_as_text_is_not_touched() {
    let it = fixture();
    let steps = "create table schema_steps (migration TEXT, step INTEGER, checksum TEXT, oldest_binary TEXT, applied_at TEXT)";
    let made = it.db.write("test.older", move |tx| tx.execute(steps, &[])).await;
    made.unwrap_or_else(|error: Error| panic!("{error}"));
    let error = it.db.migrate(&[FIRST], "0.1.0").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("before the first release"), "{error}");
    assert_eq!(it.count("select count(*) from sqlite_schema where name = 'a'").await, 0);
}

both!(a_file_out_of_form_changes_nothing);
async fn a_file_out_of_form_changes_nothing() {
    let it = fixture();
    for (sql, says) in [
        ("create table x (a bigint primary key)", "does not begin with"),
        ("-- oldest binary: soon\ncreate table x (a bigint primary key)", "does not begin with"),
        ("create table x (a bigint primary key)\n-- oldest binary: 0.1.0", "does not begin with"),
        ("-- oldest binary: 0.1.0\n-- step\ncreate table x (a bigint primary key)", "step 1 is empty"),
        ("-- oldest binary: 0.1.0\ncreate table x (a bigint primary key)\n-- step\n", "step 2 is empty"),
    ] {
        let error = it.db.migrate(&[Migration { name: "0001_x", sql }], "0.1.0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(it.db.migrate(&[SECOND, FIRST], "0.2.0").unwrap_err().kind(), ErrorKind::Schema);
    assert_eq!(it.db.migrate(&[FIRST], "newest").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(it.db.schema().unwrap(), []);
}

both!(a_failing_step_leaves_no_trace_and_is_named);
async fn a_failing_step_leaves_no_trace_and_is_named() {
    let it = fixture();
    let bad = Migration {
        name: "0002_bad",
        sql: "-- oldest binary: 0.1.0\ncreate table y (a bigint primary key);\n-- step\ncreate table z (a bigint primary key); create table y (a bigint primary key);",
    };
    let error = it.db.migrate(&[FIRST, bad], "0.1.0").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("migration 0002_bad step 2"), "{error}");
    assert_eq!(it.db.schema().unwrap().len(), 3);
    let good = Migration {
        sql: "-- oldest binary: 0.1.0\ncreate table y (a bigint primary key);\n-- step\ncreate table z (a bigint primary key);",
        ..bad
    };
    assert_eq!(names(&it.db.migrate(&[FIRST, good], "0.1.0").unwrap()), ["0002_bad/2"]);
}

both!(many_at_once_make_the_file_and_apply_each_step_exactly_once);
async fn many_at_once_make_the_file_and_apply_each_step_exactly_once() {
    for _ in 0..10 {
        race();
    }
}

fn race() {
    let place = place();
    let start = std::sync::Barrier::new(6);
    let results: Vec<MigrationReport> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    // Each thread has its own handle, as another process would.
                    let db = Db::open(place.url(), fast()).unwrap();
                    db.migrate(&[FIRST, SECOND], "0.2.0").unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut applied: Vec<_> = results.iter().flat_map(names).collect();
    applied.sort_unstable();
    assert_eq!(applied, ["0001_first/1", "0001_first/2", "0002_second/1"]);
    assert!(results.iter().all(|result| result.applied.len() + result.present == 3 && result.newer == 0));
}

both!(open_connections_see_the_new_schema);
async fn open_connections_see_the_new_schema() {
    let it = fixture();
    it.db.migrate(&[FIRST], "0.2.0").unwrap();
    it.db
        .write("t", |tx| tx.execute("insert into b (name, n) values ('x', 1)", &[]))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(it.count("select count(*) from (select * from b) as every").await, 1);
    it.db.migrate(&[FIRST, SECOND], "0.2.0").unwrap();
    it.db
        .write("t", |tx| tx.execute("update b set m = 2", &[]))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(it.count("select m from b").await, 2);
}

/// Every column of every table, and every index, as the engine reports them.
async fn shape(db: &Db) -> Vec<String> {
    let sql = match Engine::current() {
        Engine::Sqlite => {
            "select type || ' ' || name || ' ' || coalesce(sql, '') from sqlite_schema order by 1"
        }
        Engine::Postgres => {
            "select table_name || ' ' || ordinal_position || ' ' || column_name || ' ' || data_type || ' ' || \
                    is_nullable || ' ' || coalesce(column_default, '') || ' ' || coalesce(collation_name, '') \
             from information_schema.columns where table_schema = 'public' \
             union all select indexdef from pg_indexes where schemaname = 'public' order by 1"
        }
    };
    let shape = db.read("test.shape", move |tx| tx.all(sql, &[], |row| row.get::<String>(0))).await;
    shape.unwrap_or_else(|e: Error| panic!("{e}"))
}

both!(a_schema_brought_forward_is_the_schema_made_at_once);
async fn a_schema_brought_forward_is_the_schema_made_at_once() {
    let (fresh, grown) = (fixture(), fixture());
    fresh.db.migrate(&[FIRST, SECOND], "0.2.0").unwrap();
    grown.db.migrate(&[FIRST], "0.1.0").unwrap();
    grown.db.migrate(&[FIRST, SECOND], "0.2.0").unwrap();
    let shape = (shape(&fresh.db).await, shape(&grown.db).await);
    assert!(shape.0.len() >= 3);
    assert_eq!(shape.0, shape.1);
}

postgres_only!(a_schema_change_that_waits_for_a_table_holds_nobody_up, threads = 2);
async fn a_schema_change_that_waits_for_a_table_holds_nobody_up() {
    // A statement that waits behind the change for this long fails.
    let it = fixture_with(Options { statement_time: Duration::from_secs(4), ..fast() });
    it.db.migrate(&[FIRST], "0.1.0").unwrap();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (inside, mut reading) = tokio::sync::mpsc::unbounded_channel();
    // A long reader of the table, such as a dump.
    let db = it.db.clone();
    let dump = tokio::spawn(async move {
        db.read_long("test.dump", move |tx| {
            tx.one("select count(*) from b", &[], |row| row.get::<i64>(0))?;
            inside.send(()).unwrap();
            gate.recv_timeout(Duration::from_mins(1)).unwrap();
            tx.one("select count(*) from b", &[], |row| row.get::<i64>(0))
        })
        .await
    });
    reading.recv().await.unwrap();
    let db = it.db.clone();
    let change = tokio::task::spawn_blocking(move || db.migrate(&[FIRST, SECOND], "0.2.0"));
    let waiting = "select count(*) from pg_locks where not granted and relation = 'b'::regclass \
                   and mode = 'AccessExclusiveLock'";
    // This lasts for several attempts of the change.
    for name in 0..3_i64 {
        while it.count(waiting).await == 0 {
            tokio::task::yield_now().await;
        }
        let inserted = it.db.write("t", move |tx| {
            tx.execute("insert into b (name) values (cast($1 as text))", &[format!("{name}").as_str().into()])
        });
        inserted.await.unwrap_or_else(|e: Error| panic!("{e}"));
    }
    release.send(()).unwrap();
    assert_eq!(dump.await.unwrap().unwrap_or_else(|e: Error| panic!("{e}")), 0);
    assert_eq!(names(&change.await.unwrap().unwrap()), ["0002_second/1"]);
    assert_eq!(it.count("select count(*) from b where m is null").await, 3);
}
