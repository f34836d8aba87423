//! Lets the load go first while latencies are taken.
//!
//! On a machine that load and servers share, a load that waits for a processor takes its own waiting for the server's. With
//! real-time priority it never waits, and what is late is the server's.

use std::process::{Command, Stdio};

/// While it lives, this thread goes before every other that has no such priority.
pub(super) struct Priority {
    thread: String,
}

impl Priority {
    /// `None`: the system does not let us (it takes root, or `CAP_SYS_NICE`).
    pub(super) fn take() -> Option<Self> {
        let link = std::fs::read_link("/proc/thread-self").ok()?;
        let thread = link.file_name()?.to_str()?.to_owned();
        set(&thread, "-f", "1").then_some(Self { thread })
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        // It was permitted a moment ago.
        set(&self.thread, "-o", "0");
    }
}

fn set(thread: &str, policy: &str, priority: &str) -> bool {
    let mut chrt = Command::new("chrt");
    chrt.args([policy, "-p", priority, thread]).stdout(Stdio::null()).stderr(Stdio::null());
    chrt.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> String {
        let tid = std::fs::read_link("/proc/thread-self").unwrap();
        let told = Command::new("chrt").arg("-p").arg(tid.file_name().unwrap()).output().unwrap();
        String::from_utf8(told.stdout).unwrap()
    }

    #[test]
    fn the_priority_ends_with_it() {
        let Some(priority) = Priority::take() else {
            eprintln!("LEFT OUT: real-time priority is not permitted here");
            return;
        };
        assert!(policy().contains("SCHED_FIFO"));
        drop(priority);
        assert!(policy().contains("SCHED_OTHER"));
    }
}
