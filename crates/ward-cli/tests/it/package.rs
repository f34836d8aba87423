//! The Debian package, and the files for containers: installed, removed, and taken by their checkers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{WARD, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Whether this machine has a program.
fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn left_out(what: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(format!("\nLEFT OUT: {what}\n").as_bytes());
}

#[track_caller]
fn done(output: &Output) -> String {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// The commands of a test on a copy of this machine, below `$root`: everything that they write is gone with the process.
const COPY: &str = r#"
set -eu
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
mount --rbind /dev "$work/root/dev"
mount --rbind /proc "$work/root/proc"
echo "== mounted"
cp "$package" "$work/root/ward.deb"
exec chroot "$work/root" sh -c "$inside"
"#;

/// An installation, an upgrade, a removal and a purge.
const INSIDE: &str = r#"
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
say() { echo "== $*"; }
dpkg_quietly() { dpkg --force-unsafe-io --force-depends --no-triggers "$@"; }
dpkg_quietly --install /ward.deb
say installed
dpkg --verify ward
ward --version
getent passwd ward
ls -l /etc/ward/master.key
ls /etc/systemd/system/multi-user.target.wants/ward.service
grep ExecStart /usr/lib/systemd/system/ward.service
gzip -dc /usr/share/man/man1/ward-api-list-workspaces.1.gz | grep -c 'limit'
grep -c list-workspaces /usr/share/bash-completion/completions/ward
cp /etc/ward/master.key /before
echo 'log = "json"' >>/etc/ward/ward.toml
dpkg_quietly --install /ward.deb
say upgraded
cmp /etc/ward/master.key /before
tail -n 1 /etc/ward/ward.toml
ward config --json --config /etc/ward/ward.toml | grep -A 1 '"setting": "log"'
dpkg --listfiles ward >/files
dpkg_quietly --remove ward
say removed
ls /usr/bin/ward 2>&1 || true
tail -n 1 /etc/ward/ward.toml
dpkg_quietly --purge ward
say purged
ls /etc/ward
while read -r file; do
    [ -d "$file" ] || [ ! -e "$file" ] || echo "$file"
done </files
find /etc/systemd -name 'ward*'
"#;

#[test]
fn a_debian_package_is_installed_upgraded_removed_and_purged() {
    if !has("dpkg-deb") {
        return left_out("no Debian package is installed, because this machine has no dpkg");
    }
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("ward");
    // The binary of the tests is large, and a stripped one runs as well.
    done(&Command::new("strip").arg("-o").args([&binary, Path::new(WARD)]).output().unwrap());
    let built = Command::new(root().join("scripts/deb"))
        .args([&binary, folder.path()])
        .arg("-Znone")
        .output()
        .unwrap();
    done(&built);
    let package = text(&built.stdout).trim().to_owned();
    assert!(package.contains("/ward_"), "{package}");

    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]);
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let ran = unshare
        .args(["sh", "-c", COPY])
        .env("work", &work)
        .env("package", &package)
        .env("inside", INSIDE)
        .output()
        .unwrap();
    let said = text(&ran.stdout);
    if !said.contains("== mounted\n") {
        // A container may forbid mounts. Everything after them must succeed.
        let why = text(&ran.stderr);
        return left_out(&format!(
            "no Debian package is installed, because this machine allows no mounts: {why}"
        ));
    }
    done(&ran);
    let part = |from: &str, to: &str| -> String {
        let (_, rest) =
            said.split_once(&format!("== {from}\n")).unwrap_or_else(|| panic!("no {from}: {said}"));
        rest.split(&format!("== {to}\n")).next().unwrap().to_owned()
    };
    let installed = part("installed", "upgraded");
    for line in [
        &format!("ward {}", env!("CARGO_PKG_VERSION")),
        ":/var/lib/ward:/usr/sbin/nologin",
        "-rw------- 1 root root",
        "/etc/systemd/system/multi-user.target.wants/ward.service",
        "ExecStart=/usr/bin/ward serve",
    ] {
        assert!(installed.contains(line), "{line}: {installed}");
    }
    let upgraded = part("upgraded", "removed");
    assert!(upgraded.contains("log = \"json\"") && upgraded.contains("\"value\": \"json\""), "{upgraded}");
    let removed = part("removed", "purged");
    assert!(
        removed.contains("cannot access '/usr/bin/ward'") && removed.contains("log = \"json\""),
        "{removed}"
    );
    // A backup cannot be read without the key, so the key outlives the package.
    let purged = part("purged", "end");
    assert_eq!(purged.lines().collect::<Vec<_>>(), ["master.key"], "{said}");
    assert!(said.contains("keep a copy of /etc/ward/master.key"), "{said}");
}

fn is_root() -> bool {
    text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0"
}

