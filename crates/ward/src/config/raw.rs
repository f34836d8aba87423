//! What was said in flags, environment and file, and what follows from it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::{BootstrapMode, Draft, SETTINGS, Setting, by_key};
use super::{Bootstrap, Config, Exports, MasterKey, RatesMode, TlsFiles};

/// The variable that names the file.
const FILE_VARIABLE: &str = "WARD_CONFIG";

/// Variables of this prefix are Ward's.
const PREFIX: &str = "WARD_";

/// Prefixed variables that are not settings: the test suite's own, and those that Kubernetes sets in every container
/// beside a service called `ward`.
const NOT_SETTINGS: [&str; 4] = ["WARD_TEST_", "WARD_BENCH_", "WARD_SERVICE_", "WARD_PORT"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file at this path.
    File(PathBuf),
    /// An environment variable.
    Environment,
    /// The command line.
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

/// Something wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting as it was written: `--listen`, `WARD_LISTEN`, `listen in ward.toml`.
    pub setting: String,
    /// What is wrong, to be read after the setting's name. Never holds a secret's value.
    pub message: String,
}

/// Every reason why Ward cannot run with what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the settings' table; never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn one(setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { setting: setting.into(), message: message.into() }] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { setting, message }) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{setting} {message}")?;
        }
        Ok(())
    }
}

/// What one setting was given, by whom.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    source: Source,
}

impl Given {
    /// The setting's name as its author wrote it.
    fn name(&self, setting: &Setting) -> String {
        match &self.source {
            Source::Flag => format!("--{}", setting.key.replace('_', "-")),
            Source::Environment => setting.variable(),
            Source::File(path) => format!("{} in {}", setting.key, path.display()),
            Source::Default => setting.key.to_owned(),
        }
    }
}

/// Everything that was said, unread: per setting the winning value and where it came from.
///
/// Layers are added from the weakest to the strongest: file, environment, flags.
#[derive(Debug)]
pub struct RawSettings {
    /// In the order of `SETTINGS`.
    given: Vec<Option<Given>>,
    problems: Vec<Problem>,
}

impl Default for RawSettings {
    fn default() -> Self {
        Self { given: vec![None; SETTINGS.len()], problems: Vec::new() }
    }
}

/// The settings in force and where each came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The settings.
    pub config: Config,
    /// The same, shown, in the order of `SETTINGS`.
    pub in_force: Vec<InForce>,
}

/// One setting in force, as it may be shown: secrets are stars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The setting's key.
    pub key: &'static str,
    /// Its value as it would be written; empty when it has none.
    pub value: String,
    /// The choice that Ward makes here, where the value leaves one.
    pub means: Option<String>,
    /// Where it came from.
    pub source: Source,
}

impl RawSettings {
    /// Gathers all three layers. The file is the one that `file` (the flag) or `WARD_CONFIG` names, if any.
    ///
    /// # Errors
    /// Only when the file cannot be read or is not TOML; everything else is `resolve`'s to say, all at once.
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
    /// When it is not TOML. The message holds a line number and no text, which may be a secret's.
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

