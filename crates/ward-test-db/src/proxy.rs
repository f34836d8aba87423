//! A proxy between Ward and its database server that cuts a connection at the worst time.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::postgres::Server;

/// Forwards everything until a transaction with a certain word was committed. Then it discards the server's
/// answer to the `COMMIT`, and cuts the connection.
pub struct Proxy {
    /// The port on 127.0.0.1 where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// The word that identifies the next transaction to cut.
    word: Mutex<Option<Vec<u8>>>,
    cuts: AtomicUsize,
}

impl Proxy {
    pub fn start(server: &Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let shared = Arc::new(Shared { word: Mutex::default(), cuts: AtomicUsize::new(0) });
        let (behind, all) = (server.port, Arc::clone(&shared));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, behind)) else { continue };
                let shared = Arc::clone(&all);
                std::thread::spawn(move || drop(pass(&client, &server, &shared)));
            }
        });
        Self { port, shared }
    }

    /// Cuts the next transaction that sends this word, once the server has committed it.
    pub fn cut_after_commit_of(&self, word: &str) {
        *self.shared.word.lock().expect("a word") = Some(word.as_bytes().to_owned());
    }

    /// The number of transactions cut so far.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

/// Forwards the data of both sides; the server's data on a thread of its own.
fn pass(client: &TcpStream, server: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut from_client = client.try_clone()?;
    let mut to_server = server.try_clone()?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let muted = Arc::new(Mutex::new(false));
    let answers = Arc::clone(&muted);
    let back = std::thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while let Ok(count @ 1..) = from_server.read(&mut bytes) {
            let muted = answers.lock().expect("the way back");
            if *muted {
                // The answer is discarded: the commit is done.
                return true;
            }
            if to_client.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        false
    });
    // The client's data of the current transaction. A message may arrive in pieces.
    let mut said = Vec::new();
    let mut bytes = [0; 16_384];
    while let Ok(count @ 1..) = from_client.read(&mut bytes) {
        said.extend_from_slice(&bytes[..count]);
        if ends(&said) {
            let mut word = shared.word.lock().expect("a word");
            if word.as_deref().is_some_and(|word| has(&said, word)) {
                *word = None;
                *muted.lock().expect("the way back") = true;
            }
            said.clear();
        }
        if to_server.write_all(&bytes[..count]).is_err() {
            break;
        }
        if *muted.lock().expect("the way back") {
            break;
        }
    }
    if *muted.lock().expect("the way back") && back.join().unwrap_or(false) {
        shared.cuts.fetch_add(1, Ordering::SeqCst);
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    Ok(())
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Whether a transaction ends: with a query of `COMMIT` or `ROLLBACK` alone.
fn ends(said: &[u8]) -> bool {
    said.ends_with(b"COMMIT\0") || said.ends_with(b"ROLLBACK\0")
}
