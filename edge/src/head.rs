//! Heads of requests and responses: the strict reading of RFC 9112.
//!
//! Two programs that read one head differently are how a request is smuggled, so nothing is repaired here: a head
//! means exactly one thing or it is refused. The raw bytes are checked first (line ends, folding, control characters),
//! then `httparse` splits them, then the fields that say where the message ends are checked against each other. The
//! parts are kept as positions in the received bytes; nothing is copied.
//!
//! Deliberately absent: any read or write. `docs/decisions/0001-edge-codec.md` lists what is accepted beyond the letter
//! of the standard and why.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;

use crate::limits::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS, MAX_METHOD_BYTES};

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A line that does not end in CR LF, or a CR elsewhere.
    #[error("a line does not end in CR LF")]
    LineEnd,
    /// NUL or another control character.
    #[error("a control character")]
    Control,
    /// A line that goes on in the next one.
    #[error("a folded line")]
    Folded,
    /// Not the grammar of a head.
    #[error("not the grammar of a head")]
    Syntax,
    /// A version other than 1.0 and 1.1.
    #[error("a version other than HTTP/1.0 and HTTP/1.1")]
    Version,
    /// Longer than [`MAX_HEAD_BYTES`] or more fields than [`MAX_HEAD_FIELDS`].
    #[error("a head that is too large")]
    TooLarge,
    /// A method with a character that none has, or one that is too long.
    #[error("an impossible method")]
    Method,
    /// A target that is not `/path?query`, `http://host/path`, or `*` for OPTIONS.
    #[error("an impossible target")]
    Target,
    /// None, two, or an impossible one.
    #[error("not exactly one valid Host")]
    Host,
    /// Two, or not digits only, or too large.
    #[error("not one valid Content-Length")]
    ContentLength,
    /// Anything but one `chunked` on HTTP/1.1.
    #[error("a Transfer-Encoding other than chunked")]
    TransferEncoding,
    /// Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// An expectation that is not `100-continue`.
    #[error("an unknown expectation")]
    Expectation,
    /// CONNECT or TRACE.
    #[error("a method that the edge never forwards")]
    Forbidden,
}

impl HeadError {
    /// The status that a client is answered with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TooLarge => 431,
            Self::Expectation => 417,
            Self::Forbidden => 405,
            _ => 400,
        }
    }
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection: responses only.
    Close,
}

impl Framing {
    /// Whether a byte of body can follow.
    #[must_use]
    pub fn has_body(self) -> bool {
        !matches!(self, Self::None | Self::Length(0))
    }
}

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The methods that the edge treats in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// PUT and DELETE: may be repeated.
    Idempotent,
    /// All others.
    Other,
}

impl Verb {
    fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PUT" | b"DELETE" => Self::Idempotent,
            _ => Self::Other,
        }
    }

    /// Whether sending a request twice means the same as once (RFC 9110, 9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        self != Self::Other
    }
}

/// What a field is to the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Passed on as it is.
    EndToEnd,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `Date`: end to end, noticed so that it is added when absent.
    Date,
    /// For this connection only: never passed on.
    HopByHop,
    /// Says who the client is or which request this "really" is: only the edge may say that.
    Untrusted,
}

