//! The workload: the cases, and the bytes of each request.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::seed::{LIST, SeedData};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Case {
    /// Read one workspace by its id.
    Get,
    /// List the twenty workspaces of a user.
    List,
    /// Send a request with a revoked key.
    Refused,
    /// Create a workspace with the open bootstrap call.
    Bootstrap,
    /// Create a workspace with a user's own key. Every connection has its own user.
    Own,
    /// Change the name of a workspace. Every connection has its own workspace.
    Patch,
    /// Rotate a key. Every connection has its own key.
    Rotate,
    /// Ask whether the caller may enter a workspace. `bench gate` measures it beside [`Self::Get`].
    Authorize,
    /// The mix of a platform: eighteen reads and two writes.
    Mix,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    /// Read the workspace of the reading user.
    Get,
    /// Read the workspace of this connection's own user.
    GetOwn,
    List,
    Refused,
    Bootstrap,
    Own,
    Patch,
    Rotate,
    Authorize,
}

impl Case {
    /// All cases of the comparison with peers, in the order of the measurement.
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::List,
        Self::Refused,
        Self::Bootstrap,
        Self::Own,
        Self::Patch,
        Self::Rotate,
        Self::Mix,
    ];

    /// The name in the tables and for `--only`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET one",
            Self::List => "list of 20",
            Self::Refused => "401, a revoked key",
            Self::Bootstrap => "create (bootstrap)",
            Self::Own => "create (self-service)",
            Self::Patch => "PATCH",
            Self::Rotate => "rotate a key",
            Self::Authorize => "authorize",
            Self::Mix => "mix, 90 % reads",
        }
    }

    /// Whether all requests of the case are reads.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Refused)
    }

    /// The operations of a connection, which it repeats.
    const fn order(self) -> &'static [Op] {
        match self {
            Self::Get => &[Op::Get],
            Self::List => &[Op::List],
            Self::Refused => &[Op::Refused],
            Self::Bootstrap => &[Op::Bootstrap],
            Self::Own => &[Op::Own],
            Self::Patch => &[Op::Patch],
            Self::Rotate => &[Op::Rotate],
            Self::Authorize => &[Op::Authorize],
            Self::Mix => &[
                Op::GetOwn,
                Op::GetOwn,
                Op::List,
                Op::GetOwn,
                Op::GetOwn,
                Op::Patch,
                Op::GetOwn,
                Op::List,
                Op::GetOwn,
                Op::GetOwn,
                Op::Refused,
                Op::GetOwn,
                Op::List,
                Op::GetOwn,
                Op::GetOwn,
                Op::Own,
                Op::GetOwn,
                Op::List,
                Op::GetOwn,
                Op::GetOwn,
            ],
        }
    }
}

/// The part of a request that is new each time.
#[derive(Clone, Copy)]
enum Payload {
    Nothing,
    /// A new workspace with a unique slug.
    Workspace,
    /// A name that differs from the one before.
    Name,
    /// A new expiry of a key.
    Life,
}

/// A request without its variable part.
struct Step {
    head: String,
    carried: Payload,
    status: u16,
}

/// The sequence of requests on one connection.
pub struct Script {
    steps: Vec<Step>,
    /// The start of the slugs of this connection in this run.
    prefix: String,
    count: usize,
    body: String,
}

/// The kind of route that answers the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The routes of the product, with their database.
    Worked,
    /// The routes that return the same bytes unchanged.
    Fixed,
}

impl Script {
    /// The requests of the connection `connection` in the run `run`. The number of the run is unique.
    pub fn new(seeded: &Arc<SeedData>, case: Case, answers: Answers, run: u32, connection: usize) -> Self {
        let steps = case.order().iter().map(|op| op.step(seeded, answers, connection)).collect();
        // The connections start at different places in the sequence.
        let count = connection * 7;
        Self { steps, prefix: format!("b{run:06}-{connection:04}"), count, body: String::new() }
    }

