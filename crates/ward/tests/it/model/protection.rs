//! The model of the rules that protect credentials: ceilings, networks, leaked keys, and handovers.

use reqwest::Method;
use serde_json::{Value, json};

use super::keys::{self, chosen, found, may_change};
use super::rules::{BEYOND, Good, No, Outcome, ROLES, Request, pick};
use super::steps::{Step, Thing};
use super::tenancy::changed;
use super::world::{
    Handover, Secret, State, World, credential_id, handover_token, key_id, secret, workspace_id,
};

/// The address of the steps that come from another network.
pub const AWAY: &str = "192.0.2.7";
/// The two networks of a walk, as bits: the one of most steps, and the other one. No bit stands for all networks.
const NETWORKS: [&str; 2] = ["127.0.0.0/8", "192.0.2.0/24"];
/// The hours for which a leaked key still reads.
const QUARANTINE: i64 = 24;
/// The longest life of a key without a ceiling, in days.
const LONGEST: u8 = 90;

const LOCKED_OUT: No = No::Because(409, "would_lock_out");
const NO_HANDOVER: No = No::Because(404, "handover_not_found");

/// The IP ranges of the networks whose bits are set.
pub fn ranges(networks: u8) -> Value {
    (0..2_usize).filter(|bit| networks & (1 << bit) != 0).map(|bit| NETWORKS[bit]).collect()
}

/// Whether these networks allow a step from elsewhere, or one of the others.
pub fn allows(networks: u8, away: bool) -> bool {
    networks == 0 || networks & (1 << u8::from(away)) != 0
}

/// Whether a key with networks may give others.
pub fn covers(own: u8, others: u8) -> bool {
    own == 0 || others != 0 && others & !own == 0
}

fn request(method: Method, path: String, body: Option<Value>) -> Request {
    Request { method, path, body }
}

fn ceilings(of: [Option<u8>; 5]) -> Value {
    ROLES.iter().zip(of).map(|(role, days)| ((*role).to_owned(), json!(days))).collect()
}

/// Refuses a life beyond the ceiling of the role.
pub fn below_ceiling(world: &World, at: usize, role: usize, days: u8) -> Result<(), No> {
    match world.workspaces[at].ceilings[role] {
        Some(most) if days > most => Err(No::Values(vec!["body.duration_days".to_owned()])),
        _ => Ok(()),
    }
}

/// The policy with these ceilings, and the keys that live longer than a new one could. Keys with the same end in hours come in
/// any order.
fn show_key_policy(world: &World, at: usize, chosen: [Option<u8>; 5]) -> Value {
    let in_force = chosen.map(|days| Some(days.unwrap_or(LONGEST)));
    let mut beyond: Vec<(usize, i64, usize)> = vec![];
    for (key, it) in world.keys.iter().enumerate().filter(|(_, it)| it.workspace == at && !it.revoked) {
        let days = in_force[it.reach.role].unwrap_or(LONGEST);
        if days < LONGEST && it.expires > world.hours + 24 * i64::from(days) {
            beyond.push((it.reach.role, it.expires, key));
        }
    }
    beyond.sort_unstable();
    let show = |(role, _, key): &(usize, i64, usize)| {
        let name = &world.keys[*key].name;
        json!({ "key_id": key_id(*key), "name": name, "role": ROLES[*role], "expires_at": keys::expires(world, *key) })
    };
    let groups: Vec<Value> = beyond
        .chunk_by(|one, other| (one.0, one.1) == (other.0, other.1))
        .map(|group| json!({ "shown": group.len(), "of": group.iter().map(show).collect::<Vec<_>>() }))
        .collect();
    json!({
        "ceiling_days": ceilings(chosen), "installation_ceiling_days": ceilings([None; 5]),
        "ceiling_days_in_force": ceilings(in_force), "keys_beyond": { "$groups": groups }, "more_keys_beyond": false,
    })
}

pub fn key_policy(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world
        .enter(step, "ApiKey.view")
        .map(|here| Good::ok(show_key_policy(world, here.at, world.workspaces[here.at].ceilings)));
    (request(Method::GET, format!("/v1/{}/key-policy", world.path_id(step)), None), outcome)
}

pub fn set_key_policy(world: &World, step: &Step, wanted: [Option<u8>; 5]) -> (Request, Outcome) {
    let outcome = world.enter_as_owner(step, "Workspace.update").map(|here| {
        let good = Good::ok(show_key_policy(world, here.at, wanted));
        if world.workspaces[here.at].ceilings == wanted {
            return good;
        }
        good.then(move |world| {
            world.workspaces[here.at].ceilings = wanted;
            here.note(world, ("workspaces", "key_policy.update", "workspace"), Some(workspace_id(here.at)));
        })
    });
    let body = json!({ "ceiling_days": ceilings(wanted) });
    (request(Method::PUT, format!("/v1/{}/key-policy", world.path_id(step)), Some(body)), outcome)
}

fn show_access_policy(networks: u8) -> Value {
    json!({ "networks": ranges(networks), "issuers": [] })
}

