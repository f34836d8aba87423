//! The page with its tables, and the charts beside it.

use std::fmt::Write as _;
use std::path::Path;

use crate::Failure;
use crate::chart::{Bar, Chart, figure};
use crate::figures::{CaseFigures, Cell, Figures, Footprint, Machine, PacedLatencies, median};
use crate::goals::goals;
use crate::side::Side;
use crate::workload::Case;

/// Writes the page. Its charts go into a folder beside it, which has the same name without the extension.
pub fn write(figures: &Figures, to: &Path) -> Result<(), Failure> {
    let folder = to.with_extension("");
    std::fs::create_dir_all(&folder)?;
    let name = folder.file_name().and_then(|name| name.to_str()).ok_or("the page has no file name")?;
    let mut images = String::new();
    for (file, chart) in charts(figures) {
        std::fs::write(folder.join(file), chart.svg())?;
        writeln!(images, "![{}]({name}/{file})\n", chart.title)?;
    }
    Ok(std::fs::write(to, text(figures, &images))?)
}

fn text(figures: &Figures, images: &str) -> String {
    let Figures { rounds, seconds, .. } = figures;
    let cases: String = figures.measured.iter().map(|measured| case_table(figures, measured)).collect();
    let build = if figures.release {
        ""
    } else {
        "\n**This is a debug build, so its figures say nothing about Ward.**\n"
    };
    format!(
        "# Performance\n\n\
         `bench/run` writes this page. [bench/README.md](../../bench/README.md) describes the cases and the method.\n\
         {build}\n{}\n\n\
         The figures are medians of {rounds} alternating rounds of {seconds} s, and every ratio is the median of the ratios within \
         each round. Fixed route and bare axum return the same bytes without any work, so they are the limit. FastAPI has the \
         same operations as a Python team would write them, on a fast server, JSON and raw drivers, with one worker per core. \
         With short routes, requests bypass the framework, which is the limit of its tuning. The engine alone reads and writes \
         rows like Ward's without HTTP. All databases make every commit durable.\n\n\
         ## Goals\n\n{}\n\
         Creations wait for a disk that the bare router does not have, so their p99 has no goal. [scale.md](scale.md) has the \
         start time on a database of a million workspaces.\n\n\
         ## At a glance\n\n{images}\
         ## All figures\n\n\
         `÷` is Ward's rate divided by this one, for Ward on the same engine, or else for {}. CPU is the microseconds of the \
         server's processes per request, and of PostgreSQL's, with the most connections. p50 and p99 count from the due time of \
         a request, with the most connections. The load is half the server's own highest rate; for bare axum it is Ward's load.\n\n\
         {cases}\
         ## Memory and start\n\n{}\n{}\
         Command: `{}`\n",
        machine_line(&figures.machine),
        goals_table(figures),
        figures.engines.first().map_or("Ward", |engine| Side::Ward(*engine).name()),
        memory_table(figures),
        failures(figures),
        figures.command,
    )
}

/// The machine of a measurement, in one line.
pub fn machine_line(machine: &Machine) -> String {
    let Machine { cores, model, memory, system, flush, busy, .. } = machine;
    let mut line = format!(
        "Machine: {cores} cores ({model}), shared between servers and load, {memory:.0} GiB of memory, {system}; \
         {busy:.2} processes busy before it began. Making 4 KiB durable takes {flush:.0} µs"
    );
    // Writing to a string cannot fail.
    let _ = match (&machine.postgres, machine.postgres_flush) {
        (Some(version), Some(flush)) => {
            write!(line, ", where PostgreSQL ({version}) writes {flush:.0} µs.")
        }
        _ => write!(line, "."),
    };
    line
}

/// The goals as a Markdown table.
pub fn goals_table(figures: &Figures) -> String {
    let mut table = "| goal | wanted | found | |\n|---|---:|---:|---|\n".to_owned();
    for goal in goals(figures) {
        let _ = writeln!(table, "| {} | {} | {} | {} |", goal.what, goal.wanted, goal.found, goal.verdict);
    }
    table
}

fn case_table(figures: &Figures, measured: &CaseFigures) -> String {
    let mut table = format!("### {}\n\n| server |", measured.case.name());
    for connections in &figures.connections {
        let plural = if *connections == 1 { "" } else { "s" };
        let _ = write!(table, " requests/s, {connections} connection{plural} | ÷ |");
    }
    table.push_str(" CPU µs | of PostgreSQL | at requests/s | p50 µs | p99 µs |\n|---|");
    table.push_str(&"---:|---:|".repeat(figures.connections.len()));
    table.push_str("---:|---:|---:|---:|---:|\n");
    for side in figures.sides.iter().filter(|side| side.has(measured.case)) {
        table.push_str(&row(figures, measured, *side));
    }
    table.push('\n');
    table
}

