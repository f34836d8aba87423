//! The cost of a write does not grow with the size of a tenant. An end takes effect with its commit; its rows are
//! closed later, in steps.

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::audit::Write;
use ward::workspaces::operator::restore;
use ward_test::{Actor, Cost, Fields as _, both, new_workspace};

use super::members::{Shared, accept};
use crate::support::{insert_rows, row_id};

const MANY: u32 = 5_000;
/// More rows than a write closes by itself.
const SOME: u32 = 30;
/// The number of rows that one statement inserts.
const AT_ONCE: u32 = 50_000;

/// Inserts `count` rows numbered `i`. `$ID` is an id made from the number, and `$WS` is the shared workspace.
async fn plant(shared: &Shared, count: u32, table: &str, columns: &str, values: &str) {
    let values = values.replace("$WS", &format!("uuid '{}'", shared.id));
    // A million rows in one statement take longer than PostgreSQL's time limit.
    for first in (1..=count).step_by(AT_ONCE as usize) {
        let last = count.min(first + AT_ONCE - 1);
        insert_rows(&shared.server, first..=last, table, columns, &values).await;
    }
}

/// Gives a member `count` open invitations for a role.
async fn plant_invitations(shared: &Shared, maker: &str, role: &str, count: u32) {
    let values = format!(
        "$WS, $ID, 'h{maker}{role}' || i, '{role}', uuid '{maker}', i + (SELECT count(*) FROM invitations), $LATER, $NOW"
    );
    let values = values.replace("$ID", &fresh_id(count));
    let columns =
        "workspace_id, id, secret_hash, role, created_by_entity_id, position, expires_at, created_at";
    plant(shared, count, "invitations", columns, &values).await;
}

/// An id that rows of another `count` do not have.
fn fresh_id(count: u32) -> String {
    let count = count % 0x1_0000;
    row_id()
        .replace("40008000", &format!("4000{count:04x}"))
        .replace("4000-8000", &format!("4000-{count:04x}"))
}

/// Gives a member `count` keys of the workspace.
async fn plant_keys(shared: &Shared, member: &str, count: u32) {
    let values = format!(
        "'k{member}' || i, $ID, $WS, uuid '{member}', 'user', uuid '{member}', 'viewer', '[]', $BYTES, \
         i + (SELECT count(*) FROM api_keys), $LATER, $NOW, $NOW"
    );
    let values = values.replace("$ID", &fresh_id(count));
    let columns = "key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, role, permissions, \
                   secret_hash, position, expires_at, created_at, updated_at";
    plant(shared, count, "api_keys", columns, &values).await;
}

async fn refuses(shared: &Shared, link: &Value) {
    let stranger = shared.person("stranger");
    accept(&stranger, link).await.refused_as(404, "invitation_not_found");
}

async fn key_of(shared: &Shared, member: &Actor) -> (Actor, Value) {
    let body = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let minted = member.post(&shared.keys(), body).await.created();
    (shared.server.bearing(minted.text("api_key")), minted["key_id"].clone())
}

async fn total(by: &Actor, path: &str) -> Value {
    by.get(path).await.ok()["total"].clone()
}

async fn open_rows(shared: &Shared, table: &str, whose: &str, of: &str) -> i64 {
    shared
        .server
        .count(format!("SELECT count(*) FROM {table} WHERE {whose} = uuid '{of}' AND position > 0"))
        .await
}

