//! `ward db copy`: from a file to a server without loss.

use std::io::Write as _;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use ward_test_db::postgres::{Database, shared};
use ward_test_db::postgres_only;

use crate::client::Call;
use crate::fleet::{MASTER_KEY, Tenant, new_key, new_workspace, replica};
use crate::support::{Server, text, ward};

const REPEAT: &str = "sent-again-after-the-copy";

/// A server on a file of its own.
fn small() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ward(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    command.env("WARD_MASTER_KEY", MASTER_KEY);
    Server::of(command, folder)
}

fn copy(folder: &Path, to: &str) -> Output {
    // The setting names the target, as an operator would do it whose URL holds a password.
    ward(folder, &["db", "copy", "--from", "sqlite:ward.db", "--json"])
        .env("WARD_DATABASE", to)
        .env("WARD_MASTER_KEY", MASTER_KEY)
        .output()
        .unwrap()
}

/// Fills every table through the API; returns the owner's tenant and the keys that must work afterwards.
fn fill(server: &Server) -> (Tenant, Vec<String>) {
    let at = server.address;
    let tenant = Tenant::new(at, "acme");
    let workspace = format!("/v1/workspaces/{}", tenant.id);
    let by_owner = |call: Call| {
        let answer = call.by(&tenant.key).ask(at);
        assert!((200..300).contains(&answer.status), "{answer:?}");
        answer
    };
    let mut keys = vec![tenant.key.clone()];
    for index in 0..520 {
        let name =
            if index % 2 == 0 { Value::Null } else { json!(format!("Schlüssel \"{index}\" 漢 \\ '")) };
        let key = json!({ "duration_days": 30, "role": "viewer", "name": name,
                          "permissions": if index % 3 == 0 { json!(["Workspace.view"]) } else { json!([]) } });
        let minted = by_owner(Call::post(tenant.keys(), key));
        if index % 200 == 0 {
            keys.push(minted.text("api_key").to_owned());
        }
    }
    by_owner(Call::post("/v1/me/workspaces", new_workspace("second")).repeatable(REPEAT));
    by_owner(Call::post(tenant.keys(), new_key("admin")).repeatable(REPEAT));
    by_owner(Call::patch(&*workspace, json!({ "connector_type": "fhir_store" })));
    by_owner(Call::post(format!("{workspace}/provision"), json!({})));
    let numbers = json!({ "numbers": ["+15550100", "+4915112345678"] });
    by_owner(Call::put(format!("{workspace}/test-caller-numbers"), numbers));
    by_owner(Call::put(format!("/v1/{}/leaked-key-policy", tenant.id), json!({ "action": "quarantine" })));
    by_owner(Call::put(format!("/v1/{}/key-policy", tenant.id), json!({ "ceiling_days": { "viewer": 60 } })));
    // A finished call creates a delivery for the connector, which waits for its settings.
    let calls = format!("/v1/{}/calls", tenant.id);
    for (sid, caller) in [("CA1", "+15550199"), ("CA2", "+15550100")] {
        let report = json!({ "status": "completed", "caller_id": caller, "direction": "inbound",
                             "duration_seconds": 61.25, "summary": "A refill was asked for." });
        by_owner(Call::put(format!("{calls}/{sid}"), report));
    }
    let account = json!({ "account_sid": format!("AC{}", "0".repeat(32)), "auth_token": "a-token-to-seal" });
    by_owner(Call::put(format!("/v1/{}/twilio", tenant.id), account));
    let bearer = json!({ "type": "bearer_token", "bearer_token_value": { "value": "a-bearer-to-seal" } });
    let own = json!({ "name": "own", "display_name": "Own", "base_url": "https://ehr.example.com", "auth": bearer });
    by_owner(Call::post(format!("/v1/{}/integrations", tenant.id), own));
    by_owner(Call::post(format!("{workspace}/invitations"), json!({ "role": "viewer" })));
    // One workspace waits for its claim, one refusal is audited, and one workspace is archived.
    assert_eq!(Call::post("/v1/workspaces", new_workspace("waiting")).ask(at).status, 201);
    let other_end = if tenant.key.ends_with('x') { 'y' } else { 'x' };
    assert_eq!(Call::get("/v1/auth/me").by(&format!("{}{other_end}", &tenant.key[..75])).ask(at).status, 401);
    let gone = Tenant::new(at, "going");
    let rename = json!({ "slug": "gone", "confirm_slug": "going" });
    let renamed = Call::post(format!("/v1/workspaces/{}/rename", gone.id), rename).by(&gone.key).ask(at);
    assert_eq!(renamed.status, 200, "{renamed:?}");
    let archive = Call::post(format!("/v1/workspaces/{}/archive", gone.id), json!({ "slug": "gone" }));
    assert!(archive.by(&gone.key).ask(at).status < 300);
    (tenant, keys)
}

/// Everything that an owner can see.
fn view(at: std::net::SocketAddr, tenant: &Tenant) -> Vec<Value> {
    let workspace = format!("/v1/workspaces/{}", tenant.id);
    let paths = [
        "/v1/workspaces".to_owned(),
        workspace.clone(),
        format!("{workspace}/test-caller-numbers"),
        format!("{}?limit=20", tenant.keys()),
        format!("/v1/{}/leaked-key-policy", tenant.id),
        format!("/v1/{}/integrations", tenant.id),
        format!("/v1/{}/audit?limit=100", tenant.id),
    ];
    let seen = paths.map(|path| {
        let mut answer = Call::get(&*path).by(&tenant.key).ask(at);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        // Reading changes only this field.
        for item in answer.body["items"].as_array_mut().into_iter().flatten() {
            item.as_object_mut().unwrap().remove("last_used_at");
        }
        answer.body
    });
    seen.into()
}

