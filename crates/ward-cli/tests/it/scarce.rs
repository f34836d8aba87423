//! Real servers on a PostgreSQL server with too few connections for all of them.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use ward_test_db::postgres::shared;
use ward_test_db::postgres_only;

use crate::client::Call;
use crate::fleet::{Tenant, at_once, replica};
use crate::support::Server;

const CLIENTS: usize = 30;

/// A database whose owner may have this many connections, and its URL.
fn limited(connections: u32) -> (ward_test_db::postgres::Database, String) {
    let database = shared().database();
    let role = format!("few_{}", database.name);
    shared().sql(format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT {connections}"));
    shared().sql(format!("ALTER DATABASE {} OWNER TO {role}", database.name));
    let url = database.url.replace("ward@", &format!("{role}@"));
    (database, url)
}

/// Sends one client's requests of a round; none of them may be refused.
fn round(server: &Server, tenant: &Tenant, client: usize) {
    let calls = [
        Call::get(format!("/v1/workspaces/{}", tenant.id)),
        Call::get("/v1/workspaces?limit=20"),
        Call::patch(format!("/v1/workspaces/{}", tenant.id), json!({ "name": format!("Name {client}") })),
        Call::get(format!("/v1/{}/audit", tenant.id)),
        Call::get("/v1/auth/me"),
    ];
    for call in calls {
        let answer = call.by(&tenant.key).ask(server.address);
        assert!(answer.status < 300, "client {client}: {answer:?}");
    }
}

postgres_only!(thirty_clients_are_served_over_three_connections, blocking);
fn thirty_clients_are_served_over_three_connections() {
    let (_database, url) = limited(3);
    let server = replica(&url, "127.0.0.1:0", 0);
    let tenant = Tenant::new(server.address, "acme");
    at_once((0..CLIENTS).collect(), |client| {
        for _ in 0..5 {
            round(&server, &tenant, client);
        }
    });
}

postgres_only!(a_rolling_deploy_with_twice_the_replicas_refuses_nothing, blocking);
fn a_rolling_deploy_with_twice_the_replicas_refuses_nothing() {
    let (_database, url) = limited(6);
    let old = [(); 2].map(|()| replica(&url, "127.0.0.1:0", 0));
    let tenant = Tenant::new(old[0].address, "acme");
    let deployed = AtomicBool::new(false);
    let new = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (old, tenant, deployed) = (&old, &tenant, &deployed);
            scope.spawn(move || {
                while !deployed.load(Ordering::Acquire) {
                    round(&old[client % 2], tenant, client);
                }
            });
        }
        let new = [(); 2].map(|()| {
            let new = replica(&url, "127.0.0.1:0", 0);
            assert_eq!(Call::get("/readyz").ask(new.address).status, 200);
            round(&new, &tenant, CLIENTS);
            new
        });
        deployed.store(true, Ordering::Release);
        new
    });
    let all = [&old[0], &old[1], &new[0], &new[1]];
    at_once((0..CLIENTS).collect(), |client| round(all[client % 4], &tenant, client));
}
