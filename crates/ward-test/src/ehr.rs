//! An EHR that a test controls: it can hang, break connections, give any answer, and change its behaviour.
//!
//! It keeps the received writes. A test can thus count one resource per real call and none per test call.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The EHR's reaction to a write.
#[derive(Clone, Debug)]
pub enum Act {
    /// It stores the resource, or answers with the location of the stored one.
    Take,
    /// It stores the resource, and breaks the connection before its answer.
    TakeAndReset,
    /// It stores the resource, and never answers.
    TakeAndHang,
    /// It stores the resource, and answers with this status nevertheless.
    TakeAndSay(u16),
    /// It stores the resource, and answers after a delay.
    TakeSlowly,
    /// It stores the resource even if it has it already.
    TakeTwice,
    /// It breaks the connection without storing the resource.
    Reset,
    /// It never answers, and stores nothing.
    Hang,
    /// It answers with this status, this body and these header lines.
    Say(u16, Value, &'static str),
    /// It answers with this status, this content type and this text. An empty content type sends none.
    Page(u16, &'static str, String),
    /// It stores the resource, and answers as `Page` does.
    TakeAndPage(u16, &'static str, String),
}

/// A request that the EHR received.
#[derive(Clone, Debug)]
pub struct EhrRequest {
    /// The HTTP method of the request.
    pub method: String,
    /// The path and the query, as sent.
    pub target: String,
    /// The header lines, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as text, with invalid UTF-8 replaced.
    pub body: String,
}

#[derive(Default)]
struct State {
    kept: Vec<Value>,
    /// The index in `kept` of the first resource of each key.
    first: BTreeMap<String, usize>,
    script: VecDeque<Act>,
    always: Option<Act>,
    searches: Option<Act>,
    asked: Vec<EhrRequest>,
    writes: usize,
    at_once: usize,
    most_at_once: usize,
}

/// The delay of `TakeSlowly`: long enough for concurrent requests to arrive before it ends.
const SLOWLY: Duration = Duration::from_millis(100);

/// A controllable EHR; clones share it.
#[derive(Clone)]
pub struct ScriptedEhr {
    /// The loopback address where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl ScriptedEhr {
    /// Starts an EHR that stores everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let ehr = Self { address, state: Arc::default() };
        let answering = ehr.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let ehr = answering.clone();
                tokio::spawn(async move { ehr.talk(stream).await });
            }
        });
        ehr
    }

    /// The base URL for its integration.
    pub fn url(&self) -> String {
        format!("http://{}/fhir", self.address)
    }

    /// Sets the reactions to the next writes, in order; afterwards it stores everything again.
    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().script.extend(acts);
    }

    /// Sets the reaction to every later write; `None`: it stores the resource.
    pub fn always(&self, act: Option<Act>) {
        self.state.lock().always = act;
    }

    /// Sets the reaction to every later search; `None`: it answers normally.
    pub fn on_search(&self, act: Option<Act>) {
        self.state.lock().searches = act;
    }

    /// Every resource that it has stored.
    pub fn kept(&self) -> Vec<Value> {
        self.state.lock().kept.clone()
    }

    /// The number of stored resources for each identifier.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for resource in &self.state.lock().kept {
            *counts.entry(key_of(resource)).or_insert(0) += 1;
        }
        counts
    }

    /// Every request that it received, in order.
    pub fn asked(&self) -> Vec<EhrRequest> {
        self.state.lock().asked.clone()
    }

    /// The number of attempted writes, refused ones included.
    pub fn writes(&self) -> usize {
        self.state.lock().writes
    }

    /// The maximum number of concurrent requests.
    pub fn most_at_once(&self) -> usize {
        self.state.lock().most_at_once
    }

    /// Waits until it has received this many requests.
    ///
    /// # Panics
    /// That takes longer than a minute.
    pub async fn until_asked(&self, times: usize) {
        self.until(|state| state.asked.len() >= times).await;
    }

    /// Waits until it has received this many requests that write. Some forms search for the contact before.
    ///
    /// # Panics
    /// That takes longer than a minute.
    pub async fn until_written(&self, times: usize) {
        self.until(|state| state.writes >= times).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        for _ in 0..6_000 {
            if reached(&self.state.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the EHR did not receive the expected requests");
    }

    async fn talk(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::new();
        while let Some(asked) = hear(&mut stream, &mut buffer).await {
            let act = self.decide(&asked);
            if self.is_slow(&asked) {
                tokio::time::sleep(SLOWLY).await;
            }
            self.state.lock().at_once -= 1;
            match act {
                Reaction::Answer(..) | Reaction::Page(..) => {
                    let (status, content_type, body, headers) = match act {
                        Reaction::Page(status, content_type, body) => {
                            (status, content_type, body, String::new())
                        }
                        Reaction::Answer(status, body, headers) => {
                            let body = if body.is_null() { String::new() } else { body.to_string() };
                            (status, "application/fhir+json", body, headers)
                        }
                        Reaction::Reset | Reaction::Hang => unreachable!("these give no answer"),
                    };
                    let content_type = match content_type {
                        "" => String::new(),
                        known => format!("content-type: {known}\r\n"),
                    };
                    let answer = format!(
                        "HTTP/1.1 {status} Scripted\r\n{content_type}content-length: {}\r\n{headers}\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Reaction::Reset => {
                    let _ = stream.set_zero_linger();
                    return;
                }
                Reaction::Hang => tokio::time::sleep(Duration::from_hours(1)).await,
            }
        }
    }

    fn is_slow(&self, asked: &EhrRequest) -> bool {
        asked.method != "GET" && matches!(self.state.lock().always, Some(Act::TakeSlowly))
    }

    fn decide(&self, asked: &EhrRequest) -> Reaction {
        let mut state = self.state.lock();
        state.at_once += 1;
        state.most_at_once = state.most_at_once.max(state.at_once);
        if asked.target.ends_with("/contacts/search") {
            // This CRM has no contacts. The look-up of one is no search for a call, so scripts do not concern it.
            return Reaction::Answer(200, json!({ "total": 0, "results": [] }), String::new());
        }
        state.asked.push(asked.clone());
        let hubspot_search = asked.target.ends_with("/search");
        if asked.method == "GET" || hubspot_search {
            return match state.searches.clone() {
                None if !hubspot_search && state.at(asked).is_some() => {
                    let resource = state.at(asked).map(|at| state.kept[at].clone());
                    Reaction::Answer(200, resource.unwrap_or_default(), String::new())
                }
                None => Reaction::Answer(200, state.search(asked, hubspot_search), String::new()),
                Some(Act::Say(status, body, headers)) => Reaction::Answer(status, body, headers.to_owned()),
                Some(Act::Page(status, content_type, body)) => Reaction::Page(status, content_type, body),
                Some(Act::Reset) => Reaction::Reset,
                Some(_) => Reaction::Hang,
            };
        }
        state.writes += 1;
        let act = state.script.pop_front().or_else(|| state.always.clone()).unwrap_or(Act::Take);
        match act {
            Act::Take | Act::TakeSlowly => state.take(asked),
            Act::TakeAndReset => {
                state.take(asked);
                Reaction::Reset
            }
            Act::TakeAndHang => {
                state.take(asked);
                Reaction::Hang
            }
            Act::TakeAndSay(status) => {
                state.take(asked);
                Reaction::Answer(status, Value::Null, String::new())
            }
            Act::TakeTwice => state.keep(asked),
            Act::Reset => Reaction::Reset,
            Act::Hang => Reaction::Hang,
            Act::Say(status, body, headers) => Reaction::Answer(status, body, headers.to_owned()),
            Act::Page(status, content_type, body) => Reaction::Page(status, content_type, body),
            Act::TakeAndPage(status, content_type, body) => {
                state.take(asked);
                Reaction::Page(status, content_type, body)
            }
        }
    }
}

enum Reaction {
    Answer(u16, Value, String),
    Page(u16, &'static str, String),
    Reset,
    Hang,
}

/// The key by which two writes are the same: the identifier, or `HubSpot`'s property.
fn key_of(resource: &Value) -> String {
    let identifier = resource["identifier"][0]["value"].as_str();
    identifier.or_else(|| resource["properties"]["ward_call_id"].as_str()).unwrap_or_default().to_owned()
}

impl State {
    /// The place of the resource that a request names by its id.
    fn at(&self, asked: &EhrRequest) -> Option<usize> {
        let id = asked.target.split('?').next()?.rsplit('/').next()?;
        self.kept.iter().position(|resource| resource["id"] == id)
    }

    /// Writes over a resource. A FHIR server refuses another version than its own with 412.
    fn replace(&mut self, asked: &EhrRequest) -> Reaction {
        let Some(at) = self.at(asked) else { return Reaction::Answer(404, Value::Null, String::new()) };
        let mut body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let version = self.kept[at]["meta"]["versionId"].as_str().unwrap_or_default().to_owned();
        let wanted = asked.headers.get("if-match").map(String::as_str);
        if asked.method == "PUT" && wanted != Some(&format!("W/\"{version}\"")) {
            return Reaction::Answer(412, Value::Null, String::new());
        }
        let next = version.parse::<u32>().unwrap_or(0) + 1;
        body["id"] = self.kept[at]["id"].clone();
        body["meta"] =
            json!({ "versionId": next.to_string(), "lastUpdated": self.kept[at]["meta"]["lastUpdated"] });
        self.kept[at] = body.clone();
        Reaction::Answer(200, body, String::new())
    }

    fn take(&mut self, asked: &EhrRequest) -> Reaction {
        if asked.method == "PUT" || asked.method == "PATCH" {
            return self.replace(asked);
        }
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        // A FHIR server with conditional creates does this; HubSpot has none and stores the resource again.
        let known = asked.headers.contains_key("if-none-exist").then(|| key_of(&body));
        match known.and_then(|key| self.first.get(&key)) {
            Some(known) => Reaction::Answer(200, self.kept[*known].clone(), String::new()),
            None => self.keep(asked),
        }
    }

    fn keep(&mut self, asked: &EhrRequest) -> Reaction {
        let mut body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let id = (self.kept.len() + 1).to_string();
        body["id"] = json!(id);
        body["meta"] = json!({ "versionId": "1", "lastUpdated": format!("2026-01-01T00:00:{id:0>9}Z") });
        self.first.entry(key_of(&body)).or_insert(self.kept.len());
        self.kept.push(body.clone());
        let kind = body["resourceType"].as_str().unwrap_or("calls");
        Reaction::Answer(201, json!({ "id": id }), format!("location: /fhir/{kind}/{id}/_history/1\r\n"))
    }

    fn search(&self, asked: &EhrRequest, hubspot: bool) -> Value {
        let wanted = if hubspot {
            let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
            body["filterGroups"][0]["filters"][0]["value"].as_str().unwrap_or_default().to_owned()
        } else {
            asked.target.rsplit("%7C").next().unwrap_or_default().to_owned()
        };
        let found = self.kept.iter().filter(|resource| key_of(resource) == wanted);
        if hubspot {
            let results: Vec<&Value> = found.collect();
            return json!({ "total": results.len(), "results": results });
        }
        let entry: Vec<Value> = found.map(|resource| json!({ "resource": resource })).collect();
        json!({ "resourceType": "Bundle", "type": "searchset", "total": entry.len(), "entry": entry })
    }
}

/// Reads one request from the stream; `None` at its end.
async fn hear(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<EhrRequest> {
    let mut chunk = vec![0; 16 << 10];
    loop {
        if let Some(end) = buffer.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ');
            let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length: usize = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                let body = String::from_utf8_lossy(&buffer[end + 4..whole]).into_owned();
                buffer.drain(..whole);
                return Some(EhrRequest { method, target, headers, body });
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}
