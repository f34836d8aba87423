//! Test support: a new server and database per test, real sockets, and actors that call the API.
//!
//! A test is a block in [`both!`], which makes two tests of it, one for each engine.
//!
//! Every answer to an actor is checked against the served document. The test fails for an undeclared status,
//! a body that does not match its schema, or an error without its envelope.

#![allow(missing_docs, reason = "a comment that only repeats a name is left out")]
#![allow(clippy::disallowed_methods, reason = "tests have times, ids and clients of their own")]

mod answer;
pub mod browser;
mod conformance;
pub mod ehr;
mod issuer;
mod operations;
mod prover;
mod provider;
mod rsa;
mod scanner;
mod sign_in;
pub mod vendor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use ward::app::App;
use ward::clock::Clock;
use ward::config::{Config, Exports, MasterKey};
use ward::http::{cors, region};
use ward_db::{Db, Options, Stats, Tx, decode};
use ward_server::ServeOptions;
use ward_test_db::postgres::{self, Database};
use ward_test_db::sqlite;

pub use ward_test_db::{Engine, both, postgres_only, sqlite_only};

pub use answer::{Answer, Fields};
pub use issuer::{AUDIENCE, SigningKey, TestIssuer};
pub use operations::{
    ENDPOINT, Target, fresh_number, got_in, new_integration, unknown_key, wanted_permission, wants_key,
    wrong_secret_of,
};
pub use prover::Prover;
pub use provider::LocalProvider;
pub use rsa::rsa_pem;
pub use scanner::{REPORTS, Scanner, report_of};
pub use sign_in::{CLIENT_ID, SignIn};

/// A Ward for one test, on a database of its own, behind a real socket.
pub struct Server {
    /// The state of the running Ward.
    pub app: Arc<App>,
    /// The clock that moves the server's time.
    pub clock: Clock,
    /// The loopback address where it listens.
    pub address: SocketAddr,
    client: reqwest::Client,
    serving: Option<(oneshot::Sender<()>, JoinHandle<std::io::Result<()>>)>,
    place: DatabasePlace,
}

/// The place of a server's database, which is deleted with the server.
enum DatabasePlace {
    File(TempDir),
    Server(Database),
    /// The database belongs to another server.
    Elsewhere,
}

impl DatabasePlace {
    /// An empty file, or a copy of a migrated database, which is cheaper than migrating one.
    fn new() -> Self {
        match Engine::current() {
            Engine::Sqlite => Self::File(tempfile::tempdir().expect("a temporary folder")),
            Engine::Postgres => Self::Server(postgres::shared().copy_of("ward", |url| {
                let config = Config { database: url.to_owned(), ..Config::default() };
                App::migrate(&config).expect("the schema");
            })),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("sqlite:{}", folder.path().join("ward.db").display()),
            Self::Server(database) => database.url.clone(),
            Self::Elsewhere => String::new(),
        }
    }
}

impl Server {
    /// A server with the default settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with settings that the test changes.
    pub async fn with(choose: impl FnOnce(&mut Config)) -> Self {
        Self::on(choose, Options { flush: false, serve_lock: true, ..Options::default() }).await
    }

    /// A server with settings that the test changes, and with more than the API beside it.
    pub async fn beside(
        choose: impl FnOnce(&mut Config),
        more: impl FnOnce(&Arc<App>, Router) -> Router,
    ) -> Self {
        Self::on_with(choose, Options { flush: false, serve_lock: true, ..Options::default() }, more).await
    }

    /// A server with settings and database options that the test chooses.
    pub async fn on(choose: impl FnOnce(&mut Config), options: Options) -> Self {
        Self::on_with(choose, options, |_, api| api).await
    }

