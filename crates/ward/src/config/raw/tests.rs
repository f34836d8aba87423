use super::super::setting::HIDDEN;
use super::*;

/// Resolves `file` (as `ward.toml`), variables and flags.
fn resolve(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<ResolvedSettings, ConfigError> {
    let mut raw = RawSettings::default();
    raw.add_file(Path::new("ward.toml"), file)?;
    raw.add_environment(environment.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    raw.add_flags(flags.iter().map(|(key, value)| (*key, (*value).to_owned())));
    raw.resolve()
}

fn refused(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    resolve(file, environment, flags).unwrap_err().to_string()
}

fn source(resolved: &ResolvedSettings, key: &str) -> Source {
    resolved.in_force.iter().find(|it| it.key == key).unwrap().source.clone()
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn nothing_said_is_the_default() {
    let resolved = resolve("", &[], &[]).unwrap();
    assert_eq!(format!("{:?}", resolved.config), format!("{:?}", Config::default()));
    assert!(resolved.in_force.iter().all(|it| it.source == Source::Default));
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file =
        "listen = '127.0.0.1:1'\njson_depth = 10\nconnections = 900\ntrusted_proxies = ['10.0.0.1', '::1']";
    let resolved = resolve(
        file,
        &[("WARD_LISTEN", "127.0.0.1:2"), ("WARD_JSON_DEPTH", "11"), ("PATH", "/bin")],
        &[("listen", "127.0.0.1:3")],
    )
    .unwrap();
    let config = &resolved.config;
    assert_eq!((config.listen.port(), config.json_depth, config.limits.connections), (3, 11, 900));
    assert_eq!(config.trusted_proxies.len(), 2);
    assert_eq!(source(&resolved, "listen"), Source::Flag);
    assert_eq!(source(&resolved, "json_depth"), Source::Environment);
    assert_eq!(source(&resolved, "connections"), Source::File("ward.toml".into()));
    assert_eq!(source(&resolved, "database"), Source::Default);
}

#[test]
fn unknown_settings_are_named_with_the_nearest_known_one() {
    let error = refused("lisen = 'x'", &[("WARD_DATABSE", "x"), ("WARD_BANANA", "1")], &[]);
    assert_eq!(
        error,
        "lisen in ward.toml is not a setting. Did you mean listen?\n\
         WARD_DATABSE is not a setting. Did you mean WARD_DATABASE?\n\
         WARD_BANANA is not a setting. `ward config` lists all settings."
    );
}

#[test]
fn variables_of_neighbours_are_not_settings() {
    let neighbours =
        [("WARD_SERVICE_HOST", "10.0.0.1"), ("WARD_PORT_8080_TCP_ADDR", "x"), ("WARD_TEST_ENGINES", "x")];
    resolve("", &neighbours, &[]).unwrap();
    resolve("", &[("WARD_LISTEN", ""), ("WARDEN", "x")], &[]).unwrap();
}

#[test]
fn every_wrong_value_is_named_as_it_was_written() {
    let error =
        refused("json_depth = true\nheader_time = 20", &[("WARD_RATES", "maybe")], &[("body_bytes", "9")]);
    for line in [
        "json_depth in ward.toml must be a text, a number or a list of texts",
        "header_time in ward.toml must be a time",
        "WARD_RATES must be one of auto, on, off",
        "--body-bytes must be a size",
    ] {
        assert!(error.contains(line), "{line} is missing in:\n{error}");
    }
}

#[test]
fn what_contradicts_is_refused_by_name() {
    for (file, expected) in [
        ("tls_cert = 'c.pem'", "tls_cert in ward.toml needs tls_key"),
        ("tls_key = 'k.pem'", "tls_key in ward.toml needs tls_cert"),
        ("bootstrap = 'token'", "bootstrap in ward.toml is token, which needs bootstrap_token"),
        ("bootstrap_token = '0123456789012345678901'", "bootstrap_token in ward.toml is set, but"),
        ("bootstrap = 'closed'\nbootstrap_token = '0123456789012345678901'", "is set, but"),
        ("connections = 10\nconnections_per_address = 11", "one address is allowed more than all"),
        ("listen = '127.0.0.1:9090'", "listen in ward.toml and metrics_listen name the same address"),
    ] {
        let error = refused(file, &[], &[]);
        assert!(error.contains(expected), "{file}: {error}");
    }
    let error = refused(&format!("master_key = '{KEY}'"), &[("WARD_MASTER_KEY_FILE", "k")], &[]);
    assert_eq!(error, "master_key in ward.toml and WARD_MASTER_KEY_FILE are both set: set only one of them");
}

#[test]
fn what_was_not_said_gives_way() {
    let config = resolve("connections = 10", &[], &[]).unwrap().config;
    assert_eq!(config.limits.connections_per_address, 10);
}

#[test]
fn rates_follow_the_listener_unless_told() {
    let enforced = |listen, rates| {
        resolve("", &[], &[("listen", listen), ("rates", rates)]).unwrap().config.rates.enforced
    };
    assert!(!enforced("127.0.0.1:80", "auto") && !enforced("[::1]:80", "auto"));
    assert!(
        enforced("0.0.0.0:80", "auto") && enforced("127.0.0.1:80", "on") && !enforced("0.0.0.0:80", "off")
    );
}

#[test]
fn the_key_lies_beside_the_database_and_is_made_on_loopback_only() {
    let key = |flags: &[(&'static str, &str)]| match resolve("", &[], flags).unwrap().config.master_key {
        MasterKey::File { path, create } => (path.display().to_string(), create),
        MasterKey::Given(_) | MasterKey::Unset => panic!("a file was expected"),
    };
    assert_eq!(key(&[("database", "sqlite:/var/lib/ward/w.db")]), ("/var/lib/ward/w.key".to_owned(), true));
    assert_eq!(key(&[("listen", "0.0.0.0:80")]), ("ward.key".to_owned(), false));
    assert_eq!(key(&[("master_key_file", "k")]), ("k".to_owned(), false));
}

#[test]
fn secrets_are_neither_shown_nor_repeated() {
    let token = "a-token-that-is-long-enough";
    let resolved =
        resolve("bootstrap = 'token'", &[("WARD_BOOTSTRAP_TOKEN", token), ("WARD_MASTER_KEY", KEY)], &[])
            .unwrap();
    let shown = format!("{:?}", resolved.in_force);
    assert!(!shown.contains(token) && !shown.contains(KEY), "{shown}");
    assert!(shown.contains(HIDDEN));

    let error = refused("", &[("WARD_BOOTSTRAP_TOKEN", "hunter2"), ("WARD_MASTER_KEY", "hunter2")], &[]);
    assert!(!error.contains("hunter2"), "{error}");
    let error = refused("master_key = \"hunter2", &[], &[]);
    assert!(!error.contains("hunter2") && error.contains("ward.toml is not TOML at line 1"), "{error}");
}

#[test]
fn the_file_is_named_by_flag_or_variable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.toml");
    std::fs::write(&path, "json_depth = 9").unwrap();
    let variable = || vec![(OsString::from("WARD_CONFIG"), path.clone().into_os_string())];
    let depth = |raw: RawSettings| raw.resolve().unwrap().config.json_depth;
    assert_eq!(depth(RawSettings::gather(None, variable(), []).unwrap()), 9);
    assert_eq!(depth(RawSettings::gather(Some(&path), [], []).unwrap()), 9);
    let missing = folder.path().join("nowhere.toml");
    let error = RawSettings::gather(Some(&missing), variable(), []).unwrap_err().to_string();
    assert!(error.starts_with("--config names") && error.contains("nowhere.toml"), "{error}");
}
