//! How much work validation does, counted by the tests of this crate: values visited and bytes read or copied.
//!
//! Time tells too little on a busy machine. What is counted here is what grows when validation visits or copies a value
//! more often than it should.

#[cfg(test)]
thread_local! {
    static SPENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts work. Nothing outside the tests of this crate.
#[cfg(test)]
pub(super) fn spend(work: usize) {
    SPENT.set(SPENT.get() + work);
}

/// Counts work. Nothing outside the tests of this crate.
#[cfg(not(test))]
pub(super) const fn spend(_work: usize) {}

/// What `task` spends on this thread.
#[cfg(test)]
pub(super) fn spent_by<T>(task: impl FnOnce() -> T) -> (T, usize) {
    let before = SPENT.get();
    let done = task();
    (done, SPENT.get() - before)
}
