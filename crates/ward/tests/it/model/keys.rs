//! The model of API keys: claims, minting, rotation and revocation.

use reqwest::Method;
use serde_json::{Value, json};

use super::protection::{covers, ranges};
use super::rules::{
    A_SERVICE, BEYOND, Good, Here, No, OWNER, Outcome, PERMISSIONS, ROLES, Reach, Request, UNAUTHORIZED,
    choose,
};
use super::steps::{Page, Step, Thing};
use super::tenancy::changed;
use super::world::{
    Key, Member, Principal, Secret, State, World, credential_id, entity_id, key_id, secret, workspace_id,
};
use super::{people, protection, quotas};

/// The hours before its expiry at which a key is warned about.
pub const WARNED_AT: [i64; 3] = [14 * 24, 7 * 24, 24];

/// The number of warnings that a key with so many hours left has passed.
pub fn warnings(left: i64) -> usize {
    WARNED_AT.into_iter().filter(|before| left <= *before).count()
}

pub fn expires(world: &World, at: usize) -> String {
    format!("?t:key{at}.expires{}", world.keys[at].ends)
}

fn created(at: usize) -> String {
    format!("?t:key{at}.created")
}

/// The answer of minting, claiming and rotating.
/// The thumbprint of RFC 9449, section 6.1.
const THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

fn binding(key: &Key) -> Value {
    if key.bound { json!({ "jkt": THUMBPRINT }) } else { Value::Null }
}

fn shown_once(world: &World, at: usize, key: &Key) -> Value {
    json!({
        "key_id": key_id(at), "api_key": secret(world.secrets.len()), "name": key.name,
        "role": ROLES[key.reach.role], "permissions": key.reach.names(),
        "expires_at": format!("?t:key{at}.expires{}", key.ends),
        "created_by_entity_id": entity_id(key.creator.0),
        "created_by_credential_id": key.creator.1.and_then(|by| world.credential(by)),
        "networks": ranges(key.networks), "bound_to": binding(key),
    })
}

pub fn listed(world: &World, at: usize) -> Value {
    let key = &world.keys[at];
    json!({
        "id": credential_id(at), "workspace_id": workspace_id(key.workspace), "key_id": key_id(at),
        "created_by_entity_id": entity_id(key.creator.0),
        "created_by_credential_id": key.creator.1.and_then(|by| world.credential(by)),
        "name": key.name, "role": ROLES[key.reach.role], "permissions": key.reach.names(),
        "expires_at": expires(world, at), "last_used_at": null, "created_at": created(at), "updated_at": key.updated,
        "previous": null, "quarantined_at": key.quarantined, "networks": ranges(key.networks), "bound_to": binding(key),
    })
}

fn issue(world: &mut World, key: Key) -> usize {
    let at = world.keys.len();
    world.keys.push(key);
    world.secrets.push(Secret { key: at, generation: 0 });
    at
}

fn path(world: &World, step: &Step, rest: &str) -> String {
    format!("/v1/{}/api-keys{rest}", world.path_id(step))
}

pub fn claim(world: &World, step: &Step, days: u8, wrong: bool) -> (Request, Outcome) {
    let (at, who) = (world.keys.len(), world.principals.len());
    let mut body = json!({ "duration_days": days });
    if wrong {
        body["role"] = json!("admin");
    }
    let outcome = || -> Outcome {
        if wrong {
            return Err(No::Values(vec!["body.role".to_owned()]));
        }
        let claimable = |at: &usize| {
            let it = &world.workspaces[*at];
            it.state == State::Unclaimed && it.lapses > world.hours
        };
        let workspace = world.place(step).filter(claimable).ok_or(UNAUTHORIZED)?;
        let key = Key {
            workspace,
            principal: who,
            creator: (who, None),
            name: None,
            reach: Reach::whole(OWNER),
            expires: world.hours + 24 * i64::from(days),
            warned: warnings(24 * i64::from(days)),
            revoked: false,
            generation: 0,
            stamp: 0,
            ends: 0,
            updated: created(at),
            quarantined: None,
            networks: 0,
            used: [false; 2],
            token: None,
            bound: false,
        };
        let good = Good::created(shown_once(world, at, &key)).shows(workspace);
        Ok(good.near(format!("?t:key{at}.expires0"), 24 * i64::from(days)).then(move |world| {
            world.principals.push(Principal { is_user: true, name: None });
            world.workspaces[workspace].state = State::Active;
            world.members.push(Member { workspace, who, role: OWNER, gone: false });
            let at = issue(world, key);
            let what = ("api_keys", "workspace.claim", "api_key");
            world.note(workspace, Some((who, at)), what, Some(credential_id(at)));
        }))
    };
    (Request { method: Method::POST, path: path(world, step, ""), body: Some(body) }, outcome())
}

