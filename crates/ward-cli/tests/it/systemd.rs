//! The page "Beside the systemd unit" and the unit: every command line runs as it stands, but for the places that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Server, WARD, text};

const PAGE: &str = include_str!("../../../../docs/operate/systemd.md");
const UNIT: &str = include_str!("../../../../deploy/ward.service");

/// The places of the page, and where they are in a test's folder.
const PLACES: [(&str, &str); 4] = [
    ("/var/lib/ward", "state"),
    ("/etc/ward", "etc"),
    ("/usr/local/bin/ward", "ward"),
    ("/etc/systemd/system", "units"),
];

/// The command lines of the page's code blocks: continued lines are joined, comments and a function's braces are gone.
fn lines() -> Vec<String> {
    let blocks = PAGE.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let joined = blocks.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let line = |line: &str| line.split(" #").next().unwrap().trim().to_owned();
    joined.lines().map(line).filter(|line| !line.is_empty() && line != "}" && !line.ends_with('{')).collect()
}

/// A line's words, as a shell splits it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// The text with its places in the folder.
fn placed(text: &str, folder: &Path) -> String {
    let into = |text: String, (place, own): &(&str, &str)| {
        text.replace(place, &folder.join(own).display().to_string())
    };
    PLACES.iter().fold(text.to_owned(), into)
}

/// The settings of a unit: the key of each line, with its values.
fn settings(unit: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        found.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    found
}

/// The complaints of `systemd-analyze verify` about a unit; its exit code is 0 even for an unknown key. `None`: the machine
/// has no such program.
fn verified(unit: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ward-tried.service");
    fs::write(&file, unit).unwrap();
    let done = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().ok()?;
    let said = [text(&done.stdout), text(&done.stderr)].concat();
    // Mistakes in the machine's own units are not the page's concern.
    Some(said.lines().filter(|line| line.contains("ward-tried")).collect::<Vec<_>>().join("\n"))
}

fn left_out(what: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(format!("\nLEFT OUT: {what}\n").as_bytes());
}

fn run(environment: &[(String, String)], folder: &Path, arguments: &[String]) -> Output {
    let mut command = Command::new(WARD);
    command.args(arguments).current_dir(folder).env_clear().envs(environment.iter().cloned());
    command.output().unwrap()
}

#[test]
fn systemd_takes_the_unit_and_what_the_page_gives_to_systemd_run() {
    let unit = UNIT.replace("/usr/local/bin/ward", WARD);
    let Some(said) = verified(&unit) else { return left_out("this machine has no systemd-analyze") };
    assert_eq!(said, "", "the unit");
    assert!(verified(&unit.replace("ProtectClock", "ProtectClok")).unwrap().contains("ProtectClok"));

    let runs: Vec<_> = lines().into_iter().filter(|line| line.starts_with("systemd-run ")).collect();
    assert_eq!(runs.len(), 2, "the long form and the function");
    let help = Command::new("systemd-run").arg("--help").output().unwrap();
    let help = text(&help.stdout);
    for run in runs {
        let words = words(&run);
        let options: Vec<_> = words.iter().skip(1).take_while(|word| word.starts_with("--")).collect();
        assert_eq!(words[options.len() + 1], "/usr/local/bin/ward", "{run}");
        let mut unit = format!("[Service]\nExecStart={WARD} workspace list\n");
        for option in options {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            assert!(
                help.contains(&format!("{name} ")) || help.contains(&format!("{name}=")),
                "{name} in {run}"
            );
            match name {
                "--property" => unit.extend([value, "\n"]),
                "--setenv" => unit.extend(["Environment=", value, "\n"]),
                _ => {}
            }
        }
        assert_eq!(verified(&unit).unwrap(), "", "{run}\n{unit}");
    }
}

