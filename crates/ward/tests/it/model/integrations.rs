//! The model of integrations, of Twilio accounts, and of integration queues.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::quotas;
use super::rules::{Good, No, Outcome, Request, choose};
use super::steps::{Page, Step, Thing};
use super::tenancy::changed;
use super::world::{Integration, Lane, NOBODY, Twilio, World, integration_id, workspace_id};

const NOT_FOUND: No = No::Because(404, "integration_not_found");
const UNFINISHED: No = No::Because(409, "integration_unfinished");

fn send(method: Method, path: String, body: Option<Value>) -> Request {
    Request { method, path, body }
}

fn path(world: &World, step: &Step, rest: &str) -> String {
    format!("/v1/{}/{rest}", world.path_id(step))
}

fn show(at: usize, it: &Integration) -> Value {
    json!({
        "id": integration_id(at), "workspace_id": workspace_id(it.workspace), "name": it.name,
        "display_name": it.display_name, "protocol": it.protocol, "base_url": it.base_url, "enabled": it.enabled,
        "builtin": it.builtin, "created_at": format!("?t:integration{at}.created"), "updated_at": it.updated, "...": 0,
    })
}

/// The integration that a step concerns, of any workspace, and the id in its path.
fn chosen(world: &World, step: &Step, thing: Thing) -> (Option<usize>, String) {
    let place = world.place(step);
    let found = choose(thing, place, world.integrations.iter().map(|it| it.workspace));
    let id = found.map_or_else(|| NOBODY.to_owned(), |at| world.text(&integration_id(at)));
    // The id of a seeded integration is unknown until a list shows it.
    (found.filter(|_| id != NOBODY), id)
}

fn found(world: &World, workspace: usize, at: Option<usize>) -> Result<usize, No> {
    let ours = |at: &usize| world.integrations[*at].workspace == workspace && !world.integrations[*at].gone;
    at.filter(ours).ok_or(NOT_FOUND)
}

pub fn list(world: &World, step: &Step, page: Page, sort: u8, filter: u8) -> (Request, Outcome) {
    let list = world.place(step).map_or_else(String::new, |at| format!("integrations{at}"));
    let admits = |at: usize| {
        let it = &world.integrations[at];
        match filter {
            3 => it.enabled,
            4 => it.protocol == "rest",
            // The names of seeded integrations and of vendors hold no digit 1.
            5 => it.name.contains("-name-1") || it.display_name.contains("-name-1"),
            _ => true,
        }
    };
    let outcome = || -> Outcome {
        let here = world.enter(step, "Integration.view")?;
        let rows: Vec<(usize, Value)> = (0..world.integrations.len())
            .filter(|at| world.integrations[*at].workspace == here.at && !world.integrations[*at].gone)
            .map(|at| (at, show(at, &world.integrations[at])))
            .collect();
        match sort {
            5 => Err(No::Values(vec!["query.sort_by".to_owned()])),
            3 | 4 => sorted(world, &list, rows, page, (sort, &admits)),
            _ => Ok(world.page_of(&list, &rows, page, admits)),
        }
    };
    let sorting = ["", "", "", "&sort_by=name", "&sort_by=-created_at", "&sort_by=size"][usize::from(sort)];
    let filters = ["", "", "", "&enabled=true", "&protocol=rest", "&search=-NAME-1"][usize::from(filter)];
    let query = format!("integrations{}{sorting}{filters}", world.query(&list, page));
    (send(Method::GET, path(world, step, &query), None), outcome())
}

/// A page of a list that is sorted by another column. It follows the integration whose position the token holds.
fn sorted(
    world: &World,
    list: &str,
    mut rows: Vec<(usize, Value)>,
    page: Page,
    (sort, admits): (u8, &dyn Fn(usize) -> bool),
) -> Outcome {
    let lost = || No::Values(vec!["query.continuation_token".to_owned()]);
    if sort == 3 {
        rows.sort_by_key(|(at, _)| world.integrations[*at].name.clone());
    } else {
        rows.sort_by_key(|(at, _)| std::cmp::Reverse((world.integrations[*at].born, *at)));
    }
    let total = rows.iter().filter(|(at, _)| admits(*at)).count();
    let (after, token) = world.token(list, page);
    let mut first = 0;
    if token.is_some_and(|token| token > 0) {
        first = 1 + rows.iter().position(|(at, _)| Some(*at) == after).ok_or_else(lost)?;
    }
    let left: Vec<_> = rows.drain(first..).filter(|(at, _)| admits(*at)).collect();
    let limit = page.limit();
    let more = left.len() > limit;
    let token = if more { json!(format!("?n:{list}.{}", left[limit - 1].0)) } else { Value::Null };
    let items: Vec<_> = left.into_iter().take(limit).map(|(_, row)| row).collect();
    Ok(Good::ok(json!({ "items": items, "has_more": more, "continuation_token": token, "total": total })))
}

