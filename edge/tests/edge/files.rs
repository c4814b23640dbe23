//! Published sites.

use crate::app::App;
use crate::rig::{Rig, app_routes, instance, site};
use crate::wire::{Answer, Wire};

const SCRIPT: &str = "/assets/index-BxC4dE9f.js";

async fn published() -> Rig {
    let mut rig = Rig::start().await;
    let large: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let tree = rig.publish(&[
        ("index.html", b"<p>home"),
        ("404.html", b"<p>lost"),
        ("about.html", b"<p>about"),
        ("docs/index.html", b"<p>docs"),
        ("assets/index-BxC4dE9f.js", b"script()"),
        ("sw.js", b"worker()"),
        ("large.bin", &large),
        ("empty.txt", b""),
        ("a b.txt", b"spaced"),
        (".env", b"SECRET=1"),
        (".git/config", b"[core]"),
        (".well-known/security.txt", b"Contact: x"),
    ]);
    rig.activate(vec![app_routes("a", 1, vec![("/", site(tree))])]).await;
    rig
}

async fn ask(rig: &Rig, method: &str, path: &str, fields: &str) -> Answer {
    let mut wire = Wire::open(rig.address()).await;
    wire.send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await;
    wire.try_answer(method != "HEAD").await.unwrap()
}

#[tokio::test]
async fn paths_become_files_with_types_and_lifetimes() {
    let rig = published().await;
    for (path, status, body, kind, caching) in [
        ("/", 200, "<p>home", "text/html; charset=utf-8", "no-cache"),
        ("/about", 200, "<p>about", "text/html; charset=utf-8", "no-cache"),
        ("/docs/", 200, "<p>docs", "text/html; charset=utf-8", "no-cache"),
        ("/users/7", 200, "<p>home", "text/html; charset=utf-8", "no-cache"),
        (SCRIPT, 200, "script()", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/sw.js", 200, "worker()", "text/javascript; charset=utf-8", "no-cache"),
        ("/a%20b.txt", 200, "spaced", "text/plain; charset=utf-8", "public, max-age=0, must-revalidate"),
        ("/empty.txt", 200, "", "text/plain; charset=utf-8", "public, max-age=0, must-revalidate"),
        ("/missing.png", 404, "<p>lost", "text/html; charset=utf-8", "no-cache"),
        ("/api/users", 404, "<p>lost", "text/html; charset=utf-8", "no-cache"),
        ("/.env", 404, "<p>lost", "text/html; charset=utf-8", "no-cache"),
        ("/%2eenv", 404, "<p>lost", "text/html; charset=utf-8", "no-cache"),
        ("/.git/config", 404, "<p>lost", "text/html; charset=utf-8", "no-cache"),
        (
            "/.well-known/security.txt",
            200,
            "Contact: x",
            "text/plain; charset=utf-8",
            "public, max-age=0, must-revalidate",
        ),
    ] {
        let answer = ask(&rig, "GET", path, "").await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{path}");
        assert_eq!(answer.field("content-type"), Some(kind), "{path}");
        assert_eq!(answer.field("cache-control"), Some(caching), "{path}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn a_folder_without_its_slash_is_redirected_with_its_query_and_never_to_another_host() {
    let rig = published().await;
    let answer = ask(&rig, "GET", "/docs?x=1", "").await;
    assert_eq!((answer.status, answer.field("location")), (307, Some("/docs/?x=1")));
    let answer = ask(&rig, "GET", "//docs", "").await;
    assert_eq!(answer.field("location"), None);
}

#[tokio::test]
async fn who_has_the_file_already_is_told_so() {
    let rig = published().await;
    let tag = ask(&rig, "GET", SCRIPT, "").await.field("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    for fields in [
        format!("If-None-Match: {tag}\r\n"),
        format!("If-None-Match: \"x\", W/{tag}\r\n"),
        "If-None-Match: *\r\n".to_owned(),
    ] {
        let answer = ask(&rig, "GET", SCRIPT, &fields).await;
        assert_eq!((answer.status, answer.body.len(), answer.field("etag")), (304, 0, Some(tag.as_str())));
        assert_eq!(answer.field("cache-control"), Some("public, max-age=31536000, immutable"));
    }
    assert_eq!(ask(&rig, "GET", SCRIPT, "If-None-Match: \"other\"\r\n").await.status, 200);
    assert_eq!(ask(&rig, "GET", SCRIPT, "If-Match: \"other\"\r\n").await.status, 412);
    assert_eq!(ask(&rig, "GET", SCRIPT, &format!("If-Match: {tag}\r\n")).await.status, 200);
}

#[tokio::test]
async fn one_range_is_a_part_and_a_range_of_another_version_is_the_whole() {
    let rig = published().await;
    let whole = ask(&rig, "GET", "/large.bin", "").await;
    assert_eq!(whole.field("accept-ranges"), Some("bytes"));
    let tag = whole.field("etag").unwrap().to_owned();
    let part = ask(&rig, "GET", "/large.bin", "Range: bytes=300000-799999\r\n").await;
    assert_eq!((part.status, part.field("content-range")), (206, Some("bytes 300000-799999/1000000")));
    assert!(part.body == whole.body[300_000..800_000]);
    let tail = ask(&rig, "GET", "/large.bin", &format!("Range: bytes=-5\r\nIf-Range: {tag}\r\n")).await;
    assert!((tail.status, &tail.body[..]) == (206, &whole.body[999_995..]));
    for fields in ["Range: bytes=0-4\r\nIf-Range: \"old\"\r\n", "Range: bytes=0-1,4-5\r\n", "Range: lines=1-2\r\n"] {
        let answer = ask(&rig, "GET", "/large.bin", fields).await;
        assert!(answer.status == 200 && answer.body == whole.body, "{fields}");
    }
    let beyond = ask(&rig, "GET", "/large.bin", "Range: bytes=1000000-\r\n").await;
    assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */1000000")));
}

#[tokio::test]
async fn head_says_what_get_would_and_other_methods_are_refused() {
    let rig = published().await;
    let answer = ask(&rig, "HEAD", "/large.bin", "").await;
    assert_eq!((answer.status, answer.field("content-length"), answer.body.len()), (200, Some("1000000"), 0));
    for method in ["POST", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = ask(&rig, method, "/", "").await;
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[tokio::test]
async fn files_are_answered_one_after_another_on_one_connection() {
    let rig = published().await;
    let mut wire = Wire::open(rig.address()).await;
    for _ in 0..3 {
        assert_eq!(wire.get("/").await.text(), "<p>home");
        assert_eq!(wire.get("/large.bin").await.body.len(), 1_000_000);
        wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(wire.try_answer(false).await.unwrap().status, 200);
        assert_eq!(wire.get("/nothing.here").await.status, 404);
    }
}

#[tokio::test]
async fn a_site_and_an_app_share_a_host_by_prefix_and_a_switch_between_sites_is_whole() {
    let api = App::named("api").await;
    let mut rig = Rig::start().await;
    let (old, new) = (rig.publish(&[("index.html", b"old")]), rig.publish(&[("index.html", b"new")]));
    for (tree, body) in [(old, "old"), (new, "new"), (old, "old")] {
        let routes = vec![("/", site(tree)), ("/api", instance("a-api-1", api.address))];
        let applied = rig.activate(vec![app_routes("a", 1, routes)]).await;
        assert_eq!(applied.displaced, Vec::<String>::new());
        assert_eq!(ask(&rig, "GET", "/", "").await.text(), body);
        assert_eq!(ask(&rig, "GET", "/api/x", "").await.text(), "api");
    }
}
