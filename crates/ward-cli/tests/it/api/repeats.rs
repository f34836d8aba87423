//! Requests that get no answer, or are asked to wait: what is sent again, and with which key.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Person, Ran};

const WORKSPACE: &str = "019ad7a1-8c3e-7d20-a1f4-6b0c9d2e5f18";
/// A connection that ends without an answer.
const CUT: &str = "";
const WAIT: &str = "503 Service Unavailable\r\nretry-after: 0";
const RATE: &str = "429 Too Many Requests\r\nretry-after: 0";
const FINE: &str = "200 OK";

/// A server that gives these answers in order, each on a connection of its own, and keeps the requests.
struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(answers: &[(&'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answers, seen) = (answers.to_vec(), requests.clone());
        std::thread::spawn(move || {
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut request, mut part) = (String::new(), [0; 4096]);
                while !whole(&request) {
                    let size = stream.read(&mut part).unwrap();
                    assert!(size > 0, "the request ends early: {request}");
                    request += std::str::from_utf8(&part[..size]).unwrap();
                }
                seen.lock().push(request);
                if head != CUT {
                    let length = body.len();
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-type: application/json\r\n\
                         content-length: {length}\r\n\r\n{body}"
                    );
                }
            }
        });
        Self { address, requests }
    }

    fn person(&self) -> Person {
        Person::at(&format!("http://{}", self.address), "ward_key", WORKSPACE)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.person().command(&[&["api"], arguments, &["--json"]].concat()).output().unwrap().into()
    }

    /// The values of a header in the requests.
    fn header(&self, name: &str) -> Vec<Option<String>> {
        let requests = self.requests.lock();
        let value = |request: &String| {
            let lines = request.split("\r\n\r\n").next().unwrap().lines();
            let mut named = lines.filter_map(|line| line.split_once(": "));
            named.find_map(|(header, value)| (header == name).then(|| value.to_owned()))
        };
        requests.iter().map(value).collect()
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

/// Whether a request has its body.
fn whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

#[test]
fn a_write_is_repeated_with_one_key_until_it_is_answered() {
    let server = Scripted::new(&[(CUT, ""), (WAIT, "{}"), (RATE, "{}"), (FINE, r#"{"key_id": "k"}"#)]);
    let ran = server.run(&["create-api-key", "duration_days=5"]);
    assert_eq!(ran.json()["key_id"], "k");
    let keys = server.header("idempotency-key");
    assert_eq!(keys.len(), 4);
    assert!(
        keys[0].as_ref().is_some_and(|key| key.len() >= 16) && keys.iter().all(|key| *key == keys[0]),
        "{keys:?}"
    );
    let bodies: Vec<String> = server
        .requests
        .lock()
        .iter()
        .map(|request| request.split_once("\r\n\r\n").unwrap().1.to_owned())
        .collect();
    assert!(bodies.iter().all(|body| body == r#"{"duration_days":5}"#), "{bodies:?}");
    // A second command is another write.
    let again = Scripted::new(&[(FINE, "{}")]);
    again.run(&["create-api-key", "duration_days=5"]).json();
    assert_ne!(again.header("idempotency-key")[0], keys[0]);
}

#[test]
fn a_request_that_could_do_the_same_twice_is_not_repeated() {
    for (operation, argument) in [("delete-api-key", "key_id=k"), ("update-workspace", "name=n")] {
        let server = Scripted::new(&[(CUT, "")]);
        let ran = server.run(&[operation, argument]);
        ran.failed(8, "no_answer");
        assert!(ran.err.contains("may have been done"), "{ran:?}");
        assert_eq!(server.count(), 1, "{operation}");
        let server = Scripted::new(&[(WAIT, r#"{"error_code": "outcome_unknown", "detail": "Unknown."}"#)]);
        server.run(&[operation, argument]).failed(8, "outcome_unknown");
        assert_eq!(server.count(), 1, "{operation}");
        // Nothing was written before these answers.
        let server =
            Scripted::new(&[(WAIT, r#"{"error_code": "unavailable", "detail": "Busy."}"#), (FINE, "{}")]);
        server.run(&[operation, argument]).json();
        assert_eq!(server.count(), 2, "{operation}");
    }
}

#[test]
fn reads_are_repeated_and_repeats_have_an_end() {
    let server = Scripted::new(&[(CUT, ""), (FINE, "{}")]);
    server.run(&["get-workspace"]).json();
    assert_eq!(server.count(), 2);
    let server = Scripted::new(&[(WAIT, "{}"), (WAIT, "{}")]);
    server.run(&["get-workspace", "--repeats", "1"]).failed(8, "http");
    assert_eq!(server.count(), 2);
    // Without `retry-after`, or with a long one, the answer is final.
    for head in ["503 Service Unavailable", "503 Service Unavailable\r\nretry-after: 3600"] {
        let server = Scripted::new(&[(head, "{}")]);
        server.run(&["get-workspace"]).failed(8, "http");
        assert_eq!(server.count(), 1, "{head}");
    }
}

#[test]
fn a_credential_goes_to_its_own_server_only() {
    let server = Scripted::new(&[(FINE, "{}")]);
    server.run(&["get-me"]).json();
    assert_eq!(server.header("authorization"), [Some("Bearer ward_key".to_owned())]);
    // A redirect is an answer like any other, and is not followed.
    let elsewhere = Scripted::new(&[(FINE, "{}")]);
    let location = format!("307 Temporary Redirect\r\nlocation: http://{}/v1/me", elsewhere.address);
    let server = Scripted::new(&[(location.leak(), "")]);
    assert_eq!(server.run(&["get-me"]).exit, 1);
    assert_eq!((server.count(), elsewhere.count()), (1, 0));
    // An operation that ignores credentials gets none.
    let server = Scripted::new(&[(FINE, "{}")]);
    server.run(&["get-health"]).json();
    assert_eq!(server.header("authorization"), [None]);
}