pub fn add(world: &World, step: &Step, name: u8, enabled: bool) -> (Request, Outcome) {
    let (at, place) = (world.integrations.len(), world.place(step).unwrap_or(999));
    let name = match name {
        6 => "epic".to_owned(),
        7 => "-bad".to_owned(),
        name => format!("w{place:03}-name-{name}"),
    };
    let new = Integration {
        workspace: place,
        born: (world.hours, world.requests),
        name: name.clone(),
        display_name: format!("Display-{:06}", world.requests),
        protocol: "rest",
        base_url: format!("https://host-w{place:03}.example"),
        enabled,
        builtin: false,
        updated: format!("?t:integration{at}.created"),
        gone: false,
    };
    let body = json!({
        "name": name, "display_name": new.display_name, "base_url": new.base_url, "enabled": enabled,
    });
    let outcome = || -> Outcome {
        let here = world.enter(step, "Integration.create")?;
        if name == "-bad" {
            return Err(No::Values(vec!["body.name".to_owned()]));
        }
        if name == "epic" {
            return Err(No::Because(409, "name_reserved"));
        }
        if world.integrations.iter().any(|it| it.workspace == here.at && !it.gone && it.name == name) {
            return Err(No::Because(409, "name_taken"));
        }
        quotas::room_for_integration(world, here.at)?;
        let good = Good::created(show(at, &new)).near(format!("?t:integration{at}.created"), 0);
        Ok(good.then(move |world| {
            world.integrations.push(new);
            here.note(world, ("integrations", "integration.create", "integration"), Some(integration_id(at)));
        }))
    };
    (send(Method::POST, path(world, step, "integrations"), Some(body)), outcome())
}

pub fn one(world: &World, step: &Step, integration: Thing) -> (Request, Outcome) {
    let (chosen, id) = chosen(world, step, integration);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Integration.view")?;
        let at = found(world, here.at, chosen)?;
        Ok(Good::ok(show(at, &world.integrations[at])))
    };
    (send(Method::GET, path(world, step, &format!("integrations/{id}")), None), outcome())
}

#[derive(Clone, Copy)]
pub struct Change {
    pub display_name: bool,
    pub base_url: u8,
    pub enabled: Option<bool>,
}

pub fn change(world: &World, step: &Step, integration: Thing, change: Change) -> (Request, Outcome) {
    let (chosen, id) = chosen(world, step, integration);
    let place = world.place(step).unwrap_or(999);
    let mut body = Map::new();
    let display_name = change.display_name.then(|| format!("Display-{:06}", world.requests));
    if let Some(name) = &display_name {
        body.insert("display_name".to_owned(), json!(name));
    }
    let base_url = match change.base_url {
        0 => None,
        1 => Some(format!("https://host-w{place:03}.example/other")),
        2 => Some("https://{host}/fhir".to_owned()),
        _ => Some("ftp://example.com".to_owned()),
    };
    if let Some(base_url) = &base_url {
        body.insert("base_url".to_owned(), json!(base_url));
    }
    if let Some(enabled) = change.enabled {
        body.insert("enabled".to_owned(), json!(enabled));
    }
    let outcome = || -> Outcome {
        let here = world.enter(step, "Integration.update")?;
        if change.base_url == 3 {
            return Err(No::Values(vec!["body.base_url".to_owned()]));
        }
        let at = found(world, here.at, chosen)?;
        let old = &world.integrations[at];
        let mut new = old.clone();
        new.display_name = display_name.unwrap_or(new.display_name);
        new.base_url = base_url.unwrap_or(new.base_url);
        new.enabled = change.enabled.unwrap_or(new.enabled);
        if new.enabled && (new.base_url.contains('{') || new.builtin) {
            return Err(UNFINISHED);
        }
        let same = (&new.display_name, &new.base_url, new.enabled)
            == (&old.display_name, &old.base_url, old.enabled);
        if same {
            return Ok(Good::ok(show(at, old)));
        }
        new.updated = changed(world, &format!("integration{at}"));
        let good = Good::ok(show(at, &new)).grows(&new.updated, &old.updated);
        Ok(good.then(move |world| {
            world.integrations[at] = new;
            here.note(world, ("integrations", "integration.update", "integration"), Some(integration_id(at)));
        }))
    };
    let path = path(world, step, &format!("integrations/{id}"));
    (send(Method::PUT, path, Some(Value::Object(body))), outcome())
}

pub fn delete(world: &World, step: &Step, integration: Thing) -> (Request, Outcome) {
    let (chosen, id) = chosen(world, step, integration);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Integration.delete")?;
        let at = found(world, here.at, chosen)?;
        if world.integrations[at].builtin {
            return Err(No::Because(409, "builtin_integration"));
        }
        Ok(Good::done().then(move |world| {
            world.integrations[at].gone = true;
            here.note(world, ("integrations", "integration.delete", "integration"), Some(integration_id(at)));
        }))
    };
    (send(Method::DELETE, path(world, step, &format!("integrations/{id}")), None), outcome())
}

