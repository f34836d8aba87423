//! The load tools: `wrk` for the highest rate, `oha` for latencies at a fixed one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::Failure;
use crate::paced;

/// Connections of every load.
pub const CONNECTIONS: usize = 64;

/// What one request is.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its path.
    pub path: String,
    /// Its bearer.
    pub bearer: Option<String>,
    /// Whether it creates a workspace, with a slug of its own.
    pub creates: bool,
    /// Whether its answer is a refusal.
    pub refused: bool,
}

/// Latencies from the moment a request was due, whether or not it could be sent then.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50: Duration,
    /// All but a hundredth took no longer.
    pub p99: Duration,
}

/// The tools.
pub struct Tools {
    /// Where the scripts lie.
    pub scripts: PathBuf,
    /// How long a run takes.
    pub time: Duration,
    /// The name or path of oha.
    pub oha: String,
}

/// How many requests a run did, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Requests answered.
    pub requests: u64,
    /// In this time.
    pub time: Duration,
}

impl Done {
    /// Requests per second.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    pub fn rate(self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

impl Tools {
    /// Writes the scripts into the folder, for wrk takes them from files only.
    pub fn new(scripts: PathBuf, time: Duration, oha: String) -> Result<Self, Failure> {
        let done = include_str!("done.lua");
        std::fs::write(scripts.join("read.lua"), done)?;
        std::fs::write(scripts.join("create.lua"), format!("{done}{}", include_str!("create.lua")))?;
        Ok(Self { scripts, time, oha })
    }

    /// As many requests as the server answers, each connection sending when it has its answer. `run` is unlike any other
    /// run's, for the slugs.
    pub fn peak(&self, to: SocketAddr, request: &Request, run: u32) -> Result<Done, Failure> {
        let script = if request.creates { "create.lua" } else { "read.lua" };
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", self.time.as_secs())]);
        wrk.arg("-s").arg(self.scripts.join(script));
        if let Some(bearer) = &request.bearer {
            wrk.arg("-H").arg(format!("authorization: Bearer {bearer}"));
        }
        wrk.arg(format!("http://{to}{}", request.path)).arg("--").arg(format!("wrk-{run:08}"));
        let said = output(wrk)?;
        let line = said.lines().find_map(|line| line.strip_prefix("bench ")).ok_or("wrk said nothing")?;
        let figures: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [requests, micros, refused, broken] = figures[..] else {
            return Err("wrk said too little".into());
        };
        let expected = if request.refused { requests } else { 0 };
        if broken > 0 || refused.abs_diff(expected) > CONNECTIONS as u64 || requests == 0 {
            return Err(format!("{request:?}: {refused} of {requests} refused, {broken} broken").into());
        }
        Ok(Done { requests, time: Duration::from_micros(micros) })
    }

    /// Latencies at `rate` requests a second.
    pub fn paced(&self, to: SocketAddr, request: &Request, rate: u32, run: u32) -> Result<Latency, Failure> {
        if request.creates {
            // No tool at hand gives every request a body of its own at a fixed rate.
            let latencies = paced::run(to, request, rate, self.time, run)?;
            return Ok(latencies);
        }
        let mut oha = Command::new(&self.oha);
        oha.args(["--no-tui", "--output-format", "json", "--latency-correction", "-q", &rate.to_string()]);
        oha.args(["-z", &format!("{}s", self.time.as_secs()), "-c", &CONNECTIONS.to_string()]);
        if let Some(bearer) = &request.bearer {
            oha.arg("-H").arg(format!("authorization: Bearer {bearer}"));
        }
        oha.arg(format!("http://{to}{}", request.path));
        let said: Value = serde_json::from_str(&output(oha)?)?;
        let percentile = |name: &str| {
            let seconds = said["latencyPercentiles"][name].as_f64().ok_or("oha gave no percentile")?;
            Ok::<_, Failure>(Duration::from_secs_f64(seconds))
        };
        Ok(Latency { p50: percentile("p50")?, p99: percentile("p99")? })
    }
}

fn output(mut command: Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{name} failed: {said}").into()) }
}
