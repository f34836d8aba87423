//! A session's connection: made, judged, replaced and given up.

use std::time::{Duration, Instant};

use metrics::counter;

use super::super::connect::{Refused, connect};
use super::super::mode::Mode;
use super::{COURTESY, Ended, Link, Running, Session, Statements, drive, share};
use crate::Error;

/// A connection that is to be replaced, and for which there is no other, is used for so much longer.
const REPRIEVE: Duration = Duration::from_mins(1);

/// How long a start waits before it asks for a connection again, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

impl Session {
    /// Whether there is a connection, as far as is known.
    pub(in super::super) const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether the last closure is to run on another session: it had no effect, and there is no connection for it here.
    pub(in super::super) const fn is_starved(&self) -> bool {
        self.starved
    }

    /// How long the connection has been there.
    pub(in super::super) fn age(&self) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, |link| link.made.elapsed())
    }

    /// Whether there is a connection that can be used; one that cannot is let go.
    pub(in super::super) fn is_alive(&mut self) -> bool {
        if std::mem::take(&mut self.slept) && self.link.is_some() {
            // Let the connection read what came meanwhile, which may be its end. The first turn asks the system, the
            // second lets the connection see the answer.
            self.runtime.block_on(async {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
        }
        // No goodbye to a server that may hear nothing any more.
        let ended = |link: &mut Link| link.client.is_closed() || link.trusted != self.source.trusted();
        self.link.take_if(ended);
        self.link.is_some()
    }

    /// Lets go of the connection without a word.
    pub(in super::super) fn drop_connection(&mut self) {
        self.link = None;
    }

    /// A new connection, in the place of the one there is.
    pub(in super::super) fn connect(&mut self, until: Instant) -> Result<(), Refused> {
        let trusted = self.source.trusted();
        match drive(&self.runtime, until, None, connect(&self.source, until)) {
            Ended::Done(Ok((client, driver))) => {
                self.retire();
                let life = self.source.options.connection_life;
                let made = Instant::now();
                let expires = made + life.mul_f64(1.0 + share() / 2.0);
                self.link = Some(Link { client, driver, known: Statements::new(), made, expires, trusted });
                Ok(())
            }
            Ended::Done(Err(refused)) => {
                counter!("ward_db_errors_total", "kind" => "connect").increment(1);
                Err(refused)
            }
            Ended::OutOfTime | Ended::Abandoned => {
                Err(Refused { why: "the database did not answer in time".into(), is_full: false })
            }
        }
    }

    /// A live connection: the one there is, or a new one.
    pub(super) fn connected(&mut self) -> Result<(), Error> {
        if self.is_alive() {
            if self.link.as_ref().is_some_and(|link| Instant::now() >= link.expires)
                && self.connect(self.running.until).is_err()
                && let Some(link) = &mut self.link
            {
                // There is no other: this one is old, and good.
                link.expires = Instant::now() + REPRIEVE;
            }
            return Ok(());
        }
        self.connect(self.running.until).map_err(|refused| {
            self.starved = refused.is_full;
            Error::unavailable(format!("the database cannot be reached: {}", refused.why))
        })
    }

    /// Says goodbye.
    pub(in super::super) fn retire(&mut self) {
        let Some(Link { client, mut driver, known, .. }) = self.link.take() else { return };
        drop((known, client));
        let _ = drive(&self.runtime, Instant::now() + COURTESY, None, &mut driver);
    }

    /// Connects, and waits for room while the server has none.
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
                    "the database has no room for a connection: Ward waits for one. Raise its limit, or lower \
                     database_connections"
                );
            }
            std::thread::sleep(pause.mul_f64(0.5 + share() / 2.0));
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Refuses a database that does not store every character.
    pub(in super::super) fn refuse_other_encodings(&mut self) -> Result<(), Error> {
        self.running =
            Running::new("encoding", Mode::Single, Instant::now() + self.source.options.closure_time);
        let (rows, _) = self.statement("show server_encoding", &[])?;
        match rows.first().and_then(|row| row.try_get::<_, String>(0).ok()) {
            Some(encoding) if !crate::holds_every_text(&encoding) => Err(Error::schema(format!(
                "the database is in the encoding {encoding}, which cannot store every name: create it anew with \
                 CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            ))),
            _ => Ok(()),
        }
    }
}