both!(removing_a_member_costs_the_same_for_few_and_many_invitations_and_keys, async || {
    let (shared, ada) = Shared::new().await;
    let (invitations, keys) = (shared.path("/invitations"), shared.keys());
    let mut costs = Vec::new();
    let mut gone = Vec::new();
    for (name, count) in [("one", 0), ("some", SOME), ("many", MANY)] {
        let (member, id) = shared.member(&ada, name, "admin").await;
        if count > 0 {
            plant_invitations(&shared, &id, "viewer", count).await;
            plant_keys(&shared, &id, count).await;
        }
        let (key, _) = key_of(&shared, &member).await;
        let link = shared.invite(&member, json!({ "role": "viewer" })).await;
        key.get(&shared.path("")).await.ok();
        let (removed, cost) = shared.server.costs(shared.remove(&ada, &id)).await;
        assert_eq!(removed.status, StatusCode::NO_CONTENT);
        costs.push(cost);
        // From then on the member's keys and links are invalid, and no list shows them.
        key.get(&shared.path("")).await.refused(401);
        refuses(&shared, &link).await;
        // If more rows wait to be closed than one page reads, the answer has no total and a short page.
        for path in [&invitations, &keys] {
            let listed = ada.get(path).await.ok();
            assert_eq!(listed["items"], json!([]), "{name}");
            assert_eq!(listed["has_more"], name == "many", "{name}");
            assert_eq!(listed["total"], if name == "many" { Value::Null } else { json!(0) }, "{name}");
        }
        gone.push((id, key, link));
    }
    let [one, some, many] = costs.try_into().unwrap();
    assert_eq!(some, many);
    assert!(many.statements <= one.statements + 60, "{one:?} {many:?}");
    assert!(open_rows(&shared, "invitations", "created_by_entity_id", &gone[2].0).await > 4_900);

    // After a return the member has the new key and link, and none of the old ones.
    let (many, id) = shared.member(&ada, "many", "admin").await;
    let (new_key, _) = key_of(&shared, &many).await;
    let new_link = shared.invite(&many, json!({ "role": "viewer" })).await;
    shared.server.app.sweep().await;
    for (id, key, link) in &gone {
        key.get(&shared.path("")).await.refused(401);
        refuses(&shared, link).await;
        assert_eq!(open_rows(&shared, "api_keys", "principal_id", id).await, i64::from(*id == gone[2].0));
    }
    new_key.get(&shared.path("")).await.ok();
    assert_eq!(open_rows(&shared, "invitations", "created_by_entity_id", &id).await, 1);
    assert_eq!(shared.server.count("SELECT count(*) FROM endings").await, 0);
    let stranger = shared.person("guest");
    accept(&stranger, &new_link).await.created();
    // The audit names every end and its actor.
    let ended = "SELECT count(*) FROM audit_events WHERE action = 'invitation.revoke'";
    assert_eq!(shared.server.count(ended).await, i64::from(MANY + SOME + 3));
    let steps = ada.get(&format!("/v1/{}/audit?action=member.revoke_keys", shared.id)).await.ok();
    assert_eq!(steps["events"][0]["actor_entity_id"], super::members::entity(&ada).await);
    assert!(steps["events"][0]["metadata"].list("revoked_key_ids").len() <= 200);
});

/// The rows of the long form; the suite has a tenth, for a million take minutes beside other tests.
fn most_rows() -> u32 {
    std::env::var("WARD_TEST_ROWS").map_or(100_000, |rows| rows.parse().expect("WARD_TEST_ROWS is a number"))
}

