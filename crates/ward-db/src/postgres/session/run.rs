//! A closure on a session, run again where that can help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use tokio::sync::oneshot;

use super::{Job, RunningClosure, Session, share};
use crate::counters::add;
use crate::postgres::error::Again;
use crate::postgres::mode::Mode;
use crate::tx::Tx;
use crate::{Error, closure};

/// The longest pause of a schema change between two attempts to get its lock.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// How often one closure is retried for reasons other than a conflict.
const REPAIRS: u32 = 3;

impl Session {
    /// Runs a closure to its end, with retries if needed.
    pub(in crate::postgres) fn run<T, E: From<Error>>(
        &mut self,
        call: Job,
        f: &mut impl FnMut(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let source = Arc::clone(&self.source);
        let counters = &source.counters;
        let Job { name, mode, until, commit_until, gone } = call;
        let started = Instant::now();
        self.starved = false;
        let closures = match mode {
            Mode::Single | Mode::Read => Some(&counters.reads),
            Mode::LongRead => Some(&counters.long_reads),
            Mode::Write => Some(&counters.writes),
            Mode::Schema => None,
        };
        if let Some(closures) = closures {
            add(closures, 1);
        }
        let single = mode == Mode::Read && !source.several.read().contains(name);
        let mode = if single { Mode::Single } else { mode };
        if started >= until {
            // The call waited in the queue until now.
            return Err(E::from(Error::unavailable("every connection to the database is busy")));
        }
        let mut caller = gone;
        let gone = caller.as_mut().map(|gone| std::mem::replace(*gone, oneshot::channel().1));
        self.running = RunningClosure { commit_until, gone, ..RunningClosure::new(name, mode, until) };
        let mut attempt = 0;
        let result = loop {
            attempt += 1;
            if let Err(error) = self.connected() {
                break Err(E::from(error));
            }
            let mut tx = Tx::postgres(self);
            let outcome = closure::run(name, &mut tx, f);
            let statements = tx.statements();
            let outcome = match outcome {
                Ok(value) => self.commit().map(|()| value).map_err(E::from),
                Err(error) => {
                    self.roll_back();
                    Err(error)
                }
            };
            let again = self.running.again.take();
            // A read that restarts for its snapshot sends one statement twice, which counts once.
            if closures.is_some() && again != Some(Again::Snapshot) {
                add(&counters.statements, statements);
            }
            match again {
                Some(why) if outcome.is_err() && self.worth_another(why, attempt) => {
                    counter!("ward_db_retries_total", "reason" => why.label()).increment(1);
                    tracing::debug!(closure = name, reason = why.label(), attempt, "a closure runs again");
                }
                _ => break outcome,
            }
        };
        if let (Some(caller), Some(gone)) = (caller, self.running.gone.take()) {
            // Another session needs it if this one is starved.
            *caller = gone;
        }
        self.timers
            .entry((name, mode))
            .or_insert_with(
                || histogram!("ward_db_closure_seconds", "closure" => name, "kind" => mode.label()),
            )
            .record(started.elapsed());
        result
    }

    /// Decides whether to try again, and waits with jitter before it.
    fn worth_another(&mut self, why: Again, attempt: u32) -> bool {
        self.running.sent = false;
        let most = match why {
            Again::Snapshot => {
                self.running.mode = Mode::Read;
                return true;
            }
            Again::Conflict => Duration::from_millis(4 << attempt.min(6)),
            Again::Locked if self.running.mode == Mode::Schema => {
                tracing::info!("a schema change waits for a table that is in use, and tries again");
                LOCK_PAUSE
            }
            Again::Locked => return false,
            _ if attempt > REPAIRS => return false,
            Again::Stale | Again::Foreign => {
                if let Some(link) = &mut self.link {
                    link.known.clear();
                }
                Duration::ZERO
            }
            Again::Lost if attempt == 1 => Duration::ZERO,
            Again::Lost => Duration::from_millis(50),
        };
        let pause = most.mul_f64(share());
        if Instant::now() + pause >= self.running.until {
            return false;
        }
        std::thread::sleep(pause);
        true
    }
}
