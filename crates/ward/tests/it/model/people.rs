//! The model of members, of transfers of ownership and of invitations.

use reqwest::Method;
use serde_json::{Value, json};

use super::protection::allows;
use super::rules::{
    A_SERVICE, ADMIN, BEYOND, Caller, Good, Here, No, OWNER, Outcome, ROLES, Reach, Request, choose, pick,
};
use super::steps::{Page, Step, Thing};
use super::world::{
    Invitation, Member, NOBODY, State, Transfer, World, entity_id, invitation_id, link, workspace_id,
};
use super::{quotas, trust};

const NO_MEMBER: No = No::Because(404, "member_not_found");
const NO_TRANSFER: No = No::Because(404, "transfer_not_found");
const NO_INVITATION: No = No::Because(404, "invitation_not_found");

fn send(method: Method, path: String, body: Option<Value>) -> Request {
    Request { method, path, body }
}

fn show(world: &World, at: usize, role: usize) -> Value {
    let member = &world.members[at];
    let who = &world.principals[member.who];
    json!({
        "entity_id": entity_id(member.who), "kind": if who.is_user { "user" } else { "service" },
        "display_name": who.name, "role": ROLES[role], "joined_at": format!("?t:member{at}.joined"),
    })
}

/// The member that a step concerns, and the id in its path.
fn chosen(world: &World, step: &Step, thing: Thing) -> (Option<usize>, String) {
    let at = world.place(step);
    let found = choose(thing, at, world.members.iter().map(|it| it.workspace));
    let who = found.map(|it| world.members[it].who);
    let id = who.map_or_else(|| NOBODY.to_owned(), |who| world.text(&entity_id(who)));
    // An id that no answer has shown yet cannot be named.
    let member = who.filter(|_| id != NOBODY).zip(at).and_then(|(who, at)| world.member(at, who));
    (member, id)
}

fn path(world: &World, step: &Step, rest: &str) -> String {
    format!("/v1/workspaces/{}/{rest}", world.path_id(step))
}

/// A caller cannot act on a role above its own.
fn reaches(here: &Here, role: usize) -> Result<(), No> {
    if here.reach.covers(Reach::whole(role)) { Ok(()) } else { Err(BEYOND) }
}

/// Whether the credential allows all that the role of its principal does.
fn speaks_for_whole(world: &World, here: &Here, role: usize) -> Result<(), No> {
    let whole = if world.principals[here.who].is_user {
        here.own.covers(Reach::whole(role))
    } else {
        here.own.role >= role
    };
    if whole { Ok(()) } else { Err(BEYOND) }
}

fn keeps_an_owner(world: &World, without: usize) -> Result<(), No> {
    let is_owner = |at: usize| {
        let it = &world.members[at];
        !it.gone && it.role == OWNER && world.principals[it.who].is_user
    };
    let home = world.members[without].workspace;
    let other = (0..world.members.len())
        .any(|at| at != without && world.members[at].workspace == home && is_owner(at));
    let leaves = world.members[without].who;
    if !world.principals[leaves].is_user {
        let owns = !world.members[without].gone && world.members[without].role == OWNER;
        let opens = owns && has_way_in_of_service(world, home, None, None);
        let kept =
            has_way_in(world, home, None, None) || has_way_in_of_service(world, home, Some(leaves), None);
        return if opens && !kept { Err(LAST_WAY_IN) } else { Ok(()) };
    }
    if !is_owner(without) {
        return Ok(());
    }
    if !other {
        return Err(No::Because(409, "last_owner"));
    }
    if has_way_in(world, home, Some(leaves), None) { Ok(()) } else { Err(LAST_WAY_IN) }
}

pub const LAST_WAY_IN: No = No::Because(409, "last_way_in");

pub fn owns(world: &World, who: usize, home: usize) -> bool {
    let member = |it: &Member| !it.gone && it.workspace == home && it.who == who && it.role == OWNER;
    world.members.iter().any(member)
}

/// Whether a user other than one owns the workspace and can enter it without one key.
pub fn has_way_in(world: &World, home: usize, but: Option<usize>, without: Option<usize>) -> bool {
    has_way(world, home, true, |at| Some(at) != without && Some(world.keys[at].principal) != but)
}

/// The same for services, whose keys are in the workspace.
pub fn has_way_in_of_service(world: &World, home: usize, but: Option<usize>, without: Option<usize>) -> bool {
    has_way(world, home, false, |at| Some(at) != without && Some(world.keys[at].principal) != but)
}

