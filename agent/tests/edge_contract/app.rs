//! An instance behind the real edge: it answers with its name, or first waits until it is let.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Requests for it wait.
pub(crate) const SLOW: &str = "/slow";

pub(crate) struct App {
    pub(crate) address: SocketAddrV4,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    name: String,
    /// Requests that wait now.
    waiting: watch::Sender<usize>,
    /// How often those who wait were let.
    let_go: watch::Sender<usize>,
}

impl App {
    pub(crate) async fn named(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("bound to IPv4") };
        let (waiting, let_go) = (watch::Sender::new(0), watch::Sender::new(0));
        let state = Arc::new(State { name: name.to_owned(), waiting, let_go });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, task }
    }

    pub(crate) fn waiting(&self) -> usize {
        *self.state.waiting.borrow()
    }

    /// Until as many requests wait.
    pub(crate) async fn has_waiting(&self, requests: usize) {
        self.state.waiting.subscribe().wait_for(|waiting| *waiting == requests).await.unwrap();
    }

    pub(crate) fn let_go(&self) {
        self.state.let_go.send_modify(|times| *times += 1);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, app: Arc<State>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
    if head.starts_with(format!("GET {SLOW} ").as_bytes()) {
        let mut let_go = app.let_go.subscribe();
        app.waiting.send_modify(|waiting| *waiting += 1);
        let gone = let_go.changed().await.is_err();
        app.waiting.send_modify(|waiting| *waiting -= 1);
        if gone {
            return;
        }
    }
    let (name, length) = (&app.name, app.name.len());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
    // A visitor may have gone.
    let _ = stream.write_all(answer.as_bytes()).await;
}
