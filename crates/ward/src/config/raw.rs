//! The values that flags, environment and file give, and the configuration that follows from them.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::draft::{BootstrapMode, Draft};
use super::setting::Setting;
use super::settings::{SETTINGS, by_key};
use super::value::sqlite_path;
use super::{Bootstrap, Config, Exports, MasterKey, RatesMode, TlsFiles};

const FILE_VARIABLE: &str = "WARD_CONFIG";

/// The prefix of Ward's environment variables.
const PREFIX: &str = "WARD_";

/// Prefixed variables that are not settings: the test suite's own, those of `ward api`, and those that Kubernetes sets in
/// every container beside a service called `ward`.
const NOT_SETTINGS: [&str; 5] = ["WARD_TEST_", "WARD_BENCH_", "WARD_CLIENT_", "WARD_SERVICE_", "WARD_PORT"];

/// The layer that gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The default, because no layer gave a value.
    Default,
    File(PathBuf),
    /// A variable with the prefix `WARD_`.
    Environment,
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingProblem {
    /// The setting as it was written: `--listen`, `WARD_LISTEN`, `listen in ward.toml`.
    pub setting: String,
    /// The problem, to be read after the setting's name. It never contains a secret's value.
    pub message: String,
}

/// Every reason why Ward cannot run with these settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems, in the order of the settings' table; never empty.
    pub problems: Vec<SettingProblem>,
}

impl ConfigError {
    pub(crate) fn one(setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self { problems: vec![SettingProblem { setting: setting.into(), message: message.into() }] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, SettingProblem { setting, message }) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{setting} {message}")?;
        }
        Ok(())
    }
}

/// The value of one setting, and its source.
#[derive(Clone, Debug)]
struct GivenValue {
    text: String,
    source: Source,
}

impl GivenValue {
    /// The setting's name in the notation of its source.
    fn name(&self, setting: &Setting) -> String {
        match &self.source {
            Source::Flag => format!("--{}", setting.key.replace('_', "-")),
            Source::Environment => setting.variable(),
            Source::File(path) => format!("{} in {}", setting.key, path.display()),
            Source::Default => setting.key.to_owned(),
        }
    }
}

/// The given values before they are parsed: for each setting the winning value and its source.
///
/// Layers are added from the weakest to the strongest: file, environment, flags.
#[derive(Debug)]
pub struct RawSettings {
    /// One value per setting, in the order of `SETTINGS`.
    given: Vec<Option<GivenValue>>,
    problems: Vec<SettingProblem>,
}

impl Default for RawSettings {
    fn default() -> Self {
        Self { given: vec![None; SETTINGS.len()], problems: Vec::new() }
    }
}

/// The settings in force and where each came from.
#[derive(Clone, Debug)]
pub struct ResolvedSettings {
    pub config: Config,
    /// The same for display, in the order of `SETTINGS`.
    pub in_force: Vec<EffectiveSetting>,
}

/// One setting in force, for display. Secrets are stars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// The key of the setting, as a configuration file writes it.
    pub key: &'static str,
    /// Its value as it would be written; empty when it has none.
    pub value: String,
    /// The choice that Ward made, if the value leaves one.
    pub means: Option<String>,
    /// The layer that gave the value.
    pub source: Source,
}

