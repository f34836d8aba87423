//! The model's state: tenants, people, keys and resources.
//!
//! Ids, secrets, times and positions in lists are known only from answers, so they are *symbols* here (`?id:w0`,
//! `?t:w0.created`). The first answer that shows one binds it, and every later answer must show the same value.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::rules::{OWNER, Reach};
use super::trust::Rule;

/// An id that no resource has.
pub const NOBODY: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

#[derive(Clone, Debug)]
pub struct Principal {
    pub is_user: bool,
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Unclaimed,
    Active,
    Archived,
    Lapsed,
}

#[derive(Clone, Debug)]
pub struct Workspace {
    pub slug: String,
    pub name: String,
    pub environment: &'static str,
    pub region: &'static str,
    pub org: Option<String>,
    pub connector: Option<&'static str>,
    pub state: State,
    /// The hour of the walk at which it lapses if it is unclaimed.
    pub lapses: i64,
    /// The symbol of its last change.
    pub updated: String,
    pub provisioned: Option<String>,
    pub test_callers: Vec<String>,
    pub list_version: i64,
    pub twilio: Option<Twilio>,
    pub transfer: Option<Transfer>,
    pub events: Vec<Event>,
    /// The calls that began on a day, and that day.
    pub calls: (i64, i64),
    /// The longest lives of new keys in days, by role.
    pub ceilings: [Option<u8>; 5],
    /// Whether a leaked key only reads for a day, instead of ending at once.
    pub quarantines: bool,
    /// The networks from which it may be entered, as [`super::protection`] writes them.
    pub networks: u8,
}

#[derive(Clone, Debug)]
pub struct Twilio {
    pub account: String,
    pub created: String,
    pub updated: String,
}

#[derive(Clone, Debug)]
pub struct Transfer {
    pub number: usize,
    pub to: usize,
    pub by: usize,
    pub ends: i64,
    /// The key that it was made with, and the key's stamp at that time.
    pub with: (usize, u32),
}

/// An event that the audit must list.
#[derive(Clone, Debug)]
pub struct Event {
    pub hours: i64,
    /// Events of one request have one timestamp and may be listed in any order among themselves.
    pub request: u64,
    pub service: &'static str,
    pub action: &'static str,
    pub resource_type: &'static str,
    pub resource: Option<String>,
    /// The principal and the key, unless the server itself acted.
    pub actor: Option<(usize, usize)>,
    pub phi: bool,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub workspace: usize,
    pub who: usize,
    pub role: usize,
    pub gone: bool,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub workspace: usize,
    pub principal: usize,
    pub creator: (usize, Option<usize>),
    pub name: Option<String>,
    pub reach: Reach,
    pub expires: i64,
    /// The number of warnings that the key has passed.
    pub warned: usize,
    pub revoked: bool,
    /// The number of secrets so far.
    pub generation: u32,
    /// The number of changes that end what the key has made.
    pub stamp: u32,
    /// The number of its ends so far.
    pub ends: u32,
    pub updated: String,
    /// The symbol of the time since which it only reads.
    pub quarantined: Option<String>,
    pub networks: u8,
    /// Whether each of the two servers has seen a use of it.
    pub used: [bool; 2],
    /// The person of this name, if this stands for the person's access tokens instead of a key.
    pub token: Option<&'static str>,
    /// Whether each use needs a proof of a private key. The walk sends none.
    pub bound: bool,
}

/// A secret that waits for the opener of a link.
#[derive(Clone, Debug)]
pub struct Handover {
    pub key: usize,
    pub generation: u32,
    pub ends: i64,
    pub over: bool,
}

/// The text of a key after some rotation.
#[derive(Clone, Debug)]
pub struct Secret {
    pub key: usize,
    pub generation: u32,
}

#[derive(Clone, Debug)]
pub struct Invitation {
    pub workspace: usize,
    pub role: usize,
    pub email: Option<&'static str>,
    pub by: usize,
    pub with: (usize, u32),
    pub ends: i64,
    /// How often it was given a new end, and how often a new link.
    pub ended_anew: u32,
    pub links: u32,
    pub settled: bool,
}

