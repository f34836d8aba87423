//! The model of workspaces, from creation to archive, and of their test callers.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::protection::allows;
use super::rules::{A_SERVICE, Caller, FORBIDDEN, Good, No, OWNER, Outcome, QUARANTINED, Request};
use super::steps::{Page, Step};
use super::world::{Integration, Member, State, Workspace, World, entity_id, workspace_id};

const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];
const REGIONS: [&str; 4] = ["us-east-1", "ap-southeast-2", "eu-central-1", "ca-central-1"];
/// The hours after which an unclaimed workspace lapses.
const LAPSES_AFTER: i64 = 24;

/// The seeds of some connectors: protocol, base URL, and the resource that the EHR gets for a call.
pub const CONNECTORS: [(&str, &str, &str, Option<&str>); 4] = [
    ("hubspot", "rest", "https://api.hubapi.com", Some("HubSpot call")),
    ("epic", "fhir", "https://{host}/{instance}/api/FHIR/R4", Some("FHIR DocumentReference")),
    ("meditab", "fhir", "", None),
    (
        "athenahealth",
        "rest",
        "https://api.platform.athenahealth.com/v1/{practiceid}",
        Some("athenahealth patient case"),
    ),
];

fn post(path: impl Into<String>, body: Value) -> Request {
    Request { method: Method::POST, path: path.into(), body: Some(body) }
}

fn get(path: impl Into<String>) -> Request {
    Request { method: Method::GET, path: path.into(), body: None }
}

pub fn created(at: usize) -> String {
    format!("?t:workspace{at}.created")
}

/// The symbol of a change that this request makes.
pub fn changed(world: &World, what: &str) -> String {
    format!("?t:{what}.changed{}", world.requests)
}

pub fn show(world: &World, at: usize) -> Value {
    shown(at, &world.workspaces[at])
}

fn shown(at: usize, it: &Workspace) -> Value {
    json!({
        "id": workspace_id(at), "slug": it.slug, "name": it.name, "environment": it.environment,
        "backend_org_id": it.org, "region": it.region, "connector_type": it.connector,
        "provisioned_at": it.provisioned, "created_at": created(at), "updated_at": it.updated,
    })
}

/// The body that creates a workspace, and the workspace.
fn new_workspace(world: &World, slug: u8, org: bool, region: u8) -> (Value, Workspace) {
    let at = world.workspaces.len();
    let slug = if slug == 11 { "Not A Slug".to_owned() } else { format!("slug-of-{slug:02}") };
    let (name, org) =
        (format!("Name-{:06}", world.requests), org.then(|| format!("org-{:06}", world.requests)));
    let mut body = json!({ "slug": slug, "name": format!("  {name} "), "environment": "staging" });
    if let Some(org) = &org {
        body["backend_org_id"] = json!(org);
    }
    if region > 0 {
        body["region"] = json!(REGIONS[usize::from(region) - 1]);
    }
    let new = Workspace {
        slug,
        name,
        environment: "staging",
        region: REGIONS[usize::from(region.max(1)) - 1],
        org,
        connector: None,
        state: State::Unclaimed,
        lapses: world.hours + LAPSES_AFTER,
        updated: created(at),
        provisioned: None,
        test_callers: vec![],
        list_version: 0,
        twilio: None,
        transfer: None,
        events: vec![],
        calls: (0, 0),
        ceilings: [None; 5],
        quarantines: false,
        networks: 0,
    };
    (body, new)
}

/// The 422 and 409 of a new workspace. An unclaimed workspace with this slug lapses if it is due.
fn may_begin(world: &World, new: &Workspace) -> Result<(), No> {
    if new.slug.contains(' ') {
        return Err(No::Values(vec!["body.slug".to_owned()]));
    }
    match world.slugs.get(&new.slug).map(|holder| &world.workspaces[*holder]) {
        Some(holder) if holder.state != State::Unclaimed || holder.lapses > world.hours => {
            Err(No::Because(409, "slug_taken"))
        }
        _ => Ok(()),
    }
}

