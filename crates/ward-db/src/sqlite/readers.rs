//! A pool of reading connections, opened as they are needed.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::conn::{Conn, Role, Source};
use crate::Error;

pub(super) struct Readers {
    source: Arc<Source>,
    role: Role,
    most: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

struct Pool {
    /// Last in, first out: the connection used last has the warmest cache.
    #[expect(
        clippy::vec_box,
        reason = "a connection is hundreds of bytes and goes in and out on every read"
    )]
    idle: Vec<Box<Conn>>,
    /// The number of idle, lent and opening connections.
    open: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(source: Arc<Source>, role: Role, most: usize) -> Self {
        let pool = Pool { idle: Vec::new(), open: 0, closed: false };
        Self { source, role, most: most.max(1), pool: Mutex::new(pool), returned: Condvar::new() }
    }

    /// A connection for this thread. Every lent connection is used on another thread and returns within
    /// microseconds, so waiting blocks the thread instead of going through the runtime.
    pub(super) fn take(&self) -> Result<Box<Conn>, Error> {
        let mut pool = self.pool.lock();
        let mut until = None;
        loop {
            if pool.closed {
                return Err(Error::closed());
            }
            if let Some(conn) = pool.idle.pop() {
                return Ok(conn);
            }
            if pool.open < self.most {
                pool.open += 1;
                drop(pool);
                return self.source.connect(self.role).inspect_err(|_| self.forget());
            }
            let until = *until.get_or_insert_with(|| Instant::now() + self.source.options.busy_timeout);
            if self.returned.wait_until(&mut pool, until).timed_out() {
                return Err(Error::unavailable("every reading connection is busy"));
            }
        }
    }

    /// Returns a connection to the pool, or closes one that is not `reusable`.
    pub(super) fn give_back(&self, conn: Box<Conn>, reusable: bool) {
        let mut pool = self.pool.lock();
        if reusable && !pool.closed {
            pool.idle.push(conn);
        } else {
            pool.open -= 1;
        }
        drop(pool);
        self.returned.notify_one();
    }

    fn forget(&self) {
        self.pool.lock().open -= 1;
        self.returned.notify_one();
    }

    /// Closes the idle connections; lent ones close when they return.
    pub(super) fn close(&self) {
        let mut pool = self.pool.lock();
        pool.closed = true;
        let idle = std::mem::take(&mut pool.idle);
        pool.open -= idle.len();
        drop(pool);
        self.returned.notify_all();
    }
}