#[test]
fn the_commands_use_what_the_unit_uses() {
    let unit = settings(UNIT);
    let runs = lines().into_iter().filter(|line| line.starts_with("systemd-run "));
    for words in runs.map(|line| words(&line)) {
        let given = |name: &str| -> Vec<&str> {
            words.iter().filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).collect()
        };
        let property = |name: &str| {
            given("--property").into_iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
        };
        for name in ["DynamicUser", "StateDirectory", "UMask"] {
            assert_eq!(property(name), Some(unit[name][0].as_str()), "{name}");
        }
        // The unit has the user that systemd names after it.
        assert_eq!(property("User"), Some("ward"));
        let database = format!("WARD_DATABASE={}", unit["Environment"][0].split_once('=').unwrap().1);
        assert!(given("--setenv").contains(&database.replace("%S", "/var/lib").as_str()), "{words:?}");
        if let Some(credential) = property("LoadCredential") {
            assert_eq!(credential, unit["LoadCredential"][0]);
            let name = format!("/run/credentials/{}.service/", given("--unit")[0]);
            let file =
                given("--setenv").into_iter().find(|it| it.starts_with("WARD_MASTER_KEY_FILE=")).unwrap();
            assert!(file.contains(&name), "{file} is not where systemd puts the credential");
        }
    }
}

#[test]
fn every_command_of_the_page_runs() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    for name in ["state", "etc", "units", "run"] {
        fs::create_dir(place(name)).unwrap();
    }
    // The first start, line by line. Only systemd itself is not here.
    let all = lines();
    let first: Vec<_> =
        all.iter().filter(|line| line.starts_with("install ") || line.starts_with("ward ")).collect();
    assert_eq!(first.len(), 4, "{all:?}");
    fs::create_dir(place("build")).unwrap();
    fs::write(place("build/ward"), "stands for the binary").unwrap();
    fs::create_dir(place("build/deploy")).unwrap();
    fs::write(place("build/deploy/ward.service"), UNIT).unwrap();
    for line in first {
        let done = if let Some(rest) = line.strip_prefix("ward ") {
            run(&[], folder.path(), &words(&placed(rest, folder.path())))
        } else {
            let mut shell = Command::new("sh");
            shell.args(["-ec", &placed(line, folder.path())]).current_dir(place("build")).output().unwrap()
        };
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
    }
    assert_eq!(fs::read_to_string(place("units/ward.service")).unwrap(), UNIT);

    // The server as the unit starts it, and the commands as the function does.
    let unit = settings(UNIT);
    let key = place("etc/master.key").display().to_string();
    let file = |text: &str| {
        placed(&text.replace("%S/ward", "/var/lib/ward").replace("%d/master.key", &key), folder.path())
    };
    let mut serve = words(&file(&unit["ExecStart"][0]));
    serve.remove(0);
    let mut command = Command::new(WARD);
    command.args(&serve).args(["--listen", "127.0.0.1:0", "--metrics-listen", "off"]).env_clear();
    command.current_dir(folder.path());
    for (name, value) in unit["Environment"].iter().map(|it| it.split_once('=').unwrap()) {
        command.env(name, file(value));
    }
    let _server = Server::of(command, tempfile::tempdir().unwrap());
    let function = all.iter().filter(|line| line.starts_with("systemd-run ")).nth(1).unwrap();
    let credential = "/run/credentials/ward-command.service/master.key";
    let environment: Vec<(String, String)> = words(&function.replace(credential, &key))
        .iter()
        .filter_map(|word| word.strip_prefix("--setenv=")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), placed(value, folder.path())))
        .collect();
    assert_eq!(environment.len(), 3);

    let mut issued = None;
    let mut ran = 0;
    for line in all.iter().filter_map(|line| line.strip_prefix("wardctl ")) {
        let mut words = words(&placed(line, folder.path()));
        if words.starts_with(&["key", "revoke"].map(str::to_owned)) {
            words[2] = issued.clone().expect("a key is issued before one is revoked");
        }
        let done = run(&environment, folder.path(), &words);
        assert!(done.status.success(), "{line}: {}{}", text(&done.stdout), text(&done.stderr));
        if words.starts_with(&["key", "issue"].map(str::to_owned)) {
            let listed = ["key", "list", "acme-health", "--json"].map(str::to_owned);
            let listed = run(&environment, folder.path(), &listed);
            let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
            issued = listed["items"][0]["key_id"].as_str().map(str::to_owned);
        }
        ran += 1;
    }
    assert_eq!(ran, 9);
    assert!(place("state/backup.db").exists());
}