fn begin(world: &mut World, new: Workspace, actor: Option<(usize, usize)>) -> usize {
    let at = world.workspaces.len();
    if let Some(former) = world.slugs.insert(new.slug.clone(), at) {
        world.workspaces[former].state = State::Lapsed;
    }
    world.workspaces.push(new);
    world.note(at, actor, ("workspaces", "workspace.create", "workspace"), Some(workspace_id(at)));
    at
}

pub fn bootstrap(world: &World, slug: u8, org: bool, region: u8) -> (Request, Outcome) {
    let at = world.workspaces.len();
    let (body, new) = new_workspace(world, slug, org, region);
    let outcome = may_begin(world, &new).map(|()| {
        Good::created(shown(at, &new)).near(created(at), 0).shows(at).then(move |world| {
            begin(world, new, None);
        })
    });
    (post("/v1/workspaces", body), outcome)
}

pub fn own(world: &World, step: &Step, slug: u8, mine: bool) -> (Request, Outcome) {
    let at = world.workspaces.len();
    let (body, mut new) = new_workspace(world, slug, false, 0);
    new.state = State::Active;
    let outcome = || -> Outcome {
        let Caller { key, who, reach } = world.actor(step)?;
        if !reach.has("Workspace.create") {
            return Err(FORBIDDEN);
        }
        if !world.principals[who].is_user {
            return Err(A_SERVICE);
        }
        may_begin(world, &new)?;
        Ok(Good::created(shown(at, &new)).near(created(at), 0).shows(at).then(move |world| {
            let at = begin(world, new, Some((who, key)));
            world.members.push(Member { workspace: at, who, role: OWNER, gone: false });
        }))
    };
    let path = if mine { "/v1/me/workspaces" } else { "/v1/workspaces/self-service" };
    (post(path, body), outcome())
}

pub fn list(world: &World, step: &Step, page: Page) -> (Request, Outcome) {
    let caller = world.caller(step);
    let list = caller.as_ref().map_or_else(|_| String::new(), |caller| format!("mine{}", caller.who));
    let outcome = || -> Outcome {
        let caller = caller?;
        if !caller.reach.has("Workspace.view") {
            let leaked = world.keys[caller.key].quarantined.is_some();
            return Err(if leaked { QUARANTINED } else { FORBIDDEN });
        }
        let rows = world.memberships(caller.who);
        let shown = |at: usize| {
            let workspace = world.members[at].workspace;
            allows(world.workspaces[workspace].networks, step.away).then(|| show(world, workspace))
        };
        let rows: Vec<_> = rows.iter().map(|at| (*at, shown(*at))).collect();
        Ok(world.page_shown(&list, &rows, page))
    };
    (get(format!("/v1/workspaces{}", world.query(&list, page))), outcome())
}

pub fn one(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world.enter(step, "Workspace.view").map(|here| Good::ok(show(world, here.at)));
    (get(format!("/v1/workspaces/{}", world.path_id(step))), outcome)
}

pub fn patch(world: &World, step: &Step, fields: (u8, u8, u8, u8)) -> (Request, Outcome) {
    let (name, environment, region, connector) = fields;
    let at = world.place(step);
    let mut body = Map::new();
    let mut new = at.map(|at| world.workspaces[at].clone());
    let fresh = format!("Name-{:06}", world.requests);
    match (name, &mut new) {
        (0, _) => {}
        (4, Some(new)) => drop(body.insert("name".to_owned(), json!(new.name))),
        (2 | 3, Some(new)) => {
            body.insert("name".to_owned(), json!(fresh));
            new.name = fresh;
        }
        _ => drop(body.insert("name".to_owned(), Value::Null)),
    }
    for (field, number, all) in
        [("environment", environment, &ENVIRONMENTS[..]), ("region", region, &REGIONS[..])]
    {
        let Some(number) = number.checked_sub(1).map(usize::from) else { continue };
        let wanted = number.checked_sub(1).map(|number| all[number]);
        body.insert(field.to_owned(), json!(wanted));
        if let (Some(wanted), Some(new)) = (wanted, &mut new) {
            *(if field == "region" { &mut new.region } else { &mut new.environment }) = wanted;
        }
    }
    match connector {
        0 | 1 => {}
        7 => drop(body.insert("connector_type".to_owned(), json!("fax"))),
        number => {
            let wanted = usize::from(number).checked_sub(3).map(|number| CONNECTORS[number].0);
            body.insert("connector_type".to_owned(), json!(wanted));
            if let Some(new) = &mut new {
                new.connector = wanted;
            }
        }
    }
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.update")?;
        if connector == 7 {
            return Err(No::Values(vec!["body.connector_type".to_owned()]));
        }
        let (mut new, old) = (new.expect("entered"), &world.workspaces[here.at]);
        let same = |new: &Workspace| {
            (&new.name, new.environment, new.region, new.connector)
                == (&old.name, old.environment, old.region, old.connector)
        };
        if same(&new) {
            return Ok(Good::ok(show(world, here.at)));
        }
        new.updated = changed(world, &format!("workspace{}", here.at));
        let good = Good::ok(shown(here.at, &new)).grows(&new.updated, &old.updated);
        Ok(good.then(move |world| {
            world.workspaces[here.at] = new;
            here.note(world, ("workspaces", "workspace.update", "workspace"), Some(workspace_id(here.at)));
        }))
    };
    let path = format!("/v1/workspaces/{}", world.path_id(step));
    (Request { method: Method::PATCH, path, body: Some(Value::Object(body)) }, outcome())
}

