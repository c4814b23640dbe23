//! A steady stream of requests over kept-alive connections, each one written down.
//!
//! The stream is open: a request starts when its time has come, not when the one before it was answered, so that a
//! pause of the server shows as slow answers and not as fewer requests. A connection is used again as soon as it is
//! free; when none is free, one more is opened.
//!
//! Deliberately absent: retries. A request without an answer of status 200 has failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::eventually::eventually_true;

/// No answer within this is a failed request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// More requests in flight than this fail at once: the server has stopped answering.
const MAX_IN_FLIGHT: usize = 1024;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The path, with a leading slash.
    pub path: String,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was due and begun.
    pub started: Instant,
    /// When its answer was complete, or its failure known.
    pub ended: Instant,
    /// The body of a 200, or what happened instead.
    pub answer: Result<String, String>,
}

impl Sample {
    /// Whether the answer contains the text.
    #[must_use]
    pub fn is_from(&self, marker: &str) -> bool {
        self.answer.as_ref().is_ok_and(|body| body.contains(marker))
    }
}

/// Requests that are being made.
#[derive(Debug)]
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Starts making `per_second` requests.
    ///
    /// # Panics
    /// When no thread can be started.
    #[must_use]
    pub fn start(target: Target, per_second: u32) -> Self {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let client = Client {
            target: Arc::new(target),
            idle: Arc::default(),
            in_flight: Arc::default(),
            samples: Arc::clone(&samples),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let until = Arc::clone(&stop);
        let run = move || runtime.block_on(client.run(Duration::from_secs(1) / per_second, &until));
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(run).expect("a thread starts");
        Self { samples, stop, thread: Some(thread) }
    }

    /// Waits until so many more requests have been answered, well or badly.
    ///
    /// # Panics
    /// When they were not within a minute.
    pub fn wait_for(&self, more: usize) {
        let enough = lock(&self.samples).len() + more;
        eventually_true("more requests", Duration::from_secs(60), || lock(&self.samples).len() >= enough);
    }

    /// Makes no new requests, waits for those in flight, and reports all.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.end();
        let mut samples = std::mem::take(&mut *lock(&self.samples));
        samples.sort_by_key(|sample| sample.started);
        Report { samples }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there has already been printed; its samples are what they are.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Clone)]
struct Client {
    target: Arc<Target>,
    idle: Arc<Mutex<Vec<SendRequest<Empty<Bytes>>>>>,
    in_flight: Arc<AtomicUsize>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Client {
    async fn run(self, interval: Duration, stop: &AtomicBool) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tasks = tokio::task::JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            while tasks.try_join_next().is_some() {}
            tasks.spawn(self.clone().one());
        }
        tasks.join_all().await;
    }

    async fn one(self) {
        let started = Instant::now();
        let answer = if self.in_flight.fetch_add(1, Ordering::Relaxed) < MAX_IN_FLIGHT {
            match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange()).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {ANSWER_TIMEOUT:?}")),
            }
        } else {
            Err(format!("more than {MAX_IN_FLIGHT} requests in flight"))
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        lock(&self.samples).push(Sample { started, ended: Instant::now(), answer });
    }

    async fn exchange(&self) -> Result<String, String> {
        let mut connection = self.connection().await?;
        let request = hyper::Request::get(&self.target.path).header("host", &self.target.host);
        let request = request.body(Empty::new()).map_err(|error| format!("request: {error}"))?;
        let response = connection.send_request(request).await.map_err(|error| format!("request: {error}"))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| format!("body: {error}"))?.to_bytes();
        lock(&self.idle).push(connection);
        let body = String::from_utf8_lossy(&body).into_owned();
        if status == hyper::StatusCode::OK { Ok(body) } else { Err(format!("status {status}: {body}")) }
    }

    /// One that is free and still open, else a new one.
    async fn connection(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        loop {
            let Some(mut free) = lock(&self.idle).pop() else { break };
            if free.ready().await.is_ok() {
                return Ok(free);
            }
        }
        let stream = TcpStream::connect(self.target.address).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| format!("handshake: {error}"))?;
        // Its errors reach the request that it carries.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// A panic while the lock was held leaves a whole list of whole samples.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every request, in the order in which they started.
#[derive(Debug, Clone)]
pub struct Report {
    samples: Vec<Sample>,
}

