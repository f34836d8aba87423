//! Servers are killed repeatedly under concurrent writers, and the acknowledged writes are looked for
//! afterwards.
//!
//! The suite makes 10 kills for each engine. `WARD_TEST_KILLS=200` is the long form. `WARD_TEST_SEED` repeats
//! a run's choices, but not the times of its kills.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;
use ward_test_db::postgres;
use ward_test_db::replicated::CAREFUL;
use ward_test_db::sqlite;

use crate::fleet::{MASTER_KEY, Tenant};
use crate::invariants::Look;
use crate::memory::{ACTIONS, Events, Shared, Writer};
use crate::replicas::report;
use crate::support::{Server, ward};

const WRITERS: usize = 6;
/// A run with fewer acknowledged writes proves nothing.
const ENOUGH: usize = 1_000;
/// The minimum number of acknowledged writes between two kills.
const BETWEEN: std::ops::Range<usize> = 100..220;
/// Up to this kill the database is examined after each one; later only after every tenth, because it grows.
const LOOKED_INTO: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Ward,
    Database,
    Both,
}

/// A database that outlives its servers.
trait Installation {
    fn url(&self) -> String;
    fn folder(&self) -> &Path;
    fn victim(&self, _round: usize) -> Victim {
        Victim::Ward
    }
    fn kill_database(&self) {}
    fn revive_database(&mut self) {}
    /// Examines the database as the kill left it, before any server opens it again.
    fn look(&self, work: &mut dyn FnMut(&Look));
}

/// A database file, in a folder on a real disk if the folder for temporary files is on one.
struct OnFile(TempDir);

