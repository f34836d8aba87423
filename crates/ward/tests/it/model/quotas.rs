//! The quotas of a workspace. The limits of a walk are small, so that walks reach each of them.

use reqwest::Method;
use serde_json::{Value, json};
use ward::config::Config;
use ward::quotas::Quota;

use super::rules::{Good, No, Outcome, Request};
use super::steps::Step;
use super::world::{State, World, workspace_id};

const KEYS: i64 = 6;
const MEMBERS: i64 = 7;
const INVITATIONS: i64 = 1;
const INTEGRATIONS: i64 = 3;
const CALLS_A_DAY: i64 = 1;

/// The refusal beyond a quota on a count.
const FULL: No = No::Because(409, "quota_exceeded");
/// The refusal beyond a quota that time lifts.
const FULL_TODAY: No = No::Because(429, "quota_exceeded");

/// Sets the limits of a walk's servers.
pub fn set(config: &mut Config) {
    for (quota, limit) in [
        (Quota::Keys, KEYS),
        (Quota::Members, MEMBERS),
        (Quota::OpenInvitations, INVITATIONS),
        (Quota::Integrations, INTEGRATIONS),
        (Quota::CallsPerDay, CALLS_A_DAY),
    ] {
        config.quotas.set(quota, limit);
    }
}

fn count<T>(of: &[T], counts: impl Fn(&T) -> bool) -> i64 {
    i64::try_from(of.iter().filter(|it| counts(it)).count()).expect("a count")
}

/// Keys that are not revoked. Expired keys count until they are deleted.
fn keys(world: &World, at: usize) -> i64 {
    count(&world.keys, |it| it.workspace == at && !it.revoked)
}

fn members(world: &World, at: usize) -> i64 {
    count(&world.members, |it| it.workspace == at && !it.gone)
}

/// Invitations that are not settled. Those that are over count until time settles them.
fn invitations(world: &World, at: usize) -> i64 {
    count(&world.invitations, |it| it.workspace == at && !it.settled)
}

fn integrations(world: &World, at: usize) -> i64 {
    count(&world.integrations, |it| it.workspace == at && !it.gone)
}

fn calls(world: &World, at: usize) -> i64 {
    let (day, calls) = world.workspaces[at].calls;
    if day == world.day { calls } else { 0 }
}

fn room(used: i64, limit: i64, full: No) -> Result<(), No> {
    if used < limit { Ok(()) } else { Err(full) }
}

/// Whether a key has room, and the service that it may come with.
pub fn room_for_key(world: &World, at: usize, with_service: bool) -> Result<(), No> {
    room(keys(world, at), KEYS, FULL)?;
    if with_service { room_for_member(world, at) } else { Ok(()) }
}

pub fn room_for_member(world: &World, at: usize) -> Result<(), No> {
    room(members(world, at), MEMBERS, FULL)
}

pub fn room_for_invitation(world: &World, at: usize) -> Result<(), No> {
    room(invitations(world, at), INVITATIONS, FULL)
}

pub fn room_for_integration(world: &World, at: usize) -> Result<(), No> {
    room(integrations(world, at), INTEGRATIONS, FULL)
}

pub fn room_for_call(world: &World, at: usize) -> Result<(), No> {
    room(calls(world, at), CALLS_A_DAY, FULL_TODAY)
}

/// Counts a call that began on this day.
pub fn count_call(world: &mut World, at: usize) {
    world.workspaces[at].calls = (world.day, calls(world, at) + 1);
}

pub fn usage(world: &World, step: &Step) -> (Request, Outcome) {
    let path = format!("/v1/{}/usage", world.path_id(step));
    let outcome = world.enter(step, "Workspace.view").map(|here| {
        assert_eq!(world.workspaces[here.at].state, State::Active);
        let at = here.at;
        let line = |name: &str, used: i64, limit: i64| json!({ "name": name, "used": used, "limit": limit });
        let uncounted = |name: &str| json!({ "name": name, "used": "*", "limit": "*" });
        Good::ok(json!({
            "workspace_id": workspace_id(at),
            "quotas": [
                line("keys", keys(world, at), KEYS),
                line("members", members(world, at), MEMBERS),
                line("open_invitations", invitations(world, at), INVITATIONS),
                line("integrations", integrations(world, at), INTEGRATIONS),
                line("webhooks", 0, 20),
                // `quotas` reckons the bytes.
                uncounted("stored_bytes"),
                line("calls_per_day", calls(world, at), CALLS_A_DAY),
                uncounted("requests_per_second"),
                line("outbound_calls", 0, 32),
            ],
        }))
    });
    (Request { method: Method::GET, path, body: None::<Value> }, outcome)
}