#[derive(Clone, Copy)]
pub struct Mint<'a> {
    pub role: usize,
    pub narrow: &'a [usize],
    pub days: u8,
    pub own: bool,
    pub named: bool,
    pub bound: bool,
    pub networks: u8,
}

pub fn mint(world: &World, step: &Step, mint: Mint<'_>) -> (Request, Outcome) {
    let (at, Mint { role, narrow, days, own, named, bound, networks }) = (world.keys.len(), mint);
    let name = named.then(|| format!("key-{:06}", world.requests));
    let permissions: Vec<&str> = narrow.iter().map(|bit| PERMISSIONS[*bit]).collect();
    let mut body =
        json!({ "duration_days": days, "role": ROLES[role], "permissions": permissions, "name": name });
    if own {
        body["speaks_for"] = json!("self");
    }
    if bound {
        body["bound_to"] = json!({ "jkt": THUMBPRINT });
    }
    if networks > 0 {
        body["networks"] = ranges(networks);
    }
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.create")?;
        let whole = Reach::whole(role);
        let outside =
            |(index, name): (usize, &&str)| (!whole.has(name)).then(|| format!("body.permissions.{index}"));
        let outside: Vec<String> = permissions.iter().enumerate().filter_map(outside).collect();
        if !outside.is_empty() {
            return Err(No::Values(outside));
        }
        let bits = narrow.iter().fold(0, |bits, bit| bits | (1 << bit));
        let reach = if bits == 0 { whole } else { Reach { role, may: bits } };
        if !here.reach.covers(reach) || !covers(world.keys[here.key].networks, networks) {
            return Err(BEYOND);
        }
        if own && !world.principals[here.who].is_user {
            return Err(A_SERVICE);
        }
        protection::below_ceiling(world, here.at, role, days)?;
        quotas::room_for_key(world, here.at, !own)?;
        let principal = if own { here.who } else { world.principals.len() };
        let key = Key {
            workspace: here.at,
            principal,
            creator: (here.who, Some(here.key)),
            name: name.clone(),
            reach,
            expires: world.hours + 24 * i64::from(days),
            warned: warnings(24 * i64::from(days)),
            revoked: false,
            generation: 0,
            stamp: 0,
            ends: 0,
            updated: created(at),
            quarantined: None,
            networks,
            used: [false; 2],
            token: None,
            bound,
        };
        let good = Good::created(shown_once(world, at, &key));
        Ok(good.near(format!("?t:key{at}.expires0"), 24 * i64::from(days)).then(move |world| {
            if !own {
                world.principals.push(Principal { is_user: false, name });
                world.members.push(Member { workspace: here.at, who: principal, role, gone: false });
            }
            let at = issue(world, key);
            here.note(world, ("api_keys", "api_key.create", "api_key"), Some(credential_id(at)));
        }))
    };
    (Request { method: Method::POST, path: path(world, step, ""), body: Some(body) }, outcome())
}

/// The key that a step concerns, of any workspace.
pub fn chosen(world: &World, step: &Step, thing: Thing) -> Option<usize> {
    let at = world.place(step);
    choose(thing, at, world.keys.iter().map(|it| it.workspace))
}

/// The live key of this workspace that a step concerns.
pub fn found(world: &World, at: usize, key: Option<usize>) -> Result<usize, No> {
    let ours = |key: &usize| world.keys[*key].workspace == at && !world.keys[*key].revoked;
    key.filter(ours).ok_or(No::Because(404, "api_key_not_found"))
}

pub fn rotate(world: &World, step: &Step, key: Thing, days: u8) -> (Request, Outcome) {
    // In half of the cases it is the caller's own key, whose invitations then end.
    let own = world.caller(step).ok().map(|caller| caller.key);
    let own = own.filter(|_| matches!(key, Thing::Here(number) if number.is_multiple_of(2)));
    let chosen = own.or_else(|| chosen(world, step, key));
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.create")?;
        let at = found(world, here.at, chosen)?;
        let old = &world.keys[at];
        may_change(world, &here, at)?;
        protection::below_ceiling(world, here.at, old.reach.role, days)?;
        let mut new = old.clone();
        new.generation += 1;
        new.stamp += 1;
        new.ends += 1;
        new.quarantined = None;
        new.expires = world.hours + 24 * i64::from(days);
        new.warned = warnings(24 * i64::from(days));
        new.updated = changed(world, &format!("key{at}"));
        let good = Good::ok(shown_once(world, at, &new))
            .near(format!("?t:key{at}.expires{}", new.ends), 24 * i64::from(days));
        Ok(good.then(move |world| {
            world.secrets.push(Secret { key: at, generation: new.generation });
            world.keys[at] = new;
            here.note(world, ("api_keys", "api_key.rotate", "api_key"), Some(credential_id(at)));
        }))
    };
    let id = chosen.map_or_else(|| "nothing".to_owned(), |at| world.text(&key_id(at)));
    let path = path(world, step, &format!("/{id}/rotate"));
    (Request { method: Method::POST, path, body: Some(json!({ "duration_days": days })) }, outcome())
}

