//! The model of trust rules, by which the jobs of an outside issuer act without a stored key.

use reqwest::Method;
use serde_json::{Value, json};

use super::rules::{BEYOND, Caller, Good, Here, No, Outcome, ROLES, Reach, Request, UNAUTHORIZED, choose};
use super::steps::{Page, Step, Thing, Who};
use super::world::{Key, Member, NOBODY, Principal, Secret, World, entity_id, workspace_id};
use super::{protection, quotas};
use crate::trust_rules::{MAIN, WARD, is, rule as rule_of};

/// The repositories whose jobs act in a walk, by their immutable ids.
pub const REPOSITORIES: [&str; 3] = ["repository-0", "repository-1", "repository-2"];

const NO_RULE: No = No::Because(404, "trust_rule_not_found");

#[derive(Clone, Debug)]
pub struct Rule {
    pub workspace: usize,
    pub repository: usize,
    /// Whether it has a second exact condition, so that it comes before the others.
    pub strict: bool,
    pub reach: Reach,
    /// The service that the jobs act as.
    pub who: usize,
    pub name: String,
    pub creator: (usize, Option<usize>),
    pub gone: bool,
}

/// Adds the jobs of each repository, which have tokens and no key.
pub fn meet_jobs(world: &mut World) {
    for name in REPOSITORIES {
        world.meet(name);
        let principal = world.principals.last_mut().expect("the job's");
        principal.is_user = false;
    }
}

/// The repository of a key that stands for the tokens of its jobs.
pub fn repository(key: &Key) -> Option<usize> {
    REPOSITORIES.iter().position(|name| key.token == Some(name))
}

/// The secret that stands for the tokens of a repository's jobs.
pub fn secret_of(world: &World, number: u8) -> Option<usize> {
    let wanted = usize::from(number) % REPOSITORIES.len();
    world.secrets.iter().position(|Secret { key, .. }| repository(&world.keys[*key]) == Some(wanted))
}

/// The rule that a job acts by in a workspace: the one with the most exact conditions, then the oldest.
fn chosen_rule(world: &World, workspace: usize, repository: usize) -> Option<&Rule> {
    let live = |it: &&Rule| !it.gone && it.workspace == workspace && it.repository == repository;
    let mut live = world.rules.iter().filter(live);
    live.clone().find(|it| it.strict).or_else(|| live.next())
}

/// The workspaces with a rule for these jobs.
pub fn workspaces_of(world: &World, repository: usize) -> Vec<usize> {
    let live = world.rules.iter().filter(|it| !it.gone && it.repository == repository);
    live.map(|it| it.workspace).collect()
}

/// The caller that a job is in the workspace of its step. It gets the answer to a wrong key wherever no rule trusts it.
pub fn job(world: &World, step: &Step, key: usize) -> Result<Caller, No> {
    let repository = repository(&world.keys[key]).expect("a job");
    let at = world.place(step).filter(|at| world.workspaces[*at].state == super::world::State::Active);
    let at = at.ok_or(UNAUTHORIZED)?;
    let rule = chosen_rule(world, at, repository).ok_or(UNAUTHORIZED)?;
    if !protection::allows(world.workspaces[at].networks, step.away) {
        return Err(UNAUTHORIZED);
    }
    Ok(Caller { key, who: rule.who, reach: rule.reach })
}

/// Ends a membership, and the rule of a service that had one.
pub fn end_of_member(world: &mut World, here: &Here, member: usize) {
    world.members[member].gone = true;
    let who = world.members[member].who;
    if let Some(rule) = world.rules.iter().position(|it| !it.gone && it.who == who) {
        end(world, here, rule);
    }
}

fn end(world: &mut World, here: &Here, rule: usize) {
    world.rules[rule].gone = true;
    let who = world.rules[rule].who;
    here.note(world, ("trust_rules", "trust_rule.delete", "trust_rule"), Some(entity_id(who)));
}

fn path(world: &World, step: &Step, rest: &str) -> String {
    format!("/v1/{}/trust-rules{rest}", world.path_id(step))
}

fn show(world: &World, it: &Rule) -> Value {
    json!({
        "id": entity_id(it.who), "workspace_id": workspace_id(it.workspace), "name": it.name, "issuer": "*",
        "audience": WARD, "shape": "github_actions", "conditions": conditions(it.repository, it.strict),
        "role": ROLES[it.reach.role], "permissions": it.reach.names(), "expires_at": null,
        "created_by_entity_id": entity_id(it.creator.0),
        "created_by_credential_id": it.creator.1.and_then(|by| world.credential(by)),
        "created_at": format!("?t:rule{}.created", it.who),
    })
}