fn has_way(world: &World, home: usize, users: bool, counts: impl Fn(usize) -> bool) -> bool {
    (0..world.keys.len()).any(|at| {
        let who = world.keys[at].principal;
        let kind = world.principals[who].is_user == users;
        kind && counts(at) && owns(world, who, home) && is_way_in(world, at)
    })
}

/// Refuses the act of a user that ends some of its keys, if it could no longer enter another workspace and no other owner can
/// enter it either.
pub fn keeps_ways_of(
    world: &World,
    user: usize,
    home: usize,
    ends: impl Fn(usize) -> bool,
) -> Result<(), No> {
    let mut others = (0..world.keys.len()).filter(|at| world.keys[*at].principal == user && !ends(*at));
    if others.any(|at| is_way_in(world, at)) {
        return Ok(());
    }
    let closed = |it: &usize| {
        *it != home
            && world.workspaces[*it].state == State::Active
            && owns(world, user, *it)
            && !has_way_in(world, *it, Some(user), None)
    };
    if (0..world.workspaces.len()).any(|at| closed(&at)) { Err(LAST_WAY_IN) } else { Ok(()) }
}

/// Whether a key is live and has all of an owner's permissions, or is a token.
pub fn is_way_in(world: &World, at: usize) -> bool {
    let key = &world.keys[at];
    let lives = key.token.is_some()
        || !key.revoked
            && key.quarantined.is_none()
            && key.expires > world.hours
            && world.workspaces[key.workspace].state == State::Active;
    lives && key.reach.covers(Reach::whole(OWNER))
}

/// Ends the invitations that their maker could no longer make.
fn end_invitations(world: &mut World, here: &Here, maker: usize, role: Option<usize>) {
    for at in 0..world.invitations.len() {
        let it = &world.invitations[at];
        let may = role.is_some_and(|role| role >= ADMIN && role >= it.role);
        if it.workspace == here.at && it.by == maker && !it.settled && !may {
            world.invitations[at].settled = true;
            here.note(world, ("members", "invitation.revoke", "invitation"), Some(invitation_id(at)));
        }
    }
}

/// Ends the pending transfer if the predicate holds for it.
fn end_transfer_if(world: &mut World, here: &Here, moot: impl FnOnce(&Transfer) -> bool) {
    let Some(to) = world.pending(here.at).filter(|it| moot(it)).map(|it| it.to) else { return };
    world.workspaces[here.at].transfer = None;
    note(world, here, "ownership.cancel", to);
}

fn note(world: &mut World, here: &Here, action: &'static str, about: usize) {
    let actor = Some((here.who, here.key));
    world.note(here.at, actor, ("members", action, "member"), Some(entity_id(about)));
}

fn change_role(world: &mut World, here: &Here, member: usize, role: usize) {
    let who = world.members[member].who;
    world.members[member].role = role;
    end_invitations(world, here, who, Some(role));
    end_transfer_if(world, here, |it| if role == OWNER { it.to == who } else { it.by == who });
}

pub fn list(world: &World, step: &Step, page: Page) -> (Request, Outcome) {
    let list = world.place(step).map_or_else(String::new, |at| format!("seats{at}"));
    let outcome = world.enter(step, "Workspace.view").map(|here| {
        let rows: Vec<_> = (0..world.members.len())
            .filter(|at| world.members[*at].workspace == here.at && !world.members[*at].gone)
            .map(|at| (at, show(world, at, world.members[at].role)))
            .collect();
        world.page(&list, &rows, page)
    });
    let path = path(world, step, &format!("members{}", world.query(&list, page)));
    (send(Method::GET, path, None), outcome)
}

pub fn set_role(world: &World, step: &Step, member: Thing, role: usize) -> (Request, Outcome) {
    let (member, id) = chosen(world, step, member);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.update")?;
        let member = member.ok_or(NO_MEMBER)?;
        let present = world.members[member].role;
        reaches(&here, present.max(role))?;
        let good = Good::ok(show(world, member, role));
        if present == role {
            return Ok(good);
        }
        if role < OWNER {
            keeps_an_owner(world, member)?;
        }
        Ok(good.then(move |world| {
            change_role(world, &here, member, role);
            note(world, &here, "member.update", world.members[member].who);
        }))
    };
    let path = path(world, step, &format!("members/{id}"));
    (send(Method::PATCH, path, Some(json!({ "role": ROLES[role] }))), outcome())
}

