//! The description of the machine on which a measurement runs.

use std::process::Command;

use crate::Failure;
use crate::figures::Machine;

impl Machine {
    /// This machine. The time of a durable write is measured later.
    pub fn here() -> Result<Self, Failure> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let after_colon = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let model = after_colon(&read("/proc/cpuinfo")?, "model name");
        let memory = after_colon(&read("/proc/meminfo")?, "MemTotal").ok_or("MemTotal is missing")?;
        let memory: f64 = memory.trim_end_matches("kB").trim().parse()?;
        let load = read("/proc/loadavg")?;
        let busy = load.split(' ').next().ok_or("/proc/loadavg is empty")?.parse()?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            model: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory: memory / f64::from(1 << 20),
            system: format!("Linux {}", read("/proc/sys/kernel/osrelease")?.trim()),
            postgres: None,
            flush: 0.0,
            postgres_flush: None,
            busy,
        })
    }
}

/// The version of the installed PostgreSQL.
pub fn postgres_version() -> String {
    let program = ward_test_db::postgres::beside("postgres");
    let said = Command::new(program).arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    said.ok().and_then(|said| Some(said.rsplit_once("(PostgreSQL) ")?.1.to_owned())).unwrap_or_default()
}
