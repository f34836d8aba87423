//! Profiles: the servers that this user has signed in at, with their credentials.
//!
//! A profile is in a file that only its user can read. A change holds a lock and replaces the file whole, so that commands
//! that run at once lose nothing of each other.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keyring;
use crate::failure::CodedFailure;

/// The folder of the profiles, in place of the usual one.
const FOLDER_VARIABLE: &str = "WARD_CLIENT_FOLDER";

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The profile of commands that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

/// One server with the credential for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub url: String,
    /// Whether the server may be asked over plain http through a network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
    /// The workspace of operations that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    pub credential: Kept,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    Here(Credential),
    /// In the keyring of the user's desktop, under the profile's name.
    Keyring,
}

/// The secret that a request is authorized by.
#[derive(Clone, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credential {
    Key {
        secret: String,
    },
    /// An access token of an issuer, and the means to get the next one.
    Token(Token),
}

#[derive(Clone, Deserialize, Serialize)]
pub struct Token {
    pub access: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// Seconds since 1970, if the issuer named an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub issuer: String,
    pub client_id: String,
}

impl Credential {
    pub fn bearer(&self) -> &str {
        match self {
            Self::Key { secret } => secret,
            Self::Token(token) => &token.access,
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key { .. } => "Key",
            Self::Token(_) => "Token",
        })
    }
}

/// The place for a new credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Store {
    /// The keyring if this desktop has one, otherwise the file.
    #[default]
    Auto,
    /// The file of profiles, which only its user can read.
    File,
    /// The desktop's keyring, through `secret-tool`.
    Keyring,
}

/// The profiles with the lock for a change. The folder and the file were checked to be writable.
pub struct Change {
    pub profiles: Profiles,
    folder: PathBuf,
    new: tempfile::NamedTempFile,
    _lock: File,
}

/// The folder of the profiles; none if this user has no home.
fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(FOLDER_VARIABLE)
        .or_else(|| Some(set("XDG_CONFIG_HOME")?.join("ward")))
        .or_else(|| Some(set("HOME")?.join(".config/ward")))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> CodedFailure {
    CodedFailure::local(format!("{}: {error}", path.display()))
}

impl Profiles {
    /// Reads the profiles. Without a file there are none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or other users can read it.
    pub fn read() -> Result<Self, CodedFailure> {
        folder().map_or_else(|| Ok(Self::default()), |folder| Self::of(&folder.join("profiles.toml")))
    }

    fn of(path: &Path) -> Result<Self, CodedFailure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(path, &error)),
        };
        let mode = fs::metadata(path).map_err(|error| failed(path, &error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let what = format!("other users can read it (mode {:03o}). `chmod 600` ends that", mode & 0o777);
            return Err(failed(path, &what));
        }
        // The message of the parser shows the line, which may hold a secret.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            failed(path, &format!("it has a fault in line {line}"))
        })
    }

    /// Takes the lock and reads the profiles for a change.
    ///
    /// # Errors
    ///
    /// The folder or the file cannot be written.
    pub fn change() -> Result<Change, CodedFailure> {
        let homeless =
            || CodedFailure::local(format!("the profiles have no place: set HOME or {FOLDER_VARIABLE}"));
        let folder = folder().ok_or_else(homeless)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| failed(&folder, &error))?;
        let path = folder.join("profiles.lock");
        let lock =
            File::options().create(true).append(true).open(&path).map_err(|error| failed(&path, &error))?;
        lock.lock().map_err(|error| failed(&path, &error))?;
        let profiles = Self::of(&folder.join("profiles.toml"))?;
        // `tempfile` creates it with mode 0600.
        let new = tempfile::NamedTempFile::new_in(&folder).map_err(|error| failed(&folder, &error))?;
        Ok(Change { profiles, folder, new, _lock: lock })
    }

    /// The profile with this name, or the default one.
    ///
    /// # Errors
    ///
    /// No profile has the name.
    pub fn named(&self, name: Option<&str>) -> Result<Option<(&str, &Profile)>, CodedFailure> {
        let Some(name) = name.or(self.default.as_deref()) else { return Ok(None) };
        let found = self.profiles.get_key_value(name).map(|(name, profile)| (name.as_str(), profile));
        let missing = || CodedFailure::usage(format!("there is no profile {name:?}: `ward login` makes one"));
        found.map(Some).ok_or_else(missing)
    }
}

impl Profile {
    /// The profile's credential, from wherever it is kept.
    ///
    /// # Errors
    ///
    /// The keyring does not give it.
    pub fn credential(&self, name: &str) -> Result<Credential, CodedFailure> {
        match &self.credential {
            Kept::Here(credential) => Ok(credential.clone()),
            Kept::Keyring => {
                let text = keyring::look_up(name)?;
                let other = |_| {
                    CodedFailure::local(format!("the keyring has no credential for the profile {name:?}"))
                };
                serde_json::from_str(&text).map_err(other)
            }
        }
    }
}

impl Change {
    /// Puts a profile with its credential in place. The first profile is the default.
    ///
    /// # Errors
    ///
    /// The keyring was asked for and does not take it.
    pub fn put(&mut self, name: &str, mut profile: Profile, store: Store) -> Result<(), CodedFailure> {
        if let (Kept::Here(credential), Store::Auto | Store::Keyring) = (&profile.credential, store) {
            let text =
                serde_json::to_string(credential).map_err(|error| CodedFailure::local(error.to_string()))?;
            match keyring::store(name, &profile.url, &text) {
                Ok(()) => profile.credential = Kept::Keyring,
                Err(failure) if store == Store::Keyring => return Err(failure),
                Err(_) => {}
            }
        }
        self.profiles.profiles.insert(name.to_owned(), profile);
        self.profiles.default.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// Removes a profile with its credential. Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let removed = self.profiles.profiles.remove(name);
        if matches!(&removed, Some(Profile { credential: Kept::Keyring, .. })) {
            keyring::clear(name);
        }
        if self.profiles.default.as_deref() == Some(name) {
            self.profiles.default = self.profiles.profiles.keys().next().cloned();
        }
        removed.is_some()
    }

    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn save(mut self) -> Result<PathBuf, CodedFailure> {
        let path = self.folder.join("profiles.toml");
        let text = toml::to_string(&self.profiles).map_err(|error| failed(&path, &error))?;
        let written = self.new.write_all(text.as_bytes()).and_then(|()| self.new.as_file().sync_all());
        written.map_err(|error| failed(&path, &error))?;
        self.new.persist(&path).map_err(|error| failed(&path, &error.error))?;
        Ok(path)
    }
}