#[derive(Clone, Debug)]
pub struct Integration {
    pub workspace: usize,
    /// Hours and request number, by which lists are sorted.
    pub born: (i64, u64),
    pub name: String,
    pub display_name: String,
    pub protocol: &'static str,
    pub base_url: String,
    pub enabled: bool,
    pub builtin: bool,
    pub updated: String,
    pub gone: bool,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub workspace: usize,
    pub sid: String,
    pub begun: (i64, u64),
    /// The symbol of its start time.
    pub start: String,
    pub direction: &'static str,
    /// The rule that made it a test.
    pub rule: Option<&'static str>,
    pub reported_direction: &'static str,
    pub caller: Option<String>,
    pub callee: Option<String>,
    pub form: &'static str,
    pub list_version: i64,
    pub status: &'static str,
    /// A reported status that Ward does not know.
    pub detail: Option<&'static str>,
    pub reason: Option<&'static str>,
    /// In hours, so that a start computed from it differs from now by more than the duration of a walk.
    pub duration: Option<u8>,
    pub patient: Option<String>,
    pub summary: Option<String>,
    pub decision: Option<&'static str>,
    pub connector: Option<&'static str>,
    pub updated: String,
}

#[derive(Clone, Debug)]
pub struct Delivery {
    pub workspace: usize,
    pub call: usize,
    pub integration: usize,
    pub state: &'static str,
    pub location: Option<String>,
}

/// The queue of an integration, which exists after the first delivery or hold.
#[derive(Clone, Debug)]
pub struct Lane {
    pub workspace: usize,
    pub integration: usize,
    pub held: bool,
}

/// The whole state of the model.
#[derive(Default)]
pub struct World {
    /// The hours by which the clock was moved. A walk takes less than one real hour, so whole hours decide what has expired.
    pub hours: i64,
    /// The day in UTC, in days since 1970.
    pub day: i64,
    /// The number of requests so far.
    pub requests: u64,
    pub principals: Vec<Principal>,
    pub workspaces: Vec<Workspace>,
    pub members: Vec<Member>,
    pub keys: Vec<Key>,
    pub secrets: Vec<Secret>,
    pub invitations: Vec<Invitation>,
    pub integrations: Vec<Integration>,
    pub calls: Vec<Call>,
    pub deliveries: Vec<Delivery>,
    pub lanes: Vec<Lane>,
    pub handovers: Vec<Handover>,
    pub rules: Vec<Rule>,
    /// The workspace that holds each slug.
    pub slugs: BTreeMap<String, usize>,
    /// The values that answers have shown so far, by symbol.
    pub known: Known,
    /// A well-formed key that does not exist.
    pub stray: String,
    /// The issuer of the tokens of jobs.
    pub outside_issuer: String,
}

impl World {
    /// The membership of a principal in a workspace.
    pub fn member(&self, workspace: usize, who: usize) -> Option<usize> {
        self.members.iter().position(|it| !it.gone && it.workspace == workspace && it.who == who)
    }

    /// The memberships of a principal in active workspaces, in the order of their creation.
    pub fn memberships(&self, who: usize) -> Vec<usize> {
        let all = 0..self.members.len();
        all.filter(|at| {
            let it = &self.members[*at];
            !it.gone && it.who == who && self.workspaces[it.workspace].state == State::Active
        })
        .collect()
    }

    /// Whether a key is as it was with this stamp.
    pub fn holds(&self, (key, stamp): (usize, u32)) -> bool {
        let key = &self.keys[key];
        !key.revoked && key.stamp == stamp
    }

    pub fn pending(&self, workspace: usize) -> Option<&Transfer> {
        let transfer = self.workspaces[workspace].transfer.as_ref()?;
        (transfer.ends > self.hours && self.holds(transfer.with)).then_some(transfer)
    }

    /// Whether an invitation can be accepted.
    pub fn is_open(&self, invitation: usize) -> bool {
        let it = &self.invitations[invitation];
        !it.settled && it.ends > self.hours && self.holds(it.with)
    }