fn row(figures: &Figures, measured: &CaseFigures, side: Side) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), figure);
    let mut row = format!("| {} |", side.name());
    let ward = side.ward(&figures.engines);
    for connections in &figures.connections {
        let cell = measured.cell(side, *connections);
        let ratio = ward.and_then(|ward| measured.ratio(ward, side, *connections));
        let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let rate = cell.map_or_else(|| "–".to_owned(), |cell| rate(cell, *connections == figures.most()));
        let _ = write!(row, " {rate} | {ratio} |");
    }
    let cell = measured.cell(side, figures.most());
    let cpu = cell.and_then(|cell| median(&cell.cpu)).map(|cpu| format!("{cpu:.1}"));
    let database = cell.and_then(|cell| median(&cell.database)).map(|cpu| format!("{cpu:.1}"));
    for part in [cpu, database] {
        let _ = write!(row, " {} |", part.as_deref().unwrap_or("–"));
    }
    let paced: Vec<&PacedLatencies> = measured.paced.iter().filter(|paced| paced.side == side).collect();
    let joined = |parts: Vec<String>| if parts.is_empty() { "–".to_owned() } else { parts.join(" / ") };
    let rates = joined(paced.iter().map(|paced| figure(f64::from(paced.rate))).collect());
    let p50 = joined(paced.iter().map(|paced| shown(paced.percentile(|latency| latency.p50))).collect());
    let p99 = joined(paced.iter().map(|paced| shown(paced.percentile(|latency| latency.p99))).collect());
    let _ = writeln!(row, " {rates} | {p50} | {p99} |");
    row
}

/// The median rate. With `spread`, the lowest and the highest rate follow.
fn rate(cell: &Cell, spread: bool) -> String {
    let Some(rate) = cell.rate() else { return "failed".to_owned() };
    if !spread || cell.rates.len() < 2 {
        return figure(rate);
    }
    let all = || cell.rates.iter().flatten().copied();
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    format!("{} ({}–{})", figure(rate), figure(least), figure(most))
}

fn memory_table(figures: &Figures) -> String {
    let mut table = format!(
        "MiB of all processes of a server; a page that several of them share counts once, but in each for the peak.\n\n\
         | server | idle | with {} connections | peak | first answer, ms |\n|---|---:|---:|---:|---:|\n",
        figures.most()
    );
    for held in &figures.held {
        let name = held.side.name();
        let _ = writeln!(
            table,
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} |",
            held.idle, held.loaded, held.peak, held.first_answer
        );
    }
    table
}

fn failures(figures: &Figures) -> String {
    if figures.remarks.is_empty() {
        return String::new();
    }
    let mut text = "## Runs that failed\n\n".to_owned();
    for remark in &figures.remarks {
        let _ = writeln!(text, "- {}", remark.replace(['\n', '\r', '`'], " "));
    }
    text.push('\n');
    text
}

/// The charts of these figures, by file name.
fn charts(figures: &Figures) -> Vec<(&'static str, Chart)> {
    let most = figures.most();
    let at = format!("requests per second with {most} connections; more is better");
    let working = |side: Side| matches!(side, Side::Ward(_) | Side::Peer(_) | Side::Shortcut(_));
    let rates = |case: Case, connections: usize, wanted: &dyn Fn(Side) -> bool| {
        bars(figures, case, |measured, side| {
            let value = measured.cell(side, connections)?.rate().filter(|_| wanted(side))?;
            Some(Bar { side, value, faint: 0.0 })
        })
    };
    let reads = Chart {
        title: "Reads".to_owned(),
        subtitle: at.clone(),
        groups: groups(&[Case::Get, Case::List, Case::Refused], |case| {
            rates(case, most, &|side| !matches!(side, Side::Raw(_)))
        }),
    };
    let writes = Chart {
        title: "Writes, and a mix".to_owned(),
        subtitle: format!("{at}. Every write is durable when it is answered"),
        groups: groups(&[Case::Bootstrap, Case::Own, Case::Patch, Case::Rotate, Case::Mix], |case| {
            rates(case, most, &|side| !matches!(side, Side::Fixed | Side::Bare))
        }),
    };
    let crowds = Chart {
        title: "GET one, by connections".to_owned(),
        subtitle: "requests per second; more is better".to_owned(),
        groups: figures
            .connections
            .iter()
            .map(|connections| (connections.to_string(), rates(Case::Get, *connections, &working)))
            .collect(),
    };
    let latency = Chart {
        title: "p99 at half of each server's own highest rate".to_owned(),
        subtitle: format!("microseconds from when a request was due, {most} connections; less is better"),
        groups: groups(&Case::ALL, |case| {
            bars(figures, case, |measured, side| {
                let value = measured.paced(side, side)?.percentile(|latency| latency.p99)?;
                Some(Bar { side, value, faint: 0.0 })
            })
        }),
    };
    let cpu = Chart {
        title: "CPU time per request".to_owned(),
        subtitle: "microseconds of the server's processes; PostgreSQL's own are faint; less is better"
            .to_owned(),
        groups: groups(&Case::ALL, |case| {
            bars(figures, case, |measured, side| {
                let cell = measured.cell(side, most).filter(|_| working(side))?;
                let faint = median(&cell.database).unwrap_or_default();
                Some(Bar { side, value: median(&cell.cpu)? + faint, faint })
            })
        }),
    };
    let charts = [
        ("reads.svg", reads),
        ("writes.svg", writes),
        ("connections.svg", crowds),
        ("latency.svg", latency),
        ("cpu.svg", cpu),
        ("memory.svg", memory_chart(figures)),
    ];
    let charts = charts.into_iter().map(|(file, mut chart)| {
        chart.groups.retain(|(_, bars)| !bars.is_empty());
        (file, chart)
    });
    charts.filter(|(_, chart)| !chart.groups.is_empty()).collect()
}