both!(the_first_commit_and_each_step_of_an_end_touch_few_rows_of_very_many, async || {
    let rows = most_rows();
    let (shared, ada) = Shared::new().await;
    // The insertion of a million rows takes longer than an access token is valid.
    shared.server.clock.stop_at(shared.server.clock.now());
    let mut costs = Vec::new();
    for (name, count) in [("some", SOME), ("very many", rows)] {
        let (member, id) = shared.member(&ada, name, "admin").await;
        plant_invitations(&shared, &id, "viewer", count).await;
        plant_keys(&shared, &id, count).await;
        let (key, _) = key_of(&shared, &member).await;
        let link = shared.invite(&member, json!({ "role": "viewer" })).await;
        let open = |table: &'static str, whose: &'static str| open_rows(&shared, table, whose, &id);
        let before =
            open("invitations", "created_by_entity_id").await + open("api_keys", "principal_id").await;
        assert_eq!(before, 2 * i64::from(count) + 2);
        let (removed, cost) = shared.server.costs(shared.remove(&ada, &id)).await;
        assert_eq!(removed.status, StatusCode::NO_CONTENT);
        let after =
            open("invitations", "created_by_entity_id").await + open("api_keys", "principal_id").await;
        costs.push((cost, before - after));
        key.get(&shared.path("")).await.refused(401);
        refuses(&shared, &link).await;
        // The steps that follow are bounded too, whatever is left.
        if count == rows {
            let now = shared.server.clock.now();
            let step = shared.server.app.db.write("test.close", move |tx| ward::closing::close_some(tx, now));
            let (goes_on, step) = shared.server.costs(step).await;
            assert!(goes_on.unwrap(), "there is more to close");
            let left =
                open("invitations", "created_by_entity_id").await + open("api_keys", "principal_id").await;
            assert!(left < after && after - left <= 500, "{after} {left}");
            assert!(step.statements < 3_000, "{step:?}");
        } else {
            shared.server.app.sweep().await;
        }
    }
    assert_eq!(costs[0], costs[1]);
});

both!(a_lower_role_ends_any_number_of_invitations_that_need_a_higher_one, async || {
    let (shared, ada) = Shared::new().await;
    let mut costs = Vec::new();
    for (name, count) in [("few", SOME), ("many", MANY)] {
        let (member, id) = shared.member(&ada, name, "owner").await;
        plant_invitations(&shared, &id, "owner", count).await;
        let few = |total: i64| if count == MANY { Value::Null } else { json!(total) };
        let (owners, admins) = (
            shared.invite(&member, json!({ "role": "owner" })).await,
            shared.invite(&member, json!({ "role": "admin" })).await,
        );
        let (changed, to_admin) = shared.server.costs(shared.set_role(&ada, &id, "admin")).await;
        changed.ok();
        refuses(&shared, &owners).await;
        // Restoring the role does not restore the invitations.
        shared.set_role(&ada, &id, "owner").await.ok();
        refuses(&shared, &owners).await;
        assert_eq!(total(&ada, &shared.path("/invitations")).await, few(1));
        let (changed, to_viewer) = shared.server.costs(shared.set_role(&ada, &id, "viewer")).await;
        changed.ok();
        shared.set_role(&ada, &id, "owner").await.ok();
        refuses(&shared, &admins).await;
        assert_eq!(total(&ada, &shared.path("/invitations")).await, few(0));
        costs.push((to_admin, to_viewer));
        shared.server.app.sweep().await;
        assert_eq!(open_rows(&shared, "invitations", "created_by_entity_id", &id).await, 0);
        shared.invite(&member, json!({ "role": "owner" })).await;
        shared.server.app.sweep().await;
        assert_eq!(open_rows(&shared, "invitations", "created_by_entity_id", &id).await, 1);
        shared.set_role(&ada, &id, "viewer").await.ok();
    }
    assert_eq!(costs[0].0, costs[1].0);
});

both!(handing_over_ownership_costs_the_same_for_few_and_many_invitations, async || {
    let mut costs: Vec<Cost> = Vec::new();
    for count in [SOME, MANY] {
        let (shared, ada) = Shared::new().await;
        let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
        plant_invitations(&shared, &super::members::entity(&ada).await, "owner", count).await;
        let link = shared.invite(&ada, json!({ "role": "owner" })).await;
        let transfer = shared.path("/ownership-transfer");
        ada.post(&transfer, json!({ "entity_id": bea_id })).await.created();
        let accept = shared.path("/ownership-transfer/accept");
        let (accepted, cost) = shared.server.costs(bea.post(&accept, json!({}))).await;
        accepted.ok();
        costs.push(cost);
        refuses(&shared, &link).await;
    }
    assert_eq!(costs[0], costs[1]);
});