fn tables(done: &Output) -> Vec<(String, u64)> {
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    said.iter()
        .map(|row| (row["table"].as_str().unwrap().to_owned(), row["rows"].as_u64().unwrap()))
        .collect()
}

fn moved_out(mut server: Server) -> TempDir {
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    server.stopped();
    folder
}

fn unfinished(target: &Database) -> i64 {
    target.number("SELECT count(*) FROM schema_steps WHERE migration = 'unfinished copy'")
}

/// Tables that need more than this test's tenant: users of an identity provider, an EHR that answers, a
/// folder for exports, many expired rows, a limit set by an operator, a client with DPoP proofs, Twilio's list of calls. The same code copies them as the
/// others.
const NOT_FILLED: &[&str] = &[
    "audit_export_queue",
    "audit_exports",
    "call_corrections",
    "call_patients",
    "delivery_attempts",
    "delivery_matches",
    "dpop_proofs",
    "endings",
    "handovers",
    "identities",
    "legal_holds",
    "call_legs",
    "ownership_transfers",
    "test_credentials",
    "trust_rules",
    "twilio_reconciliations",
    "unclaimed_by_address",
];

postgres_only!(a_whole_installation_moves_up_and_goes_on, blocking);
fn a_whole_installation_moves_up_and_goes_on() {
    let server = small();
    let (tenant, keys) = fill(&server);
    let before = view(server.address, &tenant);
    let target = shared().database();

    let refused = copy(server.folder.path(), &target.url);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("another server"), "{}", text(&refused.stderr));
    let folder = moved_out(server);

    let copied = tables(&copy(folder.path(), &target.url));
    for (table, rows) in &copied {
        assert!(
            *rows > 0 || NOT_FILLED.contains(&table.as_str()),
            "{table} is empty: this test fills the others"
        );
        assert_eq!(target.number(&format!("SELECT count(*) FROM {table}")), i64::try_from(*rows).unwrap());
    }
    assert!(copied.contains(&("api_keys".to_owned(), 523)), "{copied:?}");
    assert_eq!(unfinished(&target), 0);

    let up = replica(&target.url, "127.0.0.1:0", 0);
    assert_eq!(view(up.address, &tenant), before);
    for key in &keys {
        assert_eq!(Call::get("/v1/auth/me").by(key).ask(up.address).status, 200);
    }
    // Answers from before the move are replayed after it, secrets included.
    for (path, body) in
        [("/v1/me/workspaces".to_owned(), new_workspace("second")), (tenant.keys(), new_key("admin"))]
    {
        let again = Call::post(path, body).by(&tenant.key).repeatable(REPEAT).ask(up.address);
        assert!(again.status == 201 && again.has("idempotency-replayed"), "{again:?}");
    }
    assert_eq!(Call::post("/v1/workspaces", new_workspace("gone")).ask(up.address).status, 409);
    tenant.mint(up.address, "viewer");

    let again = copy(folder.path(), &target.url);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(text(&again.stderr).contains("in use"), "{}", text(&again.stderr));
    assert_eq!(unfinished(&target), 0, "a refused copy marks nothing");
}

postgres_only!(a_copy_that_was_interrupted_is_not_served_and_is_begun_anew, blocking);
fn a_copy_that_was_interrupted_is_not_served_and_is_begun_anew() {
    let server = small();
    let (tenant, _) = fill(&server);
    let folder = moved_out(server);
    let target = shared().database();
    // A row blocks the last table but not the first ones, so the copy stops in between.
    let migrate = ward(folder.path(), &["migrate"])
        .env("WARD_DATABASE", &target.url)
        .env("WARD_MASTER_KEY", MASTER_KEY)
        .output()
        .unwrap();
    assert!(migrate.status.success(), "{migrate:?}");
    target.run(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'stop'; END $$",
    );
    target.run("CREATE TRIGGER stop BEFORE INSERT ON workspaces FOR EACH ROW EXECUTE FUNCTION stop()");
    let stopped = copy(folder.path(), &target.url);
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    assert!(target.number("SELECT count(*) FROM api_keys") > 0, "it stopped before it began");
    assert_eq!(unfinished(&target), 1);

    let served = ward(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .env("WARD_DATABASE", &target.url)
        .env("WARD_MASTER_KEY", MASTER_KEY)
        .output()
        .unwrap();
    assert_eq!(served.status.code(), Some(1), "half an installation is served");
    assert!(text(&served.stderr).contains("did not finish"), "{}", text(&served.stderr));

    target.run("DROP TRIGGER stop ON workspaces");
    tables(&copy(folder.path(), &target.url));
    let up = replica(&target.url, "127.0.0.1:0", 0);
    assert_eq!(Call::get("/v1/auth/me").by(&tenant.key).ask(up.address).status, 200);
}

postgres_only!(what_cannot_be_copied_is_said_and_touches_nothing, blocking);
fn what_cannot_be_copied_is_said_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = shared().database();
    let missing = copy(folder.path(), &target.url);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(text(&missing.stderr).contains("there is no database"), "{}", text(&missing.stderr));

    std::fs::File::create(folder.path().join("ward.db")).unwrap().flush().unwrap();
    let empty = copy(folder.path(), &target.url);
    assert!(text(&empty.stderr).contains("not at the same migration"), "{}", text(&empty.stderr));

    let to_a_file = copy(folder.path(), "sqlite:other.db");
    assert!(text(&to_a_file.stderr).contains("must be a PostgreSQL database"), "{}", text(&to_a_file.stderr));
}