pub fn access_policy(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world
        .enter(step, "Workspace.view")
        .map(|here| Good::ok(show_access_policy(world.workspaces[here.at].networks)));
    (request(Method::GET, format!("/v1/workspaces/{}/access-policy", world.path_id(step)), None), outcome)
}

pub fn set_access_policy(world: &World, step: &Step, networks: u8) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let here = world.enter_as_owner(step, "Workspace.update")?;
        let good = Good::ok(show_access_policy(networks));
        if world.workspaces[here.at].networks == networks {
            return Ok(good);
        }
        if !allows(networks, step.away) {
            return Err(LOCKED_OUT);
        }
        Ok(good.then(move |world| {
            world.workspaces[here.at].networks = networks;
            let what = ("workspaces", "workspace.access_policy", "workspace");
            here.note(world, what, Some(workspace_id(here.at)));
        }))
    };
    let path = format!("/v1/workspaces/{}/access-policy", world.path_id(step));
    (request(Method::PUT, path, Some(show_access_policy(networks))), outcome())
}

/// The path of a key's own operation.
fn of_key(world: &World, step: &Step, key: Option<usize>, rest: &str) -> String {
    let id = key.map_or_else(|| "nothing".to_owned(), |at| world.text(&key_id(at)));
    format!("/v1/{}/api-keys/{id}/{rest}", world.path_id(step))
}

pub fn set_key_networks(world: &World, step: &Step, key: Thing, networks: u8) -> (Request, Outcome) {
    let chosen = chosen(world, step, key);
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.create")?;
        let at = found(world, here.at, chosen)?;
        may_change(world, &here, at)?;
        if !covers(world.keys[here.key].networks, networks) {
            return Err(BEYOND);
        }
        if at == here.key && !allows(networks, step.away) {
            return Err(LOCKED_OUT);
        }
        let mut body = keys::listed(world, at);
        body["networks"] = ranges(networks);
        let good = Good::ok(body);
        if world.keys[at].networks == networks {
            return Ok(good);
        }
        Ok(good.then(move |world| {
            world.keys[at].networks = networks;
            here.note(world, ("api_keys", "api_key.networks", "api_key"), Some(credential_id(at)));
        }))
    };
    let path = of_key(world, step, chosen, "networks");
    (request(Method::PUT, path, Some(json!({ "networks": ranges(networks) }))), outcome())
}

fn show_leak_policy(quarantine: bool) -> Value {
    json!({ "action": if quarantine { "quarantine" } else { "revoke" } })
}

pub fn leak_policy(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world
        .enter(step, "ApiKey.view")
        .map(|here| Good::ok(show_leak_policy(world.workspaces[here.at].quarantines)));
    (request(Method::GET, format!("/v1/{}/leaked-key-policy", world.path_id(step)), None), outcome)
}

pub fn set_leak_policy(world: &World, step: &Step, quarantine: bool) -> (Request, Outcome) {
    let outcome = world.enter_as_owner(step, "Workspace.update").map(|here| {
        let good = Good::ok(show_leak_policy(quarantine));
        if world.workspaces[here.at].quarantines == quarantine {
            return good;
        }
        good.then(move |world| {
            world.workspaces[here.at].quarantines = quarantine;
            let what = ("workspaces", "leaked_key_policy.update", "workspace");
            here.note(world, what, Some(workspace_id(here.at)));
        })
    });
    let path = format!("/v1/{}/leaked-key-policy", world.path_id(step));
    (request(Method::PUT, path, Some(show_leak_policy(quarantine))), outcome)
}

/// A secret of any key. It is mostly none of an owner, because a workspace without a way in ends its part of the walk.
fn any_secret(world: &World, number: u8) -> Option<usize> {
    let is_key = |at: &usize| world.keys[world.secrets[*at].key].token.is_none();
    let spares = |at: &usize| number.is_multiple_of(8) || world.keys[world.secrets[*at].key].reach.role < 4;
    let all: Vec<usize> = (0..world.secrets.len()).filter(is_key).filter(spares).collect();
    pick(&all, number / 8)
}

/// The key of a secret that could still be used, if its workspace is active.
fn usable(world: &World, at: usize) -> Option<usize> {
    let Secret { key, generation } = world.secrets[at];
    let it = &world.keys[key];
    (!it.revoked && it.generation == generation && it.expires > world.hours).then_some(key)
}

