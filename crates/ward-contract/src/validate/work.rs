//! A counter of the work of validation, for the tests of this crate: values visited and bytes read or
//! copied.
//!
//! Time is a poor measure on a busy machine. This counter grows when validation visits or copies a value
//! more often than necessary.

#[cfg(test)]
thread_local! {
    static SPENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts work. The function does nothing outside the tests of this crate.
#[cfg(test)]
pub(super) fn spend(work: usize) {
    SPENT.set(SPENT.get() + work);
}

/// Counts work. The function does nothing outside the tests of this crate.
#[cfg(not(test))]
pub(super) const fn spend(_work: usize) {}

/// The result of `task`, and the work that it spends on this thread.
#[cfg(test)]
pub(super) fn spent_by<T>(task: impl FnOnce() -> T) -> (T, usize) {
    let before = SPENT.get();
    let done = task();
    (done, SPENT.get() - before)
}