fn end(world: &World, here: Here, member: usize, action: &'static str) -> Outcome {
    keeps_an_owner(world, member)?;
    Ok(Good::done().then(move |world| {
        let who = world.members[member].who;
        for key in &mut world.keys {
            if key.workspace == here.at && key.principal == who {
                key.revoked = true;
            }
        }
        end_invitations(world, &here, who, None);
        // The keys are revoked first, so a transfer made with one of them is no longer pending.
        end_transfer_if(world, &here, |it| it.to == who || it.by == who);
        trust::end_of_member(world, &here, member);
        note(world, &here, action, who);
    }))
}

pub fn remove(world: &World, step: &Step, member: Thing) -> (Request, Outcome) {
    let (member, id) = chosen(world, step, member);
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.update")?;
        let member = member.ok_or(NO_MEMBER)?;
        reaches(&here, world.members[member].role)?;
        end(world, here, member, "member.remove")
    };
    (send(Method::DELETE, path(world, step, &format!("members/{id}")), None), outcome())
}

pub fn leave(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.view")?;
        speaks_for_whole(world, &here, world.members[here.member].role)?;
        if world.principals[here.who].is_user {
            keeps_ways_of(world, here.who, here.at, |key| world.keys[key].workspace == here.at)?;
        }
        end(world, here, here.member, "member.leave")
    };
    (send(Method::DELETE, path(world, step, "members/me"), None), outcome())
}

fn show_transfer(it: &Transfer, ends: &str) -> Value {
    json!({
        "nominee_entity_id": entity_id(it.to), "nominated_by_entity_id": entity_id(it.by),
        "expires_at": ends, "created_at": format!("?t:transfer{}.created", it.number),
    })
}

pub fn transfer(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.view")?;
        let pending = world.pending(here.at).ok_or(NO_TRANSFER)?;
        Ok(Good::ok(show_transfer(pending, &format!("?t:transfer{}.ends", pending.number))))
    };
    (send(Method::GET, path(world, step, "ownership-transfer"), None), outcome())
}

/// The end of something that lasts this many days, or the expiry of its key if that is earlier.
fn ends(world: &World, here: &Here, days: u8) -> (i64, bool) {
    let wanted = world.hours + 24 * i64::from(days);
    let key = world.keys[here.key].expires;
    (wanted.min(key), key <= wanted)
}

/// Mostly a user of the workspace who is no owner yet and whose id an answer has shown.
fn nominee(world: &World, step: &Step, thing: Thing) -> (Option<usize>, String) {
    let could = |at: &usize| {
        let it = &world.members[*at];
        let is_user = world.principals[it.who].is_user;
        let named = world.text(&entity_id(it.who)) != NOBODY;
        !it.gone && is_user && named && it.role < OWNER && Some(it.workspace) == world.place(step)
    };
    let all = (0..world.members.len()).filter(could).collect::<Vec<_>>();
    match thing {
        Thing::Here(number) if number % 4 > 0 => match pick(&all, number / 4) {
            Some(at) => (Some(at), world.text(&entity_id(world.members[at].who))),
            None => chosen(world, step, thing),
        },
        _ => chosen(world, step, thing),
    }
}

pub fn nominate(world: &World, step: &Step, member: Thing, days: u8) -> (Request, Outcome) {
    let (member, id) = nominee(world, step, member);
    let outcome = || -> Outcome {
        let here = world.enter_as_owner(step, "Workspace.update")?;
        if !world.principals[here.who].is_user {
            return Err(A_SERVICE);
        }
        reaches(&here, OWNER)?;
        let nominee = &world.members[member.ok_or(NO_MEMBER)?];
        if !world.principals[nominee.who].is_user {
            return Err(No::Because(409, "not_a_user"));
        }
        if nominee.role == OWNER {
            return Err(No::Because(409, "already_owner"));
        }
        let (until, with_key) = ends(world, &here, days);
        let number = usize::try_from(world.requests).expect("a number");
        let with = (here.key, world.keys[here.key].stamp);
        let new = Transfer { number, to: nominee.who, by: here.who, ends: until, with };
        let symbol = format!("?t:transfer{number}.ends");
        let mut good =
            Good::created(show_transfer(&new, &symbol)).near(format!("?t:transfer{number}.created"), 0);
        if !with_key {
            good = good.near(symbol, 24 * i64::from(days));
        }
        Ok(good.then(move |world| {
            end_transfer_if(world, &here, |_| true);
            let to = new.to;
            world.workspaces[here.at].transfer = Some(new);
            note(world, &here, "ownership.nominate", to);
        }))
    };
    let body = json!({ "entity_id": id, "duration_days": days });
    (send(Method::POST, path(world, step, "ownership-transfer"), Some(body)), outcome())
}

