//! Support for several tests: concurrent requests, pages of lists, rows in tables, and servers and clients that npm and pip
//! install.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use ward_test::{Actor, Engine, Server, Tenant};

/// Runs these futures at the same time, each in a task of its own, and returns their results in order.
pub async fn together<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// All pages of a list, whose path has a query. The flag and the token of each page must agree.
pub async fn pages(actor: &Actor, path: &str) -> Vec<Value> {
    let (mut pages, mut token) = (Vec::new(), json!(0));
    while !token.is_null() {
        let page = actor.get(&format!("{path}&continuation_token={token}")).await.ok();
        token = page["continuation_token"].clone();
        assert_eq!(page["has_more"], !token.is_null(), "{page}");
        pages.push(page);
    }
    pages
}

/// The UUID of row `i`, in this engine's SQL.
pub fn row_id() -> &'static str {
    match Engine::current() {
        Engine::Sqlite => "unhex(printf('%08x000040008000%012x', i, i))",
        Engine::Postgres => {
            "CAST(lpad(to_hex(i), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(i), 12, '0') AS uuid)"
        }
    }
}

/// Inserts one row for each number `i`. In the values, `$ID` is the row's UUID, `$HASH` is the number as 32 bytes, `$BYTES` is an
/// empty byte string, `$NOW` is a time in the past, and `$LATER` is one in the far future.
pub async fn insert_rows(
    server: &Server,
    numbers: RangeInclusive<u32>,
    table: &str,
    columns: &str,
    values: &str,
) {
    let (first, last) = numbers.into_inner();
    let rows =
        format!("WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})");
    let (insert, bytes, hash) = match Engine::current() {
        Engine::Sqlite => (
            format!("INSERT INTO {table} ({columns}) {rows}"),
            "CAST('' AS blob)",
            "unhex(printf('%064x', i))",
        ),
        Engine::Postgres => (
            format!("{rows} INSERT INTO {table} ({columns})"),
            "CAST('' AS bytea)",
            "decode(lpad(to_hex(i), 64, '0'), 'hex')",
        ),
    };
    let sql = format!("{insert} SELECT {values} FROM n")
        .replace("$ID", row_id())
        .replace("$BYTES", bytes)
        .replace("$HASH", hash)
        .replace("$NOW", "timestamptz '2026-04-18T12:00:00.123456Z'")
        .replace("$LATER", "timestamptz '2100-01-01T00:00:00.000000Z'");
    assert_eq!(server.sql(sql).await, u64::from(last + 1 - first), "{table}");
}

/// Inserts an event of a read of a call for each number, at the seconds of January 1st 2026 that `at` returns.
pub async fn insert_reads(
    server: &Server,
    tenant: &Tenant,
    numbers: RangeInclusive<u32>,
    at: impl Fn(u32) -> String,
) {
    let row = |number: u32| {
        format!(
            "(uuid '{}', timestamptz '2026-01-01T00:00:{}Z', uuid '00000000-0000-4000-8000-{number:012x}', 'calls', \
             'call.read', 'call', true)",
            tenant.id,
            at(number)
        )
    };
    let columns = "workspace_id, at, id, service, action, resource_type, phi_accessed";
    let rows: Vec<String> = numbers.map(row).collect();
    for rows in rows.chunks(5_000) {
        server.sql(format!("INSERT INTO audit_events ({columns}) VALUES {}", rows.join(", "))).await;
    }
}

/// Whether `WARD_TEST_SERVERS` has this value.
pub fn servers_are(value: &str) -> bool {
    std::env::var("WARD_TEST_SERVERS").is_ok_and(|set| set == value)
}

/// Reports a left-out test past the test harness, which swallows the output of passing tests.
pub fn left_out(what: &str) {
    use std::io::Write as _;
    assert!(!servers_are("require"), "{what}");
    let _ = std::io::stderr().write_all(format!("\nLEFT OUT: {what}\n").as_bytes());
}

/// A folder of the build with copies of these files of a folder below `tests`.
pub fn folder_with(name: &str, source: &str, files: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in files {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source).join(file);
        std::fs::copy(source, folder.join(file)).unwrap();
    }
    folder
}

/// Runs a command without its output, and returns whether it succeeded.
pub async fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
}

/// Runs `npm ci` in a folder, and returns whether it succeeded.
pub async fn npm_installs(folder: &Path) -> bool {
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    !servers_are("off") && succeeds(&mut install).await
}

/// A published server that runs until the end of the test.
pub struct PublishedServer {
    pub port: String,
    _process: Child,
}

impl PublishedServer {
    /// Starts `server.mjs` of a folder below `tests`. npm installs its packages, at pinned versions, on the first run.
    ///
    /// If that is not possible, the test is LEFT OUT; `WARD_TEST_SERVERS=require` makes that a failure.
    pub async fn start(folder: &str, package: &str, argument: Option<&Path>) -> Option<Self> {
        static INSTALLING: Mutex<()> = Mutex::const_new(());
        let one_at_a_time = INSTALLING.lock().await;
        let path = folder_with(folder, folder, &["package.json", "package-lock.json", "server.mjs"]);
        let installed = path.join("node_modules").join(package).join("package.json").exists();
        if !installed && !npm_installs(&path).await {
            left_out(&format!("npm ci does not install {package}, or WARD_TEST_SERVERS=off"));
            return None;
        }
        drop(one_at_a_time);
        let mut node = Command::new("node");
        node.arg("server.mjs").args(argument).current_dir(path).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = node.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_mins(1), lines.next_line()).await;
        let line = line.unwrap().unwrap().unwrap();
        Some(Self { port: line.split(' ').nth(1).unwrap().to_owned(), _process: process })
    }
}
