//! The statements of a closure and their answers.

use std::time::Duration;

use crate::support::{fast, fixture, fixture_with, sqlite};
use ward_db::{Error, ErrorKind, Json, Options, Timestamp, Tx, Uuid, Value};
use ward_test_db::both;

both!(parameters_bind_by_number_not_by_first_appearance);
async fn parameters_bind_by_number_not_by_first_appearance() {
    let it = fixture();
    let row = it
        .db
        .read("t", |tx| {
            tx.one("select $3, $1, $2, '$1', $3 -- $4", &["a".into(), "b".into(), "c".into()], |row| {
                (0..5).map(|index| row.get::<String>(index)).collect::<Result<Vec<_>, _>>()
            })
        })
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(row, ["c", "a", "b", "$1", "c"]);
}

both!(values_come_back_as_they_went_in);
async fn values_come_back_as_they_went_in() {
    let it = fixture();
    it.tables(
        "create table v (k bigint not null primary key, b boolean, i bigint, t text, u uuid, at timestamptz, j jsonb, x bytea)",
    );
    let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let at = Timestamp::from_micros(1_776_513_600_123_456);
    it.db
        .write("t", move |tx| {
            let sql = "insert into v values ($1,$2,$3,$4,$5,$6,$7,$8)";
            let values: [Value<'_>; 8] = [
                1.into(),
                true.into(),
                i64::MIN.into(),
                "it's ä".into(),
                id.into(),
                at.into(),
                Value::Json("{\"a\":1}"),
                (&[0_u8, 255]).into(),
            ];
            assert_eq!(tx.execute(sql, &values)?, 1);
            let mut nulls = [Value::Null; 8];
            nulls[0] = 2.into();
            tx.execute(sql, &nulls)?;
            // An empty text and empty bytes are not NULL.
            tx.execute(
                sql,
                &[
                    3.into(),
                    false.into(),
                    0.into(),
                    "".into(),
                    Value::Null,
                    None::<Timestamp>.into(),
                    Value::Json("[]"),
                    Value::Bytes(&[]),
                ],
            )
        })
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    it.db
        .read("t", move |tx| {
            tx.one("select * from v where k = $1", &[1.into()], |row| {
                assert!(row.get::<bool>(1)?);
                assert_eq!(row.get::<i64>(2)?, i64::MIN);
                assert_eq!((row.text(3)?, row.get::<String>(3)?.as_str()), ("it's ä", "it's ä"));
                assert_eq!(row.get::<Uuid>(4)?, id);
                assert_eq!(row.get::<Timestamp>(5)?, at);
                let Json(text) = row.get(6)?;
                assert_eq!(text.replace(' ', ""), "{\"a\":1}");
                assert_eq!(row.get::<Option<Vec<u8>>>(7)?, Some(vec![0, 255]));
                for (wrong, kind) in [
                    (row.get::<bool>(2).err(), "bool"),
                    (row.get::<i64>(3).err(), "i64"),
                    (row.get::<String>(2).err(), "text"),
                    (row.get::<Uuid>(3).err(), "uuid"),
                    (row.get::<Timestamp>(3).err(), "time"),
                    (row.get::<Vec<u8>>(3).err(), "bytes"),
                    (row.get::<i64>(8).err(), "beyond"),
                ] {
                    assert_eq!(wrong.map(|e| e.kind()), Some(ErrorKind::Decode), "{kind}");
                }
                Ok(())
            })?;
            tx.one("select * from v where k = 2", &[], |row| {
                assert_eq!(row.get::<Option<bool>>(1)?, None);
                assert_eq!(row.get::<Option<Uuid>>(4)?, None);
                assert_eq!(row.get::<String>(3).unwrap_err().kind(), ErrorKind::Decode);
                Ok(())
            })?;
            tx.one("select * from v where k = 3", &[], |row| {
                assert_eq!(row.get::<Option<String>>(3)?, Some(String::new()));
                assert_eq!(row.get::<Option<Vec<u8>>>(7)?, Some(Vec::new()));
                Ok(())
            })
        })
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
}