impl RawSettings {
    /// Gathers all three layers. The flag (`file`) or `WARD_CONFIG` names the file, if there is one.
    ///
    /// # Errors
    /// Only if the file cannot be read or is not TOML. `resolve` reports all other problems, at once.
    pub fn gather(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let mut raw = Self::default();
        let from_variable =
            environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        let named = match (file, from_variable) {
            (Some(path), _) => Some(("--config", path)),
            (None, Some((_, path))) => Some((FILE_VARIABLE, Path::new(path))),
            (None, None) => None,
        };
        if let Some((named_by, path)) = named {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::one(named_by, format!("names {}, which cannot be read: {error}", path.display()))
            })?;
            raw.add_file(path, &text)?;
        }
        raw.add_environment(environment);
        raw.add_flags(flags);
        Ok(raw)
    }

    /// Adds the TOML `text` of the file at `path`.
    ///
    /// # Errors
    /// If the text is not TOML. The error has a line number but no text, because the text may be a
    /// secret's.
    pub fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError::one(
                path.display().to_string(),
                format!("is not TOML at line {line}: {}", error.message()),
            )
        })?;
        let source = Source::File(path.to_owned());
        for (key, value) in table {
            let setting = format!("{key} in {}", path.display());
            if by_key(&key).is_none() {
                self.problem(setting, unknown(&key, |setting| Some(setting.key.to_owned())));
            } else if let Some(text) = text_of(&value) {
                self.give(&key, text, source.clone());
            } else {
                self.problem(setting, "must be a text, a number or a list of texts".to_owned());
            }
        }
        Ok(())
    }

    /// Adds variables, and ignores those without Ward's prefix.
    pub fn add_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else {
                continue;
            };
            let key = name[PREFIX.len()..].to_ascii_lowercase();
            // Only the spelling in capitals is read: `WARD_listen` is a mistake.
            let setting = by_key(&key).filter(|setting| setting.variable() == name);
            match (setting, value.into_string()) {
                // A shell and a compose file express "not set" by an empty value.
                (Some(_), Ok(value)) if value.is_empty() => {}
                (Some(_), Ok(value)) => self.give(&key, value, Source::Environment),
                (Some(_), Err(_)) => self.problem(name, "is not UTF-8".to_owned()),
                (None, _) if name == FILE_VARIABLE => {}
                (None, _) if NOT_SETTINGS.iter().any(|prefix| name.starts_with(prefix)) => {}
                (None, _) => {
                    let message = unknown(&name, |setting| Some(setting.variable()));
                    self.problem(name, message);
                }
            }
        }
    }

    /// Adds values by key. The command line parser has already refused unknown flags.
    pub fn add_flags(&mut self, flags: impl IntoIterator<Item = (&'static str, String)>) {
        for (key, value) in flags {
            self.give(key, value, Source::Flag);
        }
    }

    fn give(&mut self, key: &str, text: String, source: Source) {
        if let Some(index) = SETTINGS.iter().position(|setting| setting.key == key) {
            self.given[index] = Some(GivenValue { text, source });
        }
    }

    fn problem(&mut self, setting: String, message: String) {
        self.problems.push(SettingProblem { setting, message });
    }

    fn given(&self, key: &str) -> Option<&GivenValue> {
        let index = SETTINGS.iter().position(|setting| setting.key == key)?;
        self.given[index].as_ref()
    }

    /// The name under which `key` was given, or the bare key.
    fn name(&self, key: &str) -> String {
        match (self.given(key), by_key(key)) {
            (Some(given), Some(setting)) => given.name(setting),
            _ => key.to_owned(),
        }
    }

    /// Reads every value and checks the settings against each other.
    ///
    /// # Errors
    /// Every problem, not only the first.
    pub fn resolve(mut self) -> Result<ResolvedSettings, ConfigError> {
        let mut draft = Draft::default();
        for (setting, given) in SETTINGS.iter().zip(&self.given) {
            if let Some(given) = given
                && let Err(message) = (setting.apply)(&mut draft, &given.text)
            {
                self.problems.push(SettingProblem { setting: given.name(setting), message });
            }
        }
        let config = self.settle(draft);
        if !self.problems.is_empty() {
            return Err(ConfigError { problems: self.problems });
        }
        let shown = |(setting, given): (&'static Setting, &Option<GivenValue>)| {
            let source = given.as_ref().map_or(Source::Default, |given| given.source.clone());
            EffectiveSetting {
                key: setting.key,
                value: (setting.show)(&config),
                means: means(&config, setting.key),
                source,
            }
        };
        let in_force = SETTINGS.iter().zip(&self.given).map(shown).collect();
        Ok(ResolvedSettings { config, in_force })
    }

    /// Combines the settings that only make sense together.
    fn settle(&mut self, draft: Draft) -> Config {
        let Draft {
            mut config,
            rates,
            bootstrap,
            bootstrap_token,
            tls_cert,
            tls_key,
            master_key,
            master_key_file,
            export_dir,
            export_bucket,
        } = draft;
        let loopback = config.listen.ip().to_canonical().is_loopback();
        config.rates.mode = rates;
        config.rates.enforced = match rates {
            RatesMode::Auto => !loopback,
            RatesMode::On => true,
            RatesMode::Off => false,
        };
        config.bootstrap = self.settle_bootstrap(bootstrap, bootstrap_token);
        config.tls = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => self.contradiction(&["tls_cert"], "needs tls_key beside it"),
            (None, Some(_)) => self.contradiction(&["tls_key"], "needs tls_cert beside it"),
        };
        if let Some(key) = self.settle_master_key(&config, master_key, master_key_file, loopback) {
            config.master_key = key;
        }
        config.exports = match (export_dir, export_bucket) {
            (Some(_), bucket) if !bucket.name.is_empty() => self.contradiction(
                &["export_dir", "export_s3_bucket"],
                "contradict: exports are stored in one place only",
            ),
            (Some(folder), _) => Some(Exports::Folder(folder)),
            (None, bucket) if !bucket.name.is_empty() => Some(Exports::Bucket(bucket)),
            (None, _) => None,
        };
        let limits = &mut config.limits;
        if limits.connections_per_address > limits.connections {
            if self.given("connections_per_address").is_some() {
                let _: Option<()> = self.contradiction(
                    &["connections_per_address", "connections"],
                    "contradict: one address is allowed more than all",
                );
            } else {
                limits.connections_per_address = limits.connections;
            }
        }
        if config.listen.port() != 0 && config.metrics_listen == Some(config.listen) {
            let _: Option<()> = self.contradiction(&["listen", "metrics_listen"], "name the same address");
        }
        config
    }

    fn settle_bootstrap(
        &mut self,
        mode: Option<BootstrapMode>,
        token: Option<zeroize::Zeroizing<String>>,
    ) -> Bootstrap {
        let token_given = self.given("bootstrap_token").is_some();
        match (mode, token) {
            (Some(BootstrapMode::Token), Some(token)) => return Bootstrap::Token(token),
            // The problem of an unreadable token is already recorded.
            (Some(BootstrapMode::Token), None) if !token_given => {
                let _: Option<()> =
                    self.contradiction(&["bootstrap"], "is token, which needs bootstrap_token beside it");
            }
            (Some(BootstrapMode::Closed), None) => return Bootstrap::Closed,
            (Some(BootstrapMode::Open | BootstrapMode::Closed) | None, Some(_)) => {
                let _: Option<()> = self.contradiction(
                    &["bootstrap_token"],
                    "is set, but bootstrap is not token, so it would have no effect",
                );
            }
            _ => {}
        }
        Bootstrap::Open
    }

    fn settle_master_key(
        &mut self,
        config: &Config,
        given: Option<zeroize::Zeroizing<[u8; 32]>>,
        file: Option<PathBuf>,
        loopback: bool,
    ) -> Option<MasterKey> {
        match (given, file) {
            (Some(_), Some(_)) => {
                self.contradiction(&["master_key", "master_key_file"], "are both set: set only one of them")
            }
            (Some(key), None) => Some(MasterKey::Given(key)),
            (None, Some(path)) => Some(MasterKey::File { path, create: false }),
            (None, None) => match sqlite_path(&config.database) {
                // Elsewhere than on loopback, an operator who did not choose the key would not keep it.
                Some(path) => Some(MasterKey::File { path: path.with_extension("key"), create: loopback }),
                None if self.given("master_key").is_some() => None,
                None => Some(MasterKey::Unset),
            },
        }
    }

    /// Records that these settings contradict each other. It returns `None` for the combined value.
    fn contradiction<T>(&mut self, keys: &[&str], message: &str) -> Option<T> {
        let names: Vec<_> = keys.iter().map(|key| self.name(key)).collect();
        self.problem(names.join(" and "), message.to_owned());
        None
    }
}

