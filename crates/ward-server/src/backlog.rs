//! The end of a listener that cuts no client.
//!
//! A client counts as connected as soon as the kernel has finished the handshake, before the server accepts
//! the connection. Closing the listener resets every connection that was not accepted, with its request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// How long handshakes that began before the stop may still take. A load balancer is milliseconds away.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// Begins no further handshake, accepts the connections whose handshakes are done or under way, and closes the
/// listener.
pub(crate) async fn close(listener: TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) {
    match refuse_handshakes(&listener) {
        // Without this wait, a handshake between two packets would end in a reset.
        Ok(()) => {
            let _ = tokio::time::timeout(HANDSHAKE, async {
                while let Ok((stream, peer)) = listener.accept().await {
                    take(stream, peer);
                }
            })
            .await;
        }
        Err(error) => {
            tracing::debug!(%error, "new connections cannot be held back; one that arrives now may be reset");
        }
    }
    // The runtime knows only the connections of its last poll, so these accepts ask the kernel itself.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take(stream, peer);
        }
    }
}

/// Makes the kernel ignore requests for new connections on `listener`. A client repeats its request after a
/// second, and by then the address is free or another server listens there.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    // Classic BPF, as in linux/bpf_common.h. The packet begins with its TCP header, and byte 13 has the flags.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN_OR_ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    socket2::SockRef::from(listener).attach_filter(&program)
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
