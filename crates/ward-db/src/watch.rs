//! For tests: a watch on SQLite's writer. All tenants' writes go through its one thread, so a closure
//! whose work a tenant decides delays all tenants.

use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// Notes the closures that use more of the writer's CPU time than they may.
#[derive(Debug)]
pub struct Watch {
    longest: Duration,
    held: Mutex<Vec<String>>,
}

impl Watch {
    /// A watch that allows one closure so much CPU time.
    pub const fn new(longest: Duration) -> Self {
        Self { longest, held: Mutex::new(Vec::new()) }
    }

    /// Runs a closure under the watch. A closure of a test itself has a name such as `test.sql` and is not watched.
    pub(crate) fn over<T>(&self, name: &'static str, closure: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let done = closure();
        let used = thread_time().saturating_sub(before);
        if used > self.longest && !name.starts_with("test.") {
            let allowed = self.longest;
            self.held.lock().push(format!(
                "the closure {name} held the writer for {used:?} of CPU time; {allowed:?} are allowed. Work of a tenant's \
                 size belongs before the transaction or into steps"
            ));
        }
        done
    }

    /// The sentences about closures that took too long, each once.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.held.lock())
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
