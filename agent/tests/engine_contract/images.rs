//! Images: built, kept, let go, read out.

use std::path::PathBuf;

use refloat_agent::docker::{BuildOutput, BuildRequest, Engine, EngineError, Secrets};
use refloat_model::{AppName, ImageDigest, ReleaseNumber};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::world::{Engines, SERVE, World, not_found, refused, write_context};

type Built = (Result<ImageDigest, EngineError>, Vec<BuildOutput>);

/// The image of every check's containers.
pub(crate) async fn busybox(engines: &Engines) -> ImageDigest {
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context.tar");
    write_context(&context, &[("Dockerfile", "FROM busybox\nEXPOSE 8080/tcp\n")]);
    let app = AppName::new("contract-base").unwrap();
    let image = build(engines.ours.as_ref(), request(&app, context)).await.0.unwrap();
    engines.ours.keep_image(&image, &app, ReleaseNumber::FIRST).await.unwrap();
    image
}

pub(crate) fn request(app: &AppName, context: PathBuf) -> BuildRequest {
    let (args, dockerfile) = (Secrets::default(), "Dockerfile".to_owned());
    BuildRequest { app: app.clone(), context, dockerfile, args, cgroup_parent: None }
}

pub(crate) async fn build(engine: &dyn Engine, request: BuildRequest) -> Built {
    let (to, mut from) = mpsc::channel(16);
    let reading = tokio::spawn(async move {
        let mut output = Vec::new();
        while let Some(piece) = from.recv().await {
            output.push(piece);
        }
        output
    });
    let built = engine.build(request, to, CancellationToken::new()).await;
    (built, reading.await.unwrap())
}

/// Differs in every run, so that no build is cached from an earlier one.
fn unique(text: &str) -> String {
    format!("{text}-{}", uuid::Uuid::new_v4().simple())
}

pub(crate) async fn a_build_tells_its_steps_and_its_output(w: World) {
    let word = unique("hello");
    let dockerfile = format!("FROM busybox\nEXPOSE 8080/tcp\nEXPOSE 3000\nRUN echo {word}; echo two\nUSER 1000:1000\n");
    let context = w.context(&[("Dockerfile", &dockerfile)]);
    let (first, output) = build(w.engine.as_ref(), request(&w.app, context.clone())).await;
    let first = first.unwrap();
    let step = output.iter().position(|piece| tells_step(piece, &word, false));
    let line = output.iter().position(|piece| *piece == BuildOutput::Line(word.clone()));
    assert!(step.is_some() && step < line, "{output:#?}");
    assert!(output.contains(&BuildOutput::Line("two".to_owned())), "{output:#?}");
    let info = w.engine.image(&first).await.unwrap().unwrap();
    assert_eq!((info.exposed_ports.as_slice(), info.user.as_str()), (&[3000, 8080][..], "1000:1000"));
    assert!(info.size_bytes > 0);

    let (second, output) = build(w.engine.as_ref(), request(&w.app, context)).await;
    assert_eq!(second.unwrap(), first);
    assert!(output.iter().any(|piece| tells_step(piece, &word, true)), "{output:#?}");
}

fn tells_step(piece: &BuildOutput, wanted: &str, was_cached: bool) -> bool {
    let BuildOutput::Step { text, done, total, cached } = piece else { return false };
    text.contains(wanted) && *cached == was_cached && *total >= 1 && done <= total
}

pub(crate) async fn a_failed_build_names_its_step(w: World) {
    let word = unique("broken");
    let context = w.context(&[("Dockerfile", &format!("FROM busybox\nRUN echo {word}; exit 3\n"))]);
    let (built, output) = build(w.engine.as_ref(), request(&w.app, context)).await;
    let Err(EngineError::BuildFailed { step, lines, out_of_memory }) = built else { panic!("{built:?}") };
    assert!(step.contains(&word), "{step}");
    assert!(lines.contains(&word) && lines.iter().any(|line| line.contains("exit code: 3")), "{lines:?}");
    assert!(!out_of_memory && lines.len() <= 20);
    assert!(output.contains(&BuildOutput::Line(word)), "{output:?}");

    let context = w.context(&[("Dockerfile", "FROM busybox\nRUNN x\n")]);
    let (built, _) = build(w.engine.as_ref(), request(&w.app, context)).await;
    let Err(EngineError::BuildFailed { lines, .. }) = built else { panic!("{built:?}") };
    assert!(lines.iter().any(|line| line.contains("unknown instruction: RUNN")), "{lines:?}");
}

