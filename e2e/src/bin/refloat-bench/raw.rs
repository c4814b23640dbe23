//! Anchor: the engine's own share of a warm rollback. One container, paused and woken over the engine's socket, and the
//! time until it answers.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use refloat_e2e::figure::{Figures, median};
use refloat_testkit::command::system;
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::fetch;

use crate::compose::Images;
use crate::step;

const ROUNDS: usize = 50;
const SOCKET: &str = "/var/run/docker.sock";
const READY: Duration = Duration::from_secs(60);
const APP_PORT: u16 = 3000;

pub(crate) fn measure(figures: &mut Figures) {
    step("anchor: unpause through the engine's API");
    let images = Images::build();
    let id = system("docker", &["run", "--detach", images.v1()]);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ip = system("docker", &["inspect", "--format", format, &id]).parse().expect("a container has an address");
    let address = SocketAddr::new(ip, APP_PORT);
    eventually_true("the container answers", READY, || answers(address));
    let took = (0..ROUNDS).map(|_| wake(&id, address)).collect();
    system("docker", &["rm", "--force", &id]);
    figures.note_ms("raw_unpause_ms", "anchor: engine's unpause to the first answer, median", median(took));
}

fn wake(id: &str, address: SocketAddr) -> Duration {
    post(&format!("/containers/{id}/pause"));
    let begin = Instant::now();
    post(&format!("/containers/{id}/unpause"));
    assert!(answers(address), "a woken container answers");
    begin.elapsed()
}

fn answers(address: SocketAddr) -> bool {
    fetch::get(address, "app.test", "/").is_ok_and(|answer| answer.status == 200)
}

fn post(path: &str) {
    let mut stream = UnixStream::connect(SOCKET).expect("the engine listens");
    let head = format!("POST {path} HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the engine reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the engine answers");
    assert!(answer.starts_with("HTTP/1.1 204"), "{path}: {answer}");
}
