//! The operator's commands: their needs, the files that they leave alone, and their errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use ward_test_db::{Engine, both, postgres_only};

use crate::client::Call;
use crate::fleet::Tenant;
use crate::support::{Server, WARD, place, run, text, ward};

pub const QUIET: [&str; 4] = ["--listen", "127.0.0.1:0", "--metrics-listen", "off"];

/// Starts a server in this folder.
pub fn serve(folder: tempfile::TempDir, more: &[&str]) -> Server {
    let command = ward(folder.path(), &[&["serve"][..], &QUIET, more].concat());
    Server::of(command, folder)
}

/// The folder of a server, which is stopped first.
pub fn folder_of(mut server: Server) -> tempfile::TempDir {
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    server.stopped();
    folder
}

/// The content of every file in a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// The output of a command with `--json`.
fn printed(folder: &Path, arguments: &[&str]) -> Value {
    let done = run(folder, &[arguments, &["--json"]].concat());
    assert!(done.status.success(), "{arguments:?}: {}", text(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The error that a command prints with `--json` on the last line of standard error, and the exit code.
fn error_of(folder: &Path, arguments: &[&str]) -> (Value, i32) {
    let done = run(folder, &[arguments, &["--json"]].concat());
    let said = text(&done.stderr);
    let last = said.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{arguments:?} says {said}"));
    (error["error"].clone(), done.status.code().unwrap())
}

const LOOKING: [&[&str]; 13] = [
    &["doctor", "--help"],
    &["workspace", "list"],
    &["workspace", "show", "acme"],
    &["key", "list", "acme"],
    &["member", "list", "acme"],
    &["sync", "status", "acme"],
    &["config"],
    &["openapi"],
    &["completions", "bash"],
    &["--help"],
    &["secrets", "forget", "--help"],
    &["workspace", "show", "nobody"],
    &["key", "list", "nobody"],
];

both!(looking_needs_no_key_and_changes_no_file, blocking);
fn looking_needs_no_key_and_changes_no_file() {
    let server = serve(place(), &[]);
    Tenant::new(server.address, "acme");
    let folder = folder_of(server);
    std::fs::remove_file(folder.path().join("ward.key")).unwrap();
    let before = files(folder.path());
    for command in LOOKING {
        let done = run(folder.path(), command);
        assert_eq!(
            done.status.success(),
            command.last() != Some(&"nobody"),
            "{command:?}: {}",
            text(&done.stderr)
        );
        assert!(files(folder.path()) == before, "{command:?} changed a file");
    }
}

#[test]
fn looking_leaves_the_log_of_a_killed_server_as_it_is() {
    let mut server = serve(place(), &[]);
    Tenant::new(server.address, "acme");
    server.signal("KILL");
    server.ended();
    let before = files(server.folder.path());
    assert!(before.keys().any(|name| name == "ward.db-wal"), "{:?}", before.keys());
    for command in LOOKING {
        run(server.folder.path(), command);
        assert!(files(server.folder.path()) == before, "{command:?} changed a file");
    }
    assert_eq!(printed(server.folder.path(), &["workspace", "list"])[0]["slug"], "acme");
}

#[test]
fn looking_at_a_database_of_another_name_makes_no_key_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        run(folder.path(), &["secrets", "create-key", "--master-key-file", "master.key"]).status.success()
    );
    let files_of = |folder: &Path| files(folder).into_keys().collect::<Vec<_>>();
    let server = serve(folder, &["--database", "sqlite:prod.db", "--master-key-file", "master.key"]);
    Tenant::new(server.address, "acme");
    let listed = ward(server.folder.path(), &["workspace", "list"])
        .env("WARD_DATABASE", "sqlite:prod.db")
        .output()
        .unwrap();
    assert!(text(&listed.stdout).contains("acme"), "{}", text(&listed.stderr));
    let folder = folder_of(server);
    assert_eq!(files_of(folder.path()), ["master.key", "prod.db", "prod.db-lock"]);
}

#[test]
fn a_server_without_its_key_refuses_and_names_the_file() {
    let server = serve(place(), &[]);
    Tenant::new(server.address, "acme");
    let folder = folder_of(server);
    let key = folder.path().join("ward.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let refused = run(folder.path(), &[&["serve"][..], &QUIET].concat());
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = text(&refused.stderr);
    for expected in
        ["ward.key is not there", "was used with a key", "ward secrets forget", "docs/operate/master-key.md"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!key.exists(), "no key is made beside a database that was used with another one");
    // Key commands do not need it: a leaked key can be revoked at once.
    let minted = printed(folder.path(), &["key", "issue", "acme", "--role", "viewer", "--name", "a ticket"]);
    let key_id = minted["key_id"].as_str().unwrap();
    assert_eq!(printed(folder.path(), &["key", "revoke", key_id])["key_id"], key_id);
    assert!(!key.exists());
    std::fs::write(&key, kept).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    serve(folder, &[]).stopped();
}

/// Creates a workspace with two sealed values; returns the tenant and the id of the integration.
fn with_secrets(server: &Server) -> (Tenant, String) {
    let tenant = Tenant::new(server.address, "acme");
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-bearer-to-seal" } });
    let body =
        json!({ "name": "ehr", "display_name": "E", "base_url": "https://ehr.example.com", "auth": auth });
    let made =
        Call::post(format!("/v1/{}/integrations", tenant.id), body).by(&tenant.key).ask(server.address);
    assert_eq!(made.status, 201, "{made:?}");
    let twilio = json!({ "account_sid": format!("AC{}", "0".repeat(32)), "auth_token": "a-token-of-twilios-to-seal",
                         "secondary_auth_token": "another-token-to-seal" });
    let set = Call::put(format!("/v1/{}/twilio", tenant.id), twilio).by(&tenant.key).ask(server.address);
    assert_eq!(set.status, 200, "{set:?}");
    let id = made.text("id").to_owned();
    (tenant, id)
}

both!(a_lost_master_key_is_forgotten_with_what_it_sealed, blocking);
fn a_lost_master_key_is_forgotten_with_what_it_sealed() {
    let server = serve(place(), &[]);
    let (tenant, integration) = with_secrets(&server);
    let folder = folder_of(server);
    let nothing = run(folder.path(), &["secrets", "forget", "--yes"]);
    assert!(nothing.status.success() && text(&nothing.stderr).contains("nothing to forget"), "{nothing:?}");
    std::fs::remove_file(folder.path().join("ward.key")).unwrap();

    // Without a confirmation the values are only listed.
    for _ in 0..2 {
        let asked = run(folder.path(), &["secrets", "forget"]);
        assert_eq!(asked.status.code(), Some(1), "{asked:?}");
        let listed = text(&asked.stdout);
        for expected in ["acme", "ehr", &integration, "auth/bearer_token", "twilio/auth_token"] {
            assert!(listed.contains(expected), "{expected}: {listed}");
        }
        assert!(text(&asked.stderr).contains("--yes"), "{}", text(&asked.stderr));
    }
    let done = printed(folder.path(), &["secrets", "forget", "--yes"]);
    assert_eq!(done["forgotten"], 3, "{done}");
    let mut fields: Vec<&str> =
        done["enter_again"].as_array().unwrap().iter().filter_map(|value| value["field"].as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["auth/bearer_token", "twilio/auth_token", "twilio/secondary_auth_token"], "{done}");

    if Engine::is_postgres() {
        let made = run(folder.path(), &["secrets", "create-key"]);
        assert!(made.status.success(), "{made:?}");
        let again = run(folder.path(), &["secrets", "create-key"]);
        assert_eq!(again.status.code(), Some(2), "a key is never replaced: {again:?}");
    }
    let server = serve(folder, &[]);
    let path = format!("/v1/{}/integrations/{integration}", tenant.id);
    let shown = Call::get(&*path).by(&tenant.key).ask(server.address);
    assert_eq!(shown.status, 200, "{shown:?}");
    assert!(shown.body["auth"]["token_ssm_param_path"].is_null(), "{shown:?}");
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-bearer-entered-again" } });
    let again = Call::put(&*path, json!({ "auth": auth })).by(&tenant.key).ask(server.address);
    assert!(again.body["auth"]["token_ssm_param_path"].is_string(), "{again:?}");
    let audit = Call::get(format!("/v1/{}/audit", tenant.id)).by(&tenant.key).ask(server.address);
    let events = audit.body["events"].as_array().unwrap();
    for action in ["integration.secrets_forgotten", "twilio.secrets_forgotten"] {
        let event =
            events.iter().find(|event| event["action"] == action).unwrap_or_else(|| panic!("{action}"));
        assert_eq!(event["metadata"]["operator"], true, "{event}");
    }
    let rotated = printed(server.folder.path(), &["secrets", "rotate"]);
    assert_eq!(
        (&rotated["of"], &rotated["left"]),
        (&json!(0), &json!(0)),
        "the new key seals what is entered"
    );
}

#[test]
fn secrets_are_not_forgotten_beside_a_server() {
    let server = serve(place(), &[]);
    with_secrets(&server);
    std::fs::rename(server.folder.path().join("ward.key"), server.folder.path().join("kept.key")).unwrap();
    let refused = run(server.folder.path(), &["secrets", "forget", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("another server"), "{}", text(&refused.stderr));
}

both!(the_operator_makes_the_first_workspace_where_bootstrap_is_closed, blocking);
fn the_operator_makes_the_first_workspace_where_bootstrap_is_closed() {
    let server = serve(place(), &["--bootstrap", "closed"]);
    let folder = server.folder.path();
    assert!(server.welcome.contains("ward workspace create") && server.welcome.contains("ward key issue"));
    let wanted = [
        "workspace",
        "create",
        "acme",
        "--name",
        "  Acme  ",
        "--environment",
        "staging",
        "--region",
        "eu-central-1",
    ];
    let made = printed(folder, &wanted);
    assert_eq!(
        (&made["slug"], &made["name"], &made["state"]),
        (&json!("acme"), &json!("Acme"), &json!("active"))
    );
    assert_eq!((&made["environment"], &made["region"]), (&json!("staging"), &json!("eu-central-1")));
    let (taken, code) = error_of(folder, &["workspace", "create", "acme"]);
    assert_eq!((code, &taken["code"]), (1, &json!("refused")), "{taken}");
    for wrong in [
        &["Not A Slug"][..],
        &["other", "--environment", "prod"],
        &["other", "--region", "mars-1"],
        &["other", "--name", " "],
    ] {
        let (error, code) = error_of(folder, &[&["workspace", "create"], wrong].concat());
        assert_eq!((code, &error["code"]), (1, &json!("invalid")), "{wrong:?}: {error}");
    }

    let issued = printed(folder, &["key", "issue", "acme", "--role", "owner", "--name", "first"]);
    let key = issued["api_key"].as_str().unwrap();
    let path = format!("/v1/workspaces/{}", made["id"].as_str().unwrap());
    assert_eq!(Call::get(&*path).by(key).ask(server.address).body["slug"], "acme");
    let keys = printed(folder, &["key", "list", "acme"]);
    assert_eq!((&keys["items"][0]["name"], &keys["items"][0]["role"]), (&json!("first"), &json!("owner")));
    assert!(!keys.to_string().contains(key), "a list shows no secret");

    let members = printed(folder, &["member", "list", "acme"]);
    let entity = members["items"][0]["entity_id"].as_str().unwrap();
    assert_eq!(printed(folder, &["member", "remove", "acme", entity])["entity_id"], entity);
    assert_eq!(
        Call::get(&*path).by(key).ask(server.address).status,
        401,
        "its key ended with the membership"
    );
    let (gone, _) = error_of(folder, &["member", "remove", "acme", entity]);
    assert_eq!(gone["code"], "no_member");

    assert_eq!(printed(folder, &["workspace", "archive", "acme"])["state"], "archived");
    let (again, _) = error_of(folder, &["workspace", "archive", "acme"]);
    assert_eq!(again["code"], "wrong_state");
    assert_eq!(printed(folder, &["workspace", "restore", "acme"])["state"], "active");
}

both!(the_last_owner_stays_even_for_the_operator, blocking);
fn the_last_owner_stays_even_for_the_operator() {
    let server = serve(place(), &[]);
    let tenant = Tenant::new(server.address, "acme");
    let minted = tenant.mint(server.address, "viewer");
    let folder = server.folder.path();
    let first = printed(folder, &["key", "list", "acme", "--limit", "1"]);
    let next = first["next"].to_string();
    let second = printed(folder, &["key", "list", "acme", "--limit", "1", "--after", &next]);
    assert_eq!(
        (first["items"][0]["role"].clone(), second["items"][0]["key_id"].clone()),
        (json!("owner"), minted.body["key_id"].clone())
    );
    assert!(second["next"].is_null(), "{second}");
    let owner = first["items"][0]["entity_id"].as_str().unwrap();
    let (error, code) = error_of(folder, &["member", "remove", "acme", owner]);
    assert_eq!((code, &error["code"]), (1, &json!("refused")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("last user that is an owner"), "{error}");
}

#[test]
fn every_failure_is_json_where_json_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, exit) in [
        (&["workspace", "list"][..], "database", 1),
        (&["workspace", "frobnicate"], "usage", 2),
        (&["key", "issue", "acme"], "usage", 2),
        (&["serve", "--request-time", "15"], "config", 2),
        (&["backup", "--to", "copy.db"], "failed", 1),
    ] {
        let (error, exited) = error_of(folder.path(), arguments);
        assert_eq!((&error["code"], exited), (&json!(code), exit), "{arguments:?}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    // The flag may also come before the command.
    let done = run(folder.path(), &["--json", "workspace", "list"]);
    assert!(text(&done.stderr).contains("{\"error\":"), "{done:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a failed command leaves no file");
}

both!(a_database_of_an_older_schema_is_not_changed_by_the_way, blocking);
fn a_database_of_an_older_schema_is_not_changed_by_the_way() {
    let folder = place();
    if !Engine::is_postgres() {
        std::fs::write(folder.path().join("ward.db"), "").unwrap();
    }
    let before = files(folder.path());
    for arguments in [&["workspace", "list"][..], &["workspace", "create", "acme"], &["key", "revoke", "x"]] {
        let (error, code) = error_of(folder.path(), arguments);
        assert_eq!((code, &error["code"]), (1, &json!("old_schema")), "{arguments:?}: {error}");
        assert!(error["message"].as_str().unwrap().contains("ward migrate"), "{error}");
    }
    assert_eq!(files(folder.path()).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(run(folder.path(), &["migrate"]).status.success());
    assert_eq!(printed(folder.path(), &["workspace", "create", "acme"])["slug"], "acme");
}

#[test]
fn manual_pages_tell_what_help_tells() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &["man", "pages"]).status.success());
    for (page, expected) in [
        ("ward.1", "secrets"),
        ("ward-serve.1", "metrics\\-listen"),
        ("ward-key-issue.1", "\\-\\-role"),
        ("ward-secrets-forget.1", "\\-\\-yes"),
    ] {
        let text = std::fs::read_to_string(folder.path().join("pages").join(page)).unwrap();
        assert!(text.contains(expected), "{page}: {text}");
    }
}

#[test]
fn config_says_what_auto_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let rates = |more: &[&str]| {
        let rows = printed(folder.path(), &[&["config"][..], more].concat());
        rows.as_array().unwrap().iter().find(|row| row["setting"] == "rates").unwrap().clone()
    };
    let here = rates(&[]);
    assert_eq!((&here["value"], &here["from"]), (&json!("auto"), &json!("default")));
    assert!(here["means"].as_str().unwrap().starts_with("off: "), "{here}");
    let open = rates(&["--listen", "0.0.0.0:80"]);
    assert!(open["means"].as_str().unwrap().starts_with("on: "), "{open}");
    let off = rates(&["--rates", "off", "--listen", "0.0.0.0:80"]);
    assert_eq!((&off["value"], &off["means"]), (&json!("off"), &Value::Null));
}

#[test]
fn health_says_whom_it_asked() {
    let server = serve(place(), &[]);
    let at = server.address.to_string();
    let done = run(server.folder.path(), &["health", "--listen", &at]);
    assert!(done.status.success());
    assert_eq!(text(&done.stdout), format!("healthy: http://{at}/healthz\n"));
    assert_eq!(
        printed(server.folder.path(), &["health", "--listen", &at])["asked"],
        format!("http://{at}/healthz")
    );
    let folder = folder_of(server);
    let down = run(folder.path(), &["health", "--listen", &at]);
    assert_eq!(down.status.code(), Some(1));
    assert!(text(&down.stderr).contains(&format!("http://{at}/healthz")), "{}", text(&down.stderr));
}

fn on_a_terminal(folder: &Path, command: &str, no_color: Option<&str>) -> String {
    let mut script = Command::new("script");
    script
        .args(["-qec", command, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    if let Some(value) = no_color {
        script.env("NO_COLOR", value);
    }
    text(&script.output().unwrap().stdout)
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    let folder = tempfile::tempdir().unwrap();
    // The server logs the path of its key, and ends at once because its metrics address is not available.
    let serve =
        format!("{WARD} serve --listen 127.0.0.1:0 --metrics-listen 192.0.2.1:1 --database sqlite:$NAME.db");
    for command in [format!("{WARD} --help"), serve] {
        let run =
            |name: &str, no_color| on_a_terminal(folder.path(), &command.replace("$NAME", name), no_color);
        let (plain, empty) = (run("a", None), run("b", Some("")));
        assert!(plain.contains("\u{1b}[") && empty.contains("\u{1b}["), "{command}: {plain}");
        let none = run("c", Some("1"));
        assert!(!none.contains("\u{1b}[") && none.len() > 40, "{command}: {none}");
    }
}

/// The doctor's findings by check, and its exit code.
pub fn doctor(folder: &Path, more: &[&str]) -> (Vec<Value>, i32) {
    let done = run(folder, &[&["doctor", "--json"], more].concat());
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    (printed["findings"].as_array().unwrap().clone(), done.status.code().unwrap())
}

/// The problems among the findings, each with its remedy.
fn problems(found: &[Value]) -> Vec<(&str, &str, &str)> {
    found
        .iter()
        .filter(|finding| finding["status"] == "problem")
        .map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap();
            (text("check"), text("message"), text("action"))
        })
        .collect()
}

/// A file that only its owner can use.
pub fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

both!(the_doctor_says_ok_or_what_to_do, blocking);
fn the_doctor_says_ok_or_what_to_do() {
    let server = serve(place(), &[]);
    with_secrets(&server);
    let at = server.address.to_string();
    let (found, code) = doctor(server.folder.path(), &["--listen", &at]);
    assert_eq!((problems(&found), code), (Vec::new(), 0));
    for check in [
        "settings",
        "database",
        "encoding",
        "clock",
        "schema",
        "key file",
        "master key",
        "sealed values",
        "regions",
        "lengths",
        "server",
    ] {
        let finding =
            found.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}"));
        assert_eq!(finding["status"], "ok", "{finding}");
    }
    let folder = folder_of(server);
    let table = run(folder.path(), &["doctor"]);
    assert!(
        table.status.success() && text(&table.stdout).contains("sealed values  all 3 values open"),
        "{table:?}"
    );
    let before = files(folder.path());

    // First without its key, and then with another one.
    let key = folder.path().join("ward.key");
    let kept = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let (found, code) = doctor(folder.path(), &[]);
    let [(check, message, action), (sealed, listed, _)] = problems(&found)[..] else { panic!("{found:?}") };
    assert_eq!((check, sealed, code), ("master key", "sealed values", 1));
    assert!(
        message.contains("ward.key does not exist") && action.contains("ward secrets forget"),
        "{message} {action}"
    );
    assert!(
        listed.contains("3 of 3 values cannot be opened")
            && listed.contains("auth/bearer_token of integration ehr"),
        "{listed}"
    );
    private(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n");
    let (found, code) = doctor(folder.path(), &[]);
    assert_eq!(
        (problems(&found)[0].0, problems(&found)[0].1, code),
        ("master key", "the database was used with another key", 1)
    );
    private(&key, &kept);
    assert!(files(folder.path()) == before, "the doctor changes no file");
}

#[test]
fn the_doctor_sees_files_that_others_can_use() {
    let server = serve(place(), &[]);
    let folder = folder_of(server);
    let open = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open("ward.key", 0o644);
    open("ward.db", 0o640);
    std::fs::write(
        folder.path().join("ward.toml"),
        "bootstrap = 'token'\nbootstrap_token = 'a-token-of-24-characters'",
    )
    .unwrap();
    open("ward.toml", 0o644);
    let (found, code) = doctor(folder.path(), &["--config", "ward.toml"]);
    let checks: Vec<_> =
        problems(&found).iter().map(|(check, _, action)| (*check, action.contains("chmod 600"))).collect();
    assert_eq!(
        (checks, code),
        (vec![("settings file", true), ("key file", false), ("permissions", true)], 1)
    );
    for name in ["ward.key", "ward.db", "ward.toml"] {
        open(name, 0o600);
    }
    assert_eq!(doctor(folder.path(), &["--config", "ward.toml"]).1, 0);
}

both!(the_doctor_names_a_database_that_is_not_there_or_not_migrated, blocking);
fn the_doctor_names_a_database_that_is_not_there_or_not_migrated() {
    let folder = place();
    let (url, flag) = if Engine::is_postgres() {
        ("postgres://ward@127.0.0.1:1/ward", "schema")
    } else {
        std::fs::write(folder.path().join("ward.db"), "").unwrap();
        std::fs::set_permissions(
            folder.path().join("ward.db"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        ("sqlite:elsewhere.db", "schema")
    };
    let (found, code) = doctor(folder.path(), &["--database", url]);
    assert_eq!((problems(&found)[0].0, code), ("database", 1), "{found:?}");
    let (found, code) = doctor(folder.path(), &[]);
    assert_eq!((problems(&found)[0].0, code), (flag, 1), "{found:?}");
    assert!(problems(&found)[0].2.contains("ward migrate"), "{found:?}");
    assert!(!folder.path().join("elsewhere.db").exists());
}

postgres_only!(a_database_that_is_not_in_utf_8_is_refused_at_the_start, blocking);
fn a_database_that_is_not_in_utf_8_is_refused_at_the_start() {
    let folder = place();
    let database = ward_test_db::postgres::shared().database();
    database
        .run("CREATE DATABASE in_latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    let (server, _) = database.url.rsplit_once('/').unwrap();
    let url = format!("{server}/in_latin1");
    let refused =
        ward(folder.path(), &[&["serve"][..], &QUIET].concat()).env("WARD_DATABASE", &url).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(said.contains("LATIN1") && said.contains("ENCODING 'UTF8'"), "{said}");
    let (found, _) = doctor(folder.path(), &["--database", &url]);
    assert!(problems(&found).iter().any(|(check, _, _)| *check == "encoding"), "{found:?}");
    database.run("DROP DATABASE in_latin1");
}

both!(a_ward_of_one_region_makes_its_workspaces_there_and_the_doctor_names_others, blocking);
fn a_ward_of_one_region_makes_its_workspaces_there_and_the_doctor_names_others() {
    let server = serve(place(), &[]);
    Tenant::new(server.address, "elsewhere");
    let folder = folder_of(server);
    let settings = folder.path().join("ward.toml");
    std::fs::write(&settings, "region = 'eu-central-1'").unwrap();
    let made = printed(folder.path(), &["workspace", "create", "acme", "--config", "ward.toml"]);
    assert_eq!(made["region"], "eu-central-1");
    let (found, code) = doctor(folder.path(), &["--config", "ward.toml"]);
    let [(check, message, _)] = problems(&found)[..] else { panic!("{found:?}") };
    assert_eq!((check, code), ("regions", 1));
    assert!(message.contains("1 of 2") && message.contains("elsewhere (us-east-1)"), "{message}");
}