pub fn cancel_transfer(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.view")?;
        let to = world.pending(here.at).ok_or(NO_TRANSFER)?.to;
        let action = if to == here.who {
            speaks_for_whole(world, &here, world.members[here.member].role)?;
            "ownership.decline"
        } else if here.reach.role < OWNER {
            return Err(No::Because(403, "owner_only"));
        } else {
            reaches(&here, OWNER)?;
            "ownership.cancel"
        };
        Ok(Good::done().then(move |world| {
            world.workspaces[here.at].transfer = None;
            note(world, &here, action, to);
        }))
    };
    (send(Method::DELETE, path(world, step, "ownership-transfer"), None), outcome())
}

pub fn accept_ownership(world: &World, step: &Step) -> (Request, Outcome) {
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.view")?;
        let pending = world.pending(here.at).filter(|it| it.to == here.who).ok_or(NO_TRANSFER)?;
        speaks_for_whole(world, &here, OWNER)?;
        let nominator = world.member(here.at, pending.by).filter(|at| world.members[*at].role == OWNER);
        let nominator = nominator.ok_or(No::Because(409, "nominator_not_owner"))?;
        Ok(Good::ok(show(world, here.member, OWNER)).then(move |world| {
            world.workspaces[here.at].transfer = None;
            world.members[here.member].role = OWNER;
            change_role(world, &here, nominator, ADMIN);
            note(world, &here, "ownership.accept", here.who);
        }))
    };
    (send(Method::POST, path(world, step, "ownership-transfer/accept"), None), outcome())
}

/// The symbol of an invitation's end.
fn end_of(at: usize, it: &Invitation) -> String {
    format!("?t:invitation{at}.ends{}", it.ended_anew)
}

fn show_invitation(at: usize, it: &Invitation) -> Value {
    json!({
        "id": invitation_id(at), "role": ROLES[it.role], "email": it.email, "created_by_entity_id": entity_id(it.by),
        "expires_at": end_of(at, it), "created_at": format!("?t:invitation{at}.created"),
    })
}

pub fn invitations(world: &World, step: &Step, page: Page) -> (Request, Outcome) {
    let list = world.place(step).map_or_else(String::new, |at| format!("invitations{at}"));
    let outcome = world.enter(step, "Workspace.update").map(|here| {
        let rows: Vec<_> = (0..world.invitations.len())
            .filter(|at| world.invitations[*at].workspace == here.at && world.is_open(*at))
            .map(|at| (at, show_invitation(at, &world.invitations[at])))
            .collect();
        world.page(&list, &rows, page)
    });
    let path = path(world, step, &format!("invitations{}", world.query(&list, page)));
    (send(Method::GET, path, None), outcome)
}

pub fn invite(world: &World, step: &Step, role: usize, days: u8, email: bool) -> (Request, Outcome) {
    let at = world.invitations.len();
    let email = email.then_some("Dana@Clinic.Example");
    let outcome = || -> Outcome {
        let here = world.enter(step, "Workspace.update")?;
        reaches(&here, role)?;
        quotas::room_for_invitation(world, here.at)?;
        let (until, with_key) = ends(world, &here, days);
        let with = (here.key, world.keys[here.key].stamp);
        let new = Invitation {
            workspace: here.at,
            role,
            email,
            by: here.who,
            with,
            ends: until,
            ended_anew: 0,
            links: 0,
            settled: false,
        };
        let mut body = show_invitation(at, &new);
        body["invitation"] = json!(link(at, 0));
        let mut good = Good::created(body).near(format!("?t:invitation{at}.created"), 0);
        if !with_key {
            good = good.near(end_of(at, &new), 24 * i64::from(days));
        }
        Ok(good.then(move |world| {
            world.invitations.push(new);
            here.note(world, ("members", "invitation.create", "invitation"), Some(invitation_id(at)));
        }))
    };
    let body = json!({ "role": ROLES[role], "duration_days": days, "email": email });
    (send(Method::POST, path(world, step, "invitations"), Some(body)), outcome())
}

