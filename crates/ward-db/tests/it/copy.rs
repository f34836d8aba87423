//! Copies from a file to a server: equal content compares equal, and a difference is found.

use ward_db::{CopiedTable, Db, Error, ErrorKind, Migration, Stage};
use ward_test_db::postgres::{Database, shared};
use ward_test_db::postgres_only;

use crate::support::{Fixture, fast, sqlite};

const TABLES: Migration = Migration {
    name: "0001_tables",
    sql: "-- oldest binary: 0.1.0
create table a (id bigint not null primary key, body jsonb not null);
create table b (name text collate \"C\" not null primary key, a_id bigint not null references a (id))",
};

/// Numbers that a file keeps as written and a server writes out.
const NUMBERS: [&str; 9] = [
    "1e16",
    "1e18",
    "-1E+18",
    "1e308",
    "5e-324",
    "1.50",
    "-0.0",
    "9007199254740993",
    "{\"b\":[1e3],\"a\":1.0}",
];

async fn filled() -> Fixture {
    let it = sqlite();
    it.db.migrate(&[TABLES], "0.1.0").unwrap();
    it.db
        .write("t", |tx| {
            for (id, body) in (0_i64..).zip(NUMBERS) {
                let body = ward_db::Value::Json(body);
                tx.execute("insert into a (id, body) values ($1, $2)", &[id.into(), body])?;
                tx.execute(
                    "insert into b (name, a_id) values ($1, $2)",
                    &[format!("n{id}").as_str().into(), id.into()],
                )?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    it
}

/// The copy's outcome, and the reported stages, each with its last `done` and its total.
async fn copied(from: &Fixture, to: &Database) -> (Result<Vec<CopiedTable>, Error>, Vec<(Stage, u64, u64)>) {
    let target = Db::open(&to.url, fast()).unwrap();
    let mut told: Vec<(Stage, u64, u64)> = Vec::new();
    let outcome = from
        .db
        .copy_to(&target, &[TABLES], "0.1.0", |at| {
            assert!(at.done <= at.total, "{at:?}");
            match told.last_mut() {
                Some(last) if last.0 == at.stage => *last = (at.stage, at.done, at.total),
                _ => told.push((at.stage, at.done, at.total)),
            }
        })
        .await;
    (outcome, told)
}

postgres_only!(numbers_are_equal_however_they_are_written);
async fn numbers_are_equal_however_they_are_written() {
    let (from, to) = (filled().await, shared().database());
    let (outcome, told) = copied(&from, &to).await;
    let tables: Vec<(String, u64)> =
        outcome.unwrap().into_iter().map(|done| (done.table, done.rows)).collect();
    assert_eq!(tables, [("a".to_owned(), 9), ("b".to_owned(), 9)]);
    assert_eq!(told, [(Stage::Copying, 18, 18), (Stage::Verifying, 18, 18)]);
}

postgres_only!(a_value_that_arrived_changed_is_found);
async fn a_value_that_arrived_changed_is_found() {
    let (from, to) = (filled().await, shared().database());
    Db::open(&to.url, fast()).unwrap().migrate(&[TABLES], "0.1.0").unwrap();
    // The number of rows is equal and each is in its place, but one digit of one row differs.
    to.run(
        "create function other() returns trigger language plpgsql as \
         $$ begin if new.id = 7 then new.body = '9007199254740992'; end if; return new; end $$",
    );
    to.run("create trigger other before insert on a for each row execute function other()");
    let (outcome, told) = copied(&from, &to).await;
    let differs = outcome.unwrap_err();
    assert_eq!(differs.kind(), ErrorKind::Conflict, "{differs}");
    assert!(differs.to_string().contains("table a differs"), "{differs}");
    assert_eq!(told, [(Stage::Copying, 18, 18)]);
    assert_eq!(to.number("select count(*) from schema_steps where migration = 'unfinished copy'"), 1);
}
