//! Keys that leaked into files.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use ward_test_db::both;

use crate::support::{Server, run, text, ward};

both!(a_scan_finds_live_keys_and_shows_no_secret, blocking);
fn a_scan_finds_live_keys_and_shows_no_secret() {
    let server = Server::start(&["--metrics-listen", "off"]);
    let folder = server.folder.path();
    let ask = |arguments: &[&str]| -> Value {
        let done = run(folder, &[arguments, &["--json"]].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    ask(&["workspace", "create", "acme", "--environment", "development"]);
    let issue = |name: &str| ask(&["key", "issue", "acme", "--role", "viewer", "--name", name]);
    let (live, revoked) = (issue("of the nightly job"), issue("of a person"));
    ask(&["key", "revoke", revoked["key_id"].as_str().unwrap()]);
    let key = |issued: &Value| issued["api_key"].as_str().unwrap().to_owned();

    let log = folder.join("job.log");
    let wrong = key(&live).replacen(&key(&live)[30..31], "~", 1);
    fs::write(&log, format!("start\nAuthorization: Bearer {}\n{wrong}\n{}\n", key(&live), key(&revoked)))
        .unwrap();
    let log = log.to_str().unwrap();
    let scanned = run(folder, &["key", "scan", log, "--json"]);
    assert_eq!(scanned.status.code(), Some(1), "{scanned:?}");
    let found: Value = serde_json::from_slice(&scanned.stdout).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        [&found[0]["line"], &found[0]["key_id"], &found[0]["name"], &found[0]["secret"]],
        [&json!(2), &live["key_id"], &json!("of the nightly job"), &json!("current")]
    );
    let table = run(folder, &["key", "scan", log]);
    for told in [&scanned, &table] {
        let told = text(&told.stdout) + &text(&told.stderr);
        assert!(
            told.contains(live["key_id"].as_str().unwrap()) && told.contains("ward key revoke"),
            "{told}"
        );
        assert!(!told.contains(&key(&live)[27..]), "the secret is shown");
    }

    // Standard input, and a file without live keys.
    let mut child = ward(folder, &["key", "scan", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(key(&live).as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&found[0]["file"], &found[0]["line"]), (&json!("-"), &json!(1)));
    let clean = folder.join("clean.log");
    fs::write(&clean, key(&revoked)).unwrap();
    let done = run(folder, &["key", "scan", clean.to_str().unwrap(), "--json"]);
    assert!(done.status.success() && text(&done.stdout).trim() == "[]", "{done:?}");
    let missing = run(folder, &["key", "scan", "nothing.log"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("nothing.log cannot be read"), "{missing:?}");
}
