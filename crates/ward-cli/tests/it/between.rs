//! Connections between Ward and its database: a pooler, and a network that fails at the worst time.

use std::collections::HashSet;

use serde_json::json;
use ward_test_db::postgres::{Pooler, shared};
use ward_test_db::postgres_only;
use ward_test_db::proxy::Proxy;

use crate::client::Call;
use crate::fleet::{Tenant, at_once, new_workspace, replica, tally};

postgres_only!(a_commit_whose_answer_was_lost_is_told_as_unknown_and_repeated_once, blocking);
fn a_commit_whose_answer_was_lost_is_told_as_unknown_and_repeated_once() {
    let (proxy, database) = (Proxy::start(shared()), shared().database());
    let through = format!("postgres://ward@127.0.0.1:{}/{}", proxy.port, database.name);
    // The other replica has an ordinary connection: only one replica's network fails.
    let servers = [replica(&through, "127.0.0.1:0", 0), replica(&database.url, "127.0.0.1:0", 0)];
    let [at, other] = servers.each_ref().map(|server| server.address);
    let tenant = Tenant::new(at, "acme");
    let mint = json!({ "duration_days": 30, "role": "viewer", "name": "cut-mint" });
    for (index, (word, call, rows)) in [
        (
            "cut-open",
            Call::post("/v1/workspaces", new_workspace("cut-open")),
            "slugs WHERE slug = 'cut-open'",
        ),
        (
            "cut-self",
            Call::post("/v1/me/workspaces", new_workspace("cut-self")).by(&tenant.key),
            "slugs WHERE slug = 'cut-self'",
        ),
        ("cut-mint", Call::post(tenant.keys(), mint).by(&tenant.key), "api_keys WHERE name = 'cut-mint'"),
    ]
    .into_iter()
    .enumerate()
    {
        let call = call.repeatable(format!("{word}-once-and-once-only"));
        let count = || database.number(&format!("SELECT count(*) FROM {rows}"));
        proxy.cut_after_commit_of(word);
        let lost = call.ask(at);
        assert_eq!((lost.status, lost.text("error_code")), (503, "outcome_unknown"), "{lost:?}");
        assert!(lost.has("retry-after"), "{lost:?}");
        assert_eq!((proxy.cuts(), count()), (index + 1, 1), "it was cut at another time");
        // The retry goes to the same replica, whose connection is gone, and to another one.
        let again = call.ask(at);
        assert!(again.status == 201 && again.has("idempotency-replayed"), "{again:?}");
        let elsewhere = call.ask(other);
        assert!(elsewhere.status == 201 && elsewhere.body == again.body, "{elsewhere:?}");
        assert_eq!(count(), 1, "it was done twice");
    }
}

postgres_only!(ward_serves_through_a_pooler_in_transaction_mode, blocking);
fn ward_serves_through_a_pooler_in_transaction_mode() {
    let (pooler, database) = (Pooler::start(shared(), 3), shared().database());
    let url = format!("postgres://ward@127.0.0.1:{}/{}?statement_cache=off", pooler.port, database.name);
    let servers = at_once(vec![0, 1], |_| replica(&url, "127.0.0.1:0", 0));
    let at = |index: usize| servers[index % 2].address;
    let tenant = Tenant::new(at(0), "acme");
    let answers = at_once((0..20).collect(), |index| {
        let create = Call::post("/v1/me/workspaces", new_workspace(&format!("own-{index}")));
        create.by(&tenant.key).repeatable(format!("own-{index}-once-and-once-only")).ask(at(index))
    });
    assert_eq!(tally(&answers, [201]), [20], "{}", pooler.log());
    let page = Call::get("/v1/workspaces?limit=20").by(&tenant.key).ask(at(1));
    let ids: HashSet<&str> =
        page.body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 20, "{page:?}");
    let minted = tenant.mint(at(0), "viewer");
    let key = minted.text("api_key");
    assert_eq!(Call::get("/v1/auth/me").by(key).ask(at(1)).status, 200);
    assert_eq!(
        Call::delete(format!("{}/{}", tenant.keys(), minted.text("key_id")))
            .by(&tenant.key)
            .ask(at(1))
            .status,
        204
    );
    assert_eq!(Call::get("/v1/auth/me").by(key).ask(at(0)).status, 401);
}
