//! The disk becomes full, or read-only, under real servers: the clients' answers, and that no acknowledged
//! write is lost.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;

use crate::client::{Answer, Call};
use crate::disk::{Disk, ReadOnly};
use crate::fleet::{MASTER_KEY, Tenant, at_once, new_workspace};
use crate::invariants::Look;
use crate::replicas::report;
use crate::support::{Server, text, ward};

const WRITERS: usize = 4;

/// A creation that can be retried safely.
fn creation(tenant: &Tenant, slug: &str) -> Call {
    Call::post("/v1/me/workspaces", new_workspace(slug))
        .by(&tenant.key)
        .repeatable(format!("{slug}-once-and-once-only"))
}

#[track_caller]
fn not_now(answer: &Answer, codes: &[&str]) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.has("retry-after"), "{answer:?}");
    assert!(codes.contains(&answer.text("error_code")), "{answer:?}");
}

/// Creates workspaces from several threads until each gets 503; returns the acknowledged slugs and the
/// refused ones.
fn write_until_refused(
    at: SocketAddr,
    tenant: &Tenant,
    round: &str,
    codes: &[&str],
) -> (Vec<String>, Vec<String>) {
    let each = at_once((0..WRITERS).collect(), |writer| {
        let mut made = Vec::new();
        loop {
            let slug = format!("{round}-{writer}-{}", made.len());
            let answer = creation(tenant, &slug).ask(at);
            if answer.status != 201 {
                not_now(&answer, codes);
                return (made, slug);
            }
            made.push(slug);
            assert!(made.len() < 10_000, "the disk is never full");
        }
    });
    let (made, refused): (Vec<Vec<String>>, Vec<String>) = each.into_iter().unzip();
    (made.concat(), refused)
}

