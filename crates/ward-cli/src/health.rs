//! `ward health`: one request to the local server, for images that contain nothing but Ward.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;
use ward::config::Config;

use crate::failure::Failure;
use crate::show;
use crate::show::Output;

const PATIENCE: Duration = Duration::from_secs(3);

/// The answer of a running server.
#[derive(Serialize)]
struct Healthy {
    /// `healthy`, or `listening` under TLS, where no request is sent.
    status: &'static str,
    /// The URL of the request, or the address of the connection.
    asked: String,
}

/// Succeeds when the server answers 200 at `/healthz`; under TLS, when it accepts the connection. Prints the
/// address that it asked.
pub fn ask(config: &Config, out: Output) -> Result<(), Failure> {
    let (asked, status) = find(config);
    let status = status.map_err(|error| {
        format!(
            "{asked} did not answer as a healthy server does: {error}. The setting `listen` ({}) determines this address",
            config.listen
        )
    })?;
    if out.is_json() {
        return Ok(out.one(&Healthy { status, asked })?);
    }
    show::line(&format!("{status}: {asked}"));
    Ok(())
}

/// The address of the request, and the server's health or the error.
pub fn find(config: &Config) -> (String, Result<&'static str, Failure>) {
    let tls = config.tls.is_some();
    let mut address = reachable(config.listen);
    let mut looked = look(address, tls);
    if looked.is_err() && config.listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // `[::]` means every address of the machine; without IPv6 in the kernel that is IPv4 alone.
        address = SocketAddr::from(([127, 0, 0, 1], address.port()));
        looked = look(address, tls);
    }
    let asked = if tls { address.to_string() } else { format!("http://{address}/healthz") };
    (asked, looked)
}

fn look(address: SocketAddr, tls: bool) -> Result<&'static str, Failure> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    if tls {
        return Ok("listening");
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    match &status[..] {
        b"HTTP/1.1 200" => Ok("healthy"),
        other => Err(format!("it answered {}", String::from_utf8_lossy(other)).into()),
    }
}

/// The address at which a listener can be reached from its own machine.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    SocketAddr::new(ip, listen.port())
}
