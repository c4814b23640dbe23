//! A relay that counts what passes through it, and holds it back when told to: what a client really sends, and when.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The relay. It goes on until the program ends.
#[derive(Debug)]
pub struct Meter {
    address: SocketAddr,
    gate: Arc<Gate>,
}

/// What clients have sent, and how much of it may pass.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sent_bytes: u64,
    /// What passes; everything when there is none.
    most_bytes: Option<u64>,
}

impl State {
    fn is_full(&self) -> bool {
        self.most_bytes.is_some_and(|most| self.sent_bytes > most)
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, and returns when that may pass.
    fn pass(&self, bytes: usize) {
        let mut state = self.lock();
        state.sent_bytes += bytes as u64;
        self.changed.notify_all();
        let _open = self.changed.wait_while(state, |state| state.is_full());
    }
}

impl Meter {
    /// Relays a port of its own on loopback to `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn before(target: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), target)
    }

    /// The same at another address of this machine.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn at(address: IpAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let gate = Arc::<Gate>::default();
        let own = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is not there shows as a closed connection.
                let _ = relay(client, target, &own);
            }
        });
        Self { address, gate }
    }

    /// Lets clients send so much more, and keeps what comes after it.
    pub fn hold_after(&self, bytes: u64) {
        let mut state = self.gate.lock();
        state.most_bytes = Some(state.sent_bytes + bytes);
    }

    /// Whether it keeps something.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.gate.lock().is_full()
    }

    /// Lets everything pass, also what it has kept.
    pub fn let_go(&self) {
        self.gate.lock().most_bytes = None;
        self.gate.changed.notify_all();
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that clients have sent, everything above TCP included.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.gate.lock().sent_bytes
    }
}

fn relay(client: TcpStream, target: SocketAddr, gate: &Arc<Gate>) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (up, down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let gate = Arc::clone(gate);
    std::thread::spawn(move || pump(up.0, up.1, &gate));
    std::thread::spawn(move || pump(down.0, down.1, &Gate::default()));
    Ok(())
}

/// Copies until one side ends, counting before passing on: what was answered was counted.
fn pump(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        gate.pass(length);
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
    use crate::eventually::eventually_true;
    use std::time::Duration;

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

    #[test]
    fn what_is_held_back_arrives_when_it_is_let_go() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let meter = Meter::before(listener.local_addr().expect("a listener has an address"));
        meter.hold_after(5);
        let mut client = TcpStream::connect(meter.address()).expect("the relay listens");
        let (mut server, _) = listener.accept().expect("a client comes");
        let mut five = [0; 5];
        client.write_all(b"hello").expect("the relay listens");
        server.read_exact(&mut five).expect("five bytes pass");
        assert!(!meter.holds());
        client.write_all(b"world").expect("the relay listens");
        eventually_true("five more bytes are kept", Duration::from_secs(10), || meter.holds());
        server.set_nonblocking(true).expect("a socket can be asked without waiting");
        assert!(server.read(&mut five).is_err(), "nothing passes");
        server.set_nonblocking(false).expect("a socket can wait");
        meter.let_go();
        server.read_exact(&mut five).expect("the rest passes");
        assert_eq!((&five, meter.sent_bytes()), (b"world", 10));
    }
}
