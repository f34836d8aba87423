//! Files that hold a key. They must be ordinary files that other users cannot use.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens an ordinary file. A pipe or a device is refused, because reading one could wait for ever.
///
/// # Errors
/// There is no such file, it cannot be read, or it is not an ordinary file.
pub fn open_ordinary(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not an ordinary file"));
    }
    File::open(path)
}

/// Opens an ordinary file that holds a key and that other users cannot use.
///
/// A file of another owner may be readable by a group, because systemd and Kubernetes provide files that
/// way: their files belong to root. If root itself reads such a file, its mode without write permission
/// (0440) identifies it.
///
/// # Errors
/// As [`open_ordinary`], and if other users can use the file.
pub fn open_private(path: &Path) -> io::Result<File> {
    let file = open_ordinary(path)?;
    refuse_shared(&file)?;
    Ok(file)
}

#[cfg(unix)]
fn refuse_shared(file: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let about = file.metadata()?;
    let mode = about.mode() & 0o777;
    // Without /proc, the process cannot learn its own user; then the file counts as its own.
    let ours = fs::metadata("/proc/self").map_or(true, |process| process.uid() == about.uid());
    let (open_to_others, group) = (mode & 0o007 != 0, mode & 0o070);
    let mounted = about.uid() == 0 && mode & 0o222 == 0;
    if open_to_others || group & 0o030 != 0 || (ours && group != 0 && !mounted) {
        let message = format!(
            "users other than its owner can use it (mode {mode:04o}); run chmod 600 on it, or mount a Kubernetes secret with \
             defaultMode 0400 (0440 with an fsGroup)"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_shared(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_ordinary_files_that_others_cannot_use_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        fs::write(&path, "key").unwrap();
        for (mode, opens) in [(0o600, true), (0o400, true), (0o644, false), (0o660, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_private(&path).is_ok(), opens, "{mode:o}");
        }
        let error = open_private(folder.path()).unwrap_err();
        assert!(error.to_string().contains("not an ordinary file"), "{error}");
        assert!(open_private(Path::new("/dev/null")).is_err());
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let error = open_private(&pipe).unwrap_err();
        assert!(error.to_string().contains("not an ordinary file"), "{error}");
    }
}
