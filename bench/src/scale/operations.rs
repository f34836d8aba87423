//! The measured operations, and the rows that their requests use.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::http::Request;
use crate::shape::{GIANT, Shape, Who, key, position, unknown_key, workspace};

#[derive(Clone, Copy)]
pub struct Operation {
    /// The name of the operation in the table.
    pub name: &'static str,
    /// The part of the request that is random.
    pub random: &'static str,
    /// The divisor for the number of requests of a slow operation.
    pub share: u32,
    /// A function that makes the next request.
    pub request: fn(Shape, &mut StdRng) -> Request,
}

/// All operations, in the order of the table.
pub static OPERATIONS: [Operation; 14] = [
    Operation {
        name: "get one, as its owner",
        random: "key and workspace",
        share: 1,
        request: |shape, random| {
            let number = any(shape, random);
            Request::get(&format!("/v1/workspaces/{}", workspace(number)), &key(Who::Owner, number), 200)
        },
    },
    Operation {
        name: "get one, as a member of every workspace",
        random: "workspace",
        share: 1,
        request: |shape, random| {
            let path = format!("/v1/workspaces/{}", workspace(any(shape, random)));
            Request::get(&path, &key(Who::Everywhere, 1), 200)
        },
    },
    Operation {
        name: "list of 20, first page, as a member of every workspace",
        random: "nothing",
        share: 1,
        request: |_, _| Request::get("/v1/workspaces?limit=20", &key(Who::Everywhere, 1), 200),
    },
    Operation {
        name: "list of 20, at any token, as a member of every workspace",
        random: "token",
        share: 1,
        request: |shape, random| {
            let after = position(any(shape, random));
            let path = format!("/v1/workspaces?limit=20&continuation_token={after}");
            Request::get(&path, &key(Who::Everywhere, 1), 200)
        },
    },
    Operation {
        name: "list, as an owner of one",
        random: "key",
        share: 1,
        request: |shape, random| {
            Request::get("/v1/workspaces?limit=20", &key(Who::Owner, ordinary(shape, random)), 200)
        },
    },
    Operation {
        name: "create, bootstrap",
        random: "slug",
        share: 4,
        request: |_, _| Request::post("/v1/workspaces", None, &new_workspace()),
    },
    Operation {
        name: "create, self-service",
        random: "slug and key",
        share: 4,
        request: |shape, random| {
            let key = key(Who::Owner, ordinary(shape, random));
            Request::post("/v1/workspaces/self-service", Some(&key), &new_workspace())
        },
    },
    Operation {
        name: "authenticate (auth/me)",
        random: "key, of all",
        share: 1,
        request: |shape, random| Request::get("/v1/auth/me", &any_key(shape, random), 200),
    },
    Operation {
        name: "401, an unknown key",
        random: "key",
        share: 1,
        request: |shape, random| {
            let ten = random.random_range(0..shape.workspaces / 10);
            Request::get("/v1/auth/me", &unknown_key(ten), 401)
        },
    },
    Operation {
        name: "audit, first page",
        random: "key and workspace",
        share: 1,
        request: |shape, random| {
            let number = ordinary(shape, random);
            Request::get(&format!("/v1/{}/audit?limit=20", workspace(number)), &key(Who::Owner, number), 200)
        },
    },
    Operation {
        name: "audit, first page of the giant",
        random: "nothing",
        share: 8,
        request: |_, _| {
            Request::get(&format!("/v1/{}/audit?limit=20", workspace(GIANT)), &key(Who::Owner, GIANT), 200)
        },
    },
    Operation {
        name: "calls, first page",
        random: "key and workspace",
        share: 1,
        request: |shape, random| {
            let number = ordinary(shape, random);
            Request::get(&format!("/v1/{}/calls?limit=20", workspace(number)), &key(Who::Owner, number), 200)
        },
    },
    Operation {
        name: "calls, first page of the giant",
        random: "nothing",
        share: 8,
        request: |_, _| {
            Request::get(&format!("/v1/{}/calls?limit=20", workspace(GIANT)), &key(Who::Owner, GIANT), 200)
        },
    },
    Operation {
        name: "API keys, at any token, of the giant",
        random: "token",
        share: 1,
        request: |shape, random| {
            let after = position(100) + 2 * random.random_range(0..shape.giant_keys);
            let path = format!("/v1/{}/api-keys?limit=20&continuation_token={after}", workspace(GIANT));
            Request::get(&path, &key(Who::Owner, GIANT), 200)
        },
    },
];

fn any(shape: Shape, random: &mut StdRng) -> u64 {
    random.random_range(1..=shape.workspaces)
}

/// The number of a random workspace other than the giant.
fn ordinary(shape: Shape, random: &mut StdRng) -> u64 {
    random.random_range(GIANT + 1..=shape.workspaces)
}

fn any_key(shape: Shape, random: &mut StdRng) -> String {
    match random.random_range(0..3) {
        0 => key(Who::Owner, any(shape, random)),
        1 => key(Who::Service, any(shape, random)),
        _ => key(Who::Giant, random.random_range(1..=shape.giant_keys)),
    }
}

/// The body for a new workspace with a unique slug, in this run and all earlier ones.
fn new_workspace() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(r#"{{"slug":"new-{since}-{number}","name":"The New Clinic","environment":"production"}}"#)
}