fn memory_chart(figures: &Figures) -> Chart {
    let of = |value: fn(&Footprint) -> f64| -> Vec<Bar> {
        let bar = |held: &Footprint| Bar { side: held.side, value: value(held), faint: 0.0 };
        figures.held.iter().map(bar).collect()
    };
    Chart {
        title: "Memory".to_owned(),
        subtitle: "MiB of all of a server's processes, without PostgreSQL's; less is better".to_owned(),
        groups: vec![
            ("idle".to_owned(), of(|held| held.idle)),
            (format!("with {} connections", figures.most()), of(|held| held.loaded)),
        ],
    }
}

fn groups(cases: &[Case], bars: impl Fn(Case) -> Vec<Bar>) -> Vec<(String, Vec<Bar>)> {
    cases.iter().map(|case| (case.name().to_owned(), bars(*case))).collect()
}

fn bars(figures: &Figures, case: Case, bar: impl Fn(&CaseFigures, Side) -> Option<Bar>) -> Vec<Bar> {
    let Some(measured) = figures.case(case) else { return Vec::new() };
    figures.sides.iter().filter_map(|side| bar(measured, *side)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::example;
    use crate::side::Engine;

    #[test]
    fn tables_have_the_figures_and_say_what_failed() {
        let mut figures = example();
        figures.remarks.push("GET one, bare axum: the server closed the connection".to_owned());
        let text = text(&figures, "");
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(
            row("| Ward (SQLite) | 10,000")
                .contains("| 10,000 (9,000–12,000) | 1.00 | 20.0 | – | 5,000 | 450 | 900 |")
        );
        assert!(row("| FastAPI (SQLite) | 500").contains("| 500 (450–600) | 20.00 |"));
        assert!(row("| bare axum | failed").contains("failed | – |"));
        assert!(text.contains("the server closed the connection"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        let header = row("| server | requests/s");
        for line in text.lines().filter(|line| line.starts_with("| Ward (SQLite) | 10,000")) {
            assert_eq!(columns(line), columns(&header), "{line}");
        }
    }

    #[test]
    fn charts_that_would_be_empty_are_left_out() {
        let files: Vec<&str> = charts(&example()).into_iter().map(|(file, _)| file).collect();
        assert_eq!(
            files,
            ["reads.svg", "writes.svg", "connections.svg", "latency.svg", "cpu.svg", "memory.svg"]
        );
        let mut figures = example();
        figures.measured.retain(|measured| measured.case == Case::Bootstrap);
        let files: Vec<&str> = charts(&figures).into_iter().map(|(file, _)| file).collect();
        assert_eq!(files, ["writes.svg", "latency.svg", "cpu.svg", "memory.svg"]);
    }

    #[test]
    fn a_page_comes_with_the_charts_that_it_shows() {
        let folder = std::env::temp_dir().join(format!("ward-bench-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let page = folder.join("performance.md");
        write(&example(), &page).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        let shown =
            text.lines().filter_map(|line| line.strip_prefix("![")?.split_once("](")?.1.strip_suffix(')'));
        let shown: Vec<&str> = shown.collect();
        assert_eq!(shown.len(), 6);
        for chart in shown {
            assert!(std::fs::read_to_string(folder.join(chart)).unwrap().starts_with("<svg"), "{chart}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_engine_has_its_own_ward() {
        let engines = [Engine::Sqlite, Engine::Postgres];
        assert_eq!(Side::Peer(Engine::Postgres).ward(&engines), Some(Side::Ward(Engine::Postgres)));
        assert_eq!(Side::Bare.ward(&engines), Some(Side::Ward(Engine::Sqlite)));
        assert_eq!(Side::Bare.ward(&[]), None);
    }
}
