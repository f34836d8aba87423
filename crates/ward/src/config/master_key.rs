//! The master key, read from the place that the settings name.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ward_server::key_file::open_private;
use zeroize::Zeroizing;

use super::setting::key_bytes;
use super::{Config, ConfigError, MasterKey};

const SETTING: &str = "master_key_file";

/// Loads the 32 bytes of the master key. It never creates a file.
///
/// # Errors
/// The file is missing, unreadable, readable by others than its owner, or not a key; or the settings name no key.
pub fn load_master_key(master_key: &MasterKey) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    match (find_master_key(master_key)?, master_key) {
        (Some(key), _) => Ok(key),
        (None, MasterKey::File { path, .. }) => Err(unreadable(path, &io::ErrorKind::NotFound.into())),
        (None, _) => Err(unset()),
    }
}

/// As [`load_master_key`], but `None` if the file does not exist or the settings name no key.
///
/// # Errors
/// As [`load_master_key`], but for a missing key.
pub fn find_master_key(master_key: &MasterKey) -> Result<Option<Zeroizing<[u8; 32]>>, ConfigError> {
    match master_key {
        MasterKey::Given(key) => Ok(Some(key.clone())),
        MasterKey::Unset => Ok(None),
        MasterKey::File { path, .. } => match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(path, &error)),
            Ok(text) => parse(path, &text).map(Some),
        },
    }
}

/// Creates a file with a new key, for its owner only. Returns the file's path.
///
/// # Errors
/// The settings name no file, a file is there already, or it cannot be made.
pub fn create_master_key(master_key: &MasterKey) -> Result<&Path, ConfigError> {
    let path = match master_key {
        MasterKey::File { path, .. } => path,
        MasterKey::Given(_) => {
            return Err(ConfigError::one("master_key", "contains the key, so no key file is created"));
        }
        MasterKey::Unset => return Err(unset()),
    };
    create_file(path).map_err(|error| wrong(path, &format!("cannot be created: {error}")))?;
    Ok(path)
}

/// The error for a start without the key's file beside a database that was used with a key. It names the
/// ways out.
pub(crate) fn lost(path: &Path) -> ConfigError {
    wrong(
        path,
        "is not there, and this database was used with a key. Put the key's file back, or name its place with \
         master_key_file. If the key is lost, `ward secrets forget` lists the values sealed under it and forgets them \
         (docs/operate/master-key.md)",
    )
}

fn unset() -> ConfigError {
    ConfigError::one(
        "master_key",
        "or master_key_file is needed: this database is shared, so its key cannot lie beside it",
    )
}

/// The previous keys, from the setting and from the files.
///
/// # Errors
/// As [`load_master_key`], for each file.
pub fn load_former_keys(config: &Config) -> Result<Vec<Zeroizing<[u8; 32]>>, ConfigError> {
    let given = config.former_master_keys.iter().map(|key| Ok(key.0.clone()));
    let read = |path: &PathBuf| load_master_key(&MasterKey::File { path: path.clone(), create: false });
    given.chain(config.former_master_key_files.iter().map(read)).collect()
}

fn wrong(path: &Path, message: &str) -> ConfigError {
    ConfigError::one(SETTING, format!("{} {message}", path.display()))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    match error.kind() {
        io::ErrorKind::NotFound => wrong(
            path,
            "is not there. `ward secrets create-key` makes a new one: keep a copy of it, and give it to every replica. \
             Or set WARD_MASTER_KEY",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            wrong(path, &format!("cannot be used: {error}, or give the key by WARD_MASTER_KEY"))
        }
        _ => wrong(path, &format!("cannot be read: {error}")),
    }
}

fn parse(path: &Path, text: &str) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    key_bytes(text).map_err(|message| wrong(path, &message))
}

/// Reads a key file, if other users cannot use it.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = open_private(path)?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    // A key has 44 characters. A longer text is not a key, so it need not be held.
    file.take(1024).read_to_string(&mut text)?;
    Ok(text)
}

/// Creates a key file that is either whole or absent, and never replaces one.
fn create_file(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    crate::random::fill(key.as_mut_slice()).map_err(|error| io::Error::other(error.to_string()))?;
    let text = Zeroizing::new(format!("{}\n", STANDARD.encode(key.as_slice())));
    let draft = draft_path(path);
    let mut file = private().open(&draft)?;
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        // Unlike a rename, a link does not replace a file that another process created in the meantime.
        .and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    sync_folder(path)
}

fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the new name survive a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(path: &Path) -> MasterKey {
        MasterKey::File { path: path.to_owned(), create: true }
    }

    fn from(path: &Path) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
        load_master_key(&at(path))
    }

    #[test]
    fn a_file_is_made_once_when_asked_for_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ward.key");
        assert!(from(&path).is_err() && find_master_key(&at(&path)).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "looking makes no file");
        assert_eq!(create_master_key(&at(&path)).unwrap(), path);
        let first = from(&path).unwrap();
        assert_ne!(*first, [0; 32]);
        assert!(create_master_key(&at(&path)).is_err(), "a key is never replaced");
        assert_eq!(first, from(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the draft is gone");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ward.key");
        create_master_key(&at(&path)).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o620, 0o444] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = from(&path).unwrap_err().to_string();
            assert!(error.contains("ward.key") && error.contains("chmod 600"), "{error}");
            assert!(error.contains("defaultMode 0400") && error.contains("WARD_MASTER_KEY"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        from(&path).unwrap();
        // A secret that Kubernetes mounts with an fsGroup belongs to root; only root can make such a file here.
        if std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).unwrap()) == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
            from(&path).unwrap();
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_repeating_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ward.key");
        assert!(from(&path).unwrap_err().to_string().contains("is not there"));
        for text in ["", "hunter2", "AAAA", &"A".repeat(4000)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = from(&path).unwrap_err().to_string();
            assert!(error.contains("32 bytes in base64") && !error.contains("hunter2"), "{error}");
        }
    }
}