    /// Adds a person who signs in at an identity provider. The person has no id until the first membership.
    pub fn meet(&mut self, name: &'static str) {
        let principal = self.principals.len();
        self.principals.push(Principal { is_user: true, name: Some(format!("{name} the tester")) });
        self.secrets.push(Secret { key: self.keys.len(), generation: 0 });
        self.keys.push(Key {
            workspace: usize::MAX,
            principal,
            creator: (principal, None),
            name: None,
            reach: Reach::whole(OWNER),
            expires: i64::MAX,
            warned: 0,
            revoked: false,
            generation: 0,
            stamp: 0,
            ends: 0,
            updated: String::new(),
            quarantined: None,
            networks: 0,
            used: [false; 2],
            token: Some(name),
            bound: false,
        });
    }

    /// The symbol of a credential. Tokens have none.
    pub fn credential(&self, key: usize) -> Option<String> {
        self.keys[key].token.is_none().then(|| credential_id(key))
    }

    /// The text of a symbol in a request, or an id that no resource has while the symbol is unbound.
    pub fn text(&self, symbol: &str) -> String {
        self.known.text(symbol).unwrap_or(NOBODY).to_owned()
    }
}

pub fn workspace_id(at: usize) -> String {
    format!("?id:workspace{at}")
}

pub fn entity_id(at: usize) -> String {
    format!("?id:principal{at}")
}

pub fn credential_id(at: usize) -> String {
    format!("?id:credential{at}")
}

pub fn key_id(at: usize) -> String {
    format!("?key:{at}")
}

pub fn secret(at: usize) -> String {
    format!("?secret:{at}")
}

pub fn invitation_id(at: usize) -> String {
    format!("?id:invitation{at}")
}

/// The link that an invitation had after it was sent again so many times.
pub fn link(at: usize, links: u32) -> String {
    format!("?secret:link{at}.{links}")
}

/// The token of a handover's link.
pub fn handover_token(at: usize) -> String {
    format!("?secret:handover{at}")
}

pub fn integration_id(at: usize) -> String {
    format!("?id:integration{at}")
}

pub fn call_id(at: usize) -> String {
    format!("?id:call{at}")
}

pub fn delivery_id(at: usize) -> String {
    format!("?id:delivery{at}")
}

/// The symbols that answers have bound.
#[derive(Clone, Default)]
pub struct Known {
    values: HashMap<String, Value>,
    named: HashMap<String, String>,
}

impl Known {
    pub fn text(&self, symbol: &str) -> Option<&str> {
        self.values.get(symbol).and_then(Value::as_str)
    }

    pub fn number(&self, symbol: &str) -> Option<i64> {
        self.values.get(symbol).and_then(Value::as_i64)
    }

    /// The positions of a list that were shown, each with its row, in the order of the rows.
    pub fn places(&self, prefix: &str) -> Vec<(usize, i64)> {
        let row = |(symbol, place): (&String, &Value)| {
            let row = symbol.strip_prefix(prefix)?.parse().ok()?;
            Some((row, place.as_i64()?))
        };
        let mut places: Vec<(usize, i64)> = self.values.iter().filter_map(row).collect();
        places.sort_unstable();
        places
    }

    /// The text, with symbols in place of their values.
    pub fn tell(&self, text: &str) -> String {
        let mut told = text.to_owned();
        for (value, symbol) in &self.named {
            if value.len() > 15 && told.contains(value.as_str()) {
                told = told.replace(value.as_str(), symbol);
            }
        }
        told
    }