fn kind_of(name: &[u8]) -> FieldKind {
    let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
    let starts = |text: &str| name.get(..text.len()).is_some_and(|n| n.eq_ignore_ascii_case(text.as_bytes()));
    match name.first().map(u8::to_ascii_lowercase) {
        // A server that maps names to variables takes `X_Forwarded_For` for `X-Forwarded-For`.
        _ if name.contains(&b'_') => FieldKind::Untrusted,
        Some(b'c') if is("connection") => FieldKind::Connection,
        Some(b'c') if is("content-length") => FieldKind::ContentLength,
        Some(b'd') if is("date") => FieldKind::Date,
        Some(b'e') if is("expect") => FieldKind::Expect,
        Some(b'f') if is("forwarded") => FieldKind::Untrusted,
        Some(b'h') if is("host") => FieldKind::Host,
        Some(b'h') if is("http2-settings") => FieldKind::HopByHop,
        Some(b'k') if is("keep-alive") => FieldKind::HopByHop,
        Some(b'p') if is("proxy") => FieldKind::Untrusted,
        Some(b'p') if is("proxy-connection") || is("proxy-authorization") || is("proxy-authenticate") => {
            FieldKind::HopByHop
        }
        Some(b't') if is("te") || is("trailer") => FieldKind::HopByHop,
        Some(b't') if is("transfer-encoding") => FieldKind::TransferEncoding,
        Some(b'u') if is("upgrade") => FieldKind::Upgrade,
        Some(b'x') if starts("x-forwarded-") || is("x-real-ip") || is("x-middleware-subrequest") => {
            FieldKind::Untrusted
        }
        Some(b'x') if is("x-original-url") || is("x-rewrite-url") => FieldKind::Untrusted,
        _ => FieldKind::EndToEnd,
    }
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const EMPTY: Self = Self { start: 0, end: 0 };

    /// Where `part` lies in `whole`, of which it must be a part.
    fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if (end as usize) <= whole.len() => Self { start, end },
            _ => Self::EMPTY,
        }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[derive(Debug, Clone, Copy)]
struct FieldAt {
    name: Span,
    value: Span,
    kind: FieldKind,
}

/// One field of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Its name as received.
    pub name: &'a [u8],
    /// Its value without surrounding blanks.
    pub value: &'a [u8],
    /// What it is to the edge.
    pub kind: FieldKind,
}

/// The fields of a head, in the order received.
#[derive(Debug, Clone)]
struct Fields {
    bytes: Bytes,
    at: Vec<FieldAt>,
}

impl Fields {
    fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.at.iter().map(|f| Field {
            name: &self.bytes[f.name.range()],
            value: &self.bytes[f.value.range()],
            kind: f.kind,
        })
    }

    fn of_kind(&self, kind: FieldKind) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |f| f.kind == kind).map(|f| f.value)
    }

    /// Whether a list field has an element, without regard to case.
    fn lists(&self, kind: FieldKind, element: &str) -> bool {
        self.of_kind(kind).flat_map(elements).any(|e| e.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// Names that `Connection` makes hop-by-hop.
    fn nominated(&self) -> Vec<&[u8]> {
        let own = |e: &&[u8]| ![&b"close"[..], b"keep-alive", b"upgrade"].iter().any(|o| e.eq_ignore_ascii_case(o));
        self.of_kind(FieldKind::Connection).flat_map(elements).filter(own).collect()
    }

    /// The fields that are passed on.
    fn end_to_end(&self) -> impl Iterator<Item = Field<'_>> {
        let nominated = self.nominated();
        self.iter().filter(move |f| {
            matches!(f.kind, FieldKind::EndToEnd | FieldKind::Date)
                && !nominated.iter().any(|n| n.eq_ignore_ascii_case(f.name))
        })
    }

    /// How long the body is by its fields; `None` when they do not say.
    fn framing(&self, version: Version) -> Result<Option<Framing>, HeadError> {
        let mut lengths = self.of_kind(FieldKind::ContentLength);
        let mut codings = self.of_kind(FieldKind::TransferEncoding);
        match (lengths.next(), codings.next()) {
            (Some(_), Some(_)) => Err(HeadError::TwoLengths),
            (None, None) => Ok(None),
            (Some(length), None) => match lengths.next() {
                None => content_length(length).map(|n| Some(Framing::Length(n))),
                Some(_) => Err(HeadError::ContentLength),
            },
            (None, Some(coding)) => {
                let one = codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked");
                if one && version == Version::Http11 {
                    Ok(Some(Framing::Chunked))
                } else {
                    Err(HeadError::TransferEncoding)
                }
            }
        }
    }
}

fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim_blanks).filter(|e| !e.is_empty())
}

fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits only, at most 18 of them: no sign, no blank, no list, no overflow.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Looks for the end of a head and refuses a bad line end as soon as it is there.
///
/// `scanned` remembers what was looked at, so that a head that arrives byte by byte is looked at once.
///
/// # Errors
/// A line that ends in a bare LF, a first byte that no head starts with, or too many bytes.
pub fn find_end(buffer: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    if buffer.first().is_some_and(|b| !is_token_byte(*b)) {
        return Err(HeadError::Syntax);
    }
    while let Some(at) = memchr::memchr(b'\n', &buffer[*scanned..]).map(|i| i + *scanned) {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(HeadError::LineEnd);
        }
        *scanned = at + 1;
        if buffer[..at].ends_with(b"\r\n\r") {
            return if at < MAX_HEAD_BYTES { Ok(Some(at + 1)) } else { Err(HeadError::TooLarge) };
        }
    }
    *scanned = buffer.len();
    if buffer.len() >= MAX_HEAD_BYTES { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// What must hold of every byte of a head before it is split.
fn check_bytes(head: &[u8]) -> Result<(), HeadError> {
    let mut previous = 0;
    for &byte in head {
        match (previous, byte) {
            (b'\r', b'\n') => {}
            (b'\r', _) | (_, b'\n') => return Err(HeadError::LineEnd),
            (b'\n', b' ' | b'\t') => return Err(HeadError::Folded),
            (_, b'\r' | b'\t') => {}
            (_, 0..=0x1f | 0x7f) => return Err(HeadError::Control),
            _ => {}
        }
        previous = byte;
    }
    Ok(())
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn locate(head: &[u8], parsed: &[httparse::Header<'_>]) -> Result<Vec<FieldAt>, HeadError> {
    let mut at = Vec::with_capacity(parsed.len());
    for header in parsed {
        if header.name.is_empty() {
            return Err(HeadError::Syntax);
        }
        let name = header.name.as_bytes();
        at.push(FieldAt {
            name: Span::of(head, name),
            value: Span::of(head, trim_blanks(header.value)),
            kind: kind_of(name),
        });
    }
    Ok(at)
}

fn parse_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Version,
        _ => HeadError::Syntax,
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct RequestHead {
    fields: Fields,
    method: Span,
    path: Span,
    query: Span,
    authority: Option<Span>,
    host: Option<Box<str>>,
    /// Whether the target is `*`.
    pub is_asterisk: bool,
    /// What kind of method it is.
    pub verb: Verb,
    /// The version of the client.
    pub version: Version,
    /// How its body ends.
    pub body: Framing,
    /// Whether the client wants the connection kept.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether it asks for a WebSocket.
    pub upgrades: bool,
}

impl RequestHead {
    /// Reads a head that [`find_end`] found the end of.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        check_bytes(&bytes)?;
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEAD_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(&bytes, &mut headers) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Ok(_) => return Err(HeadError::Syntax),
            Err(httparse::Error::Version) => return Err(version_error(&bytes)),
            Err(error) => return Err(parse_error(error)),
        }
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(HeadError::Syntax);
        };
        if method.len() > MAX_METHOD_BYTES || !method.bytes().all(is_token_byte) {
            return Err(HeadError::Method);
        }
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(HeadError::Forbidden);
        }
        let version = if minor == 1 { Version::Http11 } else { Version::Http10 };
        let target = Target::parse(method, target.as_bytes())?;
        let head = Self {
            method: Span::of(&bytes, method.as_bytes()),
            path: Span::of(&bytes, target.path),
            query: Span::of(&bytes, target.query),
            authority: target.authority.map(|a| Span::of(&bytes, a)),
            host: None,
            is_asterisk: target.path == b"*",
            verb: Verb::of(method.as_bytes()),
            version,
            body: Framing::None,
            keep_alive: false,
            expects_continue: false,
            upgrades: false,
            fields: Fields { at: locate(&bytes, parsed.headers)?, bytes },
        };
        head.interpret()
    }

    fn interpret(mut self) -> Result<Self, HeadError> {
        self.interpret_host()?;
        self.body = self.fields.framing(self.version)?.unwrap_or(Framing::None);
        let modern = self.version == Version::Http11;
        self.keep_alive = !self.fields.lists(FieldKind::Connection, "close")
            && (modern || self.fields.lists(FieldKind::Connection, "keep-alive"));
        for expectation in self.fields.of_kind(FieldKind::Expect) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(HeadError::Expectation);
            }
        }
        self.expects_continue =
            modern && self.body.has_body() && self.fields.of_kind(FieldKind::Expect).next().is_some();
        self.upgrades = modern && self.asks_for_websocket();
        Ok(self)
    }

    /// Only WebSocket: an upgrade to h2c would carry requests past every rule of the edge.
    fn asks_for_websocket(&self) -> bool {
        let mut upgrades = self.fields.of_kind(FieldKind::Upgrade);
        self.verb == Verb::Get
            && !self.body.has_body()
            && self.fields.lists(FieldKind::Connection, "upgrade")
            && upgrades.next().is_some_and(|u| u.eq_ignore_ascii_case(b"websocket"))
            && upgrades.next().is_none()
    }

    fn interpret_host(&mut self) -> Result<(), HeadError> {
        let hosts: Vec<Span> = self.fields.at.iter().filter(|f| f.kind == FieldKind::Host).map(|f| f.value).collect();
        let named = match (hosts.as_slice(), self.version) {
            ([one], _) => Some(*one),
            ([], Version::Http10) => None,
            _ => return Err(HeadError::Host),
        };
        if let Some(span) = named {
            host_of(&self.fields.bytes[span.range()]).ok_or(HeadError::Host)?;
        }
        // The authority of an absolute target replaces Host (RFC 9112, 3.2.2).
        self.authority = self.authority.or(named);
        if let Some(span) = self.authority {
            self.host = Some(host_of(&self.fields.bytes[span.range()]).ok_or(HeadError::Host)?);
        }
        Ok(())
    }

    /// The method as received.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The path as received, without query: starts with `/`, or is `*`.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.start == self.path.end { "/" } else { self.text(self.path) }
    }

    /// The query with its question mark, or nothing.
    #[must_use]
    pub fn query(&self) -> &str {
        self.text(self.query)
    }

    /// Host and port as the client wrote them.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.map(|span| self.text(span))
    }

    /// The host in lower case, without port and trailing dot.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The value of a field that may be given once; `None` when it is absent or given twice.
    #[must_use]
    pub fn single<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.all(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// Every value of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(|f| f.name.eq_ignore_ascii_case(name.as_bytes()))
            .filter_map(|f| std::str::from_utf8(f.value).ok())
    }

    /// The fields that are passed on: not those of this connection, not those that only the edge may set.
    pub fn end_to_end(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.end_to_end()
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.fields.bytes[span.range()]).unwrap_or("")
    }
}

