//! The binary as its operator sees it: settings, start, limits of the machine, signals.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::client::Call;
use crate::fleet::Tenant;
use crate::support::{Server, WARD, get, run, text, ward};

#[test]
fn serves_says_where_and_stops_when_told() {
    let server = Server::start(&["--metrics-listen", "127.0.0.1:0"]);
    assert!(server.get("/healthz").starts_with("HTTP/1.1 200 "));
    let base = format!("http://{}", server.address);
    for place in ["/v1", "/v1/openapi.json", "/v1/docs", "/v1/workspaces -H"] {
        assert!(server.welcome.contains(&format!("{base}{place}")), "{place} in {}", server.welcome);
    }
    assert!(server.welcome.contains("Rates per client address are off: only this machine can connect."));

    let metrics = server.welcome.split_whitespace().find(|word| word.ends_with("/metrics")).unwrap();
    let metrics = metrics.trim_start_matches("http://").trim_end_matches("/metrics").parse().unwrap();
    let page = get(metrics, "/metrics");
    assert!(page.contains("ward_build_info{version=\"") && page.contains("ward_connections_open"), "{page}");

    let healthy = run(server.folder.path(), &["health", "--listen", &server.address.to_string()]);
    assert!(healthy.status.success(), "{}", text(&healthy.stderr));
    let log = server.stopped();
    assert!(log.contains("\"message\":\"stopped\""), "not on a terminal, the log is JSON: {log}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server =
        Server::start(&["--metrics-listen", "off", "--header-time", "1h", "--shutdown-time", "1h"]);
    // The client sends half a request: the server waits for the rest of it.
    let mut client = TcpStream::connect(server.address).unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.signal("INT");
    std::thread::sleep(Duration::from_secs(1));
    assert!(server.child.try_wait().unwrap().is_none(), "the server does not wait for accepted requests");
    server.signal("INT");
    assert_eq!(server.ended().0, Some(130));
}

#[test]
fn a_taken_default_metrics_port_is_no_obstacle_but_an_asked_for_one_is() {
    // This test holds the port, or another process does.
    let _taken = TcpListener::bind("127.0.0.1:9090");
    let log = Server::start(&["--log", "text"]).stopped();
    assert!(log.contains("WITHOUT METRICS"), "{log}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let refused = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", &address]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains(&format!("metrics_listen {address} cannot be used")));
}

#[test]
fn keys_in_clear_are_shouted_about() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ward(folder.path(), &["serve", "--listen", "0.0.0.0:0", "--metrics-listen", "off"]);
    command.env("WARD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let server = Server::of(command, folder);
    assert!(!server.welcome.contains("Rates per client address are off"), "{}", server.welcome);
    assert!(server.stopped().contains("KEYS CROSS THE NETWORK IN CLEAR"));
}

#[test]
fn wrong_settings_are_all_named_and_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ward.toml"), "lisen = '127.0.0.1:1'\ntls_cert = 'c.pem'").unwrap();
    let refused = ward(folder.path(), &["serve", "--config", "ward.toml", "--request-time", "15"])
        .env("WARD_BOOSTRAP", "open")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    for expected in [
        "lisen in ward.toml is not a setting. Did you mean listen?",
        "WARD_BOOSTRAP is not a setting. Did you mean WARD_BOOTSTRAP?",
        "--request-time must be a time",
        "tls_cert in ward.toml needs tls_key",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a refused start leaves nothing behind");
}

