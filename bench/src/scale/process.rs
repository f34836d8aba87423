//! `ward serve` as a separate process, with its start time and its CPU time.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Failure;
use crate::http::{Connection, Request};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// These databases contain no sealed values, but they record the key of their first use.
const MASTER_KEY: &str = "c2NhbGVzY2FsZXNjYWxlc2NhbGVzY2FsZXNjYWxlc2M=";

/// A running server. When it is dropped, the process is killed.
pub struct Ward {
    process: Child,
    /// The address on which the server listens.
    pub address: SocketAddr,
    /// The time from the start of the process to its first answer.
    pub started_in: Duration,
}

impl Ward {
    /// Starts the server on a database, and repeats the request `first` until it is answered.
    pub fn start(ward: &Path, folder: &Path, database: &str, first: &Request) -> Result<Self, Failure> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let began = Instant::now();
        let process = Command::new(ward)
            .args(["serve", "--listen", &address.to_string(), "--database", database])
            // The last uses of all keys are written once a minute. With this interval the write comes after the
            // measurement, and not in some parts of it.
            .args(["--metrics-listen", "off", "--rates", "off", "--flush-interval", "1h"])
            // A connection waits while the other sizes are measured.
            .args(["--unclaimed-limit", "10000000", "--log-filter", "warn", "--header-time", "1h"])
            .env("WARD_MASTER_KEY", MASTER_KEY)
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(folder.join("ward.log"))?)
            .spawn()?;
        let mut server = Self { process, address, started_in: Duration::ZERO };
        loop {
            let answer = Connection::to(address).and_then(|mut connection| connection.send(first));
            if let Ok(answer) = answer {
                if answer.status != first.expected {
                    return Err(format!("the first answer is {}: {}", answer.status, answer.body).into());
                }
                server.started_in = began.elapsed();
                return Ok(server);
            }
            if let Some(status) = server.process.try_wait()? {
                let log = folder.join("ward.log");
                return Err(format!("ward ended ({status}); its log is {}", log.display()).into());
            }
            if began.elapsed() > PATIENCE {
                return Err("ward does not answer".into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// The CPU time of all threads of the process so far.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        cpu_of(self.process.id())
    }

    /// Stops the server in an orderly way.
    pub fn stop(mut self) -> Result<(), Failure> {
        if Command::new("kill").arg("-INT").arg(self.process.id().to_string()).status()?.success() {
            self.process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keeps this thread and its children on one core, and the later children of `others` too. The effect ends when this
/// is dropped.
///
/// With several cores, the time of a request depends mostly on the scheduler: client and server may share a core or
/// not, and a sleeping core needs time to wake. A few microseconds of work change the scheduler's choice.
pub struct OneCore {
    before: CpuSet,
    others: Option<Pid>,
}

impl OneCore {
    /// Takes the last core that this thread may use. It is an error if there is none.
    pub fn take(others: Option<u32>) -> Result<Self, Failure> {
        let before = sched_getaffinity(None)?;
        let core = (0..CpuSet::MAX_CPU).rev().find(|core| before.is_set(*core)).ok_or("no core")?;
        let mut one = CpuSet::new();
        one.set(core);
        let others = others.map(i32::try_from).transpose()?.and_then(Pid::from_raw);
        let taken = Self { before, others };
        taken.set(&one)?;
        Ok(taken)
    }

    fn set(&self, cores: &CpuSet) -> Result<(), Failure> {
        sched_setaffinity(None, cores)?;
        if self.others.is_some() {
            sched_setaffinity(self.others, cores)?;
        }
        Ok(())
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        // The call fails only if the other process has ended.
        let _ = self.set(&self.before);
    }
}

/// The CPU time of a process's threads according to the scheduler, in nanoseconds. `stat` has only hundredths of a
/// second.
fn cpu_of(process: u32) -> Result<Duration, Failure> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end before its file is read.
        let Ok(told) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += told.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The CPU time of the processes that serve PostgreSQL's connections or write for them.
pub fn cpu_of_children(parent: u32) -> Result<Duration, Failure> {
    let mut sum = Duration::ZERO;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    for child in children.split_whitespace() {
        sum += cpu_of(child.parse()?).unwrap_or_default();
    }
    Ok(sum)
}
