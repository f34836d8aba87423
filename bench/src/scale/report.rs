//! The page with the results, as Markdown.

use std::fmt::Write as _;

use crate::measure::{EngineFigures, Figures};
use crate::place::Engine;
use crate::shape::{EVENTS, Shape};

/// The goal for the growth: the most that an operation may cost on the largest database, relative to the smallest.
const MOST: f64 = 1.3;

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios, each within one round. A disturbance that lasts longer than a turn affects both values,
/// so it cancels out.
fn growth(least: &[f64], most: &[f64]) -> f64 {
    median(&least.iter().zip(most).map(|(least, most)| most / least).collect::<Vec<_>>())
}

/// The whole CPU time of a request, round by round.
fn cpu(figures: &Figures) -> Vec<f64> {
    figures.ward.iter().zip(&figures.database).map(|(ward, database)| ward + database).collect()
}

/// The whole page for all engines and sizes.
pub fn text(measured: &[EngineFigures], sizes: &[u64], rounds: u32, requests: u32) -> String {
    let mut page = head(sizes, rounds, requests);
    for one in measured {
        page.push_str(&table(one, sizes));
        if let Some(limit) = &one.limit {
            page.push_str(&of_itself(limit, sizes));
        }
    }
    page.push_str(&starts(measured, sizes));
    page.push_str(NOTES);
    page
}

fn head(sizes: &[u64], rounds: u32, requests: u32) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut page = format!(
        "# Scale\n\n\
         `bench/scale` measures whether the cost of a request depends on the size of the installation.\n\n\
         Machine: {cores} cores ({}, {}), of which server, database and client share one. One connection sends one request at \
         a time, in {rounds} rounds of {requests} requests; slow operations have a quarter or an eighth of that. The sizes \
         alternate. Latencies are medians of the rounds' medians, and CPU times are medians of the rounds' means. Growth is \
         the median of the ratios within each round, largest to smallest. The goal is at most {MOST}.\n\n\
         | workspaces | slugs | principals | memberships, seats | API keys | audit events | calls | integrations | of these the \
         giant's keys, events, calls |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        std::env::consts::ARCH,
        std::env::consts::OS,
    );
    for size in sizes {
        let shape = Shape::of(*size);
        let _ = writeln!(
            page,
            "| {size} | {size} | {} | {} | {} | {} | {} | {size} | {}, {}, {} |",
            2 * size + shape.giant_keys + 1,
            shape.memberships(),
            shape.keys(),
            shape.events(),
            shape.calls(),
            shape.giant_keys + 2,
            shape.giant_events + EVENTS,
            shape.giant_calls + 1,
        );
    }
    page
}

fn table(measured: &EngineFigures, sizes: &[u64]) -> String {
    let cpu_of = match measured.engine {
        Engine::Sqlite => "CPU of Ward",
        Engine::Postgres => "CPU of Ward + PostgreSQL",
    };
    let mut page = format!("\n## {}\n\n", measured.engine.name());
    page.push_str("| operation | random |");
    for size in sizes {
        let _ = write!(page, " p50 µs at {size} |");
    }
    page.push_str(" growth |");
    for size in sizes {
        let _ = write!(page, " {cpu_of} µs at {size} |");
    }
    page.push_str(" growth | goal met |\n|---|---|");
    for _ in 0..2 * sizes.len() + 2 {
        page.push_str("---:|");
    }
    page.push_str("---|\n");
    for (operation, by_size) in &measured.figures {
        let (Some(least), Some(most)) = (by_size.first(), by_size.last()) else { continue };
        let in_time = growth(&least.latency, &most.latency);
        let in_cpu = growth(&cpu(least), &cpu(most));
        let _ = write!(page, "| {} | {} |", operation.name, operation.random);
        for figures in by_size {
            let _ = write!(page, " {:.0} |", median(&figures.latency));
        }
        let _ = write!(page, " {in_time:.2} |");
        for figures in by_size {
            let _ = match measured.engine {
                Engine::Sqlite => write!(page, " {:.0} |", median(&figures.ward)),
                Engine::Postgres => {
                    write!(page, " {:.0} + {:.0} |", median(&figures.ward), median(&figures.database))
                }
            };
        }
        let met = if in_time.max(in_cpu) <= MOST { "yes" } else { "**no**" };
        let _ = writeln!(page, " {in_cpu:.2} | {met} |");
    }
    page
}

