//! Instances: from creation to removal, each step done again.

use refloat_agent::docker::{InstanceSpec, LogLine, Restart, RunState};
use refloat_model::{ImageDigest, ReleaseNumber};
use tokio::sync::mpsc;

use crate::world::{SERVE, World, eventually, not_found, refused};

pub(crate) async fn creating_twice_is_one_container(w: World) {
    let spec = w.spec(&SERVE);
    w.engine.create(&spec).await.unwrap();
    w.engine.create(&spec).await.unwrap();
    let found: Vec<_> = w.engine.list().await.unwrap().into_iter().filter(|c| c.app == w.app).collect();
    let [only] = &found[..] else { panic!("{found:?}") };
    assert_eq!((only.state, only.restart, only.started_at_ms), (RunState::Created, Restart::No, 0));
}

pub(crate) async fn another_under_the_name_is_refused(w: World) {
    let spec = w.spec(&SERVE);
    w.engine.create(&spec).await.unwrap();
    let changed = InstanceSpec { spec_digest: [9; 32], ..spec.clone() };
    assert!(refused(w.engine.create(&changed).await).contains(spec.name.as_str()));
    refused(w.other.create(&spec).await);
    assert_eq!(w.other.inspect(&spec.name).await.unwrap(), None);
    refused(w.other.remove(&spec.name).await);
    assert_eq!(w.state(&spec.name).await, RunState::Created);
}

pub(crate) async fn an_image_that_is_not_there_is_named(w: World) {
    let image = ImageDigest::new(format!("sha256:{}", "ab".repeat(32))).unwrap();
    let spec = InstanceSpec { image: image.clone(), ..w.spec(&SERVE) };
    assert!(not_found(w.engine.create(&spec).await).contains(image.as_str()));
}

pub(crate) async fn every_step_of_a_life_may_be_done_twice(w: World) {
    let spec = w.spec(&SERVE);
    let (engine, name) = (&w.engine, &spec.name);
    engine.create(&spec).await.unwrap();
    engine.stop(name, 1_000).await.unwrap();
    refused(engine.pause(name).await);
    assert_eq!(w.state(name).await, RunState::Created);
    for _ in 0..2 {
        engine.start(name).await.unwrap();
        assert_eq!(w.state(name).await, RunState::Running);
    }
    engine.unpause(name).await.unwrap();
    for _ in 0..2 {
        engine.pause(name).await.unwrap();
        assert_eq!(w.state(name).await, RunState::Paused);
    }
    // Docker hears of a pause from below a moment later: a container that was woken in between is shown paused once more.
    engine.start(name).await.unwrap();
    w.becomes(name, RunState::Running).await;
    engine.pause(name).await.unwrap();
    for _ in 0..2 {
        engine.unpause(name).await.unwrap();
        w.becomes(name, RunState::Running).await;
    }
    engine.pause(name).await.unwrap();
    for _ in 0..2 {
        engine.stop(name, 5_000).await.unwrap();
        assert!(matches!(w.state(name).await, RunState::Exited(_)));
    }
    refused(engine.unpause(name).await);
    engine.start(name).await.unwrap();
    assert_eq!(w.state(name).await, RunState::Running);
    for _ in 0..2 {
        engine.remove(name).await.unwrap();
        assert_eq!(engine.inspect(name).await.unwrap(), None);
    }
}

pub(crate) async fn what_is_not_there_is_not_found(w: World) {
    let (engine, name) = (&w.engine, w.spec(&SERVE).name);
    assert_eq!(engine.inspect(&name).await.unwrap(), None);
    engine.remove(&name).await.unwrap();
    not_found(engine.start(&name).await);
    not_found(engine.stop(&name, 0).await);
    not_found(engine.pause(&name).await);
    not_found(engine.unpause(&name).await);
    not_found(engine.set_restart(&name, Restart::No).await);
    not_found(engine.tail(&name, 1).await);
    not_found(engine.follow(&name, 0, mpsc::channel(1).0).await);
    not_found(engine.memory_bytes(&name).await);
}

pub(crate) async fn an_instance_is_what_its_specification_says(w: World) {
    let spec = w.spec(&SERVE);
    w.start(&spec).await;
    let seen = w.engine.inspect(&spec.name).await.unwrap().unwrap();
    assert_eq!((&seen.name, &seen.app, &seen.process), (&spec.name, &w.app, &spec.process));
    assert_eq!((seen.release, &seen.image, seen.spec_digest), (ReleaseNumber(7), &spec.image, spec.spec_digest));
    assert_eq!((seen.ip, seen.restart_count), (Some(spec.ip), 0));
    assert!(seen.started_at_ms > 1_600_000_000_000, "{seen:?}");
    w.engine.stop(&spec.name, 5_000).await.unwrap();
    assert_eq!(w.engine.inspect(&spec.name).await.unwrap().unwrap().ip, Some(spec.ip));
}