impl Report {
    /// How many.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.samples.len()
    }

    /// Those without a 200.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.samples.iter().filter(|sample| sample.answer.is_err()).count()
    }

    /// Those without a 200 that had ended before something was gone, or began after it was back.
    #[must_use]
    pub fn failed_outside(&self, absence: &Range<Instant>) -> usize {
        let outside = |sample: &&Sample| sample.ended < absence.start || sample.started > absence.end;
        self.samples.iter().filter(|sample| sample.answer.is_err()).filter(outside).count()
    }

    /// What happened to those, with how often.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<&str, usize> {
        let mut failures = BTreeMap::new();
        for error in self.samples.iter().filter_map(|sample| sample.answer.as_ref().err()) {
            *failures.entry(error.as_str()).or_default() += 1;
        }
        failures
    }

    /// How many were answered by what bears this marker.
    #[must_use]
    pub fn answered_by(&self, marker: &str) -> usize {
        self.samples.iter().filter(|sample| sample.is_from(marker)).count()
    }

    /// Requests that started after the first answer of the new release was complete and that the old one answered all
    /// the same: what a switch that is not atomic shows.
    #[must_use]
    pub fn mixed(&self, old: &str, new: &str) -> usize {
        let Some(switched) = self.samples.iter().filter(|s| s.is_from(new)).map(|s| s.ended).min() else { return 0 };
        self.samples.iter().filter(|s| s.started > switched && s.is_from(old)).count()
    }

    /// From `begin` to the start of the last request that the new release did not answer; zero when there is none.
    #[must_use]
    pub fn switched_after(&self, begin: Instant, new: &str) -> Duration {
        let others = self.samples.iter().filter(|sample| !sample.is_from(new));
        others.map(|sample| sample.started.saturating_duration_since(begin)).max().unwrap_or_default()
    }

    /// The time that the given share of the requests stayed within, in thousandths: 500 is the median.
    #[must_use]
    pub fn quantile(&self, thousandths: usize) -> Duration {
        let mut times: Vec<_> = self.samples.iter().map(|s| s.ended.saturating_duration_since(s.started)).collect();
        times.sort();
        times.get((times.len() * thousandths / 1000).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// The same, if nothing failed and something was asked.
    ///
    /// # Panics
    /// When a request failed: the message says how, and how often.
    #[track_caller]
    pub fn without_failure(self) -> Self {
        assert!(self.requests() > 0, "no request was made");
        assert_eq!(self.failed(), 0, "of {} requests failed: {:#?}", self.requests(), self.failures());
        self
    }

    /// The same, if it shows one clean switch: both releases answered, and never the old one after the new one.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn clean_switch(self, old: &str, new: &str) -> Self {
        let this = self.without_failure();
        assert!(this.answered_by(old) > 0, "{old} answered nothing: the load began too late");
        assert!(this.answered_by(new) > 0, "{new} answered nothing: it never served");
        assert_eq!(this.mixed(old, new), 0, "{old} answered requests that started after {new} had answered");
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn sample(origin: Instant, started: u64, ended: u64, answer: Result<&str, &str>) -> Sample {
        let at = |ms| origin + Duration::from_millis(ms);
        Sample { started: at(started), ended: at(ended), answer: answer.map(str::to_owned).map_err(str::to_owned) }
    }

    #[test]
    fn an_old_answer_is_mixed_only_when_its_request_started_after_a_new_answer() {
        let t = Instant::now();
        let overlapping = vec![sample(t, 0, 30, Ok("v1")), sample(t, 5, 10, Ok("v2")), sample(t, 20, 25, Ok("v2"))];
        assert_eq!(Report { samples: overlapping.clone() }.mixed("v1", "v2"), 0);
        let mut late = overlapping;
        late.push(sample(t, 26, 40, Ok("v1")));
        let late = Report { samples: late };
        assert_eq!(late.mixed("v1", "v2"), 1);
        assert_eq!(late.switched_after(t, "v2"), Duration::from_millis(26));
    }

    #[test]
    fn failures_are_counted_by_what_happened() {
        let t = Instant::now();
        let samples = vec![sample(t, 0, 1, Err("connect")), sample(t, 1, 2, Err("connect")), sample(t, 2, 4, Ok("v1"))];
        let report = Report { samples };
        assert_eq!((report.requests(), report.failed()), (3, 2));
        assert_eq!(report.failures(), BTreeMap::from([("connect", 2)]));
        assert_eq!(report.quantile(999), Duration::from_millis(2));
        let absence = |from, to| t + Duration::from_millis(from)..t + Duration::from_millis(to);
        assert_eq!(report.failed_outside(&absence(1, 5)), 0);
        assert_eq!(report.failed_outside(&absence(2, 5)), 1, "the first had ended");
        assert_eq!(report.failed_outside(&(t..t)), 1, "the second had not begun");
    }

    /// Answers each connection's requests with its own number until `per_connection`, then closes it without a word.
    fn server(per_connection: usize) -> SocketAddr {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                std::thread::spawn(move || serve(stream, number, per_connection));
            }
        });
        address
    }

    fn serve(mut stream: std::net::TcpStream, number: usize, requests: usize) {
        let mut buffer = [0; 1024];
        for _ in 0..requests {
            if stream.read(&mut buffer).unwrap_or(0) == 0 {
                return;
            }
            let body = format!("connection {number}\n");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            if stream.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
        // The request is read and never answered: that is a failure, whatever the connection was used for before.
        let _ = stream.read(&mut buffer);
    }

    fn target(address: SocketAddr) -> Target {
        Target { address, host: "app.test".to_owned(), path: "/".to_owned() }
    }

    #[test]
    fn connections_are_used_again() {
        let load = Load::start(target(server(usize::MAX)), 500);
        load.wait_for(100);
        let report = load.finish().without_failure();
        let connections: std::collections::BTreeSet<_> = report.samples.iter().map(|s| s.answer.clone()).collect();
        assert!(connections.len() < report.requests() / 2, "{} connections", connections.len());
    }

    #[test]
    fn a_request_whose_connection_dies_has_failed() {
        let load = Load::start(target(server(3)), 200);
        load.wait_for(40);
        assert!(load.finish().failed() > 0);
    }

    #[test]
    fn a_server_that_is_not_there_fails_every_request() {
        let reserved = crate::reservation::Reservation::port();
        let load = Load::start(target(([127, 0, 0, 1], reserved.number()).into()), 200);
        load.wait_for(10);
        let report = load.finish();
        assert_eq!(report.failed(), report.requests());
    }
}