    /// Compares `actual` with `wanted`, and binds the symbols that are shown for the first time.
    pub fn fit(&mut self, wanted: &Value, actual: &Value, at: &str) -> Result<(), String> {
        match wanted {
            Value::String(text) if text == "*" => Ok(()),
            Value::String(symbol) if symbol.starts_with('?') => self.bind(symbol, actual, at),
            Value::Array(wanted) => {
                let Value::Array(actual) = actual else { return Err(format!("{at}: not a list")) };
                if wanted.len() != actual.len() {
                    return Err(format!("{at}: {} items instead of {}", actual.len(), wanted.len()));
                }
                let pairs = wanted.iter().zip(actual).enumerate();
                for (index, (wanted, actual)) in pairs {
                    self.fit(wanted, actual, &format!("{at}[{index}]"))?;
                }
                Ok(())
            }
            Value::Object(fields) if fields.contains_key("$groups") => {
                self.fit_groups(&fields["$groups"], actual, at)
            }
            Value::Object(fields) => {
                let Value::Object(actual) = actual else { return Err(format!("{at}: not an object")) };
                for (name, wanted) in fields.iter().filter(|(name, _)| *name != "...") {
                    let found = actual.get(name).ok_or_else(|| format!("{at}.{name}: absent"))?;
                    self.fit(wanted, found, &format!("{at}.{name}"))?;
                }
                let extra = actual.keys().find(|name| !fields.contains_key(*name));
                match extra.filter(|_| !fields.contains_key("...")) {
                    Some(name) => Err(format!("{at}.{name}: unexpected")),
                    None => Ok(()),
                }
            }
            _ if wanted == actual => Ok(()),
            _ => Err(format!("{at}: {actual} instead of {wanted}")),
        }
    }

    /// Compares a list of groups, of each of which a number of members is shown in any order.
    fn fit_groups(&mut self, groups: &Value, actual: &Value, at: &str) -> Result<(), String> {
        let mut rest = actual.as_array().ok_or_else(|| format!("{at}: not a list"))?.as_slice();
        for group in groups.as_array().into_iter().flatten() {
            let shown = group["shown"].as_u64().and_then(|shown| usize::try_from(shown).ok()).unwrap_or(0);
            let mut candidates = group["of"].as_array().cloned().unwrap_or_default();
            for _ in 0..shown {
                let (first, others) = rest.split_first().ok_or_else(|| format!("{at}: too short"))?;
                rest = others;
                let mut why = String::new();
                let found = candidates.iter().position(|candidate| {
                    let mut trial = self.clone();
                    match trial.fit(candidate, first, at) {
                        Ok(()) => {
                            *self = trial;
                            true
                        }
                        Err(told) => {
                            why = told;
                            false
                        }
                    }
                });
                candidates.remove(found.ok_or(why)?);
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("{at}: {} items too many", rest.len())) }
    }

    fn bind(&mut self, symbol: &str, actual: &Value, at: &str) -> Result<(), String> {
        if let Some(known) = self.values.get(symbol) {
            return if known == actual {
                Ok(())
            } else {
                Err(format!("{at}: {actual} instead of {known}, which is {symbol}"))
            };
        }
        let text = actual.as_str().unwrap_or_default();
        let (kind, _) = symbol.split_once(':').unwrap_or((symbol, ""));
        let formed = match kind {
            "?id" => text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()),
            "?t" => micros(text).is_some(),
            "?key" => text.len() == 22,
            "?secret" => text.len() > 40,
            "?n" => actual.as_i64().is_some_and(|place| (1..1 << 53).contains(&place)),
            _ => false,
        };
        if !formed {
            return Err(format!("{at}: {actual} cannot be {symbol}"));
        }
        if matches!(kind, "?id" | "?key" | "?secret")
            && let Some(other) = self.named.insert(text.to_owned(), symbol.to_owned())
        {
            return Err(format!("{at}: {actual} is {other}, and cannot be {symbol}"));
        }
        self.values.insert(symbol.to_owned(), actual.clone());
        Ok(())
    }
}

/// The microseconds since 1970 of `2026-04-18T12:00:00.123456Z`, by the civil calendar.
pub fn micros(text: &str) -> Option<i64> {
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (19, "."), (26, "Z")];
    if text.len() != 27 || marks.iter().any(|(at, mark)| text.get(*at..=*at) != Some(mark)) {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second, fraction) = (part(11, 13)?, part(14, 16)?, part(17, 19)?, part(20, 26)?);
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}