both!(misuse_is_told_apart_and_no_value_is_repeated);
async fn misuse_is_told_apart_and_no_value_is_repeated() {
    let it = fixture();
    it.tables("create table t (a bigint not null primary key check (a < 100), b text)");
    let cases: [(&'static str, &'static [Value<'static>], ErrorKind); 8] = [
        ("select $1, $2", &[Value::Text("hidden")], ErrorKind::Invalid),
        ("select 1", &[Value::Text("hidden")], ErrorKind::Invalid),
        ("select $1", &[Value::Text("hid\0den")], ErrorKind::Invalid),
        ("selekt $1", &[Value::Text("hidden")], ErrorKind::Invalid),
        ("commit", &[], ErrorKind::Invalid),
        ("insert into t values ($1, null)", &[Value::Text("hidden")], ErrorKind::Invalid),
        ("insert into t values ($1, 'x')", &[Value::Int(100)], ErrorKind::Constraint),
        ("select b from nowhere where a = $1", &[Value::Text("hidden")], ErrorKind::Invalid),
    ];
    for (sql, params, kind) in cases {
        let error: Error = it.db.write("t", move |tx| tx.execute(sql, params)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        let told = format!(
            "{error} {}",
            std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
        );
        assert!(!told.contains("hidden") && !told.contains("100,"), "{told}");
    }
    let none: Error =
        it.db.read("t", |tx| tx.one("select 1 where false", &[], |_| Ok(()))).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NoRow);
    let change: Error = it.db.read("t", |tx| tx.execute("delete from t", &[])).await.unwrap_err();
    assert_eq!(change.kind(), ErrorKind::Invalid, "{change}");
}

both!(after_an_sql_error_nothing_more_is_taken_and_nothing_kept);
async fn after_an_sql_error_nothing_more_is_taken_and_nothing_kept() {
    let it = fixture();
    it.tables("create table t (a bigint not null primary key)");
    let error: Error = it
        .db
        .write("t", |tx| {
            tx.execute("insert into t values (1)", &[])?;
            assert_eq!(
                tx.execute("insert into t values (1)", &[]).unwrap_err().kind(),
                ErrorKind::Constraint
            );
            assert_eq!(tx.execute("insert into t values (2)", &[]).unwrap_err().kind(), ErrorKind::Refused);
            assert_eq!(tx.all("select a from t", &[], |_| Ok(())).unwrap_err().kind(), ErrorKind::Refused);
            Ok(())
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(it.count("select count(*) from t").await, 0);
    // Errors of the mapping are not errors of SQL.
    it.db
        .write("t", |tx| {
            assert!(tx.one("select 'x'", &[], |row| row.get::<i64>(0)).is_err());
            assert!(tx.one("select 1 where false", &[], |row| row.get::<i64>(0)).is_err());
            tx.execute("insert into t values (3)", &[])
        })
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(it.count("select count(*) from t").await, 1);
}

both!(returning_gives_rows_and_checks_to_the_end);
async fn returning_gives_rows_and_checks_to_the_end() {
    let it = fixture();
    it.tables(
        "create table p (a bigint not null primary key);
         create table c (a bigint not null primary key, p bigint references p);
         insert into p values (1)",
    );
    let id: i64 = it
        .db
        .write("t", |tx| tx.one("insert into c values (7, 1) returning a", &[], |row| row.get(0)))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(id, 7);
    let error: Error = it
        .db
        .write("t", |tx| tx.one("insert into c values (8, 2) returning a", &[], |row| row.get::<i64>(0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint);
    let changed =
        it.db.write("t", |tx| tx.execute("update c set p = 1 where a >= $1 returning a", &[7.into()])).await;
    assert_eq!(changed.unwrap_or_else(|e: Error| panic!("{e}")), 1);
}

both!(a_database_call_inside_a_closure_panics);
async fn a_database_call_inside_a_closure_panics() {
    let it = fixture();
    let inner = it.db.clone();
    let error: Error = it
        .db
        .read("outer", move |_| {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                drop(inner.read("inner", |_| Ok::<_, Error>(())));
            }));
            let message = caught.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("`inner`") && message.contains("`outer`"), "{message}");
            drop(inner.write("inner", |_| Ok::<_, Error>(())));
            Ok(())
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panic);
    // The panic closed nothing permanently.
    assert_eq!(it.count("select 1").await, 1);
    let inner = it.db.clone();
    let error: Error = it.db.write("outer", move |_| inner.schema().map(|_| ())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panic);
}

both!(a_read_sees_one_snapshot);
async fn a_read_sees_one_snapshot() {
    let it = fixture();
    it.tables("create table t (a bigint not null primary key)");
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (db, writer) = (it.db.clone(), it.db.clone());
    let (first, first_seen) = tokio::sync::oneshot::channel();
    let mut first = Some(first);
    let reading = tokio::spawn(async move {
        db.read_long("t", move |tx| {
            let count = |tx: &mut Tx<'_>| tx.one("select count(*) from t", &[], |row| row.get::<i64>(0));
            let before = count(tx)?;
            first.take().unwrap().send(()).unwrap();
            gate.recv_timeout(Duration::from_secs(20)).unwrap();
            Ok::<_, Error>((before, count(tx)?))
        })
        .await
    });
    first_seen.await.unwrap();
    writer
        .write("t", |tx| tx.execute("insert into t values (1)", &[]))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    go.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), (0, 0));
    assert_eq!(it.count("select count(*) from t").await, 1);
}

both!(statements_of_a_short_read_agree_too, threads = 2);
async fn statements_of_a_short_read_agree_too() {
    let it = fixture();
    it.tables("create table t (a bigint not null primary key)");
    let (db, runtime) = (it.db.clone(), tokio::runtime::Handle::current());
    let mut next = 0;
    let before = it.db.stats();
    let seen = it.db.read("t", move |tx| {
        let count = |tx: &mut Tx<'_>| tx.one("select count(*) from t", &[], |row| row.get::<i64>(0));
        let first = count(tx)?;
        next += 1;
        let (db, runtime, number) = (db.clone(), runtime.clone(), next);
        let insert = async move {
            db.write("t", move |tx| tx.execute("insert into t values ($1)", &[number.into()])).await
        };
        let inserted: Result<u64, Error> =
            std::thread::spawn(move || runtime.block_on(insert)).join().unwrap();
        assert_eq!(inserted?, 1);
        Ok::<_, Error>((first, count(tx)?))
    });
    let (first, second) = seen.await.unwrap();
    assert_eq!(first, second);
    let after = it.db.stats();
    assert_eq!(after.reads - before.reads, 1);
    assert_eq!(after.statements - before.statements - (after.writes - before.writes), 2);
}

both!(a_panicking_read_gives_its_connection_back_without_a_transaction);
async fn a_panicking_read_gives_its_connection_back_without_a_transaction() {
    let it = fixture_with(Options { readers: 1, connections: 1, ..fast() });
    for _ in 0..3 {
        let error: Error = it
            .db
            .read("t", |tx| -> Result<(), Error> {
                tx.one("select 1", &[], |_| Ok(()))?;
                panic!("on purpose")
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panic);
        assert!(!error.to_string().contains("on purpose"));
    }
    assert_eq!(it.count("select 1").await, 1);
}

const ENDLESS: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

both!(a_long_read_ends_at_its_deadline_and_when_its_caller_is_gone);
async fn a_long_read_ends_at_its_deadline_and_when_its_caller_is_gone() {
    let it = fixture_with(Options { long_readers: 1, long_read_time: Duration::from_millis(200), ..fast() });
    let error: Error =
        it.db.read_long("t", |tx| tx.one(ENDLESS, &[], |row| row.get::<i64>(0))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);

    let it = fixture_with(Options { long_readers: 1, ..fast() });
    let endless = it.db.read_long("t", |tx| tx.one::<i64>(ENDLESS, &[], |row| row.get(0)));
    assert!(tokio::time::timeout(Duration::from_millis(50), endless).await.is_err());
    // The only long reader is free again long before its limit of thirty seconds.
    let next = it.db.read_long("t", |tx| tx.one("select 1", &[], |row| row.get::<i64>(0)));
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), next)
            .await
            .unwrap()
            .unwrap_or_else(|e: Error| panic!("{e}")),
        1
    );
}