    async fn on_with(
        choose: impl FnOnce(&mut Config),
        options: Options,
        more: impl FnOnce(&Arc<App>, Router) -> Router,
    ) -> Self {
        let place = DatabasePlace::new();
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: place.url(),
            master_key: MasterKey::Given([7; 32].into()),
            metrics_listen: None,
            exports: Some(Exports::Folder(exports().to_owned())),
            ..Config::default()
        };
        choose(&mut config);
        #[cfg(feature = "watch")]
        let options =
            Options { watch: Some(Arc::new(ward_db::Watch::new(ward::http::watch::LONGEST))), ..options };
        let db = Db::open(&config.database, options).expect("the database opens");
        Self::of(config, db, Clock::default(), place, more).await
    }

    /// A server with the default settings and one tenant, `acme`.
    pub async fn with_tenant() -> (Self, Tenant) {
        let server = Self::start().await;
        let tenant = server.tenant("acme").await;
        (server, tenant)
    }

    /// Another server on the same database and clock. An `SQLite` file can have only one server, so there the
    /// two share its connections.
    pub async fn replica(&self) -> Self {
        self.replica_with(|_| {}).await
    }

    /// A replica with settings that the test changes.
    pub async fn replica_with(&self, choose: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.app.config.clone();
        choose(&mut config);
        let db = match &self.place {
            DatabasePlace::Server(_) => {
                Db::open(&config.database, Options::default()).expect("the database opens")
            }
            DatabasePlace::File(_) | DatabasePlace::Elsewhere => self.app.db.clone(),
        };
        Self::of(config, db, self.clock.clone(), DatabasePlace::Elsewhere, |_, api| api).await
    }

    async fn of(
        config: Config,
        db: Db,
        clock: Clock,
        place: DatabasePlace,
        more: impl FnOnce(&Arc<App>, Router) -> Router,
    ) -> Self {
        let app = App::on(config, db, clock.clone()).expect("Ward starts");
        app.check_master_key().await.expect("the database's master key");
        let listener = tokio::net::TcpListener::bind(app.config.listen).await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        app.listens_at(address);
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions {
            limits: app.config.limits.clone(),
            tls: None,
            trusted_proxies: app.config.trusted_proxies.clone(),
            fields: region::fields(app.config.platform.region.as_deref()),
            early_fields: cors::early_fields(&app.config.cors_origins),
        };
        let service = more(&app, ward::router::service(&app).expect("every route has its operation"));
        let task = tokio::spawn(ward_server::serve(listener, service, options, async move {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(256)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client");
        Self { app, clock, address, client, serving: Some((stop, task)), place }
    }

    /// The server's base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs `work` and returns its cost for the database. Nothing else may run meanwhile.
    pub async fn costs<T>(&self, work: impl Future<Output = T>) -> (T, Cost) {
        let before = self.app.db.stats();
        let done = work.await;
        (done, Cost::between(before, self.app.db.stats()))
    }

    /// Changes the database directly, and returns the number of changed rows. Ids and timestamps are written
    /// as `uuid '…'` and `timestamptz '…'` for every engine.
    pub async fn sql(&self, statement: impl Into<String>) -> u64 {
        let statement = self.spelled(statement.into());
        let done = self.app.db.write("test.sql", move |tx| tx.execute(&statement, &[])).await;
        done.expect("the statement runs")
    }

    /// The number that a query returns.
    pub async fn count(&self, query: impl Into<String>) -> i64 {
        let query = self.spelled(query.into());
        let found = self.app.db.read("test.count", move |tx| tx.one(&query, &[], decode::<i64>)).await;
        found.expect("the query runs")
    }

    fn spelled(&self, sql: String) -> String {
        if self.app.config.database.starts_with("sqlite:") { sqlite::spelled(&sql) } else { sql }
    }

    /// Every row of every table as text, to detect changes.
    pub async fn dump(&self) -> Vec<String> {
        let engine = Engine::current();
        let dumped = self.app.db.read("test.dump", move |tx| {
            let text = |tx: &mut Tx<'_>, sql: &str| tx.all(sql, &[], decode::<String>);
            let mut rows = Vec::new();
            if engine == Engine::Postgres {
                let tables = "SELECT table_name::text FROM information_schema.tables \
                              WHERE table_schema = 'public' ORDER BY 1";
                for table in text(tx, tables)? {
                    rows.extend(text(
                        tx,
                        &format!("SELECT '{table}: ' || {table}::text FROM {table} ORDER BY 1"),
                    )?);
                }
                return Ok(rows);
            }
            let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
            for table in text(tx, tables)? {
                let names = text(tx, &format!("SELECT name FROM pragma_table_info('{table}')"))?;
                let columns: Vec<_> = names.iter().map(|name| sqlite::shown(name)).collect();
                let columns = columns.join(" || ', ' || ");
                rows.extend(text(tx, &format!("SELECT '{table}: ' || {columns} FROM {table} ORDER BY 1"))?);
            }
            Ok::<_, ward_db::Error>(rows)
        });
        dumped.await.expect("a readable database")
    }

    /// All bytes of the database's files.
    pub async fn at_rest(&self) -> Vec<u8> {
        match &self.place {
            DatabasePlace::File(folder) => {
                let files = std::fs::read_dir(folder.path()).expect("the server's folder");
                files
                    .flat_map(|file| std::fs::read(file.expect("an entry").path()).expect("a file"))
                    .collect()
            }
            DatabasePlace::Server(_) => {
                let oid = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()";
                postgres::shared().at_rest(self.count(oid).await)
            }
            DatabasePlace::Elsewhere => Vec::new(),
        }
    }

    /// Stops accepting, and waits until accepted requests are answered.
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.serving.take() {
            let _ = stop.send(());
            task.await.expect("the server task").expect("the server");
        }
    }

    /// An actor that sends no key.
    pub fn anonymous(&self) -> Actor {
        Actor {
            client: self.client.clone(),
            url: self.url(),
            bearer: None,
            prover: None,
            headers: Vec::new(),
        }
    }

    /// An actor that sends this key as its bearer.
    pub fn bearing(&self, key: impl Into<String>) -> Actor {
        Actor { bearer: Some(key.into()), ..self.anonymous() }
    }

    /// A tenant: a new workspace, and the owner who claimed it.
    pub async fn tenant(&self, slug: &str) -> Tenant {
        let workspace = self.anonymous().create_workspace(slug).await;
        let id = workspace["id"].as_str().expect("an id").to_owned();
        let claimed = self
            .anonymous()
            .post(&format!("/v1/{id}/api-keys"), json!({ "duration_days": 90, "name": "owner" }))
            .await
            .expect(StatusCode::CREATED);
        let owner = self.bearing(claimed["api_key"].as_str().expect("a key"));
        Tenant { id, slug: slug.to_owned(), owner, claimed }
    }
}

/// A request that held a runtime thread for too long fails its test, even if the answer was right.
#[cfg(feature = "watch")]
impl Drop for Server {
    fn drop(&mut self) {
        let held = [self.app.watch.take(), self.app.db.held_too_long()].concat();
        assert!(held.is_empty() || std::thread::panicking(), "{}", held.join("\n"));
    }
}

/// The work of the database for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The number of transactions that only read.
    pub reads: u64,
    /// The number of transactions that may write.
    pub writes: u64,
    /// The number of statements in both kinds.
    pub statements: u64,
}

