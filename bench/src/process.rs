//! The resource use of a server according to the system: its process with all descendants.

use std::time::Duration;

use crate::Failure;

/// The ids of a process and its descendants.
pub fn tree(root: u32) -> Result<Vec<u32>, Failure> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that has ended meanwhile has added its times to those of its parent.
        let Ok(fields) = stat(pid) else { continue };
        parents.push((pid, fields[1].parse::<u32>()?));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found)
}

/// The CPU time of a process and its descendants so far, user and system. Ended descendants are included.
pub fn cpu(root: u32) -> Result<Duration, Failure> {
    let mut ticks = 0;
    for pid in tree(root)? {
        let Ok(fields) = stat(pid) else { continue };
        for field in &fields[11..15] {
            ticks += field.parse::<u64>()?;
        }
    }
    Ok(ticks_of(ticks))
}

/// The CPU time of this process alone so far, user and system.
pub fn own_cpu() -> Result<Duration, Failure> {
    let fields = stat(std::process::id())?;
    Ok(ticks_of(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?))
}

/// Linux reports times in hundredths of a second on every architecture that it supports.
const fn ticks_of(hundredths: u64) -> Duration {
    Duration::from_millis(hundredths * 10)
}

/// The fields of a process's `stat` from its state on.
fn stat(pid: u32) -> Result<Vec<String>, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name. It may contain any character, but it ends at the last bracket.
    let fields = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name in brackets")?.1;
    let fields: Vec<String> = fields.split_whitespace().map(str::to_owned).collect();
    if fields.len() < 15 { Err("/proc/PID/stat has too few fields".into()) } else { Ok(fields) }
}

/// The memory of a process and its descendants, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The resident memory now. A page that several processes share counts once in the sum.
    pub now: f64,
    /// The sum of the largest resident memory of each process at any time. A shared page counts in each.
    pub peak: f64,
}

/// The current and the largest memory of a process and its descendants.
pub fn memory(root: u32) -> Result<Memory, Failure> {
    let mut memory = Memory { now: 0.0, peak: 0.0 };
    for pid in tree(root)? {
        let Ok(now) = line(pid, "smaps_rollup", "Pss:") else { continue };
        let Ok(peak) = line(pid, "status", "VmHWM:") else { continue };
        memory.now += now;
        memory.peak += peak;
    }
    if memory.now > 0.0 { Ok(memory) } else { Err(format!("process {root} has no readable memory").into()) }
}

/// A value that Linux reports in kB, converted to MiB.
fn line(pid: u32, file: &str, name: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let figure = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(figure.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_in_its_parents_tree_and_has_memory() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = tree(std::process::id()).unwrap();
        let held = memory(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{found:?}");
        assert!(held.is_ok_and(|held| held.now > 0.0 && held.peak >= held.now / 2.0));
        assert!(memory(child.id()).is_err());
    }
}
