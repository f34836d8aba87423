//! A server killed while it writes an export: the next one writes the file whole and leaves nothing beside it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use ward_test_db::both;

use crate::client::Call;
use crate::fleet::Tenant;
use crate::invariants::Look;
use crate::support::{DATABASE, Server, ward};

const SERVE: [&str; 7] =
    ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off", "--export-dir", "exports"];
/// Events that take a few steps to write, so that a kill meets the writing.
const EVENTS: i64 = 100_000;
/// A lease and more. A server that starts so much later finds the dead one's export due.
const LATER: &str = "300";

/// The names of all files below the folder of exports.
fn files(folder: &Path) -> Vec<String> {
    let inside = |entry: fs::DirEntry| fs::read_dir(entry.path()).into_iter().flatten().flatten();
    let workspaces = fs::read_dir(folder.join("exports")).into_iter().flatten().flatten();
    workspaces.flat_map(inside).map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_mins(2), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Adds so many events to the workspace, in one statement that both engines take.
fn add(url: &str, workspace: &str) {
    let digits = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))";
    let blob = url.starts_with("sqlite");
    let (workspace, id, at) = if blob {
        (
            format!("x'{}'", workspace.replace('-', "")),
            "CAST(printf('%016d', n) AS blob)",
            "1767225600000000 + n".to_owned(),
        )
    } else {
        (
            format!("uuid '{workspace}'"),
            "CAST(lpad(CAST(n AS text), 32, '0') AS uuid)",
            "timestamptz '2026-01-01T00:00:00Z' + n * interval '1 microsecond'".to_owned(),
        )
    };
    let numbers = format!(
        "SELECT a.column1 + 10 * b.column1 + 100 * c.column1 + 1000 * d.column1 + 10000 * e.column1 AS n \
         FROM {digits} a, {digits} b, {digits} c, {digits} d, {digits} e"
    );
    Look::at(url).run(&format!(
        "INSERT INTO audit_events (workspace_id, at, id, service, action, resource_type, phi_accessed) \
         SELECT {workspace}, {at}, {id}, 'calls', 'call.read', 'call', true FROM ({numbers}) AS numbers \
         WHERE n < {EVENTS}"
    ));
}

both!(a_killed_export_is_written_again_and_leaves_no_unfinished_file, blocking);
fn a_killed_export_is_written_again_and_leaves_no_unfinished_file() {
    let folder = crate::support::place();
    let mut server = Server::of(ward(folder.path(), &SERVE), tempfile::tempdir().unwrap());
    let tenant = Tenant::new(server.address, "acme");
    let url = fs::read_to_string(folder.path().join(DATABASE))
        .unwrap_or_else(|_| format!("sqlite:{}", folder.path().join("ward.db").display()));
    add(&url, &tenant.id);
    let order = json!({ "date_from": "2020-01-01T00:00:00Z", "date_to": "2100-01-01T00:00:00Z" });
    let path = format!("/v1/{}/audit/export", tenant.id);
    let ordered = Call::post(path, order).by(&tenant.key).ask(server.address);
    assert_eq!(ordered.status, 200, "{ordered:?}");
    until("a file that is being written", || files(folder.path()).iter().any(|name| name.contains('#')));
    server.child.kill().unwrap();
    server.ended();
    let left = files(folder.path());
    assert!(left.len() == 1 && left[0].contains('#'), "the kill did not meet the writing: {left:?}");

    let mut command = ward(folder.path(), &SERVE);
    command.env("WARD_TEST_CLOCK_OFFSET", LATER);
    let again = Server::of(command, tempfile::tempdir().unwrap());
    let list = format!("/v1/{}/audit/exports", tenant.id);
    until("the export is done", || {
        let listed = Call::get(&list).by(&tenant.key).ask(again.address);
        listed.body["exports"][0]["state"] == "done"
    });
    let name = format!("audit-{}.ndjson", ordered.text("export_id"));
    assert_eq!(files(folder.path()), [name.as_str()]);
    let written = fs::read_to_string(folder.path().join("exports").join(&tenant.id).join(name)).unwrap();
    // The workspace's creation and claim are the two others.
    assert_eq!(i64::try_from(written.lines().count()).unwrap(), EVENTS + 2);
}
