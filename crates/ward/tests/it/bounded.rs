//! The work of a write does not grow with what a tenant has: ends hold with their commit, and their rows follow in steps.

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::workspaces::operator::restore;
use ward_test::{Actor, Cost, Engine, both, new_workspace};

use super::members::Shared;

const MANY: u32 = 5_000;
/// More than a write closes by itself.
const SOME: u32 = 30;

/// Inserts `count` rows that are numbered `i`; `$ID` is an id made of the number and `$WS` the shared workspace.
async fn plant(shared: &Shared, count: u32, table: &str, columns: &str, values: &str) {
    let (id, bytes) = match Engine::current() {
        Engine::Sqlite => ("unhex(printf('%08x000040008000%012x', i, i))", "CAST('' AS blob)"),
        Engine::Postgres => (
            "CAST(lpad(to_hex(i), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(i), 12, '0') AS uuid)",
            "CAST('' AS bytea)",
        ),
    };
    let numbers =
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let sql = match Engine::current() {
        Engine::Sqlite => format!("INSERT INTO {table} ({columns}) {numbers} SELECT {values} FROM n"),
        Engine::Postgres => format!("{numbers} INSERT INTO {table} ({columns}) SELECT {values} FROM n"),
    };
    let sql = sql
        .replace("$WS", &format!("uuid '{}'", shared.id))
        .replace("$NOW", "timestamptz '2026-01-01T00:00:00.000000Z'")
        .replace("$LATER", "timestamptz '2100-01-01T00:00:00.000000Z'")
        .replace("$ID", id)
        .replace("$BYTES", bytes);
    assert_eq!(shared.server.sql(sql).await, u64::from(count), "{table}");
}

/// Gives a member so many open invitations for a role.
async fn plant_invitations(shared: &Shared, maker: &str, role: &str, count: u32) {
    let values = format!(
        "$WS, $ID, 'h{maker}{role}' || i, '{role}', uuid '{maker}', i + (SELECT count(*) FROM invitations), $LATER, $NOW"
    );
    let values = values.replace("$ID", &fresh_id(count));
    let columns =
        "workspace_id, id, secret_hash, role, created_by_entity_id, position, expires_at, created_at";
    plant(shared, count, "invitations", columns, &values).await;
}

/// An id that no other planting of another size has.
fn fresh_id(size: u32) -> String {
    let size = size % 0x1_0000;
    match Engine::current() {
        Engine::Sqlite => format!("unhex(printf('%08x00004000{size:04x}%012x', i, i))"),
        Engine::Postgres => format!(
            "CAST(lpad(to_hex(i), 8, '0') || '-0000-4000-{size:04x}-' || lpad(to_hex(i), 12, '0') AS uuid)"
        ),
    }
}

/// Gives a member so many keys of the workspace.
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

async fn invite(shared: &Shared, by: &Actor, role: &str) -> Value {
    by.post(&shared.path("/invitations"), json!({ "role": role })).await.expect(StatusCode::CREATED)
}

async fn refuses(shared: &Shared, link: &Value) {
    let stranger = shared.server.person(&shared.issuer, "stranger");
    let accept = json!({ "invitation": link["invitation"] });
    let refused = stranger.post("/v1/invitations/accept", accept).await.refused(404);
    assert_eq!(refused, "invitation_not_found");
}

async fn key_of(shared: &Shared, member: &Actor) -> (Actor, Value) {
    let body = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    let minted = member.post(&format!("/v1/{}/api-keys", shared.id), body).await.expect(StatusCode::CREATED);
    (shared.server.bearing(minted["api_key"].as_str().unwrap()), minted["key_id"].clone())
}

async fn total(by: &Actor, path: &str) -> Value {
    by.get(path).await.expect(StatusCode::OK)["total"].clone()
}

async fn open_rows(shared: &Shared, table: &str, whose: &str, of: &str) -> i64 {
    shared
        .server
        .count(format!("SELECT count(*) FROM {table} WHERE {whose} = uuid '{of}' AND position > 0"))
        .await
}

