//! A clock with a fixed rate. Late reads lose no ticks.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::Failure;

/// A timer of the kernel. The timer of the runtime has a resolution of a millisecond, and a sleeping thread wakes
/// fifty microseconds late.
pub struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// A ticker whose first tick comes after one interval.
    pub fn every(interval: Duration) -> Result<Self, Failure> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let interval = Timespec {
            tv_sec: i64::try_from(interval.as_secs())?,
            tv_nsec: i64::from(interval.subsec_nanos().max(1)),
        };
        let settings = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &settings)?;
        #[expect(
            deprecated,
            reason = "what it trusts its caller with, an owned descriptor keeps; its successor is unsafe"
        )]
        let ticking = AsyncFd::new(timer)?;
        Ok(Self(ticking))
    }

    /// Waits for at least one tick. The result is the number of ticks since the previous call.
    pub async fn ticked(&self) -> Result<u64, Failure> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut ticks = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut ticks)?)) {
                Ok(read) => {
                    read?;
                    return Ok(u64::from_ne_bytes(ticks));
                }
                Err(_not_yet) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_nobody_looked_at_is_not_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let started = std::time::Instant::now();
            let ticker = Ticker::every(Duration::from_micros(100)).unwrap();
            let mut ticks = 0;
            while ticks < 50 {
                ticks += ticker.ticked().await.unwrap();
            }
            assert!(started.elapsed() >= Duration::from_millis(5));
        });
    }
}
