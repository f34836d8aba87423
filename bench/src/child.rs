//! A server as a separate process.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::send;
use crate::{Failure, process};

/// How long a server may take for an orderly shutdown.
const PARTING: Duration = Duration::from_secs(10);

/// A running server. When it is dropped, the process and its descendants end.
pub struct Server {
    process: Child,
    /// The address on which the server listens.
    pub address: SocketAddr,
    /// The time from the start of the process to its first answer.
    pub first_answer: Duration,
}

impl Server {
    /// Starts `command` with `--listen ADDRESS` added, and waits until the server answers any request.
    pub fn start(mut command: Command, patience: Duration) -> Result<Self, Failure> {
        let address = free_address()?;
        let started = Instant::now();
        let name = command.get_program().to_string_lossy().into_owned();
        let process = command.arg("--listen").arg(address.to_string()).spawn();
        let process = process.map_err(|error| format!("{name} cannot be started: {error}"))?;
        let mut server = Self { process, address, first_answer: Duration::ZERO };
        while send(address, "GET", "/", None, None).is_err() {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("{name} ended during its start: {status}").into());
            }
            if started.elapsed() > patience {
                return Err(format!("{name} does not answer").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        server.first_answer = started.elapsed();
        Ok(server)
    }

    /// The id of the process that was started; it may have descendants.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Stops the server in an orderly way, or fails if it does not end in time.
    pub fn stop(mut self) -> Result<(), Failure> {
        if self.end()? { Ok(()) } else { Err("a server did not stop in time".into()) }
    }

    /// Sends the signal to end. The result says whether the process ended within [`PARTING`].
    fn end(&mut self) -> Result<bool, Failure> {
        if self.process.try_wait()?.is_some() {
            return Ok(true);
        }
        signal(self.process.id(), Signal::TERM);
        let told = Instant::now();
        while told.elapsed() < PARTING {
            if self.process.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let all = process::tree(self.process.id()).unwrap_or_default();
        if !self.end().unwrap_or(false) {
            for pid in all {
                signal(pid, Signal::KILL);
            }
            // A failure here means that the process has already ended.
            let _ = self.process.wait();
        }
    }
}

/// Sends a signal. A failure means that the process has already ended, so it is ignored.
fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// This program as a command with a subcommand.
pub fn this_program(subcommand: &str) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand);
    Ok(command)
}

/// Makes an empty folder. A folder that was there before is deleted with its content.
pub fn fresh_folder(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(std::fs::create_dir_all(path)?)
}
