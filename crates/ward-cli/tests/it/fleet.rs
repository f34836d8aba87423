//! Real servers on one real database.

use std::net::SocketAddr;
use std::sync::Barrier;

use serde_json::{Value, json};
use ward_test_db::postgres::{Database, shared};

use crate::client::{Answer, Call};
use crate::support::{Server, ward};

/// The one master key that all servers of an installation share.
pub const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A replica on the database at `url`, listening on `listen`, with its clock moved by `skew` seconds.
pub fn replica(url: &str, listen: &str, skew: i64) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ward(folder.path(), &["serve", "--listen", listen, "--metrics-listen", "off"]);
    command.env("WARD_DATABASE", url).env("WARD_MASTER_KEY", MASTER_KEY);
    if skew != 0 {
        command.env("WARD_TEST_CLOCK_OFFSET", skew.to_string());
    }
    Server::of(command, folder)
}

/// Several replicas on a database of their own.
pub struct Fleet {
    pub servers: Vec<Server>,
    pub database: Database,
}

impl Fleet {
    /// One replica for each skew, all started at the same time.
    pub fn start(skews: &[i64]) -> Self {
        let database = shared().database();
        let servers = at_once(skews.to_vec(), |skew| replica(&database.url, "127.0.0.1:0", skew));
        Self { servers, database }
    }

    pub fn at(&self, index: usize) -> SocketAddr {
        self.servers[index % self.servers.len()].address
    }

    /// The number that a query of the database returns.
    pub fn count(&self, query: &str) -> i64 {
        self.database.number(query)
    }
}

/// Runs `work` for all inputs at the same time, each on its own thread; the results have the inputs' order.
pub fn at_once<I: Send, T: Send>(inputs: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(inputs.len());
    let (start, work) = (&start, &work);
    std::thread::scope(|scope| {
        let running: Vec<_> = inputs
            .into_iter()
            .map(|input| {
                scope.spawn(move || {
                    start.wait();
                    work(input)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

pub fn new_workspace(slug: &str) -> Value {
    json!({ "slug": slug, "name": "A clinic", "environment": "development" })
}

pub fn new_key(role: &str) -> Value {
    json!({ "duration_days": 30, "role": role })
}

/// A tenant: its workspace's id and its owner's key.
#[derive(Clone)]
pub struct Tenant {
    pub id: String,
    pub key: String,
}

impl Tenant {
    pub fn new(at: SocketAddr, slug: &str) -> Self {
        let created = Call::post("/v1/workspaces", new_workspace(slug)).ask(at);
        assert_eq!(created.status, 201, "{created:?}");
        let id = created.text("id").to_owned();
        let claimed = Call::post(format!("/v1/{id}/api-keys"), json!({ "duration_days": 90 })).ask(at);
        assert_eq!(claimed.status, 201, "{claimed:?}");
        let key = claimed.text("api_key").to_owned();
        Self { id, key }
    }

    /// The path of the tenant's keys.
    pub fn keys(&self) -> String {
        format!("/v1/{}/api-keys", self.id)
    }

    /// Creates a key with this role.
    pub fn mint(&self, at: SocketAddr, role: &str) -> Answer {
        let minted = Call::post(self.keys(), new_key(role)).by(&self.key).ask(at);
        assert_eq!(minted.status, 201, "{minted:?}");
        minted
    }
}

/// The number of answers with each of these statuses; no answer has another status.
#[track_caller]
pub fn tally<const N: usize>(answers: &[Answer], statuses: [u16; N]) -> [usize; N] {
    for answer in answers {
        assert!(statuses.contains(&answer.status), "{answer:?}");
    }
    statuses.map(|status| answers.iter().filter(|answer| answer.status == status).count())
}