/// The rules for a caller who gives a key another secret or other networks.
pub fn may_change(world: &World, here: &Here, at: usize) -> Result<(), No> {
    let key = &world.keys[at];
    if world.principals[key.principal].is_user && key.principal != here.who {
        return Err(No::Because(403, "not_your_key"));
    }
    if at != here.key && !here.reach.covers(key.reach) { Err(BEYOND) } else { Ok(()) }
}

/// Ends a key. A service leaves the workspace with its only key.
pub fn end(world: &mut World, at: usize) {
    world.keys[at].revoked = true;
    let (home, principal) = (world.keys[at].workspace, world.keys[at].principal);
    if !world.principals[principal].is_user
        && let Some(member) = world.member(home, principal)
    {
        world.members[member].gone = true;
    }
}

pub fn revoke(world: &World, step: &Step, key: Thing) -> (Request, Outcome) {
    let chosen = chosen(world, step, key);
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.delete")?;
        let at = found(world, here.at, chosen)?;
        if at != here.key && !here.reach.covers(world.keys[at].reach) {
            return Err(BEYOND);
        }
        let who = world.keys[at].principal;
        if people::is_way_in(world, at) && people::owns(world, who, here.at) {
            let kept = people::has_way_in(world, here.at, None, Some(at))
                || !world.principals[who].is_user
                    && people::has_way_in_of_service(world, here.at, None, Some(at));
            if !kept {
                return Err(people::LAST_WAY_IN);
            }
        }
        if who == here.who && world.principals[who].is_user {
            people::keeps_ways_of(world, who, here.at, |key| key == at)?;
        }
        Ok(Good::done().then(move |world| {
            end(world, at);
            here.note(world, ("api_keys", "api_key.revoke", "api_key"), Some(credential_id(at)));
        }))
    };
    let id = chosen.map_or_else(|| "nothing".to_owned(), |at| world.text(&key_id(at)));
    let path = path(world, step, &format!("/{id}"));
    (Request { method: Method::DELETE, path, body: None }, outcome())
}

pub fn list(world: &World, step: &Step, mine: bool, page: Page) -> (Request, Outcome) {
    let list = world.place(step).map_or_else(String::new, |at| format!("keys{at}"));
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.view")?;
        let rows: Vec<_> = (0..world.keys.len())
            .filter(|at| world.keys[*at].workspace == here.at && !world.keys[*at].revoked)
            .filter(|at| !mine || world.keys[*at].creator.0 == here.who)
            .map(|at| (at, listed(world, at)))
            .collect();
        Ok(world.page(&list, &rows, page))
    };
    let query = format!("{}&mine_only={mine}", world.query(&list, page));
    (Request { method: Method::GET, path: path(world, step, &query), body: None }, outcome())
}

pub fn auth_info(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let caller = world.caller(step)?;
        let key = &world.keys[caller.key];
        if key.token.is_some() {
            return Err(No::Because(403, "not_an_api_key"));
        }
        Ok(Good::ok(json!({
            "workspace_id": workspace_id(key.workspace), "key_id": key_id(caller.key), "name": key.name,
            "expires_at": expires(world, caller.key), "expires_in_seconds": "*",
        })))
    };
    (Request { method: Method::GET, path: "/v1/auth/me".to_owned(), body: None }, outcome())
}

pub fn catalog(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world.enter(step, "ApiKey.view").map(|_| {
        let role = |role: usize| {
            let names = Reach::whole(role).names();
            json!({
                "name": ROLES[role], "priority": role + 1, "permission_names": names,
                "role": ROLES[role], "permissions": names, "description": "*",
            })
        };
        let permission = |name: &str| {
            let (namespace, action) = name.split_once('.').expect("a permission's name");
            json!({ "name": name, "namespace": namespace, "action": action, "permission": name, "description": "*" })
        };
        Good::ok(json!({
            "roles": (0..ROLES.len()).map(role).collect::<Vec<_>>(),
            "permissions": PERMISSIONS.into_iter().map(permission).collect::<Vec<_>>(),
        }))
    });
    (Request { method: Method::GET, path: path(world, step, "/permission-catalog"), body: None }, outcome)
}