    /// Replaces the content of `into` with the next request. The result is the status of the right answer.
    pub fn next(&mut self, into: &mut Vec<u8>) -> u16 {
        let Self { steps, prefix, count, body } = self;
        let step = &steps[*count % steps.len()];
        *count += 1;
        body.clear();
        // Writing to a string cannot fail.
        let _ = match step.carried {
            Payload::Nothing => Ok(()),
            Payload::Workspace => write!(
                body,
                r#"{{"slug":"{prefix}-{count:010}","name":"The Corner Clinic","environment":"production"}}"#
            ),
            Payload::Name => write!(body, r#"{{"name":"The Corner Clinic {prefix} {count}"}}"#),
            Payload::Life => write!(body, r#"{{"duration_days":30}}"#),
        };
        into.clear();
        into.extend_from_slice(step.head.as_bytes());
        if !body.is_empty() {
            into.extend_from_slice(b"content-type: application/json\r\ncontent-length: ");
            into.extend_from_slice(body.len().to_string().as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        into.extend_from_slice(b"\r\n");
        into.extend_from_slice(body.as_bytes());
        step.status
    }
}

impl Op {
    fn step(self, seeded: &SeedData, answers: Answers, connection: usize) -> Step {
        let tenant = &seeded.tenants[connection % seeded.tenants.len()];
        let (method, path, key, carried, status) = match self {
            Self::Get => ("GET", seeded.get_path(), Some(&seeded.key), Payload::Nothing, 200),
            Self::GetOwn => ("GET", tenant.path(), Some(&tenant.key), Payload::Nothing, 200),
            Self::List => ("GET", LIST.to_owned(), Some(&seeded.key), Payload::Nothing, 200),
            Self::Refused => ("GET", seeded.get_path(), Some(&seeded.revoked), Payload::Nothing, 401),
            Self::Bootstrap => ("POST", "/v1/workspaces".to_owned(), None, Payload::Workspace, 201),
            Self::Own => {
                let path = "/v1/workspaces/self-service".to_owned();
                ("POST", path, Some(&tenant.key), Payload::Workspace, 201)
            }
            Self::Patch => ("PATCH", tenant.path(), Some(&tenant.key), Payload::Name, 200),
            Self::Rotate => ("POST", tenant.rotate_path(), Some(&tenant.key), Payload::Life, 200),
            Self::Authorize => ("GET", seeded.authorize_path(), Some(&seeded.key), Payload::Nothing, 204),
        };
        let path = if answers == Answers::Fixed { format!("/fixed/{}", self.file()) } else { path };
        let bearer = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        Step { head: format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{bearer}"), carried, status }
    }

    /// The name of the file with its answer.
    const fn file(self) -> &'static str {
        match self {
            Self::Get | Self::GetOwn => "get",
            Self::List => "list",
            Self::Refused => "refused",
            Self::Bootstrap | Self::Own => "create",
            Self::Patch => "patch",
            Self::Rotate => "rotate",
            Self::Authorize => "authorize",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Tenant;

    fn seeded() -> Arc<SeedData> {
        let tenant = |name: &str| Tenant {
            workspace: name.to_owned(),
            key: format!("key-{name}"),
            service: format!("service-{name}"),
        };
        Arc::new(SeedData {
            workspace: "w".to_owned(),
            key: "k".to_owned(),
            revoked: "r".to_owned(),
            tenants: vec![tenant("one"), tenant("two")],
        })
    }

    #[test]
    fn nine_tenths_of_the_mix_are_reads() {
        let order = Case::Mix.order();
        let reads = order.iter().filter(|op| matches!(op, Op::Get | Op::GetOwn | Op::List | Op::Refused));
        assert_eq!((reads.count(), order.len()), (18, 20));
    }

    #[test]
    fn no_two_creations_have_the_same_slug() {
        let mut seen = std::collections::BTreeSet::new();
        for run in 0..2 {
            for connection in 0..2 {
                let mut script = Script::new(&seeded(), Case::Bootstrap, Answers::Worked, run, connection);
                let mut request = Vec::new();
                for _ in 0..3 {
                    assert_eq!(script.next(&mut request), 201);
                    assert!(seen.insert(request.clone()));
                }
            }
        }
    }

    #[test]
    fn a_request_is_whole_and_each_connection_has_its_own_tenant() {
        let mut script = Script::new(&seeded(), Case::Patch, Answers::Worked, 3, 1);
        let mut request = Vec::new();
        assert_eq!(script.next(&mut request), 200);
        let request = String::from_utf8(request).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("PATCH /v1/workspaces/two HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: Bearer key-two"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
}
