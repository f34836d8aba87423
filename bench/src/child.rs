//! A server in a process of its own, and what the system says that it used.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::Failure;

/// A running server.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts `command`, to which `--listen ADDRESS` is added, and waits until it accepts.
    pub fn start(mut command: Command) -> Result<Self, Failure> {
        let address = free_address()?;
        let process = command.arg("--listen").arg(address.to_string()).spawn()?;
        let mut server = Self { process, address };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("the server ended at once: {status}").into());
            }
            if Instant::now() > until {
                return Err("the server does not accept".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(self.proc("stat"))?;
        // The second field is the name, which may hold anything but ends at the last bracket.
        let fields = stat.rsplit_once(')').ok_or("an unreadable stat")?.1;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let (Some(user), Some(system)) = (times.next(), times.next()) else {
            return Err("an unreadable stat".into());
        };
        // Linux tells these in hundredths of a second on every architecture it has.
        Ok(Duration::from_millis((user? + system?) * 10))
    }

    /// The most memory it ever had resident, in MiB.
    pub fn peak_memory(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib.div_ceil(1024))
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.process.id())
    }

    /// Lets it finish in good order.
    pub fn stop(mut self) -> Result<(), Failure> {
        let told = Command::new("kill").arg("-INT").arg(self.process.id().to_string()).status()?;
        if told.success() {
            self.process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// This program, to be run with a subcommand of its own.
pub fn this_program(subcommand: &str) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand);
    Ok(command)
}

/// An empty folder in place of whatever stood there.
pub fn fresh_folder(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(std::fs::create_dir_all(path)?)
}
