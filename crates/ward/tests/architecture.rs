//! The walls of the house, checked from the source text: which room may know which, and what stands where.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/wire.rs"]
mod wire;
#[path = "architecture/writes.rs"]
mod writes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use ward::schema::MIGRATIONS;

const ROOMS: [&str; 13] = [
    "api_keys",
    "audit",
    "calls",
    "deliveries",
    "endings",
    "identity",
    "integrations",
    "invitations",
    "members",
    "test_callers",
    "twilio",
    "vault",
    "workspaces",
];

struct Source {
    /// The path from the project's root, with `/` on every system.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Rust files below a folder of the project, without their unit tests.
fn sources(below: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "nothing below {below}");
    found
}

/// A file's lines that are code.
fn code(source: &Source) -> impl Iterator<Item = &str> {
    source.text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

fn room_of(path: &str) -> Option<&str> {
    let room = path.strip_prefix("crates/ward/src/")?.split('/').next()?;
    ROOMS.contains(&room).then_some(room)
}

#[test]
fn the_engine_layer_knows_no_product_and_nobody_else_a_driver() {
    let engine = fs::read_to_string(root().join("crates/ward-db/Cargo.toml")).unwrap();
    let built_on = engine.split("[dev-dependencies]").next().unwrap();
    assert!(!built_on.contains("\nward"), "ward-db depends on the product");
    for source in sources("crates/ward/src")
        .iter()
        .chain(&sources("crates/ward-cli/src"))
        .chain(&sources("crates/ward-console/src"))
        .chain(&sources("crates/ward-test/src"))
    {
        for driver in ["rusqlite", "tokio_postgres", "deadpool"] {
            assert!(!code(source).any(|line| line.contains(driver)), "{} names {driver}", source.path);
        }
    }
    for crate_name in ["ward", "ward-cli", "ward-console", "ward-test"] {
        let manifest = fs::read_to_string(root().join(format!("crates/{crate_name}/Cargo.toml"))).unwrap();
        assert!(
            !manifest.contains("rusqlite") && !manifest.contains("postgres"),
            "{crate_name} depends on a driver"
        );
    }
}

#[test]
fn the_wire_knows_no_database_and_few_know_the_wire() {
    let wire = fs::read_to_string(root().join("crates/ward-ehr/Cargo.toml")).unwrap();
    for stranger in ["\nward", "axum", "rusqlite", "postgres"] {
        assert!(!wire.contains(stranger), "ward-ehr depends on {stranger}");
    }
    // `matching/` keeps and shows what was looked up. `note.rs`, `amendments/` and `previewing.rs` only describe a call, and `tried.rs` only interprets an answer; they send nothing.
    let allowed = [
        "integrations/outbound.rs",
        "deliveries/note.rs",
        "deliveries/amendments/rules.rs",
        "deliveries/previewing.rs",
        "deliveries/matching/mod.rs",
        "deliveries/matching/wire.rs",
        "deliveries/worker.rs",
        "deliveries/worker/completing.rs",
        "deliveries/worker/sending.rs",
        "deliveries/worker/tried.rs",
        "twilio/reconciling/rules.rs",
        "twilio/reconciling/worker.rs",
    ];
    let allowed = allowed.map(|file| format!("crates/ward/src/{file}"));
    for source in sources("crates/ward/src").iter().chain(&sources("crates/ward-cli/src")) {
        let calls = code(source).any(|line| line.contains("ward_ehr"));
        let in_outbound = source.path.starts_with("crates/ward/src/integrations/outbound/");
        assert!(!calls || in_outbound || allowed.contains(&source.path), "{} calls the wire", source.path);
    }
}

/// The console is a client of the API. Of the product it has the key for its cookie, the clock, random bits and settings, in
/// one file.
#[test]
fn the_console_does_nothing_that_the_api_cannot() {
    let manifest = fs::read_to_string(root().join("crates/ward-console/Cargo.toml")).unwrap();
    let built_on =
        manifest.split("[dependencies]").nth(1).unwrap().split("[dev-dependencies]").next().unwrap();
    for stranger in ["ward-db", "ward-ehr", "ward-contract", "reqwest"] {
        assert!(!built_on.contains(stranger), "ward-console depends on {stranger}");
    }
    for source in sources("crates/ward-console/src") {
        let names: Vec<&str> = code(&source)
            .flat_map(|line| line.split("ward::").skip(1))
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
            .collect();
        let allowed: &[&str] = match source.path.trim_start_matches("crates/ward-console/src/") {
            "host.rs" => &["app", "config", "random"],
            "lib.rs" => &["app"],
            _ => &[],
        };
        let stranger = names.iter().find(|name| !allowed.contains(name));
        assert_eq!(stranger, None, "{} knows too much of the product", source.path);
        for word in ["app.db", ".db.", "app.wire"] {
            assert!(!code(&source).any(|line| line.contains(word)), "{} uses {word}", source.path);
        }
    }
    for source in sources("crates/ward/src") {
        assert!(
            !code(&source).any(|line| line.contains("ward_console")),
            "{} knows the console",
            source.path
        );
    }
}

#[test]
fn the_contract_and_the_server_know_no_product() {
    let strangers = ["ward", "rusqlite", "postgres", "object_store"];
    for (crate_name, others) in [("ward-contract", &["axum", "hyper", "tokio"][..]), ("ward-server", &[])] {
        let manifest = fs::read_to_string(root().join(format!("crates/{crate_name}/Cargo.toml"))).unwrap();
        let built_on =
            manifest.split("[dependencies]").nth(1).unwrap().split("[dev-dependencies]").next().unwrap();
        for stranger in strangers.iter().chain(others) {
            let depends = built_on.lines().any(|line| line.starts_with(stranger));
            assert!(!depends, "{crate_name} depends on {stranger}");
        }
        let nouns =
            ["workspace", "tenant", "member", "invitation", "integration", "patient", "twilio", "delivery"];
        let below = sources(&format!("crates/{crate_name}/src"));
        let of_product =
            below.iter().filter(|it| !it.path.ends_with("tests.rs") && !it.path.ends_with("growth.rs"));
        for source in of_product {
            let noun = words(&source.text).find(|word| nouns.iter().any(|noun| word.starts_with(noun)));
            assert_eq!(noun, None, "{} names it", source.path);
        }
    }
}

#[test]
fn sql_stands_only_where_sql_belongs() {
    let sql = ["\"SELECT ", "\"INSERT INTO ", "\"UPDATE ", "\"DELETE FROM "];
    let mut with_sql = 0;
    for source in sources("crates/ward/src").iter().chain(&sources("crates/ward-cli/src")) {
        let found = code(source).any(|line| sql.iter().any(|word| line.contains(word)));
        let belongs = source.path.ends_with("/store.rs")
            || ["gate/idempotency.rs", "deliveries/outbox.rs"]
                .iter()
                .any(|place| source.path.ends_with(place));
        assert!(!found || belongs, "{} holds SQL", source.path);
        with_sql += usize::from(found);
    }
    assert!(with_sql >= 5, "the search finds no SQL at all");
}

/// `columns!`, `insert!` and `update!` of `ward-db` list each column once, beside its field or its value.
#[test]
fn a_row_is_described_once() {
    let by_number = Regex::new(r"\.(get|text)(::<[\w<>, ]+>)?\(\d+\)").unwrap();
    let of_columns = Regex::new(r#"COLUMNS: &str =\s*""#).unwrap();
    let below = ["crates/ward/src", "crates/ward-cli/src", "crates/ward-test/src"];
    for source in below.iter().flat_map(|below| sources(below)) {
        let read = code(&source).find(|line| by_number.is_match(line));
        assert_eq!(read, None, "{} reads a column by its number", source.path);
        assert!(!of_columns.is_match(&source.text), "{} lists columns apart from their fields", source.path);
        // An insert that adds to an existing row is not one of the macro's.
        let inserts =
            source.text.split("INSERT INTO ").skip(1).filter(|insert| !insert.contains("DO UPDATE SET"));
        assert_eq!(inserts.count(), 0, "{} lists columns apart from their values", source.path);
    }
}

#[test]
fn a_room_uses_another_rooms_face_and_never_its_store() {
    for source in sources("crates/ward/src") {
        for line in code(&source) {
            assert!(!line.contains("pub mod store"), "{} opens its store", source.path);
            for room in ROOMS.iter().filter(|room| room_of(&source.path) != Some(**room)) {
                let reaches =
                    line.split(&format!("{room}::store")).skip(1).any(|rest| !rest.starts_with('_'));
                assert!(!reaches, "{} reaches into the store of {room}", source.path);
            }
        }
    }
}

/// The floors from the top: start, router, rooms, gate and http, app, ground.
#[test]
fn no_floor_knows_the_one_above() {
    const GROUND: [&str; 16] = [
        "access",
        "address",
        "clock",
        "config",
        "context",
        "contract",
        "error",
        "forbidden",
        "ids",
        "networks",
        "page",
        "phone",
        "schema",
        "shares",
        "text",
        "vault",
    ];
    for source in sources("crates/ward/src") {
        let path = source.path.strip_prefix("crates/ward/src/").unwrap();
        let names = |above: &str| code(&source).any(|line| line.contains(above));
        assert!(!names("crate::start"), "{path} imports the start");
        assert!(path == "start.rs" || !names("crate::router"), "{path} imports the router");
        let of_room = room_of(&source.path).is_some();
        if of_room && ["mod.rs", "store.rs", "wire.rs"].iter().any(|end| path.ends_with(&format!("/{end}"))) {
            assert!(!names("crate::gate"), "{path} knows the gate");
        }
        let top = path.split(['/', '.']).next().unwrap();
        if GROUND.contains(&top) {
            for above in ["crate::app", "crate::http", "crate::gate"] {
                assert!(!names(above), "{path} names {above}");
            }
        }
    }
}

#[test]
fn only_the_router_names_the_rooms_routes() {
    for source in sources("crates/ward/src") {
        if source.path.ends_with("/router.rs") {
            for room in [
                "api_keys",
                "audit",
                "calls",
                "deliveries",
                "integrations",
                "invitations",
                "test_callers",
                "twilio",
                "workspaces",
            ] {
                assert!(source.text.contains(&format!("{room}::api::")), "the router does not name {room}");
            }
            continue;
        }
        for room in ROOMS.iter().filter(|room| room_of(&source.path) != Some(**room)) {
            assert!(
                !code(&source).any(|line| line.contains(&format!("{room}::api"))),
                "{} names the routes of {room}",
                source.path
            );
        }
    }
}

#[test]
fn actions_and_stores_know_no_http_status() {
    for source in sources("crates/ward/src") {
        if source.path.ends_with("/store.rs") || source.path.ends_with("/actions.rs") {
            assert!(!code(&source).any(|line| line.contains("StatusCode")), "{} names a status", source.path);
        }
    }
}

#[test]
fn time_comes_from_the_clock() {
    for source in sources("crates/ward/src") {
        if !source.path.ends_with("/clock.rs") {
            assert!(
                !code(&source).any(|line| line.contains("SystemTime::now")),
                "{} asks the system",
                source.path
            );
        }
    }
}

#[test]
fn every_metric_is_described() {
    let all: String =
        ["crates/ward/src", "crates/ward-db/src", "crates/ward-ehr/src", "crates/ward-server/src"]
            .iter()
            .flat_map(|below| sources(below))
            .map(|source| source.text.split_whitespace().collect::<Vec<_>>().concat())
            .collect();
    // The names that stand behind these words, up to the next quotation mark.
    let behind = |word: &str| -> Vec<&str> {
        all.split(word)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .filter(|name| name.starts_with("ward_"))
            .collect()
    };
    let mut recorded = 0;
    for kind in ["counter", "gauge", "histogram"] {
        let described = behind(&format!("describe_{kind}!(\""));
        for name in behind(&format!("{kind}!(\"")) {
            recorded += 1;
            assert!(
                described.contains(&name),
                "{name} has no describe_{kind}!, so /metrics does not say what it is"
            );
        }
    }
    assert!(recorded > 40, "{recorded} metrics were found");
}

#[test]
fn no_file_outgrows_its_purpose() {
    for source in sources("crates") {
        let whole = fs::read_to_string(root().join(&source.path)).unwrap();
        assert!(whole.lines().count() <= 600, "{} has {} lines", source.path, whole.lines().count());
    }
}

#[test]
fn every_migration_is_built_in() {
    let folder = root().join("migrations");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.collect();
    let built_in: Vec<String> =
        MIGRATIONS.iter().map(|migration| format!("{}.sql", migration.name)).collect();
    assert_eq!(built_in, files.into_iter().collect::<Vec<_>>(), "the migrations and the files in order");
    for migration in MIGRATIONS {
        let file = fs::read_to_string(folder.join(format!("{}.sql", migration.name))).unwrap();
        assert_eq!(migration.sql, file, "{}", migration.name);
    }
}

/// Words of SQL that the two engines do not share, or interpret differently.
const NOT_PORTABLE: [&str; 26] = [
    "advisory",
    "array",
    "cascade",
    "concurrently",
    "domain",
    "enum",
    "extract",
    "function",
    "generated",
    "ilike",
    "interval",
    "lateral",
    "listen",
    "nextval",
    "notify",
    "nulls",
    "procedure",
    "savepoint",
    "sequence",
    "serial",
    "skip",
    "temp",
    "temporary",
    "trigger",
    "truncate",
    "now",
];

fn words(sql: &str) -> impl Iterator<Item = String> {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_ascii_lowercase)
}

fn assert_portable(place: &str, sql: &str) {
    if let Some(word) = words(sql).find(|word| NOT_PORTABLE.contains(&word.as_str())) {
        panic!("{place} says `{word}`: {sql}");
    }
    assert!(!sql.contains("::"), "{place} casts in PostgreSQL's own way: {sql}");
    let says = |word: &str| words(sql).any(|found| found == word);
    assert!(!says("like") || says("escape"), "{place} has a LIKE without ESCAPE: {sql}");
    // PostgreSQL's sum of a bigint is a numeric. Only storing it in a column makes it a bigint again.
    assert!(!says("sum") || sql.trim_start().starts_with("UPDATE "), "{place} reads a sum: {sql}");
}

/// A secret is opened, and a key parsed, after the transaction that took a lane: there it would hold up every other
/// tenant's writes.
#[test]
fn a_worker_opens_no_secret_where_it_writes() {
    let worker: Vec<Source> = sources("crates/ward/src/deliveries");
    for source in &worker {
        for word in ["vault.open", "vault.clone", "sealed("] {
            // A request that reads a delivery opens what it shows after its transaction.
            // `matching/mod.rs` has the function that opens a match, which its callers use after theirs.
            let allowed = [
                ("deliveries/actions.rs", "vault.clone"),
                ("deliveries/api.rs", "vault.open"),
                ("deliveries/matching/mod.rs", "vault.open"),
            ];
            let allowed = allowed.iter().any(|(file, opens)| source.path.ends_with(file) && word == *opens);
            assert!(
                allowed || !code(source).any(|line| line.contains(word)),
                "{} opens secrets",
                source.path
            );
        }
    }
}

#[test]
fn sql_keeps_to_what_all_engines_have() {
    for entry in fs::read_dir(root().join("migrations")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        for statement in text.split("-- step") {
            let statement: String = statement.lines().filter(|line| !line.trim().starts_with("--")).collect();
            assert_portable(&name, &statement);
            // Spanner has no partial index; the others have, DSQL since September 2026. A column and a number say which rows
            // are in one, or that a column is not NULL: every planner finds these again in a statement.
            if let Some((_, rows)) = statement.split_once("WHERE").filter(|_| statement.contains("INDEX")) {
                let words: Vec<&str> = rows.split_whitespace().collect();
                let plain = match words[..] {
                    [_, ">" | "<", number] => number.trim_end_matches(';').parse::<i64>().is_ok(),
                    [_, "IS", "NOT", null] => null.trim_end_matches(';') == "NULL",
                    _ => false,
                };
                assert!(plain, "{name} makes a partial index that is not plain: {statement}");
            }
        }
    }
    let mut looked_at = 0;
    for source in sources("crates/ward/src") {
        // A text between quotes that begins like a statement.
        for text in source.text.split('"').filter(|text| {
            ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "WITH "]
                .iter()
                .any(|word| text.starts_with(word))
        }) {
            assert_portable(&source.path, text);
            looked_at += 1;
        }
    }
    assert!(looked_at > 50, "the search finds {looked_at} statements");
}
