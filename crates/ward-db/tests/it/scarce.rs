//! PostgreSQL without room for another connection: existing connections carry the work, and a replica without
//! any gets one.

use std::sync::Arc;

use tokio::sync::Barrier;
use ward_db::{Db, Error, ErrorKind, Options};
use ward_test_db::postgres::{Pooler, Server, shared};
use ward_test_db::postgres_only;

use crate::support::{Fixture, fast, fixture};

const CLIENTS: i64 = 30;
const ROUNDS: i64 = 10;

fn with_table() -> Fixture {
    let it = fixture();
    it.tables("create table t (a bigint not null primary key, b bigint)");
    it.db.close();
    it
}

fn name_of(it: &Fixture) -> &str {
    it.url().rsplit('/').next().unwrap()
}

/// The URL of the test's database for a role of its own, which may have this many connections.
fn limited(it: &Fixture, connections: u32) -> String {
    let name = name_of(it);
    shared().sql(format!("CREATE ROLE few_{name} LOGIN CONNECTION LIMIT {connections}"));
    shared().sql(format!("ALTER DATABASE {name} OWNER TO few_{name}"));
    ward_test_db::postgres::lines(
        it.url(),
        &format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO few_{name}"),
    );
    it.url().replace("ward@", &format!("few_{name}@"))
}

/// Reads, long reads and writes of many clients at once, over the databases in turn; none is refused.
async fn carried(databases: &[Db], begin: i64) {
    let all_there = Arc::new(Barrier::new(usize::try_from(CLIENTS).unwrap()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let db = databases[usize::try_from(client).unwrap() % databases.len()].clone();
            let all_there = Arc::clone(&all_there);
            tokio::spawn(async move {
                all_there.wait().await;
                for round in 0..ROUNDS {
                    let at = begin + client * ROUNDS + round;
                    db.write("t.add", move |tx| {
                        tx.execute("insert into t (a, b) values ($1, $2)", &[at.into(), 0_i64.into()])?;
                        tx.execute("update t set b = $2 where a = $1", &[at.into(), round.into()])
                    })
                    .await?;
                    let one = "select b from t where a = $1";
                    let read = db.read("t.get", move |tx| tx.one(one, &[at.into()], |row| row.get::<i64>(0)));
                    assert_eq!(read.await?, round);
                    let count = "select count(*) from t where a >= $1";
                    let long = db
                        .read_long("t.count", move |tx| tx.one(count, &[at.into()], |row| row.get::<i64>(0)));
                    assert!(long.await? > 0);
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap().unwrap_or_else(|error| panic!("refused: {error}"));
    }
}

postgres_only!(three_connections_carry_thirty_clients, threads = 4);
async fn three_connections_carry_thirty_clients() {
    for connections in [3, 1] {
        let it = with_table();
        let db = Db::open(&limited(&it, connections), fast()).unwrap();
        carried(std::slice::from_ref(&db), 0).await;
        db.check().await.unwrap();
        let closing = tokio::task::spawn_blocking(move || db.close());
        closing.await.unwrap();
    }
}

postgres_only!(a_server_s_own_limit_is_no_other, threads = 4);
async fn a_server_s_own_limit_is_no_other() {
    // Two of the eight are reserved for superusers, and Ward is not one.
    let server = Server::start(&["max_connections=8", "superuser_reserved_connections=2"], |_| {});
    let database = server.database();
    server.sql("CREATE ROLE few LOGIN");
    server.sql(format!("ALTER DATABASE {} OWNER TO few", database.name));
    let db = Db::open(&database.url.replace("ward@", "few@"), fast()).unwrap();
    let migrated = db.clone();
    let migration = ward_db::Migration {
        name: "0001_test",
        sql: "-- oldest binary: 0.1.0\ncreate table t (a bigint not null primary key, b bigint)",
    };
    let migrating = tokio::task::spawn_blocking(move || migrated.migrate(&[migration], "0.1.0"));
    migrating.await.unwrap().unwrap();
    carried(&[db], 0).await;
}

postgres_only!(replicas_share_the_last_connections, threads = 4);
async fn replicas_share_the_last_connections() {
    let it = with_table();
    let url = limited(&it, 4);
    let first = Db::open(&url, fast()).unwrap();
    carried(std::slice::from_ref(&first), 0).await;
    // A second replica starts while the first one works, as in a rolling deploy.
    let work = tokio::spawn(async move {
        for round in 1..6 {
            carried(std::slice::from_ref(&first), round * 100_000).await;
        }
        first
    });
    let second = Db::open(&url, fast()).unwrap();
    let joins = second.clone();
    let joined = tokio::task::spawn_blocking(move || joins.schema()).await.unwrap();
    joined.unwrap_or_else(|error| panic!("a start with no connection to spare: {error}"));
    carried(std::slice::from_ref(&second), 1_000_000).await;
    let first = work.await.unwrap();
    carried(&[first, second], 2_000_000).await;
}

postgres_only!(a_start_waits_for_room, threads = 4);
async fn a_start_waits_for_room() {
    let it = with_table();
    let url = limited(&it, 2);
    let taken = [url.clone(), url.clone()].map(|url| {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (entered, inside) = std::sync::mpsc::channel();
        let held = std::thread::spawn(move || {
            let db = Db::open(&url, Options { connections: 1, ..fast() }).unwrap();
            db.schema().unwrap();
            entered.send(()).unwrap();
            let _ = held.recv();
            db.close();
        });
        inside.recv().unwrap();
        (release, held)
    });
    let db = Db::open(&url, fast()).unwrap();
    let starting = db.clone();
    let start = tokio::task::spawn_blocking(move || starting.schema());
    let refused = format!("too many connections for role \"few_{}\"", name_of(&it));
    while !shared().log().contains(&refused) {
        tokio::task::yield_now().await;
    }
    for (release, held) in taken {
        drop(release);
        held.join().unwrap();
    }
    start.await.unwrap().unwrap();
    carried(&[db], 0).await;
}

postgres_only!(a_full_pooler_is_shared_too, threads = 4);
async fn a_full_pooler_is_shared_too() {
    let it = with_table();
    let pooler = Pooler::for_clients(shared(), 2, 3);
    let url = format!("postgres://ward@127.0.0.1:{}/{}?statement_cache=off", pooler.port, name_of(&it));
    let db = Db::open(&url, fast()).unwrap();
    carried(&[db], 0).await;
    assert!(pooler.log().contains("no more connections allowed"), "{}", pooler.log());
}

postgres_only!(a_database_that_cannot_store_every_character_is_refused);
async fn a_database_that_cannot_store_every_character_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        shared().sql(format!("DROP DATABASE IF EXISTS {name}"));
        shared().sql(format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"));
        let db = Db::open(&shared().url(&name), fast()).unwrap();
        let error = db.migrate(&[], "0.1.0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
        assert!(error.to_string().contains(encoding) && error.to_string().contains("UTF8"), "{error}");
    }
}
