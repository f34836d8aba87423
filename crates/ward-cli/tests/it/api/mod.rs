//! `ward api` and `ward login`: the client of the API, as a person and a script use it.

mod calls;
mod repeats;
mod sign_in;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{text, ward};

/// A person with a folder for profiles.
pub struct Person {
    pub folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Person {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let profiles = folder.path().join("profiles").display().to_string();
        Self { folder, variables: vec![("WARD_CLIENT_FOLDER", profiles)] }
    }

    /// A person whose environment names a server, a credential and a workspace.
    pub fn at(url: &str, key: &str, workspace: &str) -> Self {
        Self::new()
            .with("WARD_CLIENT_URL", url)
            .with("WARD_CLIENT_KEY", key)
            .with("WARD_CLIENT_WORKSPACE", workspace)
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub fn profiles(&self) -> PathBuf {
        self.folder.path().join("profiles/profiles.toml")
    }

    /// A file in the person's folder with this content.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = ward(self.folder.path(), arguments);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, beside the test's own server.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        ended(self.command(arguments), b"").await
    }

    /// Runs a command that reads this text from its standard input.
    pub async fn type_in(&self, arguments: &[&str], input: &str) -> Ran {
        ended(self.command(arguments), input.as_bytes()).await
    }
}

#[derive(Debug)]
pub struct Ran {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(done: Output) -> Self {
        Self { exit: done.status.code().unwrap_or(-1), out: text(&done.stdout), err: text(&done.stderr) }
    }
}

impl Ran {
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.exit, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The error that `--json` prints on the last line.
    #[track_caller]
    pub fn error(&self) -> Value {
        let last = self.err.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("no error: {self:?}"));
        error["error"].clone()
    }

    /// Checks the exit code and the short name of the failure.
    #[track_caller]
    pub fn failed(&self, exit: i32, code: &str) {
        let found = self.error();
        assert_eq!((self.exit, found["code"].as_str().unwrap()), (exit, code), "{self:?}");
    }
}

async fn ended(mut command: std::process::Command, input: &[u8]) -> Ran {
    let input = input.to_vec();
    let run = move || {
        command.stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing closes the pipe.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), &input);
        child.wait_with_output().unwrap().into()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