impl Cost {
    /// No work, not even a read.
    pub const NOTHING: Self = Self { reads: 0, writes: 0, statements: 0 };
    /// A single statement that reads, as a look-up by a key is.
    pub const LOOK_UP: Self = Self { reads: 1, writes: 0, statements: 1 };

    const fn between(before: Stats, after: Stats) -> Self {
        Self {
            reads: after.reads + after.long_reads - before.reads - before.long_reads,
            writes: after.writes - before.writes,
            statements: after.statements - before.statements,
        }
    }
}

/// A claimed workspace with its owner.
pub struct Tenant {
    /// The id of the workspace, a UUID.
    pub id: String,
    /// The slug, as given at the creation.
    pub slug: String,
    /// The owner, a user with the first key.
    pub owner: Actor,
    /// The body of the answer to the claim.
    pub claimed: Value,
}

impl Tenant {
    /// The path `/v1/workspaces/{id}` followed by `rest`.
    pub fn workspace(&self, rest: &str) -> String {
        format!("/v1/workspaces/{}{rest}", self.id)
    }

    /// The path `/v1/{id}` followed by `rest`.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/{}{rest}", self.id)
    }

    /// The owner's `GET` of a path below `/v1/{id}`.
    pub async fn get(&self, rest: &str) -> Answer {
        self.owner.get(&self.path(rest)).await
    }

    /// The owner's `POST` of JSON to a path below `/v1/{id}`.
    pub async fn post(&self, rest: &str, body: Value) -> Answer {
        self.owner.post(&self.path(rest), body).await
    }

    /// The owner's `POST` of JSON with an `Idempotency-Key` to a path below `/v1/{id}`.
    pub async fn post_once(&self, rest: &str, key: &str, body: Value) -> Answer {
        self.owner.post_once(&self.path(rest), key, body).await
    }

    /// The owner's `PUT` of JSON to a path below `/v1/{id}`.
    pub async fn put(&self, rest: &str, body: Value) -> Answer {
        self.owner.put(&self.path(rest), body).await
    }

    /// The owner's `DELETE` of a path below `/v1/{id}`.
    pub async fn delete(&self, rest: &str) -> Answer {
        self.owner.delete(&self.path(rest)).await
    }

    /// A service with a key of this role, created by the owner.
    pub async fn service(&self, role: &str) -> Actor {
        self.key(json!({ "duration_days": 30, "role": role })).await.0
    }

    /// A service with a key for this request body, and the answer to its creation.
    pub async fn key(&self, body: Value) -> (Actor, Value) {
        let minted = self.owner.post(&self.path("/api-keys"), body).await.expect(StatusCode::CREATED);
        let key = minted["api_key"].as_str().expect("a key").to_owned();
        (Actor { bearer: Some(key), prover: None, ..self.owner.clone() }, minted)
    }

    /// Like [`Self::target`], with an existing integration, for calls that must succeed.
    pub async fn whole_target(&self, key_id: &str) -> Target {
        Target { integration: self.integration().await, ..self.target(key_id) }
    }

    /// Creates an integration and returns its id.
    pub async fn integration(&self) -> String {
        let made = self.owner.post(&self.path("/integrations"), new_integration(&fresh_slug())).await;
        made.expect(StatusCode::CREATED)["id"].as_str().expect("an id").to_owned()
    }

    /// The public part of the owner's key.
    pub fn owner_key_id(&self) -> &str {
        self.claimed["key_id"].as_str().expect("a key id")
    }

    /// This workspace and one of its keys, for a walk over the operations.
    pub fn target(&self, key_id: &str) -> Target {
        Target {
            workspace: self.id.clone(),
            slug: self.slug.clone(),
            key_id: key_id.to_owned(),
            integration: "00000000-0000-0000-0000-000000000000".to_owned(),
        }
    }

    /// Archives the workspace as its owner.
    pub async fn archive(&self) {
        let body = json!({ "slug": self.slug });
        self.owner.post(&self.workspace("/archive"), body).await.expect(StatusCode::OK);
    }

    /// The events of the workspace's audit log, newest first.
    pub async fn audit(&self) -> Vec<Value> {
        let listed = self.owner.get(&self.path("/audit?limit=100")).await.expect(StatusCode::OK);
        listed["events"].as_array().expect("events").clone()
    }

    /// The actions in the workspace's audit log, oldest first.
    pub async fn actions(&self) -> Vec<String> {
        self.audit()
            .await
            .iter()
            .rev()
            .map(|event| event["action"].as_str().expect("an action").to_owned())
            .collect()
    }
}

