//! The rules as the design states them, in the walk's own tables. Nothing here is taken from `ward`.

use reqwest::Method;
use serde_json::{Value, json};

use super::protection::allows;
use super::steps::{Page, Place, Step, Thing, Who};
use super::trust;
use super::world::{Event, State, World, secret, workspace_id};
pub use crate::authorization::PERMISSIONS;

/// The roles, from the lowest to the highest.
pub const ROLES: [&str; 5] = ["viewer", "member", "operator", "admin", "owner"];
pub const ADMIN: usize = 3;
pub const OWNER: usize = 4;

/// How many of [`PERMISSIONS`] each role has.
const HELD: [u32; 5] = [2, 4, 6, 13, 13];

/// A role, and a set of permissions as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub role: usize,
    pub may: u32,
}

impl Reach {
    pub fn whole(role: usize) -> Self {
        Self { role, may: (1 << HELD[role]) - 1 }
    }

    pub fn within(self, other: Self) -> Self {
        let role = self.role.min(other.role);
        Self { role, may: self.may & other.may & Self::whole(role).may }
    }

    pub fn covers(self, other: Self) -> bool {
        other.role <= self.role && other.may & !self.may == 0
    }

    pub fn has(self, permission: &str) -> bool {
        let bit = PERMISSIONS.iter().position(|it| *it == permission).expect("a permission");
        self.may & (1 << bit) != 0
    }

    /// A leaked key keeps only the views without patient data.
    pub fn in_quarantine(self) -> Self {
        let kept = ["Workspace.view", "Integration.view", "ApiKey.view", "Audit.view"];
        let bit = |name: &&str| PERMISSIONS.iter().position(|it| it == name).expect("a permission");
        let may = kept.iter().map(bit).fold(0, |all, bit| all | (1 << bit));
        Self { may: self.may & may, ..self }
    }

    pub fn names(self) -> Vec<&'static str> {
        PERMISSIONS.into_iter().filter(|name| self.has(name)).collect()
    }
}

/// A request with its body in JSON.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
}

/// The expected refusal of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum No {
    /// A status with its `error_code`.
    Because(u16, &'static str),
    /// 422 with the locations of the problems.
    Values(Vec<String>),
}

pub const UNAUTHORIZED: No = No::Because(401, "unauthorized");
pub const UNSEEN: No = No::Because(404, "workspace_not_found");
pub const FORBIDDEN: No = No::Because(403, "forbidden");
pub const QUARANTINED: No = No::Because(403, "key_quarantined");
pub const BEYOND: No = No::Because(403, "beyond_caller");
pub const A_SERVICE: No = No::Because(403, "unsupported_principal");

/// The change to the model after an expected answer.
pub type Then = Box<dyn FnOnce(&mut World)>;

/// The expected answer of a successful request.
pub struct Good {
    pub status: u16,
    pub body: Option<Value>,
    pub then: Vec<Then>,
    /// Times with their expected distance from now, in hours.
    pub near: Vec<(String, i64)>,
    /// Pairs of times, of which the first must be later.
    pub grows: Vec<(String, String)>,
    /// The positions in a list, which must increase.
    pub places: Vec<String>,
    /// Workspaces that the answer may mention although the caller is no member.
    pub shows: Vec<usize>,
}

impl Good {
    pub fn ok(body: Value) -> Self {
        Self::with(200, Some(body))
    }

    pub fn created(body: Value) -> Self {
        Self::with(201, Some(body))
    }

    pub fn done() -> Self {
        Self::with(204, None)
    }

    fn with(status: u16, body: Option<Value>) -> Self {
        Self { status, body, then: vec![], near: vec![], grows: vec![], places: vec![], shows: vec![] }
    }

    pub fn then(mut self, then: impl FnOnce(&mut World) + 'static) -> Self {
        self.then.push(Box::new(then));
        self
    }

    pub fn near(mut self, symbol: impl Into<String>, hours: i64) -> Self {
        self.near.push((symbol.into(), hours));
        self
    }

    pub fn grows(mut self, later: impl Into<String>, earlier: impl Into<String>) -> Self {
        self.grows.push((later.into(), earlier.into()));
        self
    }

    pub fn shows(mut self, workspace: usize) -> Self {
        self.shows.push(workspace);
        self
    }
}

pub type Outcome = Result<Good, No>;

/// The caller that a valid credential identifies.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub key: usize,
    pub who: usize,
    pub reach: Reach,
}

/// A caller and the caller's membership in a workspace.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    pub at: usize,
    pub key: usize,
    pub who: usize,
    /// The reach of the key alone.
    pub own: Reach,
    /// The common reach of the key and the membership.
    pub reach: Reach,
    pub member: usize,
}