pub(crate) async fn an_address_is_never_given_twice(w: World) {
    let first = w.spec(&SERVE);
    w.start(&first).await;
    let second = InstanceSpec { ip: first.ip, ..w.spec(&SERVE) };
    w.engine.create(&second).await.unwrap();
    refused(w.engine.start(&second.name).await);
    w.engine.stop(&first.name, 5_000).await.unwrap();
    w.engine.start(&second.name).await.unwrap();
}

pub(crate) async fn a_restart_policy_changes_in_every_state(w: World) {
    let name = w.serving().await;
    let policy = async || w.engine.inspect(&name).await.unwrap().unwrap().restart;
    for wanted in [Restart::UnlessStopped, Restart::UnlessStopped, Restart::No] {
        w.engine.set_restart(&name, wanted).await.unwrap();
        assert_eq!((policy().await, w.state(&name).await), (wanted, RunState::Running));
    }
    w.engine.pause(&name).await.unwrap();
    w.engine.set_restart(&name, Restart::UnlessStopped).await.unwrap();
    assert_eq!((policy().await, w.state(&name).await), (Restart::UnlessStopped, RunState::Paused));
    w.engine.stop(&name, 5_000).await.unwrap();
    w.engine.set_restart(&name, Restart::No).await.unwrap();
    assert_eq!(policy().await, Restart::No);
    assert!(matches!(w.state(&name).await, RunState::Exited(_)));
}

pub(crate) async fn a_crash_loop_counts_and_ends(w: World) {
    let spec = w.shell("sleep 1; exit 3");
    w.start(&spec).await;
    w.engine.set_restart(&spec.name, Restart::UnlessStopped).await.unwrap();
    let count = async || w.engine.inspect(&spec.name).await.unwrap().unwrap().restart_count;
    eventually("it was started again", async || count().await >= 2).await;
    w.engine.set_restart(&spec.name, Restart::No).await.unwrap();
    w.engine.stop(&spec.name, 1_000).await.unwrap();
    assert!(matches!(w.state(&spec.name).await, RunState::Exited(_)));
}

pub(crate) async fn an_exit_code_is_observed(w: World) {
    let name = w.start(&w.shell("exit 7")).await;
    w.becomes(&name, RunState::Exited(7)).await;
}

pub(crate) async fn only_our_own_are_listed(w: World) {
    let (first, second) = (w.serving().await, w.serving().await);
    w.engine.stop(&first, 5_000).await.unwrap();
    let listed = w.engine.list().await.unwrap();
    let mut wanted = vec![first, second];
    wanted.sort();
    assert_eq!(listed.iter().filter(|c| c.app == w.app).map(|c| c.name.clone()).collect::<Vec<_>>(), wanted);
    assert_eq!(w.other.list().await.unwrap(), []);
}

pub(crate) async fn output_has_times_streams_and_an_end(w: World) {
    let name = w.start(&w.shell("echo one; echo two >&2; sleep 1; exit 0")).await;
    let (to, mut lines) = mpsc::channel(16);
    w.engine.follow(&name, 0, to).await.unwrap();
    let mut followed = Vec::new();
    while let Some(line) = lines.recv().await {
        followed.push(line);
    }
    let text = |line: &LogLine| (line.stderr, line.text.clone());
    // Two streams have no order among each other.
    followed.sort_by_key(text);
    assert_eq!(followed.iter().map(text).collect::<Vec<_>>(), [(false, "one".to_owned()), (true, "two".to_owned())]);
    assert!(followed.iter().all(|line| line.at_ms > 1_600_000_000_000), "{followed:?}");
    let mut tail = w.engine.tail(&name, 10).await.unwrap();
    tail.sort_by_key(text);
    assert_eq!(tail, followed);
    assert_eq!(w.engine.tail(&name, 1).await.unwrap().len(), 1);
    let (to, mut later) = mpsc::channel(16);
    w.engine.follow(&name, u64::from(u32::MAX / 2) * 1_000, to).await.unwrap();
    assert_eq!(later.recv().await, None);
}

pub(crate) async fn following_ends_with_its_reader(w: World) {
    let name = w.serving().await;
    let (to, lines) = mpsc::channel(1);
    let (engine, followed) = (w.engine.clone(), name.clone());
    let following = tokio::spawn(async move { engine.follow(&followed, 0, to).await });
    drop(lines);
    following.await.unwrap().unwrap();
    assert_eq!(w.state(&name).await, RunState::Running);
}

pub(crate) async fn memory_is_counted_while_it_runs(w: World) {
    let name = w.serving().await;
    let used = w.engine.memory_bytes(&name).await.unwrap();
    assert!(used > 0 && used <= 64 * 1024 * 1024, "{used}");
    w.engine.stop(&name, 5_000).await.unwrap();
    assert_eq!(w.engine.memory_bytes(&name).await.unwrap(), 0);
}