/// The slugs in the actor's own list, and its total.
async fn own(actor: &Actor) -> (Vec<String>, Value) {
    let listed = actor.get("/v1/workspaces?limit=20").await.ok();
    let me = actor.get("/v1/me").await.ok();
    let items = listed.list("items").iter();
    let slugs: Vec<String> = items.map(|it| it.text("slug").to_owned()).collect();
    assert_eq!(me["memberships"]["items"].as_array().map(Vec::len), Some(slugs.len()), "{me:#}");
    (slugs, listed["total"].clone())
}

both!(archiving_and_restoring_cost_the_same_for_few_and_many_members, async || {
    let mut costs = Vec::new();
    for count in [SOME, MANY] {
        let (shared, ada) = Shared::new().await;
        let (bea, _) = shared.member(&ada, "bea", "admin").await;
        bea.post("/v1/me/workspaces", new_workspace("other")).await.created();
        plant(&shared, count, "principals", "id, kind, last_position, created_at", "$ID, 'user', 7, $NOW")
            .await;
        let columns = "workspace_id, principal_id, role, position, seat, created_at";
        plant(&shared, count, "memberships", columns, "$WS, $ID, 'viewer', 7, i, $NOW").await;
        plant(&shared, count, "seats", "workspace_id, seat, principal_id", "$WS, i, $ID").await;
        let (key, _) = key_of(&shared, &bea).await;
        assert_eq!(own(&bea).await, (vec!["shared".to_owned(), "other".to_owned()], json!(2)));

        let path = shared.path("/archive");
        let archive = ada.post(&path, json!({ "slug": "shared" }));
        let (archived, archiving) = shared.server.costs(archive).await;
        archived.ok();
        key.get("/v1/me").await.refused(401);
        bea.get(&shared.path("")).await.refused(404);
        assert_eq!(own(&bea).await, (vec!["other".to_owned()], json!(1)));
        shared.server.app.sweep().await;
        assert_eq!(own(&bea).await, (vec!["other".to_owned()], json!(1)));
        assert_eq!(shared.server.count("SELECT count(*) FROM memberships WHERE position > 0").await, 1);

        let id = ward::ids::WorkspaceId::of_path(&shared.id);
        let context = ward::context::Context::of_operator(shared.server.clock.now());
        let restoring = shared.server.app.db.write("test.restore", move |tx| {
            restore(&mut Write::begin(tx, id, ward::audit::Actor::OPERATOR, &context)?)
        });
        let (restored, restoring) = shared.server.costs(restoring).await;
        assert!(restored.unwrap());
        key.get(&shared.path("")).await.ok();
        shared.server.app.sweep().await;
        assert_eq!(own(&bea).await, (vec!["other".to_owned(), "shared".to_owned()], json!(2)));
        assert_eq!(shared.server.count("SELECT count(*) FROM endings").await, 0);
        costs.push((archiving, restoring));
    }
    assert_eq!(costs[0], costs[1]);
});

both!(a_workspace_restored_early_is_listed_again_at_the_end_of_each_list, async || {
    let (shared, ada) = Shared::new().await;
    let mut people = Vec::new();
    for number in 0..25 {
        people.push(shared.member(&ada, &format!("person-{number}"), "viewer").await.0);
    }
    for person in &people {
        person.post("/v1/me/workspaces", new_workspace(&ward_test::fresh_slug())).await.created();
    }
    shared.server.clock.advance(std::time::Duration::from_secs(1));
    ada.post(&shared.path("/archive"), json!({ "slug": "shared" })).await.ok();
    for person in &people {
        assert_eq!(own(person).await.0.len(), 1);
    }
    ward::operator::restore_workspace(&shared.server.app, "shared").await.unwrap();
    // The command returns at once. The server closes the endings of all workspaces.
    assert_eq!(shared.server.count("SELECT count(*) FROM endings").await, 1);
    ada.get(&shared.path("")).await.ok();
    shared.server.app.sweep().await;
    assert_eq!(shared.server.count("SELECT count(*) FROM endings").await, 0);
    for person in &people {
        let (slugs, total) = own(person).await;
        assert_eq!((slugs.len(), slugs[1].as_str(), total), (2, "shared", json!(2)));
    }
});