/// The connector's built-in integration, if it exists.
pub fn built_in(world: &World, at: usize, connector: &str) -> Option<usize> {
    world
        .integrations
        .iter()
        .position(|it| it.workspace == at && !it.gone && it.builtin && it.name == connector)
}

pub fn provision(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.update")?;
        let old = &world.workspaces[here.at];
        let seeds = old.connector.filter(|connector| built_in(world, here.at, connector).is_none());
        let mut new = old.clone();
        let first = old.provisioned.is_none();
        let mut good = Good::ok(Value::Null);
        if first {
            let provisioned = format!("?t:workspace{}.provisioned", here.at);
            new.updated = changed(world, &format!("workspace{}", here.at));
            good = good.near(&provisioned, 0).grows(&new.updated, &old.updated);
            new.provisioned = Some(provisioned);
        }
        good.body = Some(json!({ "workspace": shown(here.at, &new) }));
        Ok(good.then(move |world| {
            world.workspaces[here.at] = new;
            if let Some(connector) = seeds {
                let (name, protocol, base_url, _) =
                    CONNECTORS.into_iter().find(|it| it.0 == connector).expect("a connector of the walk");
                world.integrations.push(Integration {
                    workspace: here.at,
                    born: (world.hours, world.requests),
                    name: name.to_owned(),
                    display_name: "*".to_owned(),
                    protocol,
                    base_url: base_url.to_owned(),
                    enabled: false,
                    builtin: true,
                    updated: format!("?t:integration{}.created", world.integrations.len()),
                    gone: false,
                });
            }
            if first || seeds.is_some() {
                here.note(
                    world,
                    ("workspaces", "workspace.provision", "workspace"),
                    Some(workspace_id(here.at)),
                );
            }
        }))
    };
    let path = format!("/v1/workspaces/{}/provision", world.path_id(step));
    (Request { method: Method::POST, path, body: None }, outcome())
}

pub fn archive(world: &World, step: &Step, right: bool) -> (Request, Outcome) {
    let slug = world.place(step).filter(|_| right).map(|at| world.workspaces[at].slug.clone());
    let outcome = || -> Outcome {
        let here = world.enter_as_owner(step, "Workspace.update")?;
        if !right {
            return Err(No::Values(vec!["body.slug".to_owned()]));
        }
        let old = &world.workspaces[here.at];
        let mut new = old.clone();
        new.updated = changed(world, &format!("workspace{}", here.at));
        new.state = State::Archived;
        let good = Good::ok(shown(here.at, &new)).grows(&new.updated, &old.updated);
        Ok(good.then(move |world| {
            world.workspaces[here.at] = new;
            here.note(world, ("workspaces", "workspace.archive", "workspace"), Some(workspace_id(here.at)));
        }))
    };
    let body = json!({ "slug": slug.unwrap_or_else(|| "no-such-slug".to_owned()) });
    (post(format!("/v1/workspaces/{}/archive", world.path_id(step)), body), outcome())
}