/// Reads 100,000 numbers, so that the engine works long enough for pauses.
const LONG: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) select count(*) from n";

#[tokio::test]
async fn a_long_read_lets_other_threads_go_first_now_and_then() {
    let it = sqlite();
    it.count(LONG).await;
    assert_eq!(it.db.stats().pauses, 0, "a short read does not pause, whatever it reads");
    let long = || it.db.read_long("t", |tx| tx.one(LONG, &[], |row| row.get::<i64>(0)));
    assert_eq!(long().await.unwrap_or_else(|e: Error| panic!("{e}")), 100_000);
    let pauses = it.db.stats().pauses;
    assert!(pauses >= 50, "{pauses} pauses");
    it.count(LONG).await;
    assert_eq!(it.db.stats().pauses, pauses);
}

both!(more_readers_than_connections_take_turns, threads = 4);
async fn more_readers_than_connections_take_turns() {
    let it = fixture_with(Options { readers: 1, connections: 1, ..fast() });
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let db = it.db.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    db.read("t", |tx| tx.one("select 1", &[], |row| row.get::<i64>(0))).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

both!(the_counters_count_closures_and_their_statements);
async fn the_counters_count_closures_and_their_statements() {
    let it = fixture();
    it.tables("create table t (a bigint not null primary key)");
    let before = it.db.stats();
    it.script(&["insert into t values (1)", "insert into t values (2)"]).await;
    it.count("select count(*) from t").await;
    it.db.read_long("t", |_| Ok::<_, Error>(())).await.unwrap();
    it.db.check().await.unwrap();
    let after = it.db.stats();
    assert_eq!(
        [after.reads, after.long_reads, after.writes, after.statements, after.commits],
        [
            before.reads + 1,
            before.long_reads + 1,
            before.writes + 1,
            before.statements + 3,
            before.commits + 1
        ]
    );
}
