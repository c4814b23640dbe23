//! Every limit and every time of the edge, with its unit, in one place.

use std::time::Duration;

/// Most bytes of one request or response head, the empty line included.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most fields of one head.
pub const MAX_HEAD_FIELDS: usize = 100;
/// Most bytes of a method.
pub const MAX_METHOD_BYTES: usize = 32;
/// Most bytes of one line that gives the size of a chunk, extension included.
pub const MAX_CHUNK_LINE_BYTES: usize = 256;
/// Most bytes of chunk extensions of one whole body: an extension carries nothing that is passed on.
pub const MAX_CHUNK_EXTENSION_BYTES: usize = 16 * 1024;
/// Most bytes of the trailers of one body; they are checked and dropped.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Most interim (1xx) responses to one request.
pub const MAX_INTERIM_RESPONSES: usize = 16;
/// Bytes that are asked for with one read of a head.
pub const HEAD_READ_BYTES: usize = 4 * 1024;
/// Bytes that are asked for with one read of a body, and the size at which what is encoded gets written. A client that
/// stops reading keeps about as much in memory for as long as a write may wait, so it is small.
pub const BODY_READ_BYTES: usize = 16 * 1024;
/// Bytes of a next request that are read ahead while one is being answered.
pub const READ_AHEAD_BYTES: usize = 16 * 1024;
/// Bytes of a file that are read at a time; what a client that stops reading keeps in memory, as with a body.
pub const FILE_READ_BYTES: usize = 16 * 1024;
/// Most bytes that are read and thrown away after the last answer of a connection, so that it is not cut by a reset.
pub const MAX_LINGER_BYTES: usize = 1024 * 1024;

/// Most client connections at once; one more waits in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 20_000;
/// Most connections of one client, an IPv4 address or an IPv6 /64; one more is closed at once. An office behind one
/// address, at six connections to a browser, stays below it, and forty addresses are needed to take all there are.
pub const MAX_CONNECTIONS_PER_CLIENT: u32 = 512;
/// Length of the kernel's queue of connections that are not accepted yet.
pub const ACCEPT_BACKLOG: u32 = 1_024;
/// How many leading bits the addresses of an app's network share: the agent gives every app a /26.
pub const APP_NETWORK_BITS: u32 = 26;
/// Most idle connections kept to one instance.
pub const MAX_IDLE_PER_INSTANCE: usize = 256;
/// Most requests of one app that wait while it is held.
pub const MAX_HELD_PER_APP: u32 = 1_024;
/// Longest hold that the agent may ask for.
pub const MAX_HOLD: Duration = Duration::from_secs(600);
/// Lines of the access log that wait for the writer; more are counted and dropped.
pub const ACCESS_LOG_QUEUE: usize = 8_192;
/// Most bytes of a path or host in the access log.
pub const MAX_LOGGED_TEXT_BYTES: usize = 1_024;
/// Most bytes of a message of the agent: the largest table, and what frames it.
pub const MAX_CONTROL_BYTES: usize = refloat_model::route::MAX_TABLE_BYTES + 1024;
/// Most bytes of the index of one published tree.
pub const MAX_TREE_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// Pause of the acceptor when the process has no descriptor left.
pub const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// How long a connection to an instance may idle: below the 5 s after which Node closes one.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(4);
/// The same for a request that must not be sent twice: such a one cannot be retried when the app closes meanwhile.
pub const UPSTREAM_IDLE_UNREPEATABLE: Duration = Duration::from_secs(1);
/// How often idle connections to instances are looked through.
pub const POOL_SWEEP: Duration = Duration::from_secs(1);
/// What `Retry-After` says, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 5;

/// How many connections one client may have; [`ClientLimit::default`] is what runs in production.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimit {
    /// Most connections of one client.
    pub connections: u32,
    /// Whether clients on the host itself have no limit: a proxy in front, or a load generator, is one address.
    pub loopback_exempt: bool,
}

impl Default for ClientLimit {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS_PER_CLIENT, loopback_exempt: true }
    }
}

/// The times that a test shortens; [`Timeouts::default`] is what runs in production.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a head, or the opening of the connection, to its end.
    pub head: Duration,
    /// Without a byte between two requests of one connection.
    pub keep_alive: Duration,
    /// Connecting to an instance.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub response_head: Duration,
    /// Between two reads or writes of a body.
    pub body_idle: Duration,
    /// Without a byte in either direction of an upgraded connection.
    pub tunnel_idle: Duration,
    /// After one side of an upgraded connection has ended.
    pub tunnel_half_closed: Duration,
    /// Reading on after the last answer.
    pub linger: Duration,
    /// From SIGTERM to the end.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(300),
            body_idle: Duration::from_secs(300),
            tunnel_idle: Duration::from_secs(3_600),
            tunnel_half_closed: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            drain: Duration::from_secs(30),
        }
    }
}