both!(a_member_with_many_invitations_and_keys_goes_at_once_and_as_cheaply_as_one_with_few);
async fn a_member_with_many_invitations_and_keys_goes_at_once_and_as_cheaply_as_one_with_few() {
    let (shared, ada) = Shared::new().await;
    let (invitations, keys) = (shared.path("/invitations"), format!("/v1/{}/api-keys", shared.id));
    let mut costs = Vec::new();
    let mut gone = Vec::new();
    for (name, count) in [("one", 0), ("some", SOME), ("many", MANY)] {
        let (member, id) = shared.member(&ada, name, "admin").await;
        if count > 0 {
            plant_invitations(&shared, &id, "viewer", count).await;
            plant_keys(&shared, &id, count).await;
        }
        let (key, _) = key_of(&shared, &member).await;
        let link = invite(&shared, &member, "viewer").await;
        key.get(&shared.path("")).await.expect(StatusCode::OK);
        let (removed, cost) = shared.server.costs(shared.remove(&ada, &id)).await;
        assert_eq!(removed.status, StatusCode::NO_CONTENT);
        costs.push(cost);
        // Nothing of the member's is of use from then on, and no list shows it.
        key.get(&shared.path("")).await.refused(401);
        refuses(&shared, &link).await;
        // Where more rows wait to be closed than a page looks at, there is no total, and the page is short.
        for path in [&invitations, &keys] {
            let listed = ada.get(path).await.expect(StatusCode::OK);
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

    // Back again, the member has what is new and nothing of the old.
    let (many, id) = shared.member(&ada, "many", "admin").await;
    let (new_key, _) = key_of(&shared, &many).await;
    let new_link = invite(&shared, &many, "viewer").await;
    shared.server.app.sweep().await;
    for (id, key, link) in &gone {
        key.get(&shared.path("")).await.refused(401);
        refuses(&shared, link).await;
        assert_eq!(open_rows(&shared, "api_keys", "principal_id", id).await, i64::from(*id == gone[2].0));
    }
    new_key.get(&shared.path("")).await.expect(StatusCode::OK);
    assert_eq!(open_rows(&shared, "invitations", "created_by_entity_id", &id).await, 1);
    assert_eq!(shared.server.count("SELECT count(*) FROM endings").await, 0);
    let stranger = shared.server.person(&shared.issuer, "guest");
    let accept = json!({ "invitation": new_link["invitation"] });
    stranger.post("/v1/invitations/accept", accept).await.expect(StatusCode::CREATED);
    // The audit tells of every end, and who did it.
    let ended = "SELECT count(*) FROM audit_events WHERE action = 'invitation.revoke'";
    assert_eq!(shared.server.count(ended).await, i64::from(MANY + SOME + 3));
    let steps = ada.get(&format!("/v1/{}/audit?action=member.revoke_keys", shared.id)).await;
    let steps = steps.expect(StatusCode::OK);
    assert_eq!(steps["events"][0]["actor_entity_id"], super::members::entity(&ada).await);
    assert!(steps["events"][0]["metadata"]["revoked_key_ids"].as_array().unwrap().len() <= 200);
}

/// The rows of the long form; the suite has a tenth, for a million take minutes beside other tests.
fn most_rows() -> u32 {
    std::env::var("WARD_TEST_ROWS").map_or(100_000, |rows| rows.parse().expect("WARD_TEST_ROWS is a number"))
}

both!(the_first_commit_and_each_step_of_an_end_touch_few_rows_of_very_many);
async fn the_first_commit_and_each_step_of_an_end_touch_few_rows_of_very_many() {
    let rows = most_rows();
    let (shared, ada) = Shared::new().await;
    let mut costs = Vec::new();
    for (name, count) in [("some", SOME), ("very many", rows)] {
        let (member, id) = shared.member(&ada, name, "admin").await;
        plant_invitations(&shared, &id, "viewer", count).await;
        plant_keys(&shared, &id, count).await;
        let (key, _) = key_of(&shared, &member).await;
        let link = invite(&shared, &member, "viewer").await;
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
}

both!(a_lower_role_ends_the_invitations_that_take_a_higher_one_however_many);
async fn a_lower_role_ends_the_invitations_that_take_a_higher_one_however_many() {
    let (shared, ada) = Shared::new().await;
    let mut costs = Vec::new();
    for (name, count) in [("few", SOME), ("many", MANY)] {
        let (member, id) = shared.member(&ada, name, "owner").await;
        plant_invitations(&shared, &id, "owner", count).await;
        let few = |total: i64| if count == MANY { Value::Null } else { json!(total) };
        let (owners, admins) =
            (invite(&shared, &member, "owner").await, invite(&shared, &member, "admin").await);
        let (changed, to_admin) = shared.server.costs(shared.set_role(&ada, &id, "admin")).await;
        changed.expect(StatusCode::OK);
        refuses(&shared, &owners).await;
        // The role given back gives nothing else back.
        shared.set_role(&ada, &id, "owner").await.expect(StatusCode::OK);
        refuses(&shared, &owners).await;
        assert_eq!(total(&ada, &shared.path("/invitations")).await, few(1));
        let (changed, to_viewer) = shared.server.costs(shared.set_role(&ada, &id, "viewer")).await;
        changed.expect(StatusCode::OK);
        shared.set_role(&ada, &id, "owner").await.expect(StatusCode::OK);
        refuses(&shared, &admins).await;
        assert_eq!(total(&ada, &shared.path("/invitations")).await, few(0));
        costs.push((to_admin, to_viewer));
        shared.server.app.sweep().await;
        assert_eq!(open_rows(&shared, "invitations", "created_by_entity_id", &id).await, 0);
        invite(&shared, &member, "owner").await;
        shared.server.app.sweep().await;
        assert_eq!(open_rows(&shared, "invitations", "created_by_entity_id", &id).await, 1);
        shared.set_role(&ada, &id, "viewer").await.expect(StatusCode::OK);
    }
    assert_eq!(costs[0].0, costs[1].0);
}

both!(ownership_is_handed_over_as_cheaply_by_an_owner_of_many_invitations);
async fn ownership_is_handed_over_as_cheaply_by_an_owner_of_many_invitations() {
    let mut costs: Vec<Cost> = Vec::new();
    for count in [SOME, MANY] {
        let (shared, ada) = Shared::new().await;
        let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
        plant_invitations(&shared, &super::members::entity(&ada).await, "owner", count).await;
        let link = invite(&shared, &ada, "owner").await;
        let transfer = shared.path("/ownership-transfer");
        ada.post(&transfer, json!({ "entity_id": bea_id })).await.expect(StatusCode::CREATED);
        let accept = shared.path("/ownership-transfer/accept");
        let (accepted, cost) = shared.server.costs(bea.post(&accept, json!({}))).await;
        accepted.expect(StatusCode::OK);
        costs.push(cost);
        refuses(&shared, &link).await;
    }
    assert_eq!(costs[0], costs[1]);
}

/// The slugs in somebody's own list, and its total.
async fn own(actor: &Actor) -> (Vec<String>, Value) {
    let listed = actor.get("/v1/workspaces?limit=20").await.expect(StatusCode::OK);
    let me = actor.get("/v1/me").await.expect(StatusCode::OK);
    let items = listed["items"].as_array().unwrap().iter();
    let slugs: Vec<String> = items.map(|it| it["slug"].as_str().unwrap().to_owned()).collect();
    assert_eq!(me["memberships"]["items"].as_array().map(Vec::len), Some(slugs.len()), "{me:#}");
    (slugs, listed["total"].clone())
}

both!(a_workspace_of_many_members_is_archived_and_restored_at_once_and_as_cheaply_as_one_of_few);
async fn a_workspace_of_many_members_is_archived_and_restored_at_once_and_as_cheaply_as_one_of_few() {
    let mut costs = Vec::new();
    for count in [SOME, MANY] {
        let (shared, ada) = Shared::new().await;
        let (bea, _) = shared.member(&ada, "bea", "admin").await;
        bea.post("/v1/me/workspaces", new_workspace("other")).await.expect(StatusCode::CREATED);
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
        archived.expect(StatusCode::OK);
        key.get("/v1/me").await.refused(401);
        bea.get(&shared.path("")).await.refused(404);
        assert_eq!(own(&bea).await, (vec!["other".to_owned()], json!(1)));
        shared.server.app.sweep().await;
        assert_eq!(own(&bea).await, (vec!["other".to_owned()], json!(1)));
        let listed = "SELECT count(*) FROM memberships WHERE position > 0";
        assert_eq!(shared.server.count(listed).await, 1);

        let id = ward::ids::WorkspaceId::of_path(&shared.id);
        let context = ward::context::Context::of_operator(shared.server.clock.now());
        let restoring = shared.server.app.db.write("test.restore", move |tx| restore(tx, &context, id));
        let (restored, restoring) = shared.server.costs(restoring).await;
        assert!(restored.unwrap());
        key.get(&shared.path("")).await.expect(StatusCode::OK);
        shared.server.app.sweep().await;
        assert_eq!(own(&bea).await, (vec!["other".to_owned(), "shared".to_owned()], json!(2)));
        assert_eq!(shared.server.count("SELECT count(*) FROM endings").await, 0);
        costs.push((archiving, restoring));
    }
    assert_eq!(costs[0], costs[1]);
}

both!(a_workspace_restored_before_its_lists_were_done_is_listed_again_at_their_end);
async fn a_workspace_restored_before_its_lists_were_done_is_listed_again_at_their_end() {
    let (shared, ada) = Shared::new().await;
    let mut people = Vec::new();
    for number in 0..25 {
        people.push(shared.member(&ada, &format!("person-{number}"), "viewer").await.0);
    }
    for person in &people {
        person
            .post("/v1/me/workspaces", new_workspace(&ward_test::fresh_slug()))
            .await
            .expect(StatusCode::CREATED);
    }
    shared.server.clock.advance(std::time::Duration::from_secs(1));
    ada.post(&shared.path("/archive"), json!({ "slug": "shared" })).await.expect(StatusCode::OK);
    for person in &people {
        assert_eq!(own(person).await.0.len(), 1);
    }
    ward::operator::restore_workspace(&shared.server.app, "shared").await.unwrap();
    for person in &people {
        let (slugs, total) = own(person).await;
        assert_eq!((slugs.len(), slugs[1].as_str(), total), (2, "shared", json!(2)));
    }
}
