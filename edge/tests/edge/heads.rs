//! Strict heads: what is refused, also as the n-th request of a connection, and what an app is shown.

use std::time::Duration;

use crate::app::{App, ok};
use crate::rig::{Rig, app_routes, instance};
use crate::wire::Wire;

const LONG: usize = 70 * 1024;

/// Name, bytes, status.
fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let head = |text: &str| text.as_bytes().to_vec();
    let post = |fields: &str, body: &str| head(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"));
    let get = |fields: &str| head(&format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let line = |line: &str| head(&format!("{line}\r\nHost: a\r\n\r\n"));
    let many: String = (0..101).map(|i| format!("X-{i}: y\r\n")).collect();
    vec![
        ("both lengths", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("both lengths turned", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        ("two equal lengths", post("Content-Length: 0\r\nContent-Length: 0\r\n", ""), 400),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n", ""), 400),
        ("a list of lengths", post("Content-Length: 0, 0\r\n", ""), 400),
        ("a signed length", post("Content-Length: +5\r\n", "abcde"), 400),
        ("a negative length", post("Content-Length: -1\r\n", ""), 400),
        ("a spaced length", post("Content-Length: 5 5\r\n", "abcde"), 400),
        ("an empty length", post("Content-Length:\r\n", ""), 400),
        ("a hexadecimal length", post("Content-Length: 0x5\r\n", "abcde"), 400),
        ("a length of 2^64", post("Content-Length: 18446744073709551616\r\n", ""), 400),
        ("a length of 2^64 + 5", post("Content-Length: 18446744073709551621\r\n", "abcde"), 400),
        ("coding identity", post("Transfer-Encoding: identity\r\n", ""), 400),
        ("coding xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400),
        ("coding gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400),
        ("coding chunked, chunked", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400),
        ("coding chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400),
        ("coding with vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400),
        ("coding quoted", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), 400),
        ("coding with parameter", post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), 400),
        ("coding empty", post("Transfer-Encoding:\r\n", ""), 400),
        ("coding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("coding twice, one identity", post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", ""), 400),
        ("coding on 1.0", head("POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("coding, space before colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        ("coding, tab before colon", post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), 400),
        ("bare line feeds", head("GET /x HTTP/1.1\nHost: a\n\n"), 400),
        ("one bare line feed", head("GET /x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"), 400),
        ("end by a bare line feed", head("GET /x HTTP/1.1\r\nHost: a\r\n\n"), 400),
        ("bare carriage return", get("X: a\rb\r\n"), 400),
        ("two carriage returns", head("GET /x HTTP/1.1\r\nHost: a\r\r\n\r\n"), 400),
        ("folded with space", get("X: a\r\n b\r\n"), 400),
        ("folded with tab", get("X: a\r\n\tb\r\n"), 400),
        ("folded first field", head("GET /x HTTP/1.1\r\n Host: a\r\n\r\n"), 400),
        ("space before colon", get("X : a\r\n"), 400),
        ("no colon", get("X\r\n"), 400),
        ("no name", get(": a\r\n"), 400),
        ("space in name", get("X Y: a\r\n"), 400),
        ("NUL in value", get("X: a\0b\r\n"), 400),
        ("NUL in name", get("X\0: a\r\n"), 400),
        ("bell in value", get("X: \x07\r\n"), 400),
        ("delete in value", get("X: \x7f\r\n"), 400),
        ("high byte in name", b"GET /x HTTP/1.1\r\nHost: a\r\nX\xff: a\r\n\r\n".to_vec(), 400),
        ("no Host", head("GET /x HTTP/1.1\r\n\r\n"), 400),
        ("two Hosts", get("Host: a\r\n"), 400),
        ("two different Hosts", get("Host: b\r\n"), 400),
        ("empty Host", head("GET /x HTTP/1.1\r\nHost:\r\n\r\n"), 400),
        ("Host with path", head("GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400),
        ("Host with user", head("GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n"), 400),
        ("Host with letters as port", head("GET /x HTTP/1.1\r\nHost: a:b\r\n\r\n"), 400),
        ("Host list", head("GET /x HTTP/1.1\r\nHost: a, b\r\n\r\n"), 400),
        ("Host half an address", head("GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n"), 400),
        ("two Hosts on 1.0", head("GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400),
        ("absolute target with bad Host", head("GET http://a/x HTTP/1.1\r\nHost: a b\r\n\r\n"), 400),
        ("absolute target without Host", head("GET http://a/x HTTP/1.1\r\n\r\n"), 400),
        ("absolute target with user", line("GET http://u@a/x HTTP/1.1"), 400),
        ("absolute target of a foreign scheme", line("GET ftp://a/x HTTP/1.1"), 400),
        ("absolute target without host", line("GET http:///x HTTP/1.1"), 400),
        ("no slash", line("GET x HTTP/1.1"), 400),
        ("asterisk with GET", line("GET * HTTP/1.1"), 400),
        ("fragment", line("GET /x#y HTTP/1.1"), 400),
        ("quote in target", line("GET /\"x HTTP/1.1"), 400),
        ("high byte in target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        ("tab in request line", line("GET\t/x HTTP/1.1"), 400),
        ("two spaces", line("GET  /x HTTP/1.1"), 400),
        ("space in target", line("GET /x y HTTP/1.1"), 400),
        ("space at the end", line("GET /x HTTP/1.1 "), 400),
        ("no version", line("GET /x"), 400),
        ("no target", line("GET HTTP/1.1"), 400),
        ("bad method", line("G@T /x HTTP/1.1"), 400),
        ("bracketed method", line("(GET) /x HTTP/1.1"), 400),
        ("a method of 33 bytes", line(&format!("{} /x HTTP/1.1", "A".repeat(33))), 400),
        ("dot segment", line("GET /x/../y HTTP/1.1"), 400),
        ("dot segment at the end", line("GET /x/.. HTTP/1.1"), 400),
        ("single dot", line("GET /./x HTTP/1.1"), 400),
        ("escaped dot segment", line("GET /x/%2e%2E/y HTTP/1.1"), 400),
        ("half escaped dot segment", line("GET /x/.%2e/y HTTP/1.1"), 400),
        ("dot segment behind an escaped slash", line("GET /x%2f..%2fy HTTP/1.1"), 400),
        ("dot segment behind an escaped backslash", line("GET /x%5c..%5cy HTTP/1.1"), 400),
        ("backslash", line("GET /x\\..\\y HTTP/1.1"), 400),
        ("escaped NUL", line("GET /x%00 HTTP/1.1"), 400),
        ("half an escape", line("GET /x%2 HTTP/1.1"), 400),
        ("no escape", line("GET /x%zz HTTP/1.1"), 400),
        ("version 2.0", line("GET /x HTTP/2.0"), 505),
        ("version 1.2", line("GET /x HTTP/1.2"), 505),
        ("version 0.9", line("GET /x HTTP/0.9"), 505),
        ("lower-case version", line("GET /x http/1.1"), 400),
        ("version nonsense", line("GET /x HTTP/1.1.1"), 400),
        ("leading space", head(" GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        ("leading line feed", head("\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        ("two empty lines", head("\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01".to_vec(), 400),
        ("CONNECT", line("CONNECT a:443 HTTP/1.1"), 405),
        ("TRACE", line("TRACE /x HTTP/1.1"), 405),
        ("foreign expectation", post("Expect: money\r\nContent-Length: 1\r\n", "a"), 417),
        ("101 fields", get(&many), 431),
        ("a long field", get(&format!("X: {}\r\n", "a".repeat(LONG))), 431),
        ("a long target", line(&format!("GET /{} HTTP/1.1", "a".repeat(LONG))), 431),
    ]
}

/// The statuses that a connection brought, in order.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    text.split("HTTP/1.1 ").skip(1).map(|part| part[..3].parse().unwrap()).collect()
}

#[tokio::test]
async fn a_malformed_head_is_refused_and_the_connection_ends_and_no_app_sees_it() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    for (name, bytes, status) in malformed() {
        let mut wire = Wire::open(rig.address()).await;
        wire.send([&bytes[..], b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
        assert_eq!(statuses(&wire.rest().await), [status], "{name}");
    }
    assert_eq!(app.count(), 0, "no byte of them reached the app");
}

#[tokio::test]
async fn a_malformed_head_is_refused_as_the_third_request_of_a_pipelined_connection() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    let first = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
    let second = "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    for (name, bytes, status) in malformed() {
        // What one empty line and more before a request means is for the first two rows of a connection.
        let before = app.count();
        let mut wire = Wire::open(rig.address()).await;
        wire.send([first.as_bytes(), second.as_bytes(), &bytes, first.as_bytes()].concat()).await;
        assert_eq!(statuses(&wire.rest().await), [200, 200, status], "{name}");
        assert_eq!(app.count() - before, 2, "{name}: the app sees the two requests and nothing else");
    }
}

#[tokio::test]
async fn a_malformed_chunked_body_is_refused_and_ends_the_connection() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
    for body in [
        "1\na\r\n0\r\n\r\n",
        "1;a=\nb\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1_0\r\na\r\n0\r\n\r\n",
        "\r\na\r\n0\r\n\r\n",
        "g\r\na\r\n0\r\n\r\n",
        "10000000000000000\r\na\r\n0\r\n\r\n",
        "ffffffffffffffff\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\naXX0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n folded\r\n\r\n",
        &extension,
    ] {
        let before = app.count();
        let mut wire = Wire::open(rig.address()).await;
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        wire.send(format!("{head}{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(statuses(&wire.rest().await), [400], "{body:?}");
        assert_eq!(app.count(), before, "{body:?}: the app got no whole request");
    }
}

#[tokio::test]
async fn what_is_strange_but_means_one_thing_is_understood() {
    let app = App::answering(|head, _| ok(head.lines().next().unwrap())).await;
    let rig = Rig::serving(app.address).await;
    for (request, expected) in [
        ("\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x HTTP/1.1"),
        ("GET http://A.test:80/x?y HTTP/1.1\r\nHost: other\r\n\r\n", "GET /x?y HTTP/1.1"),
        ("GET http://a.test HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
        ("GET http://a.test?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?y HTTP/1.1"),
        ("GET /x?../..%2e%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?../..%2e%zz HTTP/1.1"),
        ("GET //x//y HTTP/1.1\r\nHost: a\r\n\r\n", "GET //x//y HTTP/1.1"),
        ("GET /@s%2fname HTTP/1.1\r\nHost: a\r\n\r\n", "GET /@s%2fname HTTP/1.1"),
        ("GET /x?a|b{c}^d` HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?a|b{c}^d` HTTP/1.1"),
        ("PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n", "PROPFIND /x HTTP/1.1"),
        ("GET /x HTTP/1.1\r\nhOST:\t a \r\nX-Empty:\r\n\r\n", "GET /x HTTP/1.1"),
        ("GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /x HTTP/1.1"),
        ("GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1"),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n1;a=b\r\nx\r\n0\r\nT: u\r\n\r\n",
            "POST /x HTTP/1.1",
        ),
    ] {
        let mut wire = Wire::open(rig.address()).await;
        wire.send(request).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{request:?}");
    }
    let mut wire = Wire::open(rig.address()).await;
    wire.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200, "the edge answers for itself");
}

#[tokio::test]
async fn an_app_is_told_who_asks_by_the_edge_alone() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send(
        "GET http://a.test/x?q HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\n\
         X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         X_Forwarded_For: 6.6.6.6\r\nX-Middleware-Subrequest: middleware\r\nProxy: http://evil\r\n\
         X-Original-URL: /admin\r\nConnection: keep-alive, X-Nominated\r\nX-Nominated: 1\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\
         Expect: 100-continue\r\nCookie: a=b\r\nAuthorization: Bearer t\r\n\r\n",
    )
    .await;
    assert_eq!(wire.answer().await.status, 200);
    let (head, _) = app.last();
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    lines.sort_unstable();
    let expected = [
        "Authorization: Bearer t",
        "Cookie: a=b",
        "GET /x?q HTTP/1.1",
        "Host: a.test",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: a.test",
        "X-Forwarded-Proto: http",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_head_that_never_ends_is_answered_408() {
    let app = App::named("fine").await;
    let mut rig = Rig::impatient(|t| t.head = Duration::from_millis(100)).await;
    rig.activate(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("GET /x HTTP/1.1\r\nHo").await;
    assert_eq!(statuses(&wire.rest().await), [408]);
    let mut silent = Wire::open(rig.address()).await;
    assert_eq!(silent.rest().await, b"", "who says nothing is answered nothing");
}

#[tokio::test]
async fn a_head_that_arrives_byte_by_byte_is_understood() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    for byte in b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" {
        wire.send([*byte]).await;
    }
    assert_eq!(wire.answer().await.text(), "fine");
}
