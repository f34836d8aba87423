//! A writer that remembers its answers, and checks later whether they still hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::client::{Answer, Call, NoAnswer};
use crate::fleet::{Tenant, new_key, new_workspace};

const TESTER: &str = "+15550100";
const PATIENT: &str = "+15550199";

/// The number of events that the acknowledged writes must have left, by workspace and action.
pub type Events = BTreeMap<(String, &'static str), i64>;

/// The actions that [`Events`] counts; events of reads and refusals are not counted.
pub const ACTIONS: [&str; 11] = [
    "workspace.create",
    "workspace.claim",
    "workspace.update",
    "workspace.provision",
    "workspace.archive",
    "api_key.create",
    "api_key.rotate",
    "api_key.revoke",
    "test_callers.update",
    "call.create",
    "call.finish",
];

/// The state that all writers share while a server runs.
#[derive(Default)]
pub struct Shared {
    /// Writes that were answered with success.
    pub acknowledged: AtomicUsize,
    /// Writes that were sent and are not answered yet.
    pub in_flight: AtomicUsize,
    /// Writes that were sent and failed: without an answer, or with 503.
    pub cut: AtomicUsize,
    /// Writes whose retry found the first attempt done.
    pub found_done: AtomicUsize,
    /// Whether the server is about to be killed, so that a broken connection is not a fault.
    pub doomed: AtomicBool,
}

struct Key {
    path: String,
    text: String,
    /// The secret before the last rotation, which is refused.
    former: Option<String>,
    live: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about a workspace")]
struct KnownWorkspace {
    id: String,
    slug: String,
    /// Whether other writers use it too, so that their possible changes are not checked.
    common: bool,
    owner: Key,
    name: String,
    connector: bool,
    provisioned: bool,
    archived: bool,
    numbers: Vec<String>,
    keys: Vec<Key>,
    /// The further workspaces of the same owner.
    own: Vec<String>,
    calls: Vec<(String, bool, &'static str)>,
}

/// A write that may not have been answered. A retry does only what is missing.
#[derive(Clone, Debug)]
enum Act {
    Create(String),
    Claim(String),
    CreateOwn(usize, String),
    Mint(usize),
    Rotate(usize, usize),
    RotateOwner(usize),
    Revoke(usize, usize),
    Rename(usize, String),
    Connect(usize),
    Provision(usize),
    Numbers(usize, Vec<String>),
    Report { tenant: usize, sid: String, caller: &'static str, last: bool },
    Archive(usize),
}

/// One of the concurrent writers, with its memory.
pub struct Writer {
    name: String,
    random: StdRng,
    made: u64,
    known: Vec<KnownWorkspace>,
    /// The indices of the workspaces to check after the next kill.
    touched: BTreeSet<usize>,
    unanswered: Option<(Act, Call)>,
    pub events: Events,
}

impl Writer {
    /// A writer with random choices of its own, which also writes to `common`.
    pub fn new(number: usize, seed: u64, common: &Tenant) -> Self {
        let mut known =
            KnownWorkspace::new(common.id.clone(), "common".to_owned(), common.key.clone(), String::new());
        known.common = true;
        Self {
            name: format!("w{number}"),
            random: StdRng::seed_from_u64(seed ^ (number as u64) << 32),
            made: 0,
            known: vec![known],
            touched: BTreeSet::new(),
            unanswered: None,
            events: Events::new(),
        }
    }

    /// Whether one of its writes has no answer.
    pub fn waits(&self) -> bool {
        self.unanswered.is_some()
    }

    /// Sends writes until the server is gone.
    pub fn write(&mut self, at: SocketAddr, shared: &Shared) {
        assert!(self.unanswered.is_none());
        loop {
            let act = self.choose();
            let call = self.call(&act);
            shared.in_flight.fetch_add(1, Ordering::SeqCst);
            let answer = call.attempt(at);
            shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            match answer {
                Ok(answer) if answer.status == 503 && shared.doomed.load(Ordering::SeqCst) => {
                    assert!(answer.has("retry-after"), "{answer:?}");
                    shared.cut.fetch_add(1, Ordering::SeqCst);
                }
                Ok(answer) => {
                    assert!((200..300).contains(&answer.status), "{act:?}: {answer:?}");
                    self.learn(act, &answer);
                    shared.acknowledged.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Err(gone) => {
                    assert!(
                        shared.doomed.load(Ordering::SeqCst),
                        "{act:?}: {gone:?} from a server that lives"
                    );
                    shared.cut.fetch_add(usize::from(gone == NoAnswer::Cut), Ordering::SeqCst);
                }
            }
            self.unanswered = Some((act, call));
            return;
        }
    }

    /// After a kill: retries the unanswered write, then checks everything touched since the last time.
    pub fn resume(&mut self, at: SocketAddr, shared: &Shared) {
        if let Some((act, call)) = self.unanswered.take() {
            let answer = patient(&call, at);
            let gone_before = match act {
                // The first attempt ended the key of the retry, or its object.
                Act::Archive(_) => answer.status == 401,
                Act::Revoke(..) => answer.status == 404,
                _ => false,
            };
            assert!(gone_before || (200..300).contains(&answer.status), "again {act:?}: {answer:?}");
            let done = gone_before || answer.has("idempotency-replayed");
            shared.found_done.fetch_add(usize::from(done), Ordering::SeqCst);
            self.learn(act, &answer);
            shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        for index in std::mem::take(&mut self.touched) {
            self.known[index].look(at);
        }
    }

    /// Marks every workspace to be checked again.
    pub fn touch_all(&mut self) {
        self.touched = (0..self.known.len()).collect();
    }

    fn choose(&mut self) -> Act {
        self.made += 1;
        let fresh = format!("{}-{}", self.name, self.made);
        let alive: Vec<usize> =
            (1..self.known.len()).rev().filter(|&index| !self.known[index].archived).take(4).collect();
        if let Some(known) = self.known.last().filter(|known| known.owner.text.is_empty()) {
            return Act::Claim(known.id.clone());
        }
        if alive.len() < 2 {
            return Act::Create(fresh);
        }
        let tenant = alive[self.random.random_range(0..alive.len())];
        let known = &self.known[tenant];
        let live = |known: &KnownWorkspace| known.keys.iter().rposition(|key| key.live);
        match self.random.random_range(0..100) {
            0..6 => Act::Create(fresh),
            6..18 => Act::CreateOwn(if self.random.random_bool(0.3) { 0 } else { tenant }, fresh),
            18..28 => Act::Mint(tenant),
            28..38 => Act::Mint(0),
            38..46 => live(known).map_or(Act::Mint(tenant), |key| Act::Rotate(tenant, key)),
            46..50 => Act::RotateOwner(tenant),
            50..57 => live(known).map_or(Act::Mint(tenant), |key| Act::Revoke(tenant, key)),
            57..60 => live(&self.known[0]).map_or(Act::Mint(0), |key| Act::Revoke(0, key)),
            60..64 => Act::Rename(tenant, fresh),
            64..76 => match (known.connector, known.provisioned) {
                (false, _) => Act::Connect(tenant),
                (true, false) => Act::Provision(tenant),
                (true, true) => Act::Rename(tenant, fresh),
            },
            76..82 => Act::Numbers(tenant, vec![TESTER.to_owned(), format!("+1555{:07}", self.made)]),
            82..98 => {
                if let Some((sid, ..)) = known.calls.last().filter(|(_, finished, _)| !finished) {
                    return Act::Report { tenant, sid: sid.clone(), caller: PATIENT, last: true };
                }
                let caller = if self.random.random_bool(0.3) { TESTER } else { PATIENT };
                Act::Report { tenant, sid: fresh, caller, last: self.random.random_bool(0.5) }
            }
            _ => Act::Archive(tenant),
        }
    }

    fn call(&self, act: &Act) -> Call {
        let of = |index: usize| format!("/v1/workspaces/{}", self.known[index].id);
        let by_owner = |call: Call, index: usize| call.by(&self.known[index].owner.text);
        let call = match act {
            Act::Create(slug) => Call::post("/v1/workspaces", new_workspace(slug)),
            Act::Claim(id) => Call::post(format!("/v1/{id}/api-keys"), json!({ "duration_days": 90 })),
            Act::CreateOwn(tenant, slug) => {
                by_owner(Call::post("/v1/me/workspaces", new_workspace(slug)), *tenant)
            }
            Act::Mint(tenant) => {
                let path = format!("/v1/{}/api-keys", self.known[*tenant].id);
                by_owner(Call::post(path, new_key("operator")), *tenant)
            }
            Act::Rotate(tenant, key) => {
                let path = format!("{}/rotate", self.known[*tenant].keys[*key].path);
                by_owner(Call::post(path, json!({ "duration_days": 60 })), *tenant)
            }
            Act::RotateOwner(tenant) => {
                let path = format!("{}/rotate", self.known[*tenant].owner.path);
                by_owner(Call::post(path, json!({ "duration_days": 60 })), *tenant)
            }
            Act::Revoke(tenant, key) => {
                return by_owner(Call::delete(&*self.known[*tenant].keys[*key].path), *tenant);
            }
            Act::Rename(tenant, name) => {
                return by_owner(Call::patch(of(*tenant), json!({ "name": name })), *tenant);
            }
            Act::Connect(tenant) => {
                return by_owner(
                    Call::patch(of(*tenant), json!({ "connector_type": "fhir_store" })),
                    *tenant,
                );
            }
            Act::Provision(tenant) => {
                by_owner(Call::post(format!("{}/provision", of(*tenant)), json!({})), *tenant)
            }
            Act::Numbers(tenant, numbers) => {
                let path = format!("{}/test-caller-numbers", of(*tenant));
                return by_owner(Call::put(path, json!({ "numbers": numbers })), *tenant);
            }
            Act::Report { tenant, sid, caller, last } => {
                let status = if *last { "completed" } else { "in-progress" };
                let body = json!({ "status": status, "caller_id": caller, "direction": "inbound" });
                let path = format!("/v1/{}/calls/{sid}", self.known[*tenant].id);
                return by_owner(Call::put(path, body), *tenant);
            }
            Act::Archive(tenant) => {
                let body = json!({ "slug": self.known[*tenant].slug });
                by_owner(Call::post(format!("{}/archive", of(*tenant)), body), *tenant)
            }
        };
        call.repeatable(format!("{}-{}-once-and-once-only", self.name, self.made))
    }

    /// Remembers an answer and its effects.
    fn learn(&mut self, act: Act, answer: &Answer) {
        let text = |field: &str| answer.body[field].as_str().unwrap_or_default().to_owned();
        let mut note = |id: &str, action| *self.events.entry((id.to_owned(), action)).or_default() += 1;
        match act {
            Act::Create(slug) => {
                note(&text("id"), "workspace.create");
                self.known.push(KnownWorkspace::new(text("id"), slug, String::new(), String::new()));
            }
            Act::Claim(id) => {
                note(&id, "workspace.claim");
                let known = self.known.last_mut().unwrap();
                known.owner.path = format!("/v1/{id}/api-keys/{}", text("key_id"));
                known.owner.text = text("api_key");
                self.touched.insert(self.known.len() - 1);
            }
            Act::CreateOwn(tenant, _) => {
                note(&text("id"), "workspace.create");
                self.known[tenant].own.push(text("id"));
                self.touched.insert(tenant);
            }
            Act::Mint(tenant) => {
                let known = &mut self.known[tenant];
                note(&known.id, "api_key.create");
                let path = format!("/v1/{}/api-keys/{}", known.id, text("key_id"));
                known.keys.push(Key { path, text: text("api_key"), former: None, live: true });
                self.touched.insert(tenant);
            }
            Act::Rotate(tenant, key) => {
                note(&self.known[tenant].id, "api_key.rotate");
                self.known[tenant].keys[key].becomes(text("api_key"));
                self.touched.insert(tenant);
            }
            Act::RotateOwner(tenant) => {
                note(&self.known[tenant].id, "api_key.rotate");
                self.known[tenant].owner.becomes(text("api_key"));
                self.touched.insert(tenant);
            }
            Act::Revoke(tenant, key) => {
                note(&self.known[tenant].id, "api_key.revoke");
                self.known[tenant].keys[key].live = false;
                self.touched.insert(tenant);
            }
            Act::Rename(tenant, name) => {
                note(&self.known[tenant].id, "workspace.update");
                self.known[tenant].name = name;
                self.touched.insert(tenant);
            }
            Act::Connect(tenant) => {
                note(&self.known[tenant].id, "workspace.update");
                self.known[tenant].connector = true;
                self.touched.insert(tenant);
            }
            Act::Provision(tenant) => {
                note(&self.known[tenant].id, "workspace.provision");
                self.known[tenant].provisioned = true;
                self.touched.insert(tenant);
            }
            Act::Numbers(tenant, numbers) => {
                note(&self.known[tenant].id, "test_callers.update");
                self.known[tenant].numbers = numbers;
                self.touched.insert(tenant);
            }
            Act::Report { tenant, sid, caller, last } => {
                let known = &mut self.known[tenant];
                let begun = known.calls.iter_mut().find(|(known, ..)| *known == sid);
                if last {
                    note(&known.id, "call.finish");
                }
                if let Some(call) = begun {
                    call.1 = last;
                } else {
                    note(&known.id, "call.create");
                    let test = caller == TESTER && known.numbers.iter().any(|number| number == TESTER);
                    known.calls.push((sid, last, if test { "test" } else { "inbound" }));
                }
                self.touched.insert(tenant);
            }
            Act::Archive(tenant) => {
                note(&self.known[tenant].id, "workspace.archive");
                self.known[tenant].archived = true;
                self.touched.insert(tenant);
            }
        }
    }
}

/// Sends a call until its answer is not 503: a database that was killed too may still be recovering.
fn patient(call: &Call, at: SocketAddr) -> Answer {
    for _ in 0..600 {
        let answer = call.ask(at);
        if answer.status != 503 {
            return answer;
        }
        assert!(answer.has("retry-after"), "{answer:?}");
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("the server does not come back")
}

impl Key {
    fn becomes(&mut self, text: String) {
        self.former = Some(std::mem::replace(&mut self.text, text));
    }

    fn look(&self, at: SocketAddr, shut: bool) {
        let let_in = |text: &str| patient(&Call::get("/v1/auth/me").by(text), at).status;
        let wanted = if self.live && !shut { 200 } else { 401 };
        assert_eq!(let_in(&self.text), wanted, "{}", self.path);
        if let Some(former) = &self.former {
            assert_eq!(let_in(former), 401, "{} by its previous secret", self.path);
        }
    }
}

impl KnownWorkspace {
    fn new(id: String, slug: String, owner: String, path: String) -> Self {
        Self {
            id,
            slug,
            common: false,
            owner: Key { path, text: owner, former: None, live: true },
            name: "A clinic".to_owned(),
            connector: false,
            provisioned: false,
            archived: false,
            numbers: Vec::new(),
            keys: Vec::new(),
            own: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Checks over the API that everything is as acknowledged.
    fn look(&self, at: SocketAddr) {
        if self.owner.text.is_empty() {
            return;
        }
        self.owner.look(at, self.archived);
        // Only the last few are checked here; older ones are checked by their events after the last kill.
        for key in self.keys.iter().rev().take(6) {
            key.look(at, self.archived);
        }
        if self.archived {
            return;
        }
        let get = |path: String| {
            let answer = patient(&Call::get(&*path).by(&self.owner.text), at);
            assert_eq!(answer.status, 200, "acknowledged and lost: {path}: {answer:?}");
            answer.body
        };
        for own in self.own.iter().rev().take(3) {
            assert_eq!(get(format!("/v1/workspaces/{own}"))["id"], own.as_str());
        }
        if self.common {
            return;
        }
        let workspace = get(format!("/v1/workspaces/{}", self.id));
        assert_eq!((&workspace["slug"], &workspace["name"]), (&json!(self.slug), &json!(self.name)));
        let connector = if self.connector { json!("fhir_store") } else { Value::Null };
        assert_eq!(workspace["connector_type"], connector, "{workspace}");
        assert_eq!(workspace["provisioned_at"].is_string(), self.provisioned, "{workspace}");
        let numbers = get(format!("/v1/workspaces/{}/test-caller-numbers", self.id));
        assert_eq!(numbers["numbers"], json!(self.numbers));
        for (sid, finished, direction) in self.calls.iter().rev().take(3) {
            let call = get(format!("/v1/{}/calls/{sid}", self.id));
            let status = if *finished { "completed" } else { "in-progress" };
            assert_eq!((&call["status"], &call["direction"]), (&json!(status), &json!(direction)), "{call}");
        }
    }
}