/// Shows that reads succeed, and that the readiness check has one of these statuses.
fn reads_go_on(server: &Server, tenant: &Tenant, ready: &[u16]) {
    let at = server.address;
    for path in ["/v1/workspaces?limit=20", &format!("/v1/workspaces/{}", tenant.id), "/v1/auth/me"] {
        let answer = Call::get(path).by(&tenant.key).ask(at);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    // These readers open new connections now.
    let answers =
        at_once((0..8).collect(), |_: usize| Call::get("/v1/workspaces").by(&tenant.key).ask(at).status);
    assert_eq!(answers, [200; 8]);
    assert_eq!(Call::get("/healthz").ask(at).status, 200);
    let answer = Call::get("/readyz").ask(at);
    assert!(ready.contains(&answer.status), "{answer:?}");
}

#[test]
fn on_a_full_disk_writes_wait_reads_go_on_and_room_is_all_it_takes() {
    let disk = Disk::new();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    // On a disk that is full but not broken, no outcome is unknown.
    let codes: &[&str] = if disk.is_real() { &["unavailable"] } else { &["unavailable", "outcome_unknown"] };

    disk.nearly_fill(&server);
    let (mut made, mut refused) = write_until_refused(server.address, &tenant, "first", codes);
    assert!(!made.is_empty(), "it was full before it began");
    // The disk is now full to the last byte, but smaller writes still fit into the WAL space of the refused
    // ones.
    disk.fill(&server);
    let (still_made, still_refused) = write_until_refused(server.address, &tenant, "last", codes);
    made.extend(still_made);
    refused.extend(still_refused);
    let rename = |name: &str| {
        Call::patch(format!("/v1/workspaces/{}", tenant.id), json!({ "name": name })).by(&tenant.key)
    };
    let told = (0..10_000)
        .map(|number| rename(&format!("Name {number}")).ask(server.address))
        .find(|answer| answer.status != 200);
    not_now(&told.expect("a change that finds no room"), codes);
    // The stand-in for a full disk fails as a broken one does.
    reads_go_on(&server, &tenant, if disk.is_real() { &[200] } else { &[200, 503] });

    disk.make_room(&server);
    for slug in &refused {
        let answer = creation(&tenant, slug).ask(server.address);
        assert_eq!(answer.status, 201, "there is room again: {answer:?}");
        assert!(!disk.is_real() || !answer.has("idempotency-replayed"), "{slug} was refused, and done");
    }
    assert_eq!(rename("New").ask(server.address).status, 200);

    // The disk is full again when the server is killed. It may refuse to start without room; with room it has
    // everything.
    disk.nearly_fill(&server);
    let (more, _) = write_until_refused(server.address, &tenant, "second", codes);
    let mut server = server;
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    if disk.is_real() {
        disk.make_room(&server);
    }
    let server = disk.serve();
    reads_go_on(&server, &tenant, &[200]);
    assert_eq!(creation(&tenant, "after").ask(server.address).status, 201);
    server.stopped();

    let image = disk.copied();
    let look = Look::at(&format!("sqlite:{}", image.path().join("ward.db").display()));
    look.assert_whole("after the disk was full");
    let there = look.lines("SELECT slug FROM workspaces");
    for slug in made.iter().chain(&refused).chain(&more) {
        assert!(there.contains(slug), "{slug} was acknowledged and is lost");
    }
    report(&format!(
        "disk full{}: {} creations acknowledged before, all there; {} refused and repeated, done once",
        if disk.is_real() { "" } else { " (stood in for)" },
        made.len() + more.len(),
        refused.len()
    ));
}

#[test]
fn on_a_disk_that_turns_read_only_writes_wait_reads_go_on_and_writing_resumes() {
    // A tmpfs does not work here: only a file system on a disk can forbid writes to open files.
    let disk = Disk::of_the_system();
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    let read_only = ReadOnly::make(&disk.path(), &server);
    // An error that is not about room does not tell whether the mark of the commit reached the disk.
    let codes = ["unavailable", "outcome_unknown"];
    let (made, refused) = write_until_refused(server.address, &tenant, "first", &codes);
    assert_eq!(made, Vec::<String>::new(), "it can be written to");
    // Every write fails, so another server should get the traffic, if there is one.
    reads_go_on(&server, &tenant, &[503]);
    drop(read_only);
    reads_go_on(&server, &tenant, &[200]);

    for slug in &refused {
        let answer = creation(&tenant, slug).ask(server.address);
        assert_eq!(answer.status, 201, "it can be written to again: {answer:?}");
    }
    server.stopped();
    let look = Look::at(&format!("sqlite:{}", disk.path().join("ward.db").display()));
    look.assert_whole("after the disk was read-only");
    let there = look.lines("SELECT slug FROM workspaces");
    assert_eq!(there.len(), refused.len() + 1, "{there:?}");
}

#[test]
fn a_server_does_not_start_on_a_read_only_disk_and_says_why() {
    let disk = Disk::new();
    if !disk.is_real() {
        report("WARNING: NOT TESTED, for want of a mount: starting on a read-only disk.");
        return;
    }
    let server = disk.serve();
    let tenant = Tenant::new(server.address, "acme");
    server.stopped();

    disk.remount("ro");
    let refused =
        disk.ward(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("Read-only file system"), "{}", text(&refused.stderr));

    disk.remount("rw");
    let server = disk.serve();
    reads_go_on(&server, &tenant, &[200]);
    tenant.mint(server.address, "viewer");
}

#[test]
fn every_rule_of_a_whole_database_can_be_broken() {
    let server = Server::start(&["--metrics-listen", "off"]);
    let tenant = Tenant::new(server.address, "acme");
    tenant.mint(server.address, "viewer");
    assert_eq!(creation(&tenant, "second").ask(server.address).status, 201);
    assert_eq!(Call::post("/v1/workspaces", new_workspace("waiting")).ask(server.address).status, 201);
    let folder = server.folder.path().to_owned();
    let damages = [
        "DELETE FROM audit_events WHERE action = 'workspace.create'",
        "DELETE FROM audit_events WHERE action = 'api_key.create'",
        "DELETE FROM workspaces WHERE slug = 'second'",
        "DELETE FROM slugs WHERE slug = 'second'",
        "DELETE FROM unclaimed",
        "UPDATE bootstrap_slots SET used = used + 1 WHERE slot = 3",
        "UPDATE memberships SET role = 'viewer'",
        "UPDATE workspaces SET state = 'archived' WHERE slug = 'second'",
        "DELETE FROM principals WHERE kind = 'service'",
        "DELETE FROM memberships WHERE role = 'viewer'",
        "DELETE FROM seats",
        "UPDATE api_keys SET revoked_at = created_at",
        "UPDATE api_keys SET position = position + 100000000",
        "UPDATE workspaces SET provisioned_at = created_at",
        "UPDATE idempotency SET body = NULL",
        "UPDATE idempotency SET status = 0",
    ];
    for (broken, damage) in damages.into_iter().enumerate() {
        let url = format!("sqlite:{}/broken-{broken}.db", folder.display());
        let to = format!("broken-{broken}.db");
        let made =
            ward(&folder, &["backup", "--to", &to]).env("WARD_MASTER_KEY", MASTER_KEY).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let look = Look::at(&url);
        look.assert_whole("before");
        look.run(damage);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look.assert_whole("broken")));
        assert!(found.is_err(), "no rule notices: {damage}");
    }
    // The engine itself detects damage that the rules do not see.
    let path = folder.join("broken-0.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    let checked =
        Command::new(crate::support::WARD).args(["restore", "--check"]).arg(&path).output().unwrap();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
}
