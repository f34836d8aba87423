//! The watch of the test build: a request that occupies a runtime thread for long fails its test.
//!
//! Runtime threads serve all tenants, so work whose amount a tenant decides belongs on other threads. The
//! watch measures the CPU time of the thread during each poll of a handler. A loaded machine makes a
//! request wait, but does not add to this time. Release builds do not have the watch.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// The most CPU time that one poll may take. A development build is about ten times slower than a release
/// build.
pub const LONGEST: Duration =
    if cfg!(debug_assertions) { Duration::from_millis(500) } else { Duration::from_millis(50) };

/// The requests of one Ward that occupied a thread for too long.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Vec<String>>);

impl Watch {
    /// Runs a handler under the watch.
    ///
    /// # Panics
    ///
    /// The function panics when a poll took longer than [`LONGEST`]. The client then gets 500, and
    /// [`Watch::take`] returns the sentence.
    pub async fn over<T>(&self, operation: &str, handler: impl Future<Output = T>) -> T {
        let mut handler = pin!(handler);
        std::future::poll_fn(move |context| {
            let before = thread_time();
            let polled = handler.as_mut().poll(context);
            let used = thread_time().saturating_sub(before);
            if used > LONGEST {
                let held = format!(
                    "{operation} held a runtime thread for {used:?} of CPU time; {LONGEST:?} are allowed. Work of a \
                     tenant's size belongs on threads of its own"
                );
                self.0.lock().push(held.clone());
                panic!("{held}");
            }
            match polled {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// The sentences about requests that occupied a thread for too long. Each call empties the list.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
