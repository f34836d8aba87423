//! Lists, errors and exit codes of `ward api`, its help and its completions.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use ward_test::{Server, both, unknown_key};

use super::{Person, Ran};
use crate::support::{WARD, text};

both!(a_list_is_a_table_or_json_and_goes_to_its_end, async || {
    let (server, tenant) = Server::with_tenant().await;
    for number in 0..12 {
        tenant.key(json!({ "duration_days": 9, "role": "viewer", "name": format!("key {number}") })).await;
    }
    let person = Person::at(&server.url(), tenant.owner.bearer.as_deref().unwrap(), &tenant.id);
    let page = person.run(&["api", "list-api-keys", "limit=5"]).await;
    let lines: Vec<&str> = page.out.lines().collect();
    assert_eq!(lines.len(), 6, "{page:?}");
    assert!(
        lines[0].contains("KEY_ID") && lines[0].contains("ROLE") && !lines[0].contains("PREVIOUS"),
        "{page:?}"
    );
    assert!(page.err.contains("continuation_token=") && page.err.contains("--all"), "{page:?}");
    let all = person.run(&["api", "list-api-keys", "limit=5", "--all"]).await;
    assert_eq!((all.out.lines().count(), all.err.as_str()), (14, ""), "{all:?}");
    let rows = person.run(&["api", "list-api-keys", "limit=5", "--all", "--json"]).await;
    let rows: Vec<Value> = rows.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: BTreeSet<&str> = rows.iter().map(|row| row["key_id"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), ids.len()), (13, 13));
    let page = person.run(&["api", "list-api-keys", "limit=5", "--json"]).await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["has_more"]), (5, &json!(true)));
    // The audit pages by offset.
    let events = person.run(&["api", "list-audit-events", "limit=4", "--all", "--json"]).await;
    let direct = tenant.audit().await;
    let events: BTreeSet<String> = events
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string())
        .collect();
    assert_eq!(events, direct.iter().map(|event| event["id"].to_string()).collect());
    // One thing is a list of its fields.
    let shown = person.run(&["api", "get-workspace"]).await;
    assert!(shown.out.lines().any(|line| line.split_whitespace().eq(["slug", "acme"])), "{shown:?}");
    let none = person.run(&["api", "get-workspace", "--all"]).await;
    assert!(none.exit == 2 && none.err.contains("has no pages"), "{none:?}");
});

both!(the_exit_code_says_what_kind_of_answer_it_was, async || {
    let (server, tenant) = Server::with_tenant().await;
    let key = tenant.owner.bearer.clone().unwrap();
    let person = Person::at(&server.url(), &key, &tenant.id);
    let run = async |arguments: &[&str]| person.run(&[&["api"], arguments, &["--json"]].concat()).await;
    run(&["set-leaked-key-policy", "action=quarantine"]).await.json();
    run(&["no-such-operation"]).await.failed(2, "usage");
    run(&["list-workspaces", "limti=5"]).await.failed(2, "usage");
    run(&["get-trust-rule", "rule_id=019ad7a1-8c3e-7d20-a1f4-6b0c9d2e5f18"])
        .await
        .failed(4, "trust_rule_not_found");
    run(&["create-my-workspace", "slug=acme", "name=n", "environment=production"])
        .await
        .failed(5, "slug_taken");
    let invalid = run(&["create-my-workspace", "slug=A B", "environment=none"]).await;
    invalid.failed(6, "invalid");
    let because = invalid.error()["because"].to_string();
    assert!(["slug: ", "name: ", "environment: "].iter().all(|field| because.contains(field)), "{because}");
    let viewer = tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await.0;
    let viewer = Person::at(&server.url(), viewer.bearer.as_deref().unwrap(), &tenant.id);
    let refused = viewer.run(&["api", "list-invitations", "--json"]).await;
    refused.failed(3, "forbidden");
    assert!(refused.err.contains("Workspace.update"), "{refused:?}");
    let nobody = Person::at(&server.url(), &unknown_key(), &tenant.id);
    assert_eq!(nobody.run(&["api", "get-me", "--json"]).await.exit, 3);
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let silent = Person::at(&format!("http://{silent}"), &key, &tenant.id);
    silent.run(&["api", "get-me", "--json", "--repeats", "0"]).await.failed(8, "no_answer");
    let nowhere = Person::new().run(&["api", "get-me", "--json"]).await;
    nowhere.failed(2, "usage");
    assert!(nowhere.err.contains("ward login"), "{nowhere:?}");
    // No output of a failure has the key.
    for ran in [refused, invalid] {
        assert!(!ran.err.contains(&key[27..]), "{ran:?}");
    }
});

#[test]
fn help_and_completions_know_operations_and_parameters() {
    let person = Person::new();
    let help = |arguments: &[&str]| -> Ran { person.command(arguments).output().unwrap().into() };
    let list = help(&["api", "--help"]);
    assert!(list.out.contains("list-workspaces") && list.out.contains("Exit codes"), "{list:?}");
    let one = help(&["api", "create-api-key", "--help"]);
    for part in ["POST /v1/{workspace_id}/api-keys", "ApiKey.create", "duration_days", "integer, required"] {
        assert!(one.out.contains(part), "{part}: {one:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Command::new(WARD).args(["completions", "bash"]).output().unwrap();
    std::fs::write(folder.path().join("ward.bash"), &script.stdout).unwrap();
    let complete = |words: &str| {
        let line = format!(
            "compopt() {{ echo \"compopt $*\"; }}; source ward.bash; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _ward_with_values ward \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let done =
            Command::new("bash").current_dir(folder.path()).args(["--norc", "-c", &line]).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("ward api list-work"), ["list-workspaces"]);
    assert_eq!(complete("ward api list-workspaces li"), ["compopt -o nospace", "limit="]);
    assert!(complete("ward api create-trust-rule con").contains(&"conditions:=".to_owned()));
    for shell in ["zsh", "fish"] {
        let script = Command::new(WARD).args(["completions", shell]).output().unwrap();
        assert!(text(&script.stdout).contains("continuation_token"), "{shell}");
    }
}