/// The choice that Ward makes if the value leaves one.
fn means(config: &Config, key: &str) -> Option<String> {
    match key {
        "rates" if config.rates.mode == RatesMode::Auto => Some(
            if config.rates.enforced {
                "on: other machines can connect"
            } else {
                "off: only this machine can connect"
            }
            .to_owned(),
        ),
        "database_connections" if config.database_connections.is_none() => {
            let shared = sqlite_path(&config.database).is_none();
            shared.then(|| ward_db::Options::default().connections.to_string())
        }
        _ => None,
    }
}

/// A TOML value as the other layers would write it.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        // Tables such as `[[issuers]]` become the JSON that the other layers use.
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            serde_json::to_string(items).ok()
        }
        toml::Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

/// The problem of an unknown name, with the nearest known one.
fn unknown(name: &str, spelling: impl Fn(&Setting) -> Option<String>) -> String {
    let nearest = SETTINGS
        .iter()
        .filter_map(|setting| spelling(setting).map(|known| (distance(name, &known), known)))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3);
    match nearest {
        Some((_, known)) => format!("is not a setting. Did you mean {known}?"),
        None => "is not a setting. `ward config` lists all settings.".to_owned(),
    }
}

/// The edit distance of two names (Levenshtein, ignoring case).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<u8> = right.bytes().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, r) in right.iter().enumerate() {
            let change = diagonal + usize::from(!l.eq_ignore_ascii_case(r));
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests;
