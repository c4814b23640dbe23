//! A relay on loopback that counts what passes through it: what a client really sends.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The relay. It goes on until the program ends.
#[derive(Debug)]
pub struct Meter {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Meter {
    /// Relays a port of its own to `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let sent = Arc::<AtomicU64>::default();
        let count = Arc::clone(&sent);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is not there shows as a closed connection.
                let _ = relay(client, target, &count);
            }
        });
        Self { address, sent }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that clients have sent, everything above TCP included.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn relay(client: TcpStream, target: SocketAddr, sent: &Arc<AtomicU64>) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (up, down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let count = Arc::clone(sent);
    std::thread::spawn(move || pump(up.0, up.1, &count));
    std::thread::spawn(move || pump(down.0, down.1, &AtomicU64::new(0)));
    Ok(())
}

/// Copies until one side ends, counting before passing on: what was answered was counted.
fn pump(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_sends_is_counted_and_what_it_gets_is_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let meter = Meter::before(listener.local_addr().expect("a listener has an address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let mut said = [0; 5];
            stream.read_exact(&mut said).expect("five bytes come");
            stream.write_all(b"a longer answer").expect("the client listens");
            said
        });
        let mut client = TcpStream::connect(meter.address()).expect("the relay listens");
        client.write_all(b"hello").expect("the relay listens");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer ends");
        assert_eq!((answer.as_str(), server.join().ok()), ("a longer answer", Some(*b"hello")));
        assert_eq!(meter.sent_bytes(), 5);
    }
}
