//! Answers from a published tree: conditions, ranges, types.
//!
//! `site` decides which file a path is; this file decides the answer and opens the file. Deliberately absent: times (a
//! tree has none, so there is no `Last-Modified`) and several ranges in one answer (the whole file is sent instead).

use std::fs::File;
use std::sync::Arc;

use refloat_model::{TreeDigest, TreeFile};

use crate::head::{RequestHead, Verb, percent_decoded};
use crate::page::Page;
use crate::reply::{Body, FilePart, Reply};
use crate::site::{Caching, Resolved, Site};

/// Answers a request from a site.
pub async fn answer(site: &Arc<Site>, head: &RequestHead) -> Reply {
    if !matches!(head.verb, Verb::Get | Verb::Head) {
        let mut reply = page(Page::Method, head);
        reply.fields.push(("Allow", "GET, HEAD".to_owned()));
        return reply;
    }
    let path = percent_decoded(head.path().as_bytes()).and_then(|p| String::from_utf8(p.into_owned()).ok());
    let Some(path) = path else { return page(Page::NoRoute, head) };
    match site.resolve(&path) {
        Resolved::File { file, caching } => file_reply(site, file, caching, head).await,
        Resolved::AddSlash if !head.path().starts_with("//") => redirect(head),
        Resolved::NotFound(Some(file)) => not_found_reply(site, file, head).await,
        Resolved::NotFound(None) | Resolved::AddSlash => page(Page::NoRoute, head),
    }
}

fn page(page: Page, head: &RequestHead) -> Reply {
    Reply::page(page, head.all("accept").any(|accept| accept.contains("text/html")))
}

/// Temporary, because the next release may have a file of that name.
fn redirect(head: &RequestHead) -> Reply {
    let mut reply = Reply::empty(307);
    reply.fields.push(("Location", format!("{}/{}", head.path(), head.query())));
    reply.fields.push(("Cache-Control", "no-cache".to_owned()));
    reply
}

async fn not_found_reply(site: &Arc<Site>, file: &TreeFile, head: &RequestHead) -> Reply {
    let whole = Part { status: 404, offset: 0, length: file.size };
    let fields = vec![("Content-Type", content_type(&file.path)), ("Cache-Control", "no-cache".to_owned())];
    open(site, file, whole, fields, head).await
}

async fn file_reply(site: &Arc<Site>, file: &TreeFile, caching: Caching, head: &RequestHead) -> Reply {
    let tag = entity_tag(file);
    let mut fields = vec![("ETag", tag.clone()), ("Cache-Control", caching.header().to_owned())];
    match precondition(head, &tag) {
        Condition::Holds => {}
        Condition::NotModified => return Reply { status: 304, fields, body: Body::None },
        Condition::Fails => return Reply::empty(412),
    }
    fields.push(("Content-Type", content_type(&file.path)));
    fields.push(("Accept-Ranges", "bytes".to_owned()));
    match part_of(head, &tag, file.size) {
        Ok(part) => {
            if part.status == 206 {
                let last = part.offset + part.length - 1;
                fields.push(("Content-Range", format!("bytes {}-{last}/{}", part.offset, file.size)));
            }
            open(site, file, part, fields, head).await
        }
        Err(Unsatisfiable) => {
            let mut reply = Reply::empty(416);
            reply.fields.push(("Content-Range", format!("bytes */{}", file.size)));
            reply
        }
    }
}

async fn open(
    site: &Arc<Site>,
    file: &TreeFile,
    part: Part,
    fields: Vec<(&'static str, String)>,
    head: &RequestHead,
) -> Reply {
    let path = site.tree.blob_path(file);
    let opened = tokio::task::spawn_blocking(move || FilePart::begin(File::open(path)?, part.offset, part.length));
    match opened.await {
        Ok(Ok(opened)) => Reply { status: part.status, fields, body: Body::File(opened) },
        Ok(Err(error)) => {
            tracing::error!(path = file.path, %error, "a published file cannot be opened");
            page(Page::NotReady, head)
        }
        Err(_) => page(Page::NotReady, head),
    }
}

/// Strong: the hash of the content, shortened to 128 bits.
fn entity_tag(file: &TreeFile) -> String {
    format!("\"{}\"", &TreeDigest(file.blob).to_hex()[..32])
}

fn content_type(path: &str) -> String {
    let mime = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
    let is_text = mime.starts_with("text/")
        || mime.ends_with("+json")
        || mime.ends_with("+xml")
        || matches!(mime, "application/json" | "application/javascript" | "application/xml");
    if is_text { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
}

enum Condition {
    Holds,
    NotModified,
    Fails,
}

/// `If-Match` first, then `If-None-Match` (RFC 9110, 13.2.2).
fn precondition(head: &RequestHead, tag: &str) -> Condition {
    let lists =
        |name: &str| head.all(name).flat_map(|v| v.split(',')).any(|t| matches!(t.trim(), "*") || t.trim() == tag);
    let weak = head.all("if-none-match").flat_map(|v| v.split(',')).any(|t| t.trim().strip_prefix("W/") == Some(tag));
    if head.all("if-match").next().is_some() && !lists("if-match") {
        Condition::Fails
    } else if weak || lists("if-none-match") {
        Condition::NotModified
    } else {
        Condition::Holds
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    status: u16,
    offset: u64,
    length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unsatisfiable;

fn part_of(head: &RequestHead, tag: &str, size: u64) -> Result<Part, Unsatisfiable> {
    let current = head.all("if-range").next().is_none() || head.single("if-range") == Some(tag);
    match head.single("range") {
        Some(range) if head.verb == Verb::Get && current => parse_range(range, size),
        _ => Ok(Part { status: 200, offset: 0, length: size }),
    }
}

/// One range of bytes; anything that is not one is ignored, as the standard wants.
fn parse_range(text: &str, size: u64) -> Result<Part, Unsatisfiable> {
    let whole = Part { status: 200, offset: 0, length: size };
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else { return Ok(whole) };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last) = match (first, last, number(first), number(last)) {
        ("", _, _, Some(0)) => return Err(Unsatisfiable),
        ("", _, _, Some(suffix)) => (size.saturating_sub(suffix), size.saturating_sub(1)),
        (_, "", Some(first), _) => (first, size.saturating_sub(1)),
        (_, _, Some(first), Some(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        _ => return Ok(whole),
    };
    if first >= size {
        return Err(Unsatisfiable);
    }
    Ok(Part { status: 206, offset: first, length: last - first + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_all_else_is_the_whole_file() {
        let part = |offset, length| Ok(Part { status: 206, offset, length });
        let whole = Ok(Part { status: 200, offset: 0, length: 10 });
        for (text, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-30", part(0, 10)),
            ("bytes=2-500", part(2, 8)),
            ("bytes=10-", Err(Unsatisfiable)),
            ("bytes=-0", Err(Unsatisfiable)),
            ("bytes=5-2", whole),
            ("bytes=0-1,3-4", whole),
            ("bytes=+1-2", whole),
            ("bytes=a-b", whole),
            ("lines=0-1", whole),
            ("bytes=-", whole),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Err(Unsatisfiable));
    }

    #[test]
    fn text_is_utf_8_and_the_rest_is_not_text() {
        for (path, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.json", "application/json; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.wasm", "application/wasm"),
            ("a.png", "image/png"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path), expected, "{path}");
        }
    }
}