/// The section on the limit: the time of SQLite alone for the rows of a GET of one object.
fn of_itself(limit: &[Vec<f64>], sizes: &[u64]) -> String {
    let mut page = "\nThe limit: SQLite alone finds a random key, membership and workspace in one statement. The rows are the \
                    same as above, but in a file with integer keys, which are the fastest for SQLite. This has no HTTP and no \
                    gate, and the upper levels of its trees hold only integers.\n\n|"
        .to_owned();
    for size in sizes {
        let _ = write!(page, " p50 µs at {size} |");
    }
    page.push_str(" more, µs |\n|");
    page.push_str(&"---:|".repeat(sizes.len() + 1));
    page.push_str("\n|");
    for rounds in limit {
        let _ = write!(page, " {:.1} |", median(rounds));
    }
    let (Some(least), Some(most)) = (limit.first(), limit.last()) else { return page };
    let more: Vec<f64> = least.iter().zip(most).map(|(least, most)| most - least).collect();
    let _ = writeln!(page, " {:.1} |", median(&more));
    page
}

fn starts(measured: &[EngineFigures], sizes: &[u64]) -> String {
    let most = sizes.last().copied().unwrap_or_default();
    let mut page = format!(
        "\n## Start\n\n\
         The time from the start of the process to the whole first answer, which is a workspace, with {most} workspaces on all \
         cores. The goal is a median of less than 100 ms.\n\n| engine | database | median ms | most ms | goal met |\n|---|---:|---:|---:|---|\n"
    );
    for one in measured {
        let worst = one.starts.iter().copied().fold(0.0, f64::max);
        let met = if median(&one.starts) < 100.0 { "yes" } else { "**no**" };
        let gigabytes = one.bytes.last().copied().unwrap_or_default() >> 20;
        let _ = writeln!(
            page,
            "| {} | {gigabytes} MiB | {:.0} | {worst:.0} | {met} |",
            one.engine.name(),
            median(&one.starts),
        );
    }
    page
}

const NOTES: &str = "\n## How to read this\n\n\
- *random* names the rows that a request draws uniformly from the whole database. At a million workspaces almost no row is \
  read twice, so a cache of rows does not help. All other rows are the same in every request.\n\
- One user is a member of every workspace. One workspace, *the giant*, has a third of all keys, four tenths of all events and \
  half of all calls. All others are alike: an owner with a key, a service with a key, six events, a call, an integration.\n\
- Totals are exact up to 1,000 (audit and calls: 10,000) and are not counted beyond that. The giant has more rows than that at \
  every size, so its totals cost the same at every size. They determine the cost of its first pages.\n\
- The databases are read once before the measurement, and files before every round, so that the system's cache holds as much \
  of them as possible. The first round is discarded. The remaining growth has two causes: a tree has one more level, and pages \
  come from the system's cache instead of SQLite's own.\n\
- Rows are in the order of their ids, as with version-7 ids. The public parts of real keys are random, so that tree is about a \
  third larger in a real installation. It has the same number of levels.\n\
- The last uses of keys are written once a minute in one batch, here after the measurement. The batch is one update per key \
  used in that minute, at any size.\n\
- Requests are measured with all processes on one core. On several, the time of a single request depends mostly on the scheduler and on the \
  time that a sleeping core needs to wake. A few microseconds of work then change it threefold. Latency here is work and \
  flushes, without wake-ups.\n\
- PostgreSQL is a server for this measurement only, with `fsync` on and 10 GB of `shared_buffers`, into which all tables are read \
  (`pg_prewarm`) after a `VACUUM (ANALYZE)`. The heap of a server process may return its memory to the system after each \
  statement. This appeared only on the two larger databases and looked like growth, so Ward's sessions avoid it.\n\
- On SQLite a GET of one finds three rows. At a thousand workspaces their pages are in the connection's own cache, and mostly \
  in the processor's. At a million, each request reads 5.4 pages from the system's cache (counted system calls). According to \
  the profile, all growth is there: 4 to 15 µs in SQLite, of which 8 µs fetch pages, and less than 1 µs elsewhere. By the limit \
  above, three random rows of a million cost most of that by themselves. Experiments: [notes](notes-2026-11.md#scale).\n\n\
Command: `bench/scale --data DIR`. The next run uses the databases in `DIR` again.\n";