/// The folder of the checkers, which pip installs on the first run. `None`: they are left out.
fn checkers() -> Option<PathBuf> {
    let wanted = std::env::var("WARD_TEST_SERVERS").unwrap_or_default();
    if wanted == "off" {
        left_out("the files for containers are not checked");
        return None;
    }
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkers/requirements.txt");
    let (home, text_of) =
        (Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkers"), fs::read_to_string(&list).unwrap());
    let (bin, marker) = (home.join("bin"), home.join("installed"));
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == text_of) {
        return Some(bin);
    }
    let _ = fs::remove_dir_all(&home);
    let made = Command::new("python3").args(["-m", "venv"]).arg(&home).output();
    let installed = made.is_ok_and(|made| made.status.success()) && {
        let mut pip = Command::new(bin.join("pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]).arg(&list);
        pip.output().unwrap().status.success()
    };
    assert!(installed || wanted != "require", "pip cannot install the checkers");
    if !installed {
        left_out("the files for containers are not checked, because pip cannot install the checkers");
        return None;
    }
    fs::write(&marker, text_of).unwrap();
    Some(bin)
}

/// Whether a checker takes this file.
fn takes(checker: &Path, arguments: &[&str], file: &Path) -> bool {
    let ran = Command::new(checker).args(arguments).arg(file).output().unwrap();
    ran.status.success()
}

#[test]
fn checkers_take_the_files_for_containers_and_releases() {
    let Some(bin) = checkers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (schema, kubernetes) = (bin.join("check-jsonschema"), bin.join("kubernetes-validate"));
    let compose = root().join("deploy/compose/compose.yaml");
    let manifests = root().join("deploy/kubernetes/ward.yaml");
    let of_compose = ["--builtin-schema", "vendor.compose-spec"];
    let of_workflows = ["--builtin-schema", "vendor.github-workflows"];
    assert!(takes(&schema, &of_compose, &compose));
    assert!(takes(&kubernetes, &["--strict"], &manifests));
    for workflow in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let workflow = workflow.unwrap().path();
        assert!(takes(&schema, &of_workflows, &workflow), "{}", workflow.display());
    }
    // A mistake is found.
    for (checker, arguments, file, right, wrong) in [
        (&schema, &of_compose[..], &compose, "read_only: true", "read_onli: true"),
        (&kubernetes, &["--strict"][..], &manifests, "replicas: 2", "replicaz: 2"),
    ] {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(right));
        let file = folder.path().join("wrong.yaml");
        fs::write(&file, text.replace(right, wrong)).unwrap();
        assert!(!takes(checker, arguments, &file), "{wrong}");
    }
    let bom = Command::new(root().join("scripts/sbom")).output().unwrap();
    assert!(bom.status.success(), "{}", text(&bom.stderr));
    let file = folder.path().join("ward.cdx.json");
    fs::write(&file, &bom.stdout).unwrap();
    let valid = "import sys\n\
                 from cyclonedx.schema import SchemaVersion\n\
                 from cyclonedx.validation.json import JsonStrictValidator\n\
                 sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()) is not None)";
    assert!(takes(&bin.join("python"), &["-c", valid], &file));
    let bom: serde_json::Value = serde_json::from_slice(&bom.stdout).unwrap();
    let names: Vec<&str> =
        bom["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"ward-db") && names.contains(&"rustls"), "{names:?}");
    assert!(!names.contains(&"ward-test") && !names.contains(&"proptest"), "{names:?}");
}

#[test]
fn ward_and_nginx_take_the_settings_of_the_files_for_containers() {
    let compose = fs::read_to_string(root().join("deploy/compose/compose.yaml")).unwrap();
    let manifests = fs::read_to_string(root().join("deploy/kubernetes/ward.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(WARD);
    command.args(["config", "--json"]).current_dir(folder.path()).env_clear();
    let mut set = 0;
    for (name, value) in compose.lines().filter_map(|line| line.trim().split_once(": ")) {
        if !name.starts_with("WARD_") {
            continue;
        }
        let value = match name {
            "WARD_MASTER_KEY" => crate::fleet::MASTER_KEY.trim().to_owned(),
            "WARD_PUBLIC_URL" => "http://127.0.0.1:8080".to_owned(),
            _ => value.trim_matches('"').replace("${POSTGRES_PASSWORD}", "secret"),
        };
        assert!(!value.contains('$'), "{name}: {value}");
        command.env(name, value);
        set += 1;
    }
    assert_eq!(set, 5);
    let settings = done(&command.output().unwrap());
    assert!(settings.contains("172.30.84.0/24"), "{settings}");

    let (_, file) = manifests.split_once("ward.toml: |\n").unwrap();
    let path = folder.path().join("ward.toml");
    fs::write(&path, file.split("---\n").next().unwrap()).unwrap();
    let mut command = Command::new(WARD);
    command.args(["config", "--json", "--config"]).arg(&path).current_dir(folder.path()).env_clear();
    let settings = done(&command.env("WARD_METRICS_LISTEN", "[::]:9090").output().unwrap());
    assert!(settings.contains("https://ward.example.com"), "{settings}");

    if std::env::var("WARD_TEST_SERVERS").is_ok_and(|wanted| wanted == "off") {
        return left_out("nginx does not read its configuration");
    }
    let included = root().join("deploy/compose/nginx.conf");
    let place = folder.path().display();
    let paths: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {place}/{name};"))
        .collect();
    let main = format!(
        "pid {place}/pid; error_log {place}/log; events {{}} http {{ access_log off; {} include {}; }}",
        paths.join(" "),
        included.display()
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, main).unwrap();
    done(
        &Command::new("nginx")
            .arg("-t")
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(folder.path().join("log"))
            .output()
            .unwrap(),
    );
}
