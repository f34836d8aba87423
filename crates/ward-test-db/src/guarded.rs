//! Programs that end when the test that started them does, however that ends.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// Starts a program and waits for the end of its own input, which is the end of whoever holds the other end: then it
/// ends the program and clears up. A line of input starts the program again when it has ended. Signals from a terminal
/// are the test's affair, not its.
const WATCH: &str = r#"
trap '' HUP INT TERM
folder=$1 signal=$2; shift 2
"$@" </dev/null >"$folder/log" 2>&1 &
while read -r _; do
    wait $!
    "$@" </dev/null >>"$folder/log" 2>&1 &
done
kill -s "$signal" $! 2>/dev/null
wait $!
rm -rf "$folder"
"#;

/// A running program with a folder of its own. Both are gone when this is dropped, or its process is.
pub struct Guarded {
    watch: Child,
    folder: PathBuf,
}

/// The user that servers run as which refuse to run as root; `None`: this one.
static USER: LazyLock<Option<&str>> = LazyLock::new(|| {
    if run(Command::new("id").arg("-u")).trim() != "0" {
        return None;
    }
    let has =
        |user: &str| Command::new("id").args(["-u", user]).output().is_ok_and(|out| out.status.success());
    Some(if has("postgres") { "postgres" } else { "nobody" })
});

/// A command that runs as a user who is not root.
pub(crate) fn unprivileged(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = match *USER {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), "--clear-groups"]).arg("--").arg(program);
            command
        }
    };
    // Where everybody may look; and messages in the one language that is always there.
    command.current_dir("/").env("LC_ALL", "C").env_remove("PGDATA");
    command
}

/// Runs a command to its end.
///
/// # Panics
///
/// When it fails, with what it said.
pub(crate) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(out.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A folder for the program's user alone.
pub(crate) fn folder() -> PathBuf {
    let place = std::env::temp_dir().join("ward-test.XXXXXXXX");
    run(unprivileged("mktemp").arg("-d").arg(place)).trim_end().into()
}

/// Gives a folder to the program's user alone.
pub(crate) fn own(folder: &Path) {
    if let Some(user) = *USER {
        run(Command::new("chown").arg(user).arg(folder));
    }
    run(Command::new("chmod").arg("700").arg(folder));
}

/// A file for the program's user alone.
pub(crate) fn file(path: &Path, content: &[u8]) {
    let mut shell = unprivileged("sh")
        .args(["-c", "umask 077; cat > \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    shell.stdin.take().expect("its input").write_all(content).expect("a file's content");
    assert!(shell.wait().expect("a shell").success(), "{} cannot be written", path.display());
}

impl Guarded {
    /// Starts a program, whose output goes into `log` in its folder. `signal` is the one that ends it at once.
    pub(crate) fn start(folder: PathBuf, signal: &str, program: &Path, arguments: &[&str]) -> Self {
        let watch = unprivileged("sh")
            .args(["-c", WATCH, "sh"])
            .arg(&folder)
            .arg(signal)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        Self { watch, folder }
    }

    /// Starts the program again, once it has ended.
    ///
    /// # Panics
    ///
    /// When whoever watches it is gone.
    pub(crate) fn again(&mut self) {
        self.watch.stdin.as_mut().expect("its input").write_all(b"\n").expect("somebody who watches");
    }

    /// The program's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the program has said so far.
    pub fn log(&self) -> String {
        std::fs::read(self.folder.join("log"))
            .map_or(String::new(), |log| String::from_utf8_lossy(&log).into())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}
