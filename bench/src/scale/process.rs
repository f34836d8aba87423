//! `ward serve` in a process of its own: how soon it answers, and what CPU time it takes.

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

/// Nothing is sealed in these databases, but they remember which key they were first used with.
const MASTER_KEY: &str = "c2NhbGVzY2FsZXNjYWxlc2NhbGVzY2FsZXNjYWxlc2M=";

/// A running server.
pub struct Ward {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first answer.
    pub started_in: Duration,
}

impl Ward {
    /// Starts it on a database and waits for its answer to `first`, tried again and again.
    pub fn start(ward: &Path, folder: &Path, database: &str, first: &Request) -> Result<Self, Failure> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let began = Instant::now();
        let process = Command::new(ward)
            .args(["serve", "--listen", &address.to_string(), "--database", database])
            // Last uses are written once a minute, of every key used in it: between measurements, not in some of them.
            .args(["--metrics-listen", "off", "--rates", "off", "--flush-interval", "1h"])
            // A connection waits while the other sizes have their turn.
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
                return Err(format!("ward ended at once, {status}: see {}", log.display()).into());
            }
            if began.elapsed() > PATIENCE {
                return Err("ward does not answer".into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// CPU time used so far, by all of its threads.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        cpu_of(self.process.id())
    }

    /// Lets it finish in good order.
    pub fn stop(mut self) -> Result<(), Failure> {
        if Command::new("kill").arg("-INT").arg(self.process.id().to_string()).status()?.success() {
            self.process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keeps this thread, and whatever it starts, on one core; so does what `others` start from now on. Ends when it is dropped.
///
/// On several cores, a request that waits for its answer is mostly the scheduler's choice: whether client and server share a
/// core, and how long a sleeping one takes to wake. Which of both it is changes with a few microseconds of work.
pub struct OneCore {
    before: CpuSet,
    others: Option<Pid>,
}

impl OneCore {
    /// Takes the last core that there is.
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
        // Fails only when the other process has ended.
        let _ = self.set(&self.before);
    }
}

/// CPU time that a process's threads have used, as the scheduler counts it: in nanoseconds, where `stat` has hundredths of
/// a second.
fn cpu_of(process: u32) -> Result<Duration, Failure> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between being seen and being asked.
        let Ok(told) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += told.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// CPU time of the processes that serve PostgreSQL's connections and write for them.
pub fn cpu_of_children(parent: u32) -> Result<Duration, Failure> {
    let mut sum = Duration::ZERO;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    for child in children.split_whitespace() {
        sum += cpu_of(child.parse()?).unwrap_or_default();
    }
    Ok(sum)
}