fn show_twilio(world: &World, at: usize, twilio: Option<&Twilio>) -> Value {
    let reference = format!("workspace/{}/twilio/auth_token", world.text(&workspace_id(at)));
    json!({
        "configured": twilio.is_some(), "account_sid": twilio.map(|it| &it.account),
        "auth_token_reference": twilio.map(|_| reference), "secondary_auth_token_reference": null, "status_callback_url": null,
        "reconciliation": twilio.map(|_| "report"), "created_at": twilio.map(|it| &it.created), "updated_at": twilio.map(|it| &it.updated),
    })
}

pub fn twilio(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world
        .enter(step, "Integration.view")
        .map(|here| Good::ok(show_twilio(world, here.at, world.workspaces[here.at].twilio.as_ref())));
    (send(Method::GET, path(world, step, "twilio"), None), outcome)
}

/// The Twilio account of a workspace.
pub fn account(at: usize, number: u8) -> String {
    format!("AC{:032x}", 0xabc_0000_0000_usize + at * 256 + usize::from(number % 3))
}

pub fn set_twilio(world: &World, step: &Step, number: u8) -> (Request, Outcome) {
    let account = account(world.place(step).unwrap_or(999), number);
    let body = json!({ "account_sid": account, "auth_token": "a-token-of-the-walk" });
    let outcome = world.enter(step, "Integration.update").map(|here| {
        let symbol = changed(world, &format!("twilio{}", here.at));
        let old = world.workspaces[here.at].twilio.clone();
        let created = old.as_ref().map_or_else(|| symbol.clone(), |old| old.created.clone());
        let new = Twilio { account, created, updated: symbol.clone() };
        let mut good = Good::ok(show_twilio(world, here.at, Some(&new)));
        if let Some(old) = old {
            good = good.grows(symbol, old.updated);
        }
        good.then(move |world| {
            world.workspaces[here.at].twilio = Some(new);
            here.note(world, ("calls", "twilio.update", "twilio_account"), None);
        })
    });
    (send(Method::PUT, path(world, step, "twilio"), Some(body)), outcome)
}

pub fn delete_twilio(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = world.enter(step, "Integration.update").map(|here| {
        Good::done().then(move |world| {
            if world.workspaces[here.at].twilio.take().is_some() {
                here.note(world, ("calls", "twilio.delete", "twilio_account"), None);
            }
        })
    });
    (send(Method::DELETE, path(world, step, "twilio"), None), outcome)
}

/// The queues of a workspace, in the order of their integrations' ids.
fn show_lanes(world: &World, at: usize, lanes: &[Lane]) -> Value {
    let mut lanes: Vec<&Lane> = lanes.iter().filter(|lane| lane.workspace == at).collect();
    lanes.sort_by_key(|lane| world.text(&integration_id(lane.integration)));
    let show = |lane: &&Lane| {
        let it = &world.integrations[lane.integration];
        let count = |state: &str| {
            let owed = world.deliveries.iter().filter(|owed| owed.integration == lane.integration);
            owed.filter(|owed| owed.state == state).count()
        };
        json!({
            "integration_id": integration_id(lane.integration), "name": (!it.gone).then_some(&it.name),
            "held": lane.held, "held_because": lane.held.then_some("operator"), "held_at": "*",
            "waits_because": lane.held.then_some("held"), "waits_since": if lane.held { json!("*") } else { Value::Null },
            "next_attempt_at": "*", "failures_in_a_row": 0, "last_success_at": null, "pending": count("pending"), "oldest_pending_at": "*", "held_deliveries": 0, "failed": 0,
            "synced": count("synced"),
        })
    };
    json!({ "integrations": lanes.iter().map(show).collect::<Vec<_>>() })
}

pub fn sync_status(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome =
        world.enter(step, "Integration.view").map(|here| Good::ok(show_lanes(world, here.at, &world.lanes)));
    (send(Method::GET, path(world, step, "sync"), None), outcome)
}

pub fn hold(world: &World, step: &Step, integration: Thing, held: bool) -> (Request, Outcome) {
    let (chosen, id) = chosen(world, step, integration);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Integration.update")?;
        let at = found(world, here.at, chosen)?;
        let mut lanes = world.lanes.clone();
        match lanes.iter_mut().find(|lane| lane.integration == at) {
            Some(lane) => lane.held = held,
            None => lanes.push(Lane { workspace: here.at, integration: at, held }),
        }
        let good = Good::ok(show_lanes(world, here.at, &lanes));
        Ok(good.then(move |world| {
            world.lanes = lanes;
            let action = if held { "integration.hold" } else { "integration.release" };
            here.note(world, ("sync", action, "integration"), Some(integration_id(at)));
        }))
    };
    let path = path(world, step, &format!("sync/{id}/hold"));
    (send(Method::PUT, path, Some(json!({ "held": held }))), outcome())
}
