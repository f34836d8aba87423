//! The access policy of a workspace, for people who have locked themselves out.

use serde_json::{Value, json};
use ward_test_db::both;

use crate::client::Call;
use crate::support::{Server, run, text};

both!(a_command_shows_an_access_policy_and_lifts_parts_of_it, blocking);
fn a_command_shows_an_access_policy_and_lifts_parts_of_it() {
    let server = Server::start(&["--metrics-listen", "off"]);
    let ask = |arguments: &[&str]| -> Value {
        let done = run(server.folder.path(), &[arguments, &["--json"]].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let workspace = ask(&["workspace", "create", "acme"]);
    let key = ask(&["key", "issue", "acme", "--role", "owner", "--name", "first"]);
    let path = format!("/v1/workspaces/{}/access-policy", workspace["id"].as_str().unwrap());
    let key = key["api_key"].as_str().unwrap();
    let policy = json!({ "networks": ["127.0.0.0/8"], "issuers": [] });
    let set = Call::put(path.clone(), policy.clone()).by(key).attempt(server.address).unwrap();
    assert_eq!((set.status, &set.body), (200, &policy));
    assert_eq!(ask(&["workspace", "access", "acme"]), policy);
    assert_eq!(ask(&["workspace", "show", "acme"])["access_policy"], policy);
    assert_eq!(ask(&["workspace", "access", "acme", "--clear-issuers"]), policy);
    let open = json!({ "networks": [], "issuers": [] });
    assert_eq!(ask(&["workspace", "access", "acme", "--clear-networks"]), open);
    let shown = Call::get(path).by(key).attempt(server.address).unwrap();
    assert_eq!((shown.status, shown.body), (200, open));
    let nobody = run(server.folder.path(), &["workspace", "access", "nobody", "--clear-networks"]);
    assert!(!nobody.status.success(), "{nobody:?}");
}