impl Installation for OnFile {
    fn url(&self) -> String {
        "sqlite:ward.db".to_owned()
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn look(&self, work: &mut dyn FnMut(&Look)) {
        // This reads a copy: reading repairs the WAL after a crash, and the next server should do that.
        let image = tempfile::tempdir().unwrap();
        for name in ["ward.db", "ward.db-wal"] {
            let from = self.0.path().join(name);
            if from.exists() {
                std::fs::copy(from, image.path().join(name)).unwrap();
            }
        }
        work(&Look::at(&format!("sqlite:{}", image.path().join("ward.db").display())));
    }
}

/// A PostgreSQL server of its own that waits for its disk.
struct OnServer {
    server: postgres::Server,
    folder: TempDir,
}

impl OnServer {
    fn start() -> Self {
        let server = postgres::Server::start(&CAREFUL, |_| {});
        server.sql("CREATE DATABASE ward");
        Self { server, folder: tempfile::tempdir().unwrap() }
    }
}

impl Installation for OnServer {
    fn url(&self) -> String {
        self.server.url("ward")
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn victim(&self, round: usize) -> Victim {
        match round % 8 {
            3 => Victim::Database,
            7 => Victim::Both,
            _ => Victim::Ward,
        }
    }

    fn kill_database(&self) {
        self.server.cut_power();
    }

    fn revive_database(&mut self) {
        self.server.revive();
    }

    fn look(&self, work: &mut dyn FnMut(&Look)) {
        work(&Look::at(&self.url()));
    }
}

fn serve(place: &dyn Installation) -> Server {
    let mut command = ward(place.folder(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    command.env("WARD_DATABASE", place.url()).env("WARD_MASTER_KEY", MASTER_KEY);
    Server::of(command, tempfile::tempdir().unwrap())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Compares the acknowledged events, and those that may have happened, with the database. Returns the number
/// of events without an acknowledgement.
fn compare(look: &Look, writers: &[Writer], common: &Tenant, when: &str) -> i64 {
    let mut told = Events::from([
        ((common.id.clone(), "workspace.create"), 1),
        ((common.id.clone(), "workspace.claim"), 1),
    ]);
    for writer in writers {
        for (event, count) in &writer.events {
            *told.entry(event.clone()).or_default() += count;
        }
    }
    let actions = ACTIONS.map(|action| format!("'{action}'")).join(", ");
    let workspace = match look {
        Look::File { .. } => sqlite::shown("workspace_id"),
        Look::Server { .. } => "CAST(workspace_id AS text)".to_owned(),
    };
    let there = look.lines(&format!(
        "SELECT {workspace} || ' ' || action || '=' || CAST(count(*) AS text) FROM audit_events \
         WHERE action IN ({actions}) GROUP BY workspace_id, action"
    ));
    let there: HashMap<&str, i64> = there
        .iter()
        .map(|line| line.split_once('=').unwrap())
        .map(|(event, count)| (event, count.parse().unwrap()))
        .collect();
    for ((workspace, action), count) in &told {
        let found = there.get(&*format!("{workspace} {action}")).copied().unwrap_or(0);
        assert!(found >= *count, "{when}: {action} of {workspace}: {count} acknowledged, {found} there");
    }
    there.values().sum::<i64>() - told.values().sum::<i64>()
}

/// The figures that a run reports.
#[derive(Default)]
struct Run {
    kills: usize,
    of_database: usize,
    fewest_cut: usize,
    looks: usize,
    slowest_start: Duration,
}

/// Kills at a random time of the load; returns how many writes that cut off.
fn storm(
    place: &dyn Installation,
    server: &mut Server,
    writers: &mut [Writer],
    shared: &Shared,
    random: &mut StdRng,
    victim: Victim,
) -> usize {
    shared.doomed.store(false, Ordering::SeqCst);
    let at = server.address;
    let (cut, enough) = (
        shared.cut.load(Ordering::SeqCst),
        shared.acknowledged.load(Ordering::SeqCst) + random.random_range(BETWEEN),
    );
    let moment = Duration::from_micros(random.random_range(0..5_000));
    std::thread::scope(|scope| {
        let running: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(move || writer.write(at, shared))).collect();
        let stuck = Instant::now();
        while shared.acknowledged.load(Ordering::SeqCst) < enough
            && running.iter().all(|one| !one.is_finished())
        {
            assert!(stuck.elapsed() < Duration::from_mins(2), "the writers are stuck");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(moment);
        while shared.in_flight.load(Ordering::SeqCst) < WRITERS / 2
            && running.iter().all(|one| !one.is_finished())
        {
            std::thread::yield_now();
        }
        shared.doomed.store(true, Ordering::SeqCst);
        if victim != Victim::Database {
            server.child.kill().unwrap();
        }
        if victim != Victim::Ward {
            place.kill_database();
        }
    });
    if victim != Victim::Database {
        server.child.wait().unwrap();
    }
    assert!(writers.iter().all(Writer::waits), "a writer that was not cut off");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    shared.cut.load(Ordering::SeqCst) - cut
}

fn kill_again_and_again(engine: &str, place: &mut dyn Installation) {
    let kills = usize::try_from(number("WARD_TEST_KILLS").unwrap_or(10)).unwrap();
    let seed = number("WARD_TEST_SEED").unwrap_or_else(rand::random);
    let began = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let mut run = Run { fewest_cut: usize::MAX, ..Run::default() };
    let shared = Shared::default();
    let mut server = serve(place);
    let common = Tenant::new(server.address, "common");
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed, &common)).collect();

    let mut idle = 0;
    for round in 0.. {
        if run.kills == kills {
            break;
        }
        if run.kills > 0 && run.kills.is_multiple_of(20) {
            let acknowledged = shared.acknowledged.load(Ordering::SeqCst);
            report(&format!("{engine}: {} of {kills} kills, {acknowledged} writes acknowledged", run.kills));
        }
        let victim = place.victim(round);
        let cut = storm(place, &mut server, &mut writers, &shared, &mut random, victim);
        if cut == 0 {
            // Every answer was already on its way: such a kill proves nothing and does not count.
            idle += 1;
            assert!(idle <= 1 + kills / 50, "seed {seed}: {idle} kills with nothing in flight");
        } else {
            run.kills += 1;
            run.of_database += usize::from(victim != Victim::Ward);
            run.fewest_cut = run.fewest_cut.min(cut);
        }
        if victim != Victim::Ward {
            place.revive_database();
        }
        // A living server may still process a broken write, and then there is nothing to compare yet.
        if victim != Victim::Database && (round < LOOKED_INTO || round % 10 == 0) {
            let when = format!("seed {seed}, after kill {round} of {victim:?}");
            place.look(&mut |look| {
                look.assert_whole(&when);
                let untold = compare(look, &writers, &common, &when);
                // A writer that was cut off made one write, and the report of a whole call is two events.
                assert!(
                    (0..=2 * i64::try_from(WRITERS).unwrap()).contains(&untold),
                    "{when}: {untold} doubled"
                );
            });
            run.looks += 1;
        }
        if victim != Victim::Database {
            let starting = Instant::now();
            server = serve(place);
            run.slowest_start = run.slowest_start.max(starting.elapsed());
        }
        let at = server.address;
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let shared = &shared;
                scope.spawn(move || writer.resume(at, shared));
            }
        });
    }