fn conditions(repository: usize, strict: bool) -> Value {
    let mut all = vec![is("repository_id", REPOSITORIES[repository])];
    if strict {
        all.push(is("ref", MAIN));
    }
    Value::Array(all)
}

pub fn create(world: &World, step: &Step, repository: u8, strict: bool, role: usize) -> (Request, Outcome) {
    let (who, repository) = (world.principals.len(), usize::from(repository) % REPOSITORIES.len());
    let name = format!("job-{:06}", world.requests);
    let mut body = rule_of(&world.outside_issuer, conditions(repository, strict), ROLES[role]);
    body["name"] = json!(name);
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.create")?;
        let reach = Reach::whole(role);
        if !here.reach.covers(reach) || !protection::covers(world.keys[here.key].networks, 0) {
            return Err(BEYOND);
        }
        quotas::room_for_member(world, here.at)?;
        let creator = (here.who, Some(here.key));
        let new = Rule {
            workspace: here.at,
            repository,
            strict,
            reach,
            who,
            name: name.clone(),
            creator,
            gone: false,
        };
        let good = Good::created(show(world, &new)).near(format!("?t:rule{who}.created"), 0);
        Ok(good.then(move |world| {
            world.principals.push(Principal { is_user: false, name: Some(name) });
            world.members.push(Member { workspace: here.at, who, role, gone: false });
            world.rules.push(new);
            here.note(world, ("trust_rules", "trust_rule.create", "trust_rule"), Some(entity_id(who)));
        }))
    };
    (Request { method: Method::POST, path: path(world, step, ""), body: Some(body) }, outcome())
}

pub fn list(world: &World, step: &Step, page: Page) -> (Request, Outcome) {
    let list = world.place(step).map_or_else(String::new, |at| format!("rules{at}"));
    let outcome = world.enter(step, "ApiKey.view").map(|here| {
        let live = world.rules.iter().enumerate().filter(|(_, it)| it.workspace == here.at && !it.gone);
        let rows: Vec<_> = live.map(|(at, it)| (at, show(world, it))).collect();
        world.page(&list, &rows, page)
    });
    let path = path(world, step, &world.query(&list, page));
    (Request { method: Method::GET, path, body: None }, outcome)
}

/// The rule that a step concerns, of any workspace, and its path.
fn chosen(world: &World, step: &Step, rule: Thing) -> (Option<usize>, String) {
    let found = choose(rule, world.place(step), world.rules.iter().map(|it| it.workspace));
    let id = found.map_or_else(|| NOBODY.to_owned(), |at| world.text(&entity_id(world.rules[at].who)));
    (found, path(world, step, &format!("/{id}")))
}

fn found(world: &World, here: &Here, rule: Option<usize>) -> Result<usize, No> {
    let ours = |at: &usize| world.rules[*at].workspace == here.at && !world.rules[*at].gone;
    rule.filter(ours).ok_or(NO_RULE)
}

pub fn one(world: &World, step: &Step, rule: Thing) -> (Request, Outcome) {
    let (rule, path) = chosen(world, step, rule);
    let outcome = world.enter(step, "ApiKey.view").and_then(|here| {
        let at = found(world, &here, rule)?;
        Ok(Good::ok(show(world, &world.rules[at])))
    });
    (Request { method: Method::GET, path, body: None }, outcome)
}

pub fn delete(world: &World, step: &Step, rule: Thing) -> (Request, Outcome) {
    let (rule, path) = chosen(world, step, rule);
    let outcome = || -> Outcome {
        let here = world.enter(step, "ApiKey.delete")?;
        let at = found(world, &here, rule)?;
        let (who, reach) = (world.rules[at].who, world.rules[at].reach);
        if here.who != who && !here.reach.covers(reach) {
            return Err(BEYOND);
        }
        Ok(Good::done().then(move |world| {
            if let Some(member) = world.member(here.at, who) {
                world.members[member].gone = true;
            }
            end(world, &here, at);
        }))
    };
    (Request { method: Method::DELETE, path, body: None }, outcome())
}

/// Whether a step is one of a job: an operation without a workspace only describes a job, and no rule decides there.
pub fn may_be_of_a_job(who: Who, operation: Option<&str>) -> bool {
    const WITHOUT: [&str; 8] = [
        "create-self-service-workspace",
        "create-my-workspace",
        "list-workspaces",
        "get-auth-info",
        "get-me",
        "accept-invitation",
        "list-my-invitations",
        "accept-my-invitation",
    ];
    !matches!(who, Who::Job(_)) || operation.is_some_and(|it| !WITHOUT.contains(&it))
}