/// `HTTP/9.9` is another version, `HTPP/1.1` is nonsense.
fn version_error(head: &[u8]) -> HeadError {
    let line = head.split(|b| *b == b'\r').next().unwrap_or(head);
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [_, _, word] = words[..] else { return HeadError::Syntax };
    match word {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            HeadError::Version
        }
        _ => HeadError::Syntax,
    }
}

struct Target<'a> {
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: &'a [u8],
}

impl<'a> Target<'a> {
    fn parse(method: &str, target: &'a [u8]) -> Result<Self, HeadError> {
        if !target.iter().all(|b| matches!(b, 0x21..=0x7e) && !b"\"<>#".contains(b)) {
            return Err(HeadError::Target);
        }
        if target == b"*" && method == "OPTIONS" {
            return Ok(Self { authority: None, path: target, query: b"" });
        }
        let (authority, rest) = match target {
            [b'/', ..] => (None, target),
            _ => split_absolute(target).ok_or(HeadError::Target)?,
        };
        let mark = memchr::memchr(b'?', rest).unwrap_or(rest.len());
        let (path, query) = rest.split_at(mark);
        if is_plain_path(path) { Ok(Self { authority, path, query }) } else { Err(HeadError::Target) }
    }
}

/// `http://host:port/path?query` as authority and the rest.
fn split_absolute(target: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let scheme = |name: &str| {
        target.get(..name.len()).filter(|s| s.eq_ignore_ascii_case(name.as_bytes())).map(|_| &target[name.len()..])
    };
    let rest = scheme("http://").or_else(|| scheme("https://"))?;
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Some((Some(authority), rest))
}

