//! Programs that end when the test that started them ends, in any way.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// Starts a program and waits for the end of its own input, which is the end of the process at the other
/// side. Then it ends the program and deletes its folder. A line of input restarts the program after its end.
/// It ignores signals from a terminal, which are meant for the test.
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

/// A running program with a folder of its own. Both end when this value is dropped or its process ends.
pub struct GuardedProcess {
    watch: Child,
    folder: PathBuf,
}

/// The user for servers that refuse to run as root; `None`: the current user.
static USER: LazyLock<Option<&str>> = LazyLock::new(|| {
    if run(Command::new("id").arg("-u")).trim() != "0" {
        return None;
    }
    let has =
        |user: &str| Command::new("id").args(["-u", user]).output().is_ok_and(|out| out.status.success());
    Some(if has("postgres") { "postgres" } else { "nobody" })
});

/// A command that runs as a user other than root.
pub(crate) fn unprivileged(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = match *USER {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), "--clear-groups"]).arg("--").arg(program);
            command
        }
    };
    // The directory is readable for every user, and the language of messages exists everywhere.
    command.current_dir("/").env("LC_ALL", "C").env_remove("PGDATA");
    command
}

/// Runs a command to its end.
///
/// # Panics
///
/// The command fails; the message has its output.
pub(crate) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(out.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Creates a folder that only the program's user can use.
pub(crate) fn folder() -> PathBuf {
    let place = std::env::temp_dir().join("ward-test.XXXXXXXX");
    run(unprivileged("mktemp").arg("-d").arg(place)).trim_end().into()
}

/// Makes the program's user the owner of a folder.
pub(crate) fn own(folder: &Path) {
    if let Some(user) = *USER {
        run(Command::new("chown").arg(user).arg(folder));
    }
    run(Command::new("chmod").arg("700").arg(folder));
}

/// Creates a file that only the program's user can use.
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

impl GuardedProcess {
    /// Starts a program whose output goes into `log` in its folder. `signal` ends the program at once.
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

    /// Starts the program again after its end.
    ///
    /// # Panics
    ///
    /// The process that watches it is gone.
    pub(crate) fn again(&mut self) {
        self.watch.stdin.as_mut().expect("its input").write_all(b"\n").expect("a process that watches");
    }

    /// The folder with the program's files and its log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The program's output so far, both streams together.
    pub fn log(&self) -> String {
        std::fs::read(self.folder.join("log"))
            .map_or(String::new(), |log| String::from_utf8_lossy(&log).into())
    }
}

impl Drop for GuardedProcess {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}