impl Here {
    /// Adds an expected event of this caller in this workspace.
    pub fn note(
        &self,
        world: &mut World,
        what: (&'static str, &'static str, &'static str),
        id: Option<String>,
    ) {
        world.note(self.at, Some((self.who, self.key)), what, id);
    }
}

impl World {
    /// The key that a step presents, and its text.
    pub fn presented(&self, who: Who) -> (Option<usize>, Option<String>) {
        let live = |wanted: bool| {
            let all = 0..self.secrets.len();
            let own = all.filter(|at| trust::repository(&self.keys[self.secrets[*at].key]).is_none());
            own.filter(|at| self.is_live(*at) == wanted).collect::<Vec<_>>()
        };
        let (choice, number) = match who {
            Who::Anonymous => return (None, None),
            Who::Stray => return (None, Some(self.stray.clone())),
            Who::Holder(number) => (live(true), number),
            Who::Lead(number) => {
                let leads = |at: &usize| {
                    let key = &self.keys[self.secrets[*at].key];
                    key.reach == Reach::whole(OWNER) && self.principals[key.principal].is_user
                };
                (live(true).into_iter().filter(leads).collect(), number)
            }
            Who::Nominee(number) => {
                let pending = (0..self.workspaces.len()).filter_map(|at| self.pending(at)).map(|it| it.to);
                let nominees: Vec<usize> = pending.collect();
                let is_one = |at: &usize| nominees.contains(&self.keys[self.secrets[*at].key].principal);
                (live(true).into_iter().filter(is_one).collect(), number)
            }
            Who::Former(number) => (live(false), number),
            Who::Job(number) => (trust::secret_of(self, number).into_iter().collect(), number),
        };
        let Some(at) = pick(&choice, number) else { return (None, Some(self.stray.clone())) };
        (Some(at), Some(self.text(&secret(at))))
    }

    fn is_live(&self, at: usize) -> bool {
        let held = &self.secrets[at];
        let key = &self.keys[held.key];
        !key.revoked
            && key.generation == held.generation
            && key.expires > self.hours
            && !key.bound
            && (key.token.is_some() || self.workspaces[key.workspace].state == State::Active)
    }

    pub fn caller(&self, step: &Step) -> Result<Caller, No> {
        let (Some(at), _) = self.presented(step.who) else { return Err(UNAUTHORIZED) };
        if !self.is_live(at) {
            return Err(UNAUTHORIZED);
        }
        let at = self.secrets[at].key;
        let key = &self.keys[at];
        if trust::repository(key).is_some() {
            return trust::job(self, step, at);
        }
        let home = key.token.is_none().then_some(key.workspace);
        let networks = [Some(key.networks), home.map(|home| self.workspaces[home].networks)];
        if !networks.into_iter().flatten().all(|of| allows(of, step.away)) {
            return Err(UNAUTHORIZED);
        }
        let reach = if key.quarantined.is_some() { key.reach.in_quarantine() } else { key.reach };
        Ok(Caller { key: at, who: key.principal, reach })
    }

    /// The same for an operation without a workspace, which a leaked key may only read with.
    pub fn actor(&self, step: &Step) -> Result<Caller, No> {
        let caller = self.caller(step)?;
        let leaked = self.keys[caller.key].quarantined.is_some();
        if leaked && !step.act.reads() { Err(QUARANTINED) } else { Ok(caller) }
    }

    /// The workspace that a step concerns. `None` if it does not exist.
    pub fn place(&self, step: &Step) -> Option<usize> {
        let all: Vec<usize> = (0..self.workspaces.len()).collect();
        match step.place {
            Place::Nowhere => None,
            Place::Any(number) => pick(&all, number),
            Place::Unclaimed(number) => {
                let new: Vec<usize> =
                    all.iter().copied().filter(|at| self.workspaces[*at].state == State::Unclaimed).collect();
                pick(&new, number).or(pick(&all, number))
            }
            Place::Pending(number) => {
                let some: Vec<usize> = all.iter().copied().filter(|at| self.pending(*at).is_some()).collect();
                pick(&some, number).or(pick(&all, number))
            }
            Place::Own(number) => {
                let own = self.presented(step.who).0.and_then(|at| {
                    let key = &self.keys[self.secrets[at].key];
                    if let Some(repository) = trust::repository(key) {
                        return pick(&trust::workspaces_of(self, repository), number);
                    }
                    let mine = self.memberships(key.principal);
                    let home = key.token.is_none().then_some(key.workspace);
                    pick(&mine, number).map(|at| self.members[at].workspace).or(home)
                });
                own.or(pick(&all, number))
            }
        }
    }

    /// The `workspace_id` of a step's path.
    pub fn path_id(&self, step: &Step) -> String {
        self.text(&self.place(step).map_or_else(String::new, workspace_id))
    }

    /// The caller in the workspace, or a 401, 404 or 403.
    pub fn enter(&self, step: &Step, permission: &str) -> Result<Here, No> {
        let caller = self.caller(step)?;
        let at = self.place(step).filter(|at| self.workspaces[*at].state == State::Active).ok_or(UNSEEN)?;
        let member = self.member(at, caller.who).ok_or(UNSEEN)?;
        if !allows(self.workspaces[at].networks, step.away) {
            return Err(UNSEEN);
        }
        let reach = caller.reach.within(Reach::whole(self.members[member].role));
        let leaked = self.keys[caller.key].quarantined.is_some();
        if !reach.has(permission) || leaked && !step.act.reads() {
            return Err(if leaked { QUARANTINED } else { FORBIDDEN });
        }
        Ok(Here { at, key: caller.key, who: caller.who, own: caller.reach, reach, member })
    }

