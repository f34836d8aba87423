//! `ward health`: one request to the server that runs here, for images that hold nothing but Ward.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use ward::config::Config;

use crate::{Failure, show};

const PATIENCE: Duration = Duration::from_secs(3);

/// Succeeds when the server answers 200 at `/healthz`; under TLS, when it takes the connection.
pub fn ask(config: &Config) -> Result<(), Failure> {
    let address = reachable(config.listen);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    if config.tls.is_some() {
        show::line("listening");
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    match &status[..] {
        b"HTTP/1.1 200" => {
            show::line("healthy");
            Ok(())
        }
        other => Err(format!("the server answered {}", String::from_utf8_lossy(other)).into()),
    }
}

/// Where a listener can be reached from its own machine.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    SocketAddr::new(ip, listen.port())
}