/// A phone number of the workspace, and a spelling of it.
pub fn number(at: usize, number: u8) -> (String, String) {
    let digits = format!("{at:03}{:04}", number % 5);
    let written = if (number / 5).is_multiple_of(2) {
        format!("+1777{digits}")
    } else {
        format!(" +1 (777) {}-{}", &digits[..3], &digits[3..])
    };
    (format!("+1777{digits}"), written)
}

pub fn test_callers(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world
        .enter(step, "Workspace.view")
        .map(|here| Good::ok(json!({ "numbers": world.workspaces[here.at].test_callers })));
    (get(format!("/v1/workspaces/{}/test-caller-numbers", world.path_id(step))), outcome)
}

pub fn set_test_callers(world: &World, step: &Step, numbers: &[u8]) -> (Request, Outcome) {
    let at = world.place(step).unwrap_or(999);
    let (mut written, mut kept, mut wrong) = (vec![], vec![], vec![]);
    for (index, choice) in numbers.iter().enumerate() {
        if *choice >= 245 {
            written.push("555 0100".to_owned());
            wrong.push(format!("body.numbers.{index}"));
            continue;
        }
        let (number, text) = number(at, *choice);
        written.push(text);
        if !kept.contains(&number) {
            kept.push(number);
        }
    }
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.update")?;
        if !wrong.is_empty() {
            return Err(No::Values(wrong));
        }
        let good = Good::ok(json!({ "numbers": kept }));
        if world.workspaces[here.at].test_callers == kept {
            return Ok(good);
        }
        Ok(good.then(move |world| {
            world.workspaces[here.at].test_callers = kept;
            world.workspaces[here.at].list_version += 1;
            here.note(world, ("workspaces", "test_callers.update", "workspace"), Some(workspace_id(here.at)));
        }))
    };
    let path = format!("/v1/workspaces/{}/test-caller-numbers", world.path_id(step));
    (Request { method: Method::PUT, path, body: Some(json!({ "numbers": written })) }, outcome())
}

/// The caller and the caller's memberships.
pub fn me(world: &World, step: &Step, page: Page) -> (Request, Outcome) {
    let caller = world.caller(step);
    let list = caller.as_ref().map_or_else(|_| String::new(), |caller| format!("mine{}", caller.who));
    let outcome = || -> Outcome {
        let caller = caller?;
        let rows: Vec<_> = world
            .memberships(caller.who)
            .into_iter()
            .map(|row| {
                let member = &world.members[row];
                let allowed = allows(world.workspaces[member.workspace].networks, step.away);
                (row, allowed.then(|| membership(world, member.workspace, member.role, &caller)))
            })
            .collect();
        let mut good = world.page_shown(&list, &rows, page);
        let who = &world.principals[caller.who];
        let credential = match world.keys[caller.key].token {
            Some(_) => json!({
                "type": "token", "key_id": null, "issuer": "*", "expires_at": "*", "quarantined_at": null,
                "expires_soon": false,
            }),
            None => json!({
                "type": "api_key", "key_id": super::world::key_id(caller.key), "issuer": null,
                "expires_at": super::keys::expires(world, caller.key),
                "quarantined_at": world.keys[caller.key].quarantined,
                "expires_soon": world.keys[caller.key].expires - world.hours <= super::keys::WARNED_AT[0],
            }),
        };
        // A token's subject becomes a principal with its first membership.
        let exists = world.members.iter().any(|it| it.who == caller.who);
        good.body = Some(json!({
            "entity_id": exists.then(|| entity_id(caller.who)),
            "kind": if who.is_user { "user" } else { "service" },
            "display_name": who.name,
            "credential": credential,
            "memberships": good.body,
        }));
        Ok(good)
    };
    (get(format!("/v1/me{}", world.query(&list, page))), outcome())
}

/// A membership, limited by the reach of the caller's key.
pub fn membership(world: &World, at: usize, role: usize, caller: &Caller) -> Value {
    let reach = caller.reach.within(super::rules::Reach::whole(role));
    let workspace = &world.workspaces[at];
    let named = reach.has("Workspace.view");
    json!({
        "workspace_id": workspace_id(at),
        "slug": named.then_some(&workspace.slug),
        "name": named.then_some(&workspace.name),
        "role": super::rules::ROLES[role],
        "permissions": reach.names(),
    })
}