/// A path that every program reads alike: whole percent escapes, no escaped NUL, no backslash, no `.` or `..` segment
/// in any spelling. Prefixes could be walked around otherwise. Browsers resolve such segments before they send.
fn is_plain_path(path: &[u8]) -> bool {
    let Some(decoded) = percent_decoded(path) else { return false };
    if decoded.contains(&0) || path.contains(&b'\\') {
        return false;
    }
    !decoded.split(|b| *b == b'/' || *b == b'\\').any(|segment| segment == b"." || segment == b"..")
}

/// Decodes percent escapes once; `None` when one is not whole.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    if memchr::memchr(b'%', text).is_none() {
        return Some(text.into());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(*bytes.next()?).to_digit(16)?;
            let low = char::from(*bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out.into())
}

/// The host of `host:port`, in lower case without a trailing dot; `None` when it is not one.
fn host_of(authority: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..address.len() + 2], after.strip_prefix(':').map_or_else(|| after.is_empty().then_some("0"), Some)?)
        }
        None => text.split_once(':').unwrap_or((text, "0")),
    };
    let port_ok = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let host_ok = host.starts_with('[')
        || (!host.is_empty() && host.len() <= 254 && host.bytes().all(name) && !host.starts_with('.'));
    if !port_ok || !host_ok {
        return None;
    }
    Some(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().into_boxed_str())
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    fields: Fields,
    reason: Span,
    /// The status, 100 to 999.
    pub status: u16,
    /// The version of the instance.
    pub version: Version,
    /// Whether the instance keeps the connection.
    pub keep_alive: bool,
    /// Content-Length or chunked, when a field says so.
    pub declared: Option<Framing>,
}