    /// Adds variables; those without Ward's prefix are passed over.
    pub fn add_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else {
                continue;
            };
            let key = name[PREFIX.len()..].to_ascii_lowercase();
            // Only the spelling in capitals is read: `WARD_listen` is somebody's mistake.
            let setting = by_key(&key).filter(|setting| setting.variable() == name);
            match (setting, value.into_string()) {
                // Empty is how a shell and a compose file say "not set".
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

    /// Adds values by key. Unknown flags are the command line parser's to refuse.
    pub fn add_flags(&mut self, flags: impl IntoIterator<Item = (&'static str, String)>) {
        for (key, value) in flags {
            self.give(key, value, Source::Flag);
        }
    }

    fn give(&mut self, key: &str, text: String, source: Source) {
        if let Some(index) = SETTINGS.iter().position(|setting| setting.key == key) {
            self.given[index] = Some(Given { text, source });
        }
    }

    fn problem(&mut self, setting: String, message: String) {
        self.problems.push(Problem { setting, message });
    }

    fn given(&self, key: &str) -> Option<&Given> {
        let index = SETTINGS.iter().position(|setting| setting.key == key)?;
        self.given[index].as_ref()
    }

    /// The name under which `key` was given, or its bare key.
    fn name(&self, key: &str) -> String {
        match (self.given(key), by_key(key)) {
            (Some(given), Some(setting)) => given.name(setting),
            _ => key.to_owned(),
        }
    }

    /// Reads every value and checks the settings against each other.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn resolve(mut self) -> Result<Resolved, ConfigError> {
        let mut draft = Draft::default();
        for (setting, given) in SETTINGS.iter().zip(&self.given) {
            if let Some(given) = given
                && let Err(message) = (setting.apply)(&mut draft, &given.text)
            {
                self.problems.push(Problem { setting: given.name(setting), message });
            }
        }
        let config = self.settle(draft);
        if !self.problems.is_empty() {
            return Err(ConfigError { problems: self.problems });
        }
        let shown = |(setting, given): (&'static Setting, &Option<Given>)| {
            let source = given.as_ref().map_or(Source::Default, |given| given.source.clone());
            InForce {
                key: setting.key,
                value: (setting.show)(&config),
                means: means(&config, setting.key),
                source,
            }
        };
        let in_force = SETTINGS.iter().zip(&self.given).map(shown).collect();
        Ok(Resolved { config, in_force })
    }

    /// Brings together what means something only together.
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
            (Some(_), bucket) if !bucket.name.is_empty() => {
                self.contradiction(&["export_dir", "export_s3_bucket"], "contradict: exports have one place")
            }
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
            // A token that was given but not readable is a problem already.
            (Some(BootstrapMode::Token), None) if !token_given => {
                let _: Option<()> =
                    self.contradiction(&["bootstrap"], "is token, which needs bootstrap_token beside it");
            }
            (Some(BootstrapMode::Closed), None) => return Bootstrap::Closed,
            (Some(BootstrapMode::Open | BootstrapMode::Closed) | None, Some(_)) => {
                let _: Option<()> = self.contradiction(
                    &["bootstrap_token"],
                    "is set, but bootstrap is not token: nobody would be asked for it",
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
            (Some(_), Some(_)) => self
                .contradiction(&["master_key", "master_key_file"], "are both set: one key, from one place"),
            (Some(key), None) => Some(MasterKey::Given(key)),
            (None, Some(path)) => Some(MasterKey::File { path, create: false }),
            (None, None) => match sqlite_path(&config.database) {
                // Elsewhere than on loopback a key that nobody chose would be a key that nobody keeps.
                Some(path) => Some(MasterKey::File { path: path.with_extension("key"), create: loopback }),
                None if self.given("master_key").is_some() => None,
                None => Some(MasterKey::Unset),
            },
        }
    }

    /// Notes that these settings do not go together; there is then nothing to put in their place.
    fn contradiction<T>(&mut self, keys: &[&str], message: &str) -> Option<T> {
        let names: Vec<_> = keys.iter().map(|key| self.name(key)).collect();
        self.problem(names.join(" and "), message.to_owned());
        None
    }
}

/// The choice that Ward makes where a value leaves it one.
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

/// The file of an `SQLite` URL.
pub(super) fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
}

/// A TOML value as the other layers would write it.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        // `[[issuers]]`: what has parts of its own is handed on as the JSON that the other layers write.
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

/// What is wrong with a name that no setting has, and the nearest one that some setting has.
fn unknown(name: &str, spelling: impl Fn(&Setting) -> Option<String>) -> String {
    let nearest = SETTINGS
        .iter()
        .filter_map(|setting| spelling(setting).map(|known| (distance(name, &known), known)))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3);
    match nearest {
        Some((_, known)) => format!("is not a setting. Did you mean {known}?"),
        None => "is not a setting. `ward config` lists those there are.".to_owned(),
    }
}

/// How many letters apart two names are (Levenshtein, without regard to case).
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
