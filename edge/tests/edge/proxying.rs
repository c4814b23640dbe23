//! Bodies, connections and everything else between a client and an app.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::app::{App, Peer, ok};
use crate::rig::{Rig, app_routes, eventually, instance};
use crate::wire::{Wire, get};

const MEGABYTE: usize = 1024 * 1024;

#[tokio::test]
async fn a_body_of_a_known_length_arrives_whole() {
    let app = App::named("got it").await;
    let rig = Rig::serving(app.address).await;
    let body: Vec<u8> = (0..3 * MEGABYTE).map(|i| (i % 251) as u8).collect();
    let mut wire = Wire::open(rig.address()).await;
    wire.send(format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    wire.send(&body).await;
    assert_eq!(wire.answer().await.text(), "got it");
    let (head, seen) = app.last();
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(seen == body);
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_without_extensions_and_trailers() {
    let app = App::named("got it").await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let body: Vec<u8> = (0..MEGABYTE).map(|i| (i % 253) as u8).collect();
    for piece in body.chunks(70_001) {
        wire.send(format!("{:X};ext=\"1\"\r\n", piece.len())).await;
        wire.send(piece).await;
        wire.send("\r\n").await;
    }
    wire.send("0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "got it");
    let (head, seen) = app.last();
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n") && !head.contains("6.6.6.6"), "{head}");
    assert!(seen == body);
    assert_eq!(wire.get("/next").await.text(), "got it", "the connection goes on");
}

#[tokio::test]
async fn a_response_arrives_whole_however_it_is_framed() {
    let body = "x".repeat(200_000);
    let expected = body.clone();
    let app = App::answering(move |head, _| {
        let framed = match head.split(' ').nth(1).unwrap() {
            "/length" => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            "/chunked" => {
                let (a, b) = body.split_at(70_000);
                format!(
                    "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x};e\r\n{b}\r\n0\r\nT: u\r\n\r\n",
                    a.len(),
                    b.len()
                )
            }
            other => panic!("{other}"),
        };
        format!("HTTP/1.1 200 Fine\r\nX-App: yes\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 9\r\n{framed}")
            .into_bytes()
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    for path in ["/length", "/chunked", "/length"] {
        let answer = wire.get(path).await;
        assert!(answer.text() == expected, "{path}");
        assert_eq!(answer.field("x-app"), Some("yes"));
        assert!(answer.head.starts_with("HTTP/1.1 200 Fine\r\n"), "{}", answer.head);
        assert!(!answer.head.contains("Hop") && !answer.head.contains("Keep-Alive"), "{}", answer.head);
    }
    let mut old = Wire::open(rig.address()).await;
    old.send("GET /chunked HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let answer = old.answer().await;
    assert!(answer.text() == expected, "HTTP/1.0 knows no chunks: the end of the connection is the end");
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.field("connection"), Some("close"));
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_becomes_chunked() {
    let app = App::script(|stream| async move {
        let mut peer = Peer::new(stream);
        peer.head().await;
        peer.stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    for _ in 0..2 {
        let answer = wire.get("/").await;
        assert_eq!((answer.text().as_str(), answer.field("transfer-encoding")), ("until the end", Some("chunked")));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_over_one_connection_to_the_app() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let app = App::script(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut peer = Peer::new(stream);
            while let Some((head, _)) = peer.request().await {
                peer.stream.write_all(&ok(head.split(' ').nth(1).unwrap())).await.unwrap();
            }
        }
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    let all: String = (0..50).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    wire.send(all).await;
    for i in 0..50 {
        assert_eq!(wire.answer().await.text(), format!("/{i}"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_keep_the_connection() {
    let app = App::answering(|head, _| {
        let answer = match head.split(' ').nth(1).unwrap() {
            "/head" => "200 OK\r\nContent-Length: 1234",
            "/204" => "204 No Content",
            "/304" => "304 Not Modified\r\nETag: \"x\"",
            _ => "200 OK\r\nContent-Length: 0",
        };
        format!("HTTP/1.1 {answer}\r\n\r\n").into_bytes()
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = wire.try_answer(false).await.unwrap();
    assert_eq!(answer.field("content-length"), Some("1234"), "what a GET would bring");
    for (path, status) in [("/204", 204), ("/304", 304), ("/", 200)] {
        let answer = wire.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, ""));
    }
}

#[tokio::test]
async fn who_wants_the_connection_closed_gets_it_closed() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    for request in ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"] {
        let mut wire = Wire::open(rig.address()).await;
        wire.send(request).await;
        assert_eq!(wire.answer().await.field("connection"), Some("close"));
        assert_eq!(wire.rest().await, b"");
    }
    let mut old = Wire::open(rig.address()).await;
    for _ in 0..2 {
        old.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(old.answer().await.field("connection"), Some("keep-alive"));
    }
}

#[tokio::test]
async fn early_hints_pass_and_a_client_that_waits_is_told_to_go_on_once() {
    let app = App::script(|stream| async move {
        let mut peer = Peer::new(stream);
        let (head, body) = peer.request().await.unwrap();
        assert!(!head.to_lowercase().contains("expect"), "{head}");
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
        peer.stream.write_all(interim.as_bytes()).await.unwrap();
        peer.stream.write_all(&ok(std::str::from_utf8(&body).unwrap())).await.unwrap();
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 100);
    wire.send("body").await;
    let hints = wire.answer().await;
    assert_eq!((hints.status, hints.field("link")), (103, Some("</a.css>")));
    assert_eq!(wire.answer().await.text(), "body");
}

#[tokio::test]
async fn a_websocket_carries_bytes_both_ways_and_counts_until_it_closes() {
    let app = App::script(|stream| async move {
        let mut peer = Peer::new(stream);
        let head = peer.head().await.unwrap();
        assert!(head.contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Key: k\r\n"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\nhello";
        peer.stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = peer.stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let mut rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n",
    )
    .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.field("sec-websocket-accept")), (101, Some("s")));
    assert_eq!(wire.exactly(5).await, b"hello");
    for text in ["one", "two", &"x".repeat(100_000)] {
        wire.send(text).await;
        assert_eq!(wire.exactly(text.len()).await, text.as_bytes());
    }
    assert_eq!(rig.in_flight("a-web-1").await, 1);
    let app_2 = App::named("new").await;
    let applied = rig.activate(vec![app_routes("a", 2, vec![("/", instance("a-web-2", app_2.address))])]).await;
    assert_eq!(applied.displaced, ["refloat-a-web-1"]);
    wire.send("after the switch").await;
    assert_eq!(wire.exactly(16).await, b"after the switch", "a switch does not cut it");
    assert_eq!(rig.in_flight("a-web-1").await, 1);
    drop(wire);
    let control = rig.control.clone();
    eventually("the WebSocket is counted no more", || {
        let mut control = control.clone();
        async move {
            let instances = vec!["refloat-a-web-1".to_owned()];
            let request = refloat_proto::edge::v1::InFlightRequest { instances };
            control.in_flight(request).await.unwrap().into_inner().counts[0].requests == 0
        }
    })
    .await;
}

#[tokio::test]
async fn only_a_websocket_that_both_sides_want_is_an_upgrade() {
    let app = App::answering(|head, _| match head.contains("Upgrade") || head.contains("/unasked") {
        true => b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
        false => ok("plain"),
    })
    .await;
    let rig = Rig::serving(app.address).await;
    for fields in ["Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", "Upgrade: websocket", "Connection: upgrade"] {
        let mut wire = Wire::open(rig.address()).await;
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")).await;
        assert_eq!(wire.answer().await.text(), "plain", "{fields}");
    }
    assert_eq!(get(rig.address(), "/unasked").await.status, 502);
}

#[tokio::test]
async fn an_app_may_answer_while_the_upload_runs() {
    let app = App::script(|stream| async move {
        let mut peer = Peer::new(stream);
        peer.head().await;
        let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\n\r\ntoo big";
        peer.stream.write_all(refusal.as_bytes()).await.unwrap();
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nthe first bytes").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "too big"));
    assert_eq!(answer.field("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_is_streamed_both_ways_at_once() {
    let app = App::script(|stream| async move {
        let mut peer = Peer::new(stream);
        peer.head().await;
        peer.stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        let mut byte = [0];
        for _ in 0..3 {
            peer.stream.read_exact(&mut byte).await.unwrap();
            peer.stream.write_all(&[b"1\r\n", &byte[..], b"\r\n"].concat()).await.unwrap();
        }
        peer.stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await;
    wire.until("\r\n\r\n").await;
    for byte in ["a", "b", "c"] {
        wire.send(byte).await;
        assert_eq!(wire.until(&format!("1\r\n{byte}\r\n")).await, format!("1\r\n{byte}\r\n"));
    }
    assert_eq!(wire.until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn an_app_notices_when_its_client_goes_away() {
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"] {
        let (began, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (b, e) = (began.clone(), ended.clone());
        let app = App::script(move |stream| {
            let (began, ended) = (b.clone(), e.clone());
            async move {
                let mut peer = Peer::new(stream);
                peer.head().await;
                began.notify_one();
                let _ = peer.stream.read_to_end(&mut Vec::new()).await;
                ended.notify_one();
            }
        })
        .await;
        let mut rig = Rig::serving(app.address).await;
        let mut wire = Wire::open(rig.address()).await;
        wire.send(request).await;
        tokio::time::timeout(crate::wire::HANG_GUARD, began.notified()).await.unwrap();
        assert_eq!(rig.in_flight("a-web-1").await, 1);
        drop(wire);
        tokio::time::timeout(crate::wire::HANG_GUARD, ended.notified()).await.expect(request);
    }
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_a_502_that_says_so_and_no_more() {
    let closed = App::named("gone").await.address;
    let rig = Rig::serving(closed).await;
    let mut wire = Wire::open(rig.address()).await;
    let answer = wire.get("/secret-path").await;
    assert_eq!((answer.status, answer.text().as_str()), (502, "The app did not answer.\n"));
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").await;
    let answer = wire.answer().await;
    assert!(answer.field("content-type").unwrap().starts_with("text/html"), "the connection goes on: {}", answer.head);
    assert!(!answer.text().contains("127.0.0.1"));
}

#[tokio::test]
async fn a_malformed_response_head_is_a_502() {
    let many: String = (0..101).map(|i| format!("X-{i}: y\r\n")).collect();
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
    ] {
        let bytes = Arc::new(head.to_owned());
        let app = App::script(move |stream| {
            let bytes = bytes.clone();
            async move {
                let mut peer = Peer::new(stream);
                peer.head().await;
                let _ = peer.stream.write_all(bytes.as_bytes()).await;
            }
        })
        .await;
        let rig = Rig::serving(app.address).await;
        assert_eq!(get(rig.address(), "/").await.status, 502, "{head:?}");
    }
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_never_made_to_look_whole() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let app = App::script(move |stream| async move {
            let mut peer = Peer::new(stream);
            peer.head().await;
            peer.stream.write_all(cut.as_bytes()).await.unwrap();
        })
        .await;
        let rig = Rig::serving(app.address).await;
        let mut wire = Wire::open(rig.address()).await;
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let all = String::from_utf8(wire.rest().await).unwrap();
        assert!(all.contains("half") && !all.ends_with("0\r\n\r\n") && !all.contains("502"), "{all:?}");
    }
}

/// An app that answers one request per connection and closes at the second, as one does whose keep-alive time is over.
async fn closing_app() -> (App, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let app = App::script(move |stream| {
        let count = count.clone();
        async move {
            let mut peer = Peer::new(stream);
            peer.request().await;
            count.fetch_add(1, Ordering::SeqCst);
            peer.stream.write_all(&ok("first")).await.unwrap();
            if peer.request().await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    (app, requests)
}

#[tokio::test]
async fn a_repeatable_request_is_sent_again_when_the_app_closes_an_idle_connection() {
    let (app, _) = closing_app().await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    for _ in 0..20 {
        assert_eq!(wire.get("/").await.text(), "first");
    }
}

#[tokio::test]
async fn an_unrepeatable_request_is_never_sent_twice() {
    let (app, requests) = closing_app().await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    assert_eq!(wire.get("/").await.text(), "first");
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na").await;
    assert_eq!(wire.answer().await.status, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 2, "once the GET, once the POST");
}

#[tokio::test]
async fn an_app_that_takes_too_long_is_a_504() {
    let app = App::script(|stream| async move {
        let mut peer = Peer::new(stream);
        peer.head().await;
        let _ = peer.stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut rig = Rig::impatient(|t| t.response_head = Duration::from_millis(50)).await;
    rig.activate(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]).await;
    assert_eq!(get(rig.address(), "/").await.status, 504);
}

#[tokio::test]
async fn a_stalled_upload_is_a_408_and_an_idle_connection_ends_in_silence() {
    let app = App::named("fine").await;
    let mut rig = Rig::impatient(|t| {
        t.body_idle = Duration::from_millis(50);
        t.keep_alive = Duration::from_millis(50);
    })
    .await;
    rig.activate(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(wire.answer().await.status, 408);
    let mut idle = Wire::open(rig.address()).await;
    assert_eq!(idle.get("/").await.status, 200);
    assert_eq!(idle.rest().await, b"");
}

#[tokio::test]
async fn every_request_is_one_line_of_the_access_log_without_its_query() {
    let app = App::named("fine").await;
    let rig = Rig::serving(app.address).await;
    let mut wire = Wire::open(rig.address()).await;
    wire.get("/page?token=geheim").await;
    wire.send("HEAD /gone HTTP/1.1\r\nHost: A.test:80\r\n\r\n").await;
    wire.try_answer(false).await.unwrap();
    let log = rig.log.clone();
    eventually("two lines", || {
        let lines = log.lines().len();
        async move { lines == 2 }
    })
    .await;
    let line = &rig.log.lines()[0];
    for (field, expected) in [
        ("app", "a"),
        ("release", "r1"),
        ("upstream", "refloat-a-web-1"),
        ("host", "a.test"),
        ("method", "GET"),
        ("path", "/page"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(line[field], expected, "{field}");
    }
    assert_eq!(line["status"], 200);
    assert!(line["bytes"].as_u64().unwrap() > 4 && line["duration_us"].is_u64());
    assert!(!line.to_string().contains("geheim"));
}