impl ResponseHead {
    /// Reads a head that [`find_end`] found the end of.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        check_bytes(&bytes)?;
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEAD_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &bytes, &mut headers) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Ok(_) => return Err(HeadError::Syntax),
            Err(error) => return Err(parse_error(error)),
        }
        let (Some(status @ 100..=999), Some(minor)) = (parsed.code, parsed.version) else {
            return Err(HeadError::Syntax);
        };
        let version = if minor == 1 { Version::Http11 } else { Version::Http10 };
        let reason = parsed.reason.map_or(Span::EMPTY, |r| Span::of(&bytes, r.as_bytes()));
        let fields = Fields { at: locate(&bytes, parsed.headers)?, bytes };
        Ok(Self {
            reason,
            status,
            version,
            keep_alive: version == Version::Http11 && !fields.lists(FieldKind::Connection, "close"),
            declared: fields.framing(version)?,
            fields,
        })
    }

    /// How the body of this answer to a request with `verb` ends (RFC 9112, 6.3).
    #[must_use]
    pub fn framing(&self, verb: Verb) -> Framing {
        match (verb, self.status) {
            (Verb::Head, _) | (_, 100..=199 | 204 | 304) => Framing::None,
            _ => self.declared.unwrap_or(Framing::Close),
        }
    }

    /// The reason phrase as received.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        &self.fields.bytes[self.reason.range()]
    }

    /// Whether the instance agrees to a WebSocket.
    #[must_use]
    pub fn upgrades(&self) -> bool {
        let mut upgrades = self.fields.of_kind(FieldKind::Upgrade);
        self.status == 101
            && self.version == Version::Http11
            && self.fields.lists(FieldKind::Connection, "upgrade")
            && upgrades.next().is_some_and(|u| u.eq_ignore_ascii_case(b"websocket"))
            && upgrades.next().is_none()
    }

    /// Whether the instance gave a date.
    #[must_use]
    pub fn has_date(&self) -> bool {
        self.fields.of_kind(FieldKind::Date).next().is_some()
    }

    /// The fields that are passed on. Names with an underscore are the app's own and pass.
    pub fn end_to_end(&self) -> impl Iterator<Item = Field<'_>> {
        let nominated = self.fields.nominated();
        self.fields.iter().filter(move |f| {
            matches!(f.kind, FieldKind::EndToEnd | FieldKind::Date | FieldKind::Untrusted)
                && !nominated.iter().any(|n| n.eq_ignore_ascii_case(f.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(bytes: &[u8]) -> Result<RequestHead, HeadError> {
        let mut scanned = 0;
        match find_end(bytes, &mut scanned)? {
            Some(end) => RequestHead::parse(Bytes::copy_from_slice(&bytes[..end])),
            None => Err(HeadError::Syntax),
        }
    }

    #[test]
    fn the_parts_of_a_head_are_found() {
        let head =
            request(b"POST /a/b?c=d HTTP/1.1\r\nHost: A.Test:80\r\nContent-Length: 7\r\nX-A:  y \r\n\r\nrest").unwrap();
        assert_eq!((head.method(), head.path(), head.query()), ("POST", "/a/b", "?c=d"));
        assert_eq!((head.authority(), head.host()), (Some("A.Test:80"), Some("a.test")));
        assert_eq!((head.body, head.keep_alive, head.single("x-a")), (Framing::Length(7), true, Some("y")));
        let passed: Vec<_> = head.end_to_end().map(|f| f.name.to_vec()).collect();
        assert_eq!(passed, [b"X-A".to_vec()]);
    }

    /// Bytes that look enough like a head to get past the first check.
    fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()),
            Just(b"POST http://a/%2e HTTP/1.0\r\n".to_vec()),
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"Host: a\r\n".to_vec()),
            Just(b"Host: [::1]:80\r\n".to_vec()),
            Just(b"Content-Length: 5\r\n".to_vec()),
            Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"Connection: upgrade, x,,\r\n".to_vec()),
            Just(b"Upgrade: websocket\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b": ".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop_oneof![nearly_a_head(), proptest::collection::vec(any::<u8>(), 0..200)]) {
            let whole = Bytes::copy_from_slice(&bytes);
            if let Ok(head) = RequestHead::parse(whole.clone()) {
                let _ = (head.method(), head.path(), head.query(), head.authority(), head.host());
                let _ = head.end_to_end().count();
            }
            if let Ok(head) = ResponseHead::parse(whole) {
                let _ = (head.reason(), head.framing(Verb::Get), head.upgrades(), head.end_to_end().count());
            }
        }

        #[test]
        fn what_is_accepted_has_one_end_and_one_host(bytes in nearly_a_head()) {
            if let Ok(head) = request(&bytes) {
                let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                let head_text = text.split("\r\n\r\n").next().unwrap_or("");
                prop_assert!(!(head_text.contains("\r\ncontent-length:") && head_text.contains("\r\ntransfer-encoding:")));
                prop_assert!(head.version == Version::Http10 || head.host().is_some());
                prop_assert!(head.is_asterisk || head.path().starts_with('/'));
            }
        }

        #[test]
        fn the_end_is_the_same_however_the_bytes_arrive(bytes in nearly_a_head()) {
            let whole = find_end(&bytes, &mut 0);
            let mut scanned = 0;
            let piecewise = (1..=bytes.len()).map(|n| find_end(&bytes[..n], &mut scanned)).find(|r| *r != Ok(None));
            prop_assert_eq!(piecewise.unwrap_or(Ok(None)), whole);
        }
    }
}