/// The invitation that a step concerns, and the path of the request.
fn chosen_invitation(world: &World, step: &Step, invitation: Thing) -> (Option<usize>, String) {
    let homes = world.invitations.iter().map(|it| it.workspace);
    let chosen = choose(invitation, world.place(step), homes);
    let id = chosen.map_or_else(|| NOBODY.to_owned(), |at| world.text(&invitation_id(at)));
    (chosen, path(world, step, &format!("invitations/{id}")))
}

/// The caller where the invitation is open and within reach.
fn over(world: &World, step: &Step, invitation: Option<usize>) -> Result<(Here, usize), No> {
    let here = world.enter(step, "Workspace.update")?;
    let ours = |at: &usize| world.invitations[*at].workspace == here.at && world.is_open(*at);
    let at = invitation.filter(ours).ok_or(NO_INVITATION)?;
    reaches(&here, world.invitations[at].role)?;
    Ok((here, at))
}

pub fn revoke(world: &World, step: &Step, invitation: Thing) -> (Request, Outcome) {
    let (chosen, path) = chosen_invitation(world, step, invitation);
    let outcome = over(world, step, chosen).map(|(here, at)| {
        Good::done().then(move |world| {
            world.invitations[at].settled = true;
            here.note(world, ("members", "invitation.revoke", "invitation"), Some(invitation_id(at)));
        })
    });
    (send(Method::DELETE, path, None), outcome)
}

/// The invitation with a new end, and the moment that the end must be near.
fn ends_anew(world: &World, here: &Here, at: usize, days: u8) -> (Invitation, Option<(String, i64)>) {
    let (until, with_key) = ends(world, here, days);
    let it = &world.invitations[at];
    let it = Invitation { ends: until, ended_anew: it.ended_anew + 1, ..it.clone() };
    let near = (!with_key).then(|| (end_of(at, &it), 24 * i64::from(days)));
    (it, near)
}

pub fn extend(world: &World, step: &Step, invitation: Thing, days: u8) -> (Request, Outcome) {
    let (chosen, path) = chosen_invitation(world, step, invitation);
    let outcome = over(world, step, chosen).map(|(here, at)| {
        let (it, near) = ends_anew(world, &here, at, days);
        let mut good = Good::ok(show_invitation(at, &it));
        good.near.extend(near);
        good.then(move |world| {
            world.invitations[at] = it;
            here.note(world, ("members", "invitation.extend", "invitation"), Some(invitation_id(at)));
        })
    });
    (send(Method::PATCH, path, Some(json!({ "duration_days": days }))), outcome)
}

pub fn resend(world: &World, step: &Step, invitation: Thing, days: u8) -> (Request, Outcome) {
    let (chosen, path) = chosen_invitation(world, step, invitation);
    let outcome = over(world, step, chosen).map(|(here, at)| {
        let (it, near) = ends_anew(world, &here, at, days);
        // The caller becomes its maker, with the key of this call.
        let with = (here.key, world.keys[here.key].stamp);
        let it = Invitation { by: here.who, with, links: it.links + 1, ..it };
        let mut body = show_invitation(at, &it);
        body["invitation"] = json!(link(at, it.links));
        let mut good = Good::ok(body);
        good.near.extend(near);
        good.then(move |world| {
            world.invitations[at] = it;
            here.note(world, ("members", "invitation.resend", "invitation"), Some(invitation_id(at)));
        })
    });
    (send(Method::POST, format!("{path}/resend"), Some(json!({ "duration_days": days }))), outcome)
}

/// The open invitations for the address that a credential proves: a key proves none.
fn offered(world: &World, key: usize) -> Vec<usize> {
    let theirs = |at: &usize| {
        let it = &world.invitations[*at];
        it.email.is_some() && world.is_open(*at) && world.workspaces[it.workspace].state == State::Active
    };
    let proved = world.keys[key].token == Some("dana");
    (0..world.invitations.len()).filter(|at| proved && theirs(at)).collect()
}

pub fn offers(world: &World, step: &Step) -> (Request, Outcome) {
    const MOST: usize = 20;
    let outcome = world.caller(step).map(|caller| {
        let open = offered(world, caller.key);
        let rows: Vec<Value> = open.iter().map(|at| show_offer(world, *at)).collect();
        // Places in the lists of different workspaces do not say which invitation came first, so any order will do.
        let body = json!({
            "items": { "$groups": [{ "shown": rows.len(), "of": rows }] },
            "has_more": false, "continuation_token": null, "total": rows.len(),
        });
        let good = Good::ok(if rows.len() > MOST { json!("*") } else { body });
        open.iter().fold(good, |good, at| good.shows(world.invitations[*at].workspace))
    });
    (send(Method::GET, format!("/v1/me/invitations?limit={MOST}"), None), outcome)
}