/// A client that calls the API, with or without a key.
#[derive(Clone)]
pub struct Actor {
    client: reqwest::Client,
    url: String,
    /// The key, if there is one.
    pub bearer: Option<String>,
    /// The key pair that the credential is bound to, if there is one.
    pub prover: Option<Arc<Prover>>,
    headers: Vec<(String, String)>,
}

/// The parts of a request beside its path.
#[derive(Default)]
pub struct Sending<'a> {
    /// The body as bytes, if there is one.
    pub body: Option<Vec<u8>>,
    /// The content type of the body.
    pub content_type: Option<&'a str>,
    /// Further headers, as names and values.
    pub headers: &'a [(&'a str, &'a str)],
}

impl Actor {
    /// The same actor, who also sends these headers with every request.
    #[must_use]
    pub fn with(&self, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self { headers: self.headers.iter().cloned().chain(headers).collect(), ..self.clone() }
    }

    /// The same actor, who proves the possession of a key with every request.
    #[must_use]
    pub fn proving(&self, prover: &Arc<Prover>) -> Self {
        Self { prover: Some(prover.clone()), ..self.clone() }
    }

    /// Sends a `GET` with the actor's key.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Sending::default()).await
    }

    /// Sends a `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Sending::json(&body)).await
    }

    /// Sends a `POST` with a JSON body and an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, key: &str, body: Value) -> Answer {
        let headers = [("idempotency-key", key)];
        self.send(Method::POST, path, Sending { headers: &headers, ..Sending::json(&body) }).await
    }

    /// Sends a `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Sending::json(&body)).await
    }

    /// Sends a `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Sending::json(&body)).await
    }

    /// Sends a `DELETE` with the actor's key.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, Sending::default()).await
    }

    /// Sends any request. Its answer is checked against the document.
    pub async fn send(&self, method: Method, path: &str, sending: Sending<'_>) -> Answer {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        match (&self.bearer, &self.prover) {
            (Some(key), Some(prover)) => {
                let proof = prover.proof(method.as_str(), path, key);
                request = request.header("authorization", format!("DPoP {key}")).header("dpop", proof);
            }
            (Some(key), None) => request = request.bearer_auth(key),
            (None, _) => {}
        }
        if let Some(content_type) = sending.content_type {
            request = request.header("content-type", content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in sending.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = sending.body {
            request = request.body(body);
        }
        let response = request.send().await.expect("an answer");
        let answer = Answer {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.expect("a body of text"),
        };
        conformance::check(&method, path, &answer);
        if let Some(prover) = &self.prover {
            prover.note(&answer);
        }
        answer
    }

    /// Creates a workspace by the open bootstrap call.
    pub async fn create_workspace(&self, slug: &str) -> Value {
        self.post("/v1/workspaces", new_workspace(slug)).await.expect(StatusCode::CREATED)
    }
}

impl Sending<'_> {
    pub fn json(body: &Value) -> Self {
        Self::json_bytes(body.to_string())
    }

    /// A request with these bytes as its body, declared as JSON.
    pub fn json_bytes(body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), content_type: Some("application/json"), headers: &[] }
    }
}

/// A valid `CreateWorkspaceRequest` with the environment `production`.
pub fn new_workspace(slug: &str) -> Value {
    json!({ "slug": slug, "name": format!("The {slug} clinic"), "environment": "production" })
}

/// A slug that no other call in this process returns.
pub fn fresh_slug() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("clinic-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A folder for the exports of this process's servers.
fn exports() -> &'static std::path::Path {
    static FOLDER: std::sync::LazyLock<TempDir> =
        std::sync::LazyLock::new(|| tempfile::tempdir().expect("a folder"));
    FOLDER.path()
}
