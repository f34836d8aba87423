//! A server beside its operator's commands: kept data, refusals, and messages.

use std::process::{Command, Output};

use serde_json::Value;
use ward_test_db::{Engine, both};

use crate::support::{Server, place, run, text, ward};

const QUIET: [&str; 2] = ["--metrics-listen", "off"];

fn script(server: &Server) -> Output {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/first-workspace.sh");
    Command::new("bash").arg(example).arg(format!("http://{}", server.address)).output().unwrap()
}

fn curl(server: &Server, path: &str, arguments: &[&str]) -> Value {
    let url = format!("http://{}{path}", server.address);
    let done = Command::new("curl").args(["-sS", &url]).args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
}

fn post(server: &Server, path: &str, key: &str, body: &str) -> Value {
    let bearer = format!("authorization: Bearer {key}");
    curl(server, path, &["-H", "content-type: application/json", "-H", &bearer, "-d", body])
}

fn get(server: &Server, path: &str, key: &str) -> Value {
    curl(server, path, &["-H", &format!("authorization: Bearer {key}")])
}

/// Creates a tenant over the wire; returns its workspace's id and its owner's key.
fn tenant(server: &Server, slug: &str) -> (String, String) {
    let body = format!(r#"{{"slug":"{slug}","name":"A clinic","environment":"development"}}"#);
    let created = post(server, "/v1/workspaces", "", &body);
    let id = created["id"].as_str().unwrap().to_owned();
    let claim = ["-H", "content-type: application/json", "-d", r#"{"duration_days":90}"#];
    let claimed = curl(server, &format!("/v1/{id}/api-keys"), &claim);
    (id, claimed["api_key"].as_str().unwrap().to_owned())
}

/// The output of a command with `--json`.
fn json(server: &Server, arguments: &[&str]) -> Value {
    let done = run(server.folder.path(), &[arguments, &["--json"]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

both!(the_example_walks_a_tenants_whole_life, blocking);
fn the_example_walks_a_tenants_whole_life() {
    let server = Server::start(&QUIET);
    let done = script(&server);
    let printed = text(&done.stdout);
    assert!(done.status.success(), "{printed}\n{}", text(&done.stderr));
    for step in
        ["Create a workspace", "Claim it", "Provision it", "Rotate it", "Revoke it", "Archive", "# Done."]
    {
        assert!(printed.contains(step), "{step}: {printed}");
    }
    assert_eq!(printed.matches("is refused with").count(), 4, "{printed}");
    let secret = printed.split('"').find(|word| word.len() == 76 && word.starts_with("ward_"));
    assert_eq!(secret, None, "the example shows a key");
}

both!(what_was_acknowledged_is_there_after_a_kill_and_a_restart, blocking);
fn what_was_acknowledged_is_there_after_a_kill_and_a_restart() {
    let mut server = Server::start(&QUIET);
    let (id, key) = tenant(&server, "acme");
    server.signal("KILL");
    server.ended();

    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    let command = ward(folder.path(), &[&["serve", "--listen", "127.0.0.1:0"][..], &QUIET].concat());
    let again = Server::of(command, folder);
    assert_eq!(get(&again, &format!("/v1/workspaces/{id}"), &key)["slug"], "acme");
}

both!(one_file_has_one_server_and_any_number_of_commands, blocking);
fn one_file_has_one_server_and_any_number_of_commands() {
    let server = Server::start(&QUIET);
    let (id, _) = tenant(&server, "acme");
    if Engine::current() == Engine::Sqlite {
        let second =
            run(server.folder.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        assert!(text(&second.stderr).contains("another server"), "{}", text(&second.stderr));
    }

    let table = run(server.folder.path(), &["workspace", "list"]);
    assert!(
        text(&table.stdout).contains("acme") && text(&table.stdout).contains("active"),
        "{}",
        text(&table.stdout)
    );
    let listed = json(&server, &["workspace", "list"]);
    assert_eq!(listed[0]["id"], id.as_str());
    assert_eq!(json(&server, &["workspace", "show", "acme"]), listed[0]);
    assert_eq!(json(&server, &["workspace", "show", &id])["state"], "active");
    let unknown = run(server.folder.path(), &["workspace", "show", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("nobody"), "{}", text(&unknown.stderr));
}

both!(the_operator_brings_back_what_was_archived, blocking);
fn the_operator_brings_back_what_was_archived() {
    let server = Server::start(&QUIET);
    let (id, key) = tenant(&server, "acme");
    post(&server, &format!("/v1/workspaces/{id}/archive"), &key, r#"{"slug":"acme"}"#);
    assert_eq!(get(&server, "/v1/auth/me", &key)["error_code"], "unauthorized");
    assert_eq!(json(&server, &["workspace", "show", "acme"])["state"], "archived");

    assert_eq!(json(&server, &["workspace", "restore", "acme"])["state"], "active");
    assert_eq!(get(&server, &format!("/v1/workspaces/{id}"), &key)["slug"], "acme");
    let again = run(server.folder.path(), &["workspace", "restore", "acme"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

both!(a_key_issued_in_an_emergency_works_and_is_audited_as_the_operators, blocking);
fn a_key_issued_in_an_emergency_works_and_is_audited_as_the_operators() {
    let server = Server::start(&QUIET);
    let (id, owner) = tenant(&server, "acme");
    let issued =
        json(&server, &["key", "issue", "acme", "--role", "admin", "--name", "break glass", "--days", "1"]);
    let key = issued["api_key"].as_str().unwrap();
    assert_eq!(get(&server, &format!("/v1/workspaces/{id}"), key)["slug"], "acme");

    let key_id = issued["key_id"].as_str().unwrap();
    assert_eq!(json(&server, &["key", "revoke", key_id])["key_id"], key_id);
    assert_eq!(get(&server, "/v1/auth/me", key)["error_code"], "unauthorized");
    assert_eq!(run(server.folder.path(), &["key", "revoke", key_id]).status.code(), Some(1));

    let audit = get(&server, &format!("/v1/{id}/audit"), &owner);
    let by_operator: Vec<&Value> = audit["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["metadata"]["operator"] == true)
        .map(|event| &event["action"])
        .collect();
    assert_eq!(by_operator, ["api_key.revoke", "api_key.create"]);
    assert!(!audit.to_string().contains(key));

    for (wrong, code) in [
        (&["--role", "king", "--name", "x"][..], 1),
        (&["--role", "owner", "--name", "x", "--days", "91"], 1),
        (&["--role", "owner", "--name", "x", "--days", "0"], 1),
        (&["--role", "owner", "--name", "  "], 1),
        (&["--role", "owner", "--name", ""], 1),
        (&["--name", "x"], 2),
        (&["--role", "owner"], 2),
    ] {
        let refused = run(server.folder.path(), &[&["key", "issue", "acme"], wrong].concat());
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
    }
    let kept = json(&server, &["key", "list", "acme"]);
    assert_eq!(kept["items"].as_array().unwrap().len(), 1, "nothing was minted: {kept}");
}

both!(another_master_key_is_refused_where_a_key_is_needed, blocking);
fn another_master_key_is_refused_where_a_key_is_needed() {
    let server = Server::start(&QUIET);
    let folder = server.folder.path().to_owned();
    let log = ward(&folder, &["secrets", "rotate"])
        .env_remove("WARD_MASTER_KEY_FILE")
        .env("WARD_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .output()
        .unwrap();
    assert_eq!(log.status.code(), Some(1), "{log:?}");
    assert!(text(&log.stderr).contains("master key"), "{}", text(&log.stderr));
}

both!(the_operator_rotates_the_key_beside_a_running_server, blocking);
fn the_operator_rotates_the_key_beside_a_running_server() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let server = Server::start(&QUIET);
    let (id, key) = tenant(&server, "acme");
    let body = r#"{"name":"a","display_name":"A","base_url":"https://ehr.example.com",
        "auth":{"type":"bearer_token","bearer_token_value":{"value":"a-bearer-to-seal"}}}"#;
    let made = post(&server, &format!("/v1/{id}/integrations"), &key, body);
    assert!(made["auth"]["token_ssm_param_path"].is_string(), "{made}");
    let folder = server.folder.path();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join("new.key"))
        .unwrap();
    std::io::Write::write_all(&mut file, b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let missing = run(folder, &["secrets", "--master-key-file", "new.key", "rotate"]);
    assert_eq!(missing.status.code(), Some(1), "the previous key is needed: {missing:?}");
    let rotate =
        ["secrets", "--master-key-file", "new.key", "--former-master-key-files", "ward.key", "rotate"];
    let done = run(folder, &rotate);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(
        text(&done.stderr).contains("1 of 1 values sealed under the current key"),
        "{}",
        text(&done.stderr)
    );
    let again = json(&server, &rotate);
    assert_eq!((&again["done"], &again["of"]), (&0.into(), &0.into()));
    let former = run(folder, &["secrets", "rotate"]);
    assert!(text(&former.stderr).contains("master key"), "the previous key is no longer usable: {former:?}");
    assert!(run(folder, &["secrets", "--master-key-file", "new.key", "rotate"]).status.success());
}

both!(no_key_is_ever_logged, blocking);
fn no_key_is_ever_logged() {
    let folder = place();
    let mut command = ward(folder.path(), &[&["serve", "--listen", "127.0.0.1:0"][..], &QUIET].concat());
    command.env("WARD_LOG_FILTER", "trace");
    let server = Server::of(command, folder);
    let (id, key) = tenant(&server, "acme");
    get(&server, &format!("/v1/workspaces/{id}"), &key);
    let log = server.stopped();
    assert!(log.contains("get-workspace"), "{log}");
    for secret in [&key[27..70], &id] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}