fn show_offer(world: &World, at: usize) -> Value {
    let it = &world.invitations[at];
    let into = &world.workspaces[it.workspace];
    json!({
        "id": invitation_id(at), "workspace_id": workspace_id(it.workspace), "slug": into.slug, "name": into.name,
        "role": ROLES[it.role], "expires_at": end_of(at, it), "created_at": format!("?t:invitation{at}.created"),
    })
}

pub fn accept_offer(world: &World, step: &Step, invitation: u8) -> (Request, Outcome) {
    let all = 0..world.invitations.len();
    let bound: Vec<usize> = all.filter(|at| world.invitations[*at].email.is_some()).collect();
    let open: Vec<usize> = bound.iter().copied().filter(|at| world.is_open(*at)).collect();
    let chosen = pick(if invitation.is_multiple_of(4) { &bound } else { &open }, invitation / 4);
    let outcome = || -> Outcome {
        let caller = world.actor(step)?;
        if !world.principals[caller.who].is_user {
            return Err(A_SERVICE);
        }
        let theirs = |at: &usize| offered(world, caller.key).contains(at);
        join(world, step, &caller, chosen.filter(theirs).ok_or(NO_INVITATION)?)
    };
    let id = chosen.map_or_else(|| NOBODY.to_owned(), |at| world.text(&invitation_id(at)));
    (send(Method::POST, format!("/v1/me/invitations/{id}/accept"), None), outcome())
}

pub fn accept(world: &World, step: &Step, invitation: u8) -> (Request, Outcome) {
    let all: Vec<usize> = (0..world.invitations.len()).collect();
    let open: Vec<usize> = all.iter().copied().filter(|at| world.is_open(*at)).collect();
    let any = invitation.is_multiple_of(4);
    let chosen = pick(if any { &all } else { &open }, invitation / 4);
    // The first link is a former one once the invitation was sent again.
    let links = chosen.map_or(0, |at| if any { 0 } else { world.invitations[at].links });
    let outcome = || -> Outcome {
        let caller = world.actor(step)?;
        if !world.principals[caller.who].is_user {
            return Err(A_SERVICE);
        }
        let good = |at: &usize| world.is_open(*at) && world.invitations[*at].links == links;
        let at = chosen.filter(good).ok_or(NO_INVITATION)?;
        // A key proves no address; a token does.
        if world.invitations[at].email.is_some() && world.keys[caller.key].token != Some("dana") {
            return Err(No::Because(403, "email_not_verified"));
        }
        join(world, step, &caller, at)
    };
    let text = chosen.map_or_else(|| "ward_invite_of_nobody".to_owned(), |at| world.text(&link(at, links)));
    (send(Method::POST, "/v1/invitations/accept".to_owned(), Some(json!({ "invitation": text }))), outcome())
}

/// The outcome for a user who comes in by an open invitation.
fn join(world: &World, step: &Step, caller: &Caller, at: usize) -> Outcome {
    let it = &world.invitations[at];
    let in_use = world.workspaces[it.workspace].state == State::Active
        && allows(world.workspaces[it.workspace].networks, step.away);
    let maker = world.member(it.workspace, it.by).filter(|_| in_use).map(|at| world.members[at].role);
    if !maker.is_some_and(|role| role >= ADMIN && role >= it.role) {
        return Err(NO_INVITATION);
    }
    if !caller.reach.covers(Reach::whole(it.role)) {
        return Err(BEYOND);
    }
    if world.member(it.workspace, caller.who).is_some() {
        return Err(No::Because(409, "already_member"));
    }
    quotas::room_for_member(world, it.workspace)?;
    let (workspace, role, who, key) = (it.workspace, it.role, caller.who, caller.key);
    let mut body = super::tenancy::membership(world, workspace, role, caller);
    // The answer names the workspace even to a key that may not view it.
    body["slug"] = json!(world.workspaces[workspace].slug);
    body["name"] = json!(world.workspaces[workspace].name);
    Ok(Good::created(body).shows(workspace).then(move |world| {
        world.invitations[at].settled = true;
        world.members.push(Member { workspace, who, role, gone: false });
        let what = ("members", "invitation.accept", "invitation");
        world.note(workspace, Some((who, key)), what, Some(invitation_id(at)));
    }))
}
