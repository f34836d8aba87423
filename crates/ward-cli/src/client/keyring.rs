//! The keyring of a desktop, through libsecret's own program `secret-tool`. A library for its protocol would add forty crates
//! for machines that mostly have no desktop.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::failure::CodedFailure;

const PROGRAM: &str = "secret-tool";

fn failed(what: &str) -> CodedFailure {
    CodedFailure::local(format!("the keyring ({PROGRAM}) {what}"))
}

/// Stores a text under the profile's name. The text passes through a pipe, so that no list of processes shows it.
pub fn store(profile: &str, url: &str, text: &str) -> Result<(), CodedFailure> {
    let label = format!("--label=Ward: {profile} at {url}");
    let mut tool = Command::new(PROGRAM)
        .args(["store", &label, "service", "ward", "profile", profile])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&format!("cannot be run: {error}")))?;
    if let Some(mut stdin) = tool.stdin.take() {
        // A tool that ends early closes the pipe, and its exit code says so.
        let _ = stdin.write_all(text.as_bytes());
    }
    let ended = tool.wait().map_err(|error| failed(&error.to_string()))?;
    if ended.success() { Ok(()) } else { Err(failed("did not store the credential")) }
}

/// The text that is stored under the profile's name.
pub fn look_up(profile: &str) -> Result<String, CodedFailure> {
    let done = Command::new(PROGRAM)
        .args(["lookup", "service", "ward", "profile", profile])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed(&format!("cannot be run: {error}")))?;
    match String::from_utf8(done.stdout) {
        Ok(text) if done.status.success() => Ok(text),
        _ => Err(failed(&format!("has no credential for the profile {profile:?}"))),
    }
}

/// Removes the text. A keyring that is gone has nothing to remove.
pub fn clear(profile: &str) {
    let _ = Command::new(PROGRAM)
        .args(["clear", "service", "ward", "profile", profile])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
