//! Creations at a fixed rate, each timed from when it was due.
//!
//! A thread hands out due times and waits for nothing else, so a server that stalls makes the requests that were due
//! meanwhile late instead of unsent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::Failure;
use crate::load::{CONNECTIONS, Latency, Request};
use crate::seed::new_workspace;

/// The next due time and its number.
type Queue = Arc<Mutex<mpsc::UnboundedReceiver<(Instant, u64)>>>;

/// Sends `request` `rate` times a second for `time`.
pub fn run(
    to: SocketAddr,
    request: &Request,
    rate: u32,
    time: Duration,
    run: u32,
) -> Result<Latency, Failure> {
    let mut latencies = crate::on_runtime(async {
        let (due, queue) = mpsc::unbounded_channel();
        let queue: Queue = Arc::new(Mutex::new(queue));
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            workers.spawn(work(stream, queue.clone(), request.clone(), run));
        }
        let pacer = std::thread::spawn(move || pace(&due, rate, time));
        let mut latencies = Vec::new();
        while let Some(worked) = workers.join_next().await {
            latencies.extend(worked??);
        }
        pacer.join().map_err(|_| "the pacing thread panicked")?;
        Ok(latencies)
    })?;
    latencies.sort_unstable();
    let at =
        |hundredth: usize| latencies.get(latencies.len() * hundredth / 100).copied().ok_or("no requests");
    Ok(Latency { p50: at(50)?, p99: at(99)? })
}

fn pace(due: &mpsc::UnboundedSender<(Instant, u64)>, rate: u32, time: Duration) {
    let started = Instant::now();
    for number in 0_u64.. {
        let since = Duration::from_nanos(number * 1_000_000_000 / u64::from(rate));
        if since > time {
            return;
        }
        let moment = started + since;
        if let Some(wait) = moment.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        if due.send((moment, number)).is_err() {
            return;
        }
    }
}

async fn work(
    mut stream: TcpStream,
    queue: Queue,
    request: Request,
    run: u32,
) -> Result<Vec<Duration>, Failure> {
    let bearer =
        request.bearer.map(|bearer| format!("authorization: Bearer {bearer}\r\n")).unwrap_or_default();
    let path = request.path;
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let next = queue.lock().await.recv().await;
        let Some((due, number)) = next else { return Ok(latencies) };
        let body = new_workspace(&format!("own-{run:08}-{number:010}")).to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{bearer}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
        buffer.clear();
        while !whole(&buffer)? {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the server hung up".into());
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 201") {
            return Err(String::from_utf8_lossy(&buffer).into());
        }
        latencies.push(due.elapsed());
    }
}

/// Whether the answer is there to its last byte.
fn whole(answer: &[u8]) -> Result<bool, Failure> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.ok_or("an answer without a length")?.1.parse()?;
    Ok(answer.len() >= end + 4 + length)
}