    let at = server.address;
    // This covers everything that was ever acknowledged, from the first kill to the last, and nothing else.
    std::thread::scope(|scope| {
        for writer in &mut writers {
            let shared = &shared;
            scope.spawn(move || {
                writer.touch_all();
                writer.resume(at, shared);
            });
        }
    });
    server.stopped();
    place.look(&mut |look| {
        look.assert_whole("at the end");
        let owed = look.number("SELECT count(*) FROM deliveries");
        assert!(owed > 0, "seed {seed}: no call ever owed anything, so that was not tested");
        assert_eq!(
            compare(look, &writers, &common, "at the end"),
            0,
            "seed {seed}: writes were done without an acknowledgement"
        );
    });
    let acknowledged = shared.acknowledged.load(Ordering::SeqCst);
    report(&format!(
        "{engine}: {} kills ({} of them hit the database's own server) under {WRITERS} writers: {acknowledged} writes acknowledged, \
         0 lost, 0 half done, 0 doubled, 0 corrupt; {} cut off ({} at the fewest), {} of them had been done; \
         {} crash images looked into; slowest start {:?}; {:?} in all; seed {seed}",
        run.kills,
        run.of_database,
        shared.cut.load(Ordering::SeqCst),
        run.fewest_cut,
        shared.found_done.load(Ordering::SeqCst),
        run.looks,
        run.slowest_start,
        began.elapsed()
    ));
    assert!(acknowledged >= ENOUGH, "{acknowledged} acknowledged writes show nothing");
}

mod a_server_killed_again_and_again_loses_nothing_and_leaves_nothing_half_done {
    use super::{OnFile, OnServer, kill_again_and_again};

    #[test]
    fn sqlite() {
        if !ward_test_db::Engine::Sqlite.is_left_out() {
            kill_again_and_again("SQLite", &mut OnFile(tempfile::tempdir().unwrap()));
        }
    }

    #[test]
    fn postgres() {
        if !ward_test_db::Engine::Postgres.is_left_out() {
            kill_again_and_again("PostgreSQL", &mut OnServer::start());
        }
    }
}

/// The comparison can fail: a disk that lied about a flush leaves a WAL without its tail.
#[test]
fn lost_writes_of_a_disk_are_noticed() {
    let place = OnFile(tempfile::tempdir().unwrap());
    let mut server = serve(&place);
    let common = Tenant::new(server.address, "common");
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, 3, &common)).collect();
    let (shared, mut random) = (Shared::default(), StdRng::seed_from_u64(3));
    storm(&place, &mut server, &mut writers, &shared, &mut random, Victim::Ward);
    place.look(&mut |look| assert!(compare(look, &writers, &common, "as it was left") >= 0));

    let wal = std::fs::File::options().write(true).open(place.folder().join("ward.db-wal")).unwrap();
    wal.set_len(wal.metadata().unwrap().len() / 4 * 3).unwrap();
    place.look(&mut |look| {
        // The database is whole nevertheless: the lost end consists of whole writes.
        look.assert_whole("without its tail");
        let compared = || compare(look, &writers, &common, "without its tail");
        let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compared));
        assert!(noticed.is_err(), "acknowledged writes are gone, and the comparison does not notice");
    });
}