    /// The same for operations that only owners may use.
    pub fn enter_as_owner(&self, step: &Step, permission: &str) -> Result<Here, No> {
        let here = self.enter(step, permission)?;
        if here.reach.role < OWNER { Err(No::Because(403, "owner_only")) } else { Ok(here) }
    }

    /// Adds an expected event of the audit.
    pub fn note(
        &mut self,
        at: usize,
        actor: Option<(usize, usize)>,
        (service, action, resource_type): (&'static str, &'static str, &'static str),
        resource: Option<String>,
    ) {
        let (hours, request) = (self.hours, self.requests);
        let phi = matches!(action, "call.read" | "call.list" | "delivery.read" | "delivery.list");
        let event = Event { hours, request, service, action, resource_type, resource, actor, phi };
        self.workspaces[at].events.push(event);
    }

    /// The page of a list that a step requests. Each row comes with its number.
    pub fn page(&self, list: &str, rows: &[(usize, Value)], page: Page) -> Good {
        self.page_of(list, rows, page, |_| true)
    }

    /// The same, with only the rows that the predicate admits.
    pub fn page_of(
        &self,
        list: &str,
        rows: &[(usize, Value)],
        page: Page,
        admits: impl Fn(usize) -> bool,
    ) -> Good {
        let symbol = |row: usize| format!("?n:{list}.{row}");
        let (after, _) = self.token(list, page);
        let rows: Vec<&(usize, Value)> = rows.iter().filter(|(row, _)| admits(*row)).collect();
        let follows = |row: usize| after.is_none_or(|after| row > after);
        let left: Vec<_> = rows.iter().filter(|(row, _)| follows(*row)).collect();
        let limit = page.limit();
        let shown: Vec<Value> = left.iter().take(limit).map(|(_, row)| row.clone()).collect();
        let more = left.len() > limit;
        let token = if more { json!(symbol(left[limit - 1].0)) } else { Value::Null };
        let mut good = Good::ok(json!({
            "items": shown, "has_more": more, "continuation_token": token, "total": rows.len(),
        }));
        good.places = rows.iter().map(|(row, _)| symbol(*row)).collect();
        good
    }

    /// The page of a list of which some rows are not shown. They count for its length, but not for the total.
    pub fn page_shown(&self, list: &str, rows: &[(usize, Option<Value>)], page: Page) -> Good {
        let symbol = |row: usize| format!("?n:{list}.{row}");
        let (after, _) = self.token(list, page);
        let left: Vec<_> = rows.iter().filter(|(row, _)| after.is_none_or(|after| *row > after)).collect();
        let limit = page.limit();
        let shown: Vec<Value> = left.iter().take(limit).filter_map(|(_, row)| row.clone()).collect();
        let more = left.len() > limit;
        let token = if more { json!(symbol(left[limit - 1].0)) } else { Value::Null };
        let mut good = Good::ok(json!({
            "items": shown, "has_more": more, "continuation_token": token,
            "total": rows.iter().filter(|(_, row)| row.is_some()).count(),
        }));
        good.places = rows.iter().map(|(row, _)| symbol(*row)).collect();
        good
    }

    /// The row after which a page begins, and the token in the request. A row's number is its position in its list.
    pub fn token(&self, list: &str, page: Page) -> (Option<usize>, Option<i64>) {
        match page.from {
            0..=99 => (None, None),
            100..=119 => (None, Some(-7)),
            120..=139 => (Some(usize::MAX), Some(9_000_000_000_000_000)),
            from => {
                let known = self.known.places(&format!("?n:{list}."));
                pick(&known, from).map_or((None, None), |(row, place)| (Some(row), Some(place)))
            }
        }
    }

    /// The query for the same page: `?limit=..&continuation_token=..`.
    pub fn query(&self, list: &str, page: Page) -> String {
        let token = self.token(list, page).1.map(|token| format!("&continuation_token={token}"));
        format!("?limit={}{}", page.limit(), token.unwrap_or_default())
    }
}

/// One of these, chosen by any number.
pub fn pick<T: Copy>(of: &[T], number: u8) -> Option<T> {
    if of.is_empty() { None } else { Some(of[usize::from(number) % of.len()]) }
}

/// The resource that a step concerns: one of its own workspace, or any. `homes` are the workspaces of the resources.
pub fn choose(thing: Thing, place: Option<usize>, homes: impl Iterator<Item = usize>) -> Option<usize> {
    let (number, only_here) = match thing {
        Thing::Here(number) => (number, true),
        Thing::Anywhere(number) => (number, false),
    };
    let meant = homes.enumerate().filter(|(_, home)| !only_here || Some(*home) == place);
    pick(&meant.map(|(at, _)| at).collect::<Vec<_>>(), number)
}
