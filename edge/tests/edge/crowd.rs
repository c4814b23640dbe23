//! Many connections at once: what they cost, and how many one client may have.

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::app::App;
use crate::rig::{Rig, app_routes, eventually, instance, site};
use crate::wire::{Wire, get};

const READERS: u64 = 300;
/// One piece of 16 KiB, what a connection costs besides, and what this process takes for its threads and clients: 59 to
/// 76 KiB have been seen in a debug build. With pieces of 128 KiB, twice in memory, it was 270 KiB.
const MAX_BYTES_PER_READER: u64 = 128 * 1024;

/// Asks for the large file and takes the beginning of the answer only.
async fn stalled(rig: &Rig) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut stream = socket.connect(rig.address()).await.unwrap();
    stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    assert!(stream.peek(&mut [0; 16]).await.unwrap() > 0);
    stream
}

#[tokio::test]
async fn readers_that_stop_reading_cost_little_memory_each() {
    let mut rig = Rig::start().await;
    let tree = rig.publish(&[("index.html", b"<p>home"), ("large.bin", &vec![7; 16 << 20])]);
    rig.activate(vec![app_routes("a", 1, vec![("/", site(tree))])]).await;
    drop(stalled(&rig).await);
    let before = rig.status().await.rss_bytes;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(stalled(&rig).await);
    }
    let per_reader = rig.status().await.rss_bytes.saturating_sub(before) / READERS;
    println!("{per_reader} bytes per stalled reader");
    assert!(per_reader <= MAX_BYTES_PER_READER, "{per_reader} bytes");
    assert_eq!(get(rig.address(), "/").await.text(), "<p>home");
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_gets_new_ones_for_those_that_end() {
    let app = App::named("fine").await;
    let mut rig = Rig::crowded(2).await;
    rig.activate(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::open(rig.address()).await;
        wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned()).await;
        assert_eq!(wire.answer().await.text(), "fine");
        held.push(wire);
    }
    assert!(!is_served(&rig).await, "one too many");
    held.pop();
    eventually("a connection in its place", || is_served(&rig)).await;
}

/// Whether a new connection gets an answer.
async fn is_served(rig: &Rig) -> bool {
    use tokio::io::AsyncReadExt as _;
    let mut stream = TcpStream::connect(rig.address()).await.unwrap();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    asked.is_ok() && stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}
