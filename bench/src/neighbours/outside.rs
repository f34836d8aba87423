//! The external services on loopback: a quick and a slow EHR, and a name server that answers for some names only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;

use super::Failure;

/// The only name that the name server answers for.
pub const KNOWN: &str = "quick.ehr.test";

/// The external services of a measurement.
///
/// The slow EHR belongs to the neighbour, so it runs on threads of the lowest priority. On the threads of the quiet
/// tenant's client, a burst of its answers would be part of that tenant's times.
pub struct Outside {
    /// An EHR that answers at once.
    pub quick: SocketAddr,
    /// An EHR that takes nine seconds for every answer.
    pub slow: SocketAddr,
    /// The address of the name server.
    pub names: SocketAddr,
    /// A channel with each write that the quick EHR received: the time of arrival and the body.
    pub arrived: mpsc::UnboundedReceiver<(Instant, String)>,
    behind: Option<Runtime>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        // A runtime must not wait for its threads inside another runtime.
        if let Some(behind) = self.behind.take() {
            behind.shutdown_background();
        }
    }
}

/// A runtime for the work of a neighbour, with threads of the lowest priority.
pub fn threads_behind() -> Result<Runtime, Failure> {
    // If the system refuses the priority, the measurement is less fair but not wrong.
    let behind = || _ = rustix::process::setpriority_process(None, 19);
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(behind)
        .enable_all()
        .build()?)
}

impl Outside {
    /// Starts the EHRs and the name server.
    pub async fn start() -> Result<Self, Failure> {
        let (told, arrived) = mpsc::unbounded_channel();
        let told = Arc::new(told);
        let behind = threads_behind()?;
        let quick = listen(&Handle::current(), move |mut stream, body| {
            let told = told.clone();
            async move {
                let _ = told.send((Instant::now(), body));
                let _ = stream.write_all(&answer()).await;
                Some(stream)
            }
        })
        .await?;
        let slow = listen(behind.handle(), |mut stream, _| async move {
            tokio::time::sleep(Duration::from_secs(9)).await;
            let _ = stream.write_all(&answer()).await;
            Some(stream)
        })
        .await?;
        Ok(Self { quick, slow, names: name_server().await?, arrived, behind: Some(behind) })
    }
}

fn answer() -> Vec<u8> {
    let body = "{\"resourceType\":\"Communication\",\"id\":\"1\"}";
    format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/fhir+json\r\nlocation: /fhir/Communication/1\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Listens on these threads, and calls `respond` with the stream and the body of each request.
async fn listen<F>(
    threads: &Handle,
    respond: impl Fn(TcpStream, String) -> F + Clone + Send + Sync + 'static,
) -> Result<SocketAddr, Failure>
where
    F: Future<Output = Option<TcpStream>> + Send,
{
    // A socket belongs to the runtime on which it is made.
    let listener = threads.spawn(TcpListener::bind("127.0.0.1:0")).await??;
    let address = listener.local_addr()?;
    threads.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let respond = respond.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let mut next = Some(stream);
                while let Some(mut stream) = next.take() {
                    let Some(body) = hear(&mut stream).await else { return };
                    next = respond(stream, body).await;
                }
            });
        }
    });
    Ok(address)
}

/// Reads one request. The client sends its next request only after the answer.
async fn hear(stream: &mut TcpStream) -> Option<String> {
    let mut heard = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        if let Some(end) = heard.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&heard[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            if heard.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&heard[end + 4..]).into_owned());
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => heard.extend_from_slice(&chunk[..read]),
        }
    }
}

/// A name server that answers 127.0.0.1 for [`KNOWN`], with a lifetime of one second, and nothing for other names.
async fn name_server() -> Result<SocketAddr, Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            if let Some(answer) = name_answer(&question[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    Ok(address)
}

/// The answer to a question (RFC 1035), if the question is about [`KNOWN`].
fn name_answer(question: &[u8]) -> Option<Vec<u8>> {
    let labels: Vec<u8> = KNOWN
        .split('.')
        .flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap_or_default()).chain(label.bytes()))
        .chain([0])
        .collect();
    let asked = question.get(12..12 + labels.len())?;
    if !asked.eq_ignore_ascii_case(&labels) {
        return None;
    }
    let end = 12 + labels.len() + 4;
    let kind = question.get(end - 4..end - 2)?;
    let is_address = kind == [0, 1];
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question.get(12..end)?);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
