//! Makes, checks, replaces and closes a session's connection.

use std::time::{Duration, Instant};

use metrics::counter;

use super::super::connect::{ConnectFailure, connect};
use super::super::mode::Mode;
use super::{COURTESY, Link, RunningClosure, Session, Statements, TransactionEnd, drive, share};
use crate::Error;

/// How much longer an expired connection is used when no replacement can be made.
const REPRIEVE: Duration = Duration::from_mins(1);

/// The first pause before a start asks for a connection again.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

impl Session {
    /// Whether the session has a connection. The server may have ended it meanwhile.
    pub(in super::super) const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether the last closure should run on another session: it had no effect, and this session has no
    /// connection.
    pub(in super::super) const fn is_starved(&self) -> bool {
        self.starved
    }

    /// The age of the connection; zero without one.
    pub(in super::super) fn age(&self) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, |link| link.made.elapsed())
    }

    /// Whether the connection is usable. An unusable one is dropped.
    pub(in super::super) fn is_alive(&mut self) -> bool {
        if std::mem::take(&mut self.slept) && self.link.is_some() {
            // Lets the connection read what arrived meanwhile, which may be its end. The first turn asks the
            // operating system; in the second the connection sees the answer.
            self.runtime.block_on(async {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
        }
        // No goodbye is sent: the server may not be reachable any more.
        let ended = |link: &mut Link| link.client.is_closed() || link.trusted != self.source.trusted();
        self.link.take_if(ended);
        self.link.is_some()
    }

    /// Drops the connection without a goodbye.
    pub(in super::super) fn drop_connection(&mut self) {
        self.link = None;
    }

    /// Makes a new connection, which replaces the current one.
    pub(in super::super) fn connect(&mut self, until: Instant) -> Result<(), ConnectFailure> {
        let trusted = self.source.trusted();
        match drive(&self.runtime, until, None, connect(&self.source, until)) {
            TransactionEnd::Done(Ok((client, driver))) => {
                self.retire();
                let life = self.source.options.connection_life;
                let made = Instant::now();
                let expires = made + life.mul_f64(1.0 + share() / 2.0);
                self.link = Some(Link { client, driver, known: Statements::new(), made, expires, trusted });
                Ok(())
            }
            TransactionEnd::Done(Err(refused)) => {
                counter!("ward_db_errors_total", "kind" => "connect").increment(1);
                Err(refused)
            }
            TransactionEnd::OutOfTime | TransactionEnd::Abandoned => {
                Err(ConnectFailure { why: "the database did not answer in time".into(), is_full: false })
            }
        }
    }

    /// Makes sure that the connection is live: the current one, or a new one.
    pub(super) fn connected(&mut self) -> Result<(), Error> {
        if self.is_alive() {
            if self.link.as_ref().is_some_and(|link| Instant::now() >= link.expires)
                && self.connect(self.running.until).is_err()
                && let Some(link) = &mut self.link
            {
                // No replacement can be made, and the old connection still works.
                link.expires = Instant::now() + REPRIEVE;
            }
            return Ok(());
        }
        self.connect(self.running.until).map_err(|refused| {
            self.starved = refused.is_full;
            Error::unavailable(format!("the database cannot be reached: {}", refused.why))
        })
    }

    /// Closes the connection with a goodbye.
    pub(in super::super) fn retire(&mut self) {
        let Some(Link { client, mut driver, known, .. }) = self.link.take() else { return };
        drop((known, client));
        let _ = drive(&self.runtime, Instant::now() + COURTESY, None, &mut driver);
    }

    /// Connects; waits while the server has no free connection.
    pub(in super::super) fn connect_patiently(&mut self, until: Instant) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(refused) = self.connect(until) else { return Ok(()) };
            if !refused.is_full || Instant::now() + pause >= until {
                return Err(Error::unavailable(format!("the database cannot be reached: {}", refused.why)));
            }
            if pause == FIRST_PAUSE {
                tracing::warn!(
                    why = refused.why,
                    "the database gives no further connection, so the start waits for one. Raise its connection limit, or lower \
                    database_connections"
                );
            }
            std::thread::sleep(pause.mul_f64(0.5 + share() / 2.0));
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Refuses a database whose encoding cannot store every character.
    pub(in super::super) fn refuse_other_encodings(&mut self) -> Result<(), Error> {
        self.running =
            RunningClosure::new("encoding", Mode::Single, Instant::now() + self.source.options.closure_time);
        let (rows, _) = self.statement("show server_encoding", &[])?;
        match rows.first().and_then(|row| row.try_get::<_, String>(0).ok()) {
            Some(encoding) if !crate::holds_every_text(&encoding) => Err(Error::schema(format!(
                "the database has the encoding {encoding}, which cannot store every character. Create it again with \
                CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            ))),
            _ => Ok(()),
        }
    }
}
