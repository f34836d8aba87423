//! Threads for long reads: as many as there are long readers, each started when it is first needed.
//!
//! They serve the database alone. Threads shared with other blocking work, such as name look-ups, could all
//! be busy while a long read waits for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::Error;

/// A thread that is idle for this long ends.
const IDLE: Duration = Duration::from_mins(5);

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when this value is dropped.
pub(super) struct LongThreads {
    shared: Arc<Shared>,
    most: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<ThreadsState>,
    changed: Condvar,
}

#[derive(Default)]
struct ThreadsState {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl LongThreads {
    /// A pool of at most `most` threads, none of them started.
    pub(super) fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most: most.max(1) }
    }

    /// Queues a job for the threads, after the earlier jobs.
    pub(super) fn run(&self, job: Job) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(Error::closed());
        }
        if state.idle <= state.jobs.len() && state.threads < self.most {
            let shared = Arc::clone(&self.shared);
            let named = std::thread::Builder::new().name("ward-long-read".to_owned());
            let started = named.spawn(move || work(&shared));
            match started {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    return Err(
                        Error::unavailable("a thread for a long read cannot be started").because(error)
                    );
                }
            }
        }
        state.jobs.push_back(job);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Lets every thread end after the queued jobs.
    pub(super) fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for LongThreads {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            // Panics of closures are caught where they run. Any other panic must not cost the pool its
            // thread.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            state = shared.state.lock();
            continue;
        }
        if state.closed {
            break;
        }
        state.idle += 1;
        let waited = shared.changed.wait_for(&mut state, IDLE);
        state.idle -= 1;
        if waited.timed_out() && state.jobs.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_beside_each_other_on_a_bounded_number_of_threads_and_a_panic_costs_none() {
        let threads = LongThreads::new(2);
        let (told, heard) = mpsc::channel();
        let (go, gate) = (Arc::new(std::sync::Barrier::new(3)), told.clone());
        threads.run(Box::new(|| panic!("planted"))).unwrap();
        for _ in 0..2 {
            let go = Arc::clone(&go);
            threads
                .run(Box::new(move || {
                    go.wait();
                }))
                .unwrap();
        }
        threads.run(Box::new(move || gate.send(()).unwrap())).unwrap();
        assert!(heard.try_recv().is_err(), "both threads are at work");
        go.wait();
        heard.recv().unwrap();
        assert!(threads.shared.state.lock().threads <= 2);
        threads.close();
        assert!(threads.run(Box::new(|| {})).is_err());
    }
}