pub(crate) async fn a_cancelled_build_ends_at_once(w: World) {
    let word = unique("long");
    let context = w.context(&[("Dockerfile", &format!("FROM busybox\nRUN echo {word}; sleep 3600\n"))]);
    let (to, mut from) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let (engine, request, token) = (w.engine.clone(), request(&w.app, context), cancel.clone());
    let building = tokio::spawn(async move { engine.build(request, to, token).await });
    while let Some(piece) = from.recv().await {
        if piece == BuildOutput::Line(word.clone()) {
            cancel.cancel();
        }
    }
    assert_eq!(building.await.unwrap(), Err(EngineError::Cancelled));
}

pub(crate) async fn an_image_goes_with_its_last_release(w: World) {
    let context = w.context(&[("Dockerfile", &format!("FROM busybox\nRUN echo {} > /word\n", unique("kept")))]);
    let image = build(w.engine.as_ref(), request(&w.app, context)).await.0.unwrap();
    let (r1, r2) = (ReleaseNumber(1), ReleaseNumber(2));
    for release in [r1, r1, r2] {
        w.engine.keep_image(&image, &w.app, release).await.unwrap();
    }
    for _ in 0..2 {
        w.engine.release_image(&w.app, r1).await.unwrap();
        assert!(w.engine.image(&image).await.unwrap().is_some());
    }
    let spec = refloat_agent::docker::InstanceSpec { image: image.clone(), ..w.spec(&SERVE) };
    w.start(&spec).await;
    refused(w.engine.release_image(&w.app, r2).await);
    w.engine.remove(&spec.name).await.unwrap();
    w.engine.release_image(&w.app, r2).await.unwrap();
    assert_eq!(w.engine.image(&image).await.unwrap(), None);
    assert!(not_found(w.engine.keep_image(&image, &w.app, r1).await).contains(image.as_str()));
}

pub(crate) async fn an_image_from_nothing_can_be_read_out(w: World) {
    let page = unique("<h1>page</h1>");
    let context = w.context(&[("Dockerfile", "FROM scratch\nCOPY page.html /site/index.html\n"), ("page.html", &page)]);
    let image = build(w.engine.as_ref(), request(&w.app, context)).await.0.unwrap();
    for _ in 0..2 {
        assert_eq!(read_out(&w, &image, "site/index.html").await, page);
    }
    let (to, from) = mpsc::channel(1);
    drop(from);
    w.engine.export(&image, to).await.unwrap();
    let absent = ImageDigest::new(format!("sha256:{}", "cd".repeat(32))).unwrap();
    assert!(not_found(w.engine.export(&absent, mpsc::channel(1).0).await).contains(absent.as_str()));
}

pub(crate) async fn two_builds_at_once_keep_to_their_files(w: World) {
    let page_of = async |page: &str| {
        let dockerfile = "FROM scratch\nCOPY page.html /index.html\n";
        let context = w.context(&[("Dockerfile", dockerfile), ("page.html", page)]);
        let image = build(w.engine.as_ref(), request(&w.app, context)).await.0.unwrap();
        read_out(&w, &image, "index.html").await
    };
    let pages = [unique("one"), unique("two"), unique("three")];
    let read = tokio::join!(page_of(&pages[0]), page_of(&pages[1]), page_of(&pages[2]));
    assert_eq!(<[String; 3]>::from(read), pages);
}

async fn read_out(w: &World, image: &ImageDigest, path: &str) -> String {
    let (to, mut chunks) = mpsc::channel::<Vec<u8>>(4);
    let (engine, image) = (w.engine.clone(), image.clone());
    let exporting = tokio::spawn(async move { engine.export(&image, to).await });
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        bytes.extend(chunk);
    }
    exporting.await.unwrap().unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some(path) {
            return std::io::read_to_string(&mut entry).unwrap();
        }
    }
    panic!("{path} is not in the archive");
}