/// A scanner reports a secret. An archived workspace can be restored, so its keys end too.
pub fn leak(world: &World, number: u8) -> (Request, Outcome) {
    let at = any_secret(world, number);
    let text = at.map_or_else(|| world.stray.clone(), |at| world.text(&secret(at)));
    let label = if at.is_some() { "true_positive" } else { "false_positive" };
    let good = Good::ok(json!([{ "token_hash": "*", "token_type": "ward_api_key", "label": label }]));
    let key = at.and_then(|at| usable(world, at)).filter(|key| world.keys[*key].quarantined.is_none());
    let body =
        json!([{ "token": text, "type": "ward_api_key", "url": "https://code.example", "source": "commit" }]);
    let outcome = good.then(move |world| {
        let Some(key) = key else { return };
        let home = world.keys[key].workspace;
        let action = if world.workspaces[home].quarantines {
            let now = changed(world, &format!("key{key}"));
            let until = world.hours + QUARANTINE;
            let it = &mut world.keys[key];
            if it.expires > until {
                it.expires = until;
                it.ends += 1;
            }
            it.stamp += 1;
            it.quarantined = Some(format!("?t:key{key}.quarantined{}", it.stamp));
            it.updated = now;
            "api_key.quarantine"
        } else {
            keys::end(world, key);
            "api_key.revoke"
        };
        world.note(home, None, ("api_keys", action, "api_key"), Some(credential_id(key)));
    });
    (request(Method::POST, "/v1/keys/leaked".to_owned(), Some(body)), Ok(outcome))
}

/// The finder of a secret ends its key with it. Networks and bindings do not matter.
pub fn surrender(world: &World, number: u8) -> (Request, Outcome) {
    let at = any_secret(world, number);
    let text = at.map_or_else(|| world.stray.clone(), |at| world.text(&secret(at)));
    let key = at.and_then(|at| usable(world, at));
    let key = key.filter(|key| world.workspaces[world.keys[*key].workspace].state == State::Active);
    let outcome = Good::done().then(move |world| {
        let Some(key) = key else { return };
        let (home, who) = (world.keys[key].workspace, world.keys[key].principal);
        keys::end(world, key);
        world.note(
            home,
            Some((who, key)),
            ("api_keys", "api_key.revoke", "api_key"),
            Some(credential_id(key)),
        );
    });
    let body = json!({ "api_key": text });
    (request(Method::POST, "/v1/keys/revoke".to_owned(), Some(body)), Ok(outcome))
}

pub fn hand_over(world: &World, step: &Step, key: Thing) -> (Request, Outcome) {
    let chosen = chosen(world, step, key);
    let number = world.handovers.len();
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.create")?;
        let at = found(world, here.at, chosen)?;
        may_change(world, &here, at)?;
        let key = &world.keys[at];
        if at == here.key || key.used[usize::from(step.replica)] {
            return Err(No::Because(409, "key_in_use"));
        }
        if key.quarantined.is_some() {
            return Err(No::Because(409, "leaked_secret"));
        }
        if key.expires <= world.hours {
            return Err(No::Because(409, "key_expired"));
        }
        let ends = format!("?t:handover{number}.ends");
        let body =
            json!({ "key_id": key_id(at), "url": null, "token": handover_token(number), "expires_at": ends });
        let mut good = Good::created(body);
        if key.expires > world.hours + 1 {
            good = good.near(ends, 1);
        }
        let now = changed(world, &format!("key{at}"));
        Ok(good.then(move |world| {
            let it = &mut world.keys[at];
            it.generation += 1;
            it.stamp += 1;
            it.updated = now;
            let new = Handover { key: at, generation: it.generation, ends: world.hours + 1, over: false };
            world.handovers.iter_mut().filter(|it| it.key == at).for_each(|it| it.over = true);
            world.handovers.push(new);
            here.note(world, ("api_keys", "api_key.handover", "api_key"), Some(credential_id(at)));
        }))
    };
    (request(Method::POST, of_key(world, step, chosen, "handover"), None), outcome())
}

pub fn open(world: &World, number: u8) -> (Request, Outcome) {
    let all: Vec<usize> = (0..world.handovers.len()).collect();
    let waiting: Vec<usize> = all.iter().copied().filter(|at| !world.handovers[*at].over).collect();
    let chosen = pick(if number.is_multiple_of(4) { &all } else { &waiting }, number / 4);
    let outcome = || -> Outcome {
        let at = chosen.filter(|at| !world.handovers[*at].over).ok_or(NO_HANDOVER)?;
        let Handover { key, generation, ends, .. } = world.handovers[at];
        let it = &world.keys[key];
        let opens = it.generation == generation
            && !it.revoked
            && ends > world.hours
            && it.expires > world.hours
            && world.workspaces[it.workspace].state == State::Active;
        if !opens {
            return Err(NO_HANDOVER);
        }
        let body = json!({
            "key_id": key_id(key), "api_key": secret(world.secrets.len()), "workspace_id": workspace_id(it.workspace),
            "name": it.name, "role": ROLES[it.reach.role], "permissions": it.reach.names(),
            "expires_at": keys::expires(world, key),
        });
        let home = it.workspace;
        Ok(Good::ok(body).shows(home).then(move |world| {
            world.handovers[at].over = true;
            world.secrets.push(Secret { key, generation });
            let what = ("api_keys", "api_key.handover_opened", "api_key");
            world.note(home, None, what, Some(credential_id(key)));
        }))
    };
    let token =
        chosen.map_or_else(|| "ward_handover_of_nobody".to_owned(), |at| world.text(&handover_token(at)));
    let body = json!({ "token": token });
    (request(Method::POST, "/v1/keys/handover".to_owned(), Some(body)), outcome())
}