#[test]
fn config_shows_what_is_in_force_and_hides_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let shown = ward(folder.path(), &["config", "--json", "--json-depth", "9"])
        .env("WARD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .env("WARD_DATABASE", "postgres://ward:hunter2@db/ward")
        .output()
        .unwrap();
    let said = text(&shown.stdout);
    assert!(!said.contains("AAEC") && !said.contains("hunter2"), "{said}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let row = |key: &str| rows.iter().find(|row| row["setting"] == key).unwrap();
    assert_eq!(row("json_depth")["value"], "9");
    assert_eq!(row("json_depth")["from"], "flag");
    assert_eq!(row("master_key")["from"], "environment");
    assert_eq!(row("listen")["from"], "default");
    let table = text(&run(folder.path(), &["config"]).stdout);
    assert!(table.contains("SETTING") && table.contains("sqlite:ward.db"), "{table}");
}

#[test]
fn running_out_of_file_descriptors_is_outlived() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let start = format!("ulimit -n 64; exec {WARD} serve --listen 127.0.0.1:0 --metrics-listen off");
    command.args(["-c", &start]).current_dir(folder.path());
    let server = Server::of(command, folder);
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let spent = processor_time(server.child.id());
    std::thread::sleep(Duration::from_secs(1));
    assert!(processor_time(server.child.id()) - spent < 50, "it spins while it cannot accept");
    drop(crowd);
    assert!(server.get("/healthz").starts_with("HTTP/1.1 200 "));
    let log = server.stopped();
    assert!(
        log.contains("cannot accept a connection") && log.contains("limit on open files is too low"),
        "{log}"
    );
}

/// The processor time of a process so far, in hundredths of a second.
fn processor_time(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name in brackets may hold any character. After it come the state and 10 numbers, then user and
    // system time.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn scripts_get_documents_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let document: serde_json::Value =
        serde_json::from_slice(&run(folder.path(), &["openapi"]).stdout).unwrap();
    assert!(document["paths"]["/v1/workspaces"].is_object());
    assert!(text(&run(folder.path(), &["completions", "bash"]).stdout).contains("_ward"));
    assert!(run(folder.path(), &["migrate"]).status.success());
}

#[test]
fn the_printed_lines_work_as_printed() {
    let server = Server::start(&["--metrics-listen", "off"]);
    let lines: Vec<_> = server.welcome.lines().filter(|line| line.contains("curl ")).collect();
    assert_eq!(lines.len(), 2, "{}", server.welcome);
    for _ in 0..2 {
        let done = Command::new("bash").args(["-euo", "pipefail", "-c", &lines.join("\n")]).output().unwrap();
        let key: serde_json::Value =
            serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
        assert!(key["api_key"].as_str().unwrap().starts_with("ward_"), "{key}");
        // The slug contains the second.
        std::thread::sleep(Duration::from_millis(1100));
    }
}

#[test]
fn keys_that_expire_soon_are_counted_from_the_start() {
    let folder = crate::support::place();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let start = || Server::of(ward(folder.path(), &serve), tempfile::tempdir().unwrap());
    let server = start();
    let tenant = Tenant::new(server.address, "acme");
    for days in [5, 10, 20] {
        let body = serde_json::json!({ "duration_days": days, "role": "viewer" });
        let minted = Call::post(tenant.keys(), body).by(&tenant.key).ask(server.address);
        assert_eq!(minted.status, 201, "{minted:?}");
    }
    server.stopped();
    let server = start();
    let at = server.welcome.split("Metrics   http://").nth(1).unwrap().split('/').next().unwrap();
    let began = std::time::Instant::now();
    let page = loop {
        let page = get(at.parse().unwrap(), "/metrics");
        if page.contains("ward_api_keys_expiring{within_days=\"1\"}") {
            break page;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{page}");
        std::thread::sleep(Duration::from_millis(50));
    };
    for (days, keys) in [(14, 2), (7, 1), (1, 0)] {
        let line = format!("ward_api_keys_expiring{{within_days=\"{days}\"}} {keys}\n");
        assert!(page.contains(&line), "{line} in {page}");
    }
}

#[test]
fn every_figure_says_what_it_is() {
    let server = Server::start(&["--metrics-listen", "127.0.0.1:0"]);
    let tenant = Tenant::new(server.address, "acme");
    let wrong = Call::get("/v1/auth/me").by("ward_no-such-key").ask(server.address);
    assert_eq!(wrong.status, 401);
    tenant.mint(server.address, "viewer");
    let at = server.welcome.split("Metrics   http://").nth(1).unwrap().split('/').next().unwrap();
    let page = get(at.parse().unwrap(), "/metrics");
    let names = |kind: &str| -> std::collections::BTreeSet<String> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(&format!("# {kind} ")));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let typed = names("TYPE");
    assert!(typed.len() > 9 && typed.contains("ward_http_requests_total"), "{page}");
    assert_eq!(
        typed.difference(&names("HELP")).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "figures without help"
    );
}
