//! What only the real engine can show: limits, rights, and that nothing stays behind.

use std::collections::BTreeMap;
use std::path::Path;

use refloat_agent::docker::{BuildOutput, EngineError, InstanceSpec, Restart, RunState, Secrets};
use refloat_model::{Capability, Hardening, Resources};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::images::{build, busybox, request};
use crate::world::{Engines, World, ask, eventually};

/// Above every number of the contract's own checks.
async fn world(engines: &Engines, number: u32) -> World {
    World::new(engines.clone(), busybox(engines).await, number).await
}

#[tokio::test]
async fn limits_hold_in_the_kernel_and_survive_a_change_of_the_restart_policy() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 101).await;
    let name = w.serving().await;
    let limits = || {
        let inside = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null \
                      || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
        ask(&["exec", name.as_str(), "sh", "-c", inside])
    };
    assert_eq!(limits(), "67108864\n32");
    w.engine.set_restart(&name, Restart::UnlessStopped).await.unwrap();
    assert_eq!(limits(), "67108864\n32");
    w.engine.pause(&name).await.unwrap();
    w.engine.set_restart(&name, Restart::No).await.unwrap();
    w.engine.unpause(&name).await.unwrap();
    assert_eq!(limits(), "67108864\n32");
}

#[tokio::test]
async fn a_container_over_its_memory_limit_is_told_from_a_crash() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 102).await;
    let resources = Resources { memory_mib: 16, cpu_millis: 0, pids: 32 };
    let name = w.start(&InstanceSpec { resources, ..w.shell("tail /dev/zero") }).await;
    w.becomes(&name, RunState::OutOfMemory).await;
}

#[tokio::test]
async fn a_generated_image_runs_without_rights_and_on_a_closed_root() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 103).await;
    let script = "grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status; id -u; \
                  touch /here 2>/dev/null && echo writable; touch /tmp/here && echo temporary; df -m /tmp | tail -1";
    let context = w.context(&[("Dockerfile", "FROM busybox\nUSER 1000:1000\n")]);
    let image = build(w.engine.as_ref(), request(&w.app, context)).await.0.unwrap();
    let closed = InstanceSpec { image, hardening: Hardening::Generated, writable_root: false, ..w.shell(script) };
    let name = w.start(&closed).await;
    w.becomes(&name, RunState::Exited(0)).await;
    let lines: Vec<_> = w.engine.tail(&name, 10).await.unwrap().into_iter().map(|line| line.text).collect();
    let wanted = ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "1000", "temporary"];
    assert_eq!(lines[..5], wanted, "{lines:?}");
    assert!(lines[5].split_whitespace().nth(1) == Some("64"), "{lines:?}");
}

#[tokio::test]
async fn an_own_image_has_a_capability_of_the_usual_set_only_when_it_was_given_back() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 111).await;
    // Two streams of output have no order between them.
    let script = "{ chroot / true && echo changed; grep ^CapBnd: /proc/self/status; } 2>&1";
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID and NET_BIND_SERVICE are the bits 0, 1, 3, 5, 6, 7 and 10; SYS_CHROOT is 18.
    for (capabilities, wanted) in [
        (
            vec![],
            vec!["chroot: can't change root directory to '/': Operation not permitted", "CapBnd:\t00000000000004eb"],
        ),
        (vec![Capability::SysChroot], vec!["changed", "CapBnd:\t00000000000404eb"]),
    ] {
        let spec = InstanceSpec { hardening: Hardening::Own, capabilities, ..w.shell(script) };
        let name = w.start(&spec).await;
        w.becomes(&name, RunState::Exited(0)).await;
        let lines: Vec<_> = w.engine.tail(&name, 10).await.unwrap().into_iter().map(|line| line.text).collect();
        assert_eq!(lines, wanted);
    }
}

#[tokio::test]
async fn a_value_of_the_environment_is_in_the_container_and_in_no_label() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 104).await;
    let env = Secrets(BTreeMap::from([("KEY".to_owned(), "v4lue $(id) \"x\"".to_owned())]));
    let name = w.start(&InstanceSpec { env, ..w.shell("echo \"$KEY\"; sleep 600") }).await;
    eventually("it has printed", async || !w.engine.tail(&name, 1).await.unwrap().is_empty()).await;
    assert_eq!(w.engine.tail(&name, 1).await.unwrap()[0].text, "v4lue $(id) \"x\"");
    let labels = ask(&["inspect", "-f", "{{json .Config.Labels}} {{json .Path}} {{json .Args}}", name.as_str()]);
    assert!(labels.contains("dev.refloat.spec") && !labels.contains("v4lue"), "{labels}");
}

#[tokio::test]
async fn an_app_gets_the_mtu_of_the_host_s_route() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 105).await;
    let name = w.start(&w.shell("cat /sys/class/net/eth0/mtu")).await;
    w.becomes(&name, RunState::Exited(0)).await;
    assert_eq!(w.engine.tail(&name, 1).await.unwrap()[0].text, "1400");
}

#[tokio::test]
async fn processes_find_each_other_by_their_aliases() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 106).await;
    let mut server = w.spec(&crate::world::SERVE);
    server.aliases = vec!["api-r7".to_owned()];
    w.start(&server).await;
    let name = w.start(&w.shell("wget -qO- http://api-r7:8080/ 2>&1 | head -1")).await;
    w.becomes(&name, RunState::Exited(0)).await;
    let said = w.engine.tail(&name, 5).await.unwrap();
    // An empty folder is a 404: it was found and answered.
    assert!(said.iter().any(|line| line.text.contains("404")), "{said:?}");
}

#[tokio::test]
async fn a_cancelled_build_leaves_no_process_and_no_connection() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 107).await;
    let connections = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = connections();
    let seconds = format!("{}", 1_000_000 + std::process::id());
    let dockerfile = format!("FROM busybox\nRUN echo {} && sleep {seconds}\n", uuid::Uuid::new_v4());
    let context = w.context(&[("Dockerfile", &dockerfile)]);
    let (to, mut from) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let (engine, token, request) = (w.engine.clone(), cancel.clone(), request(&w.app, context));
    let building = tokio::spawn(async move { engine.build(request, to, token).await });
    let reading = tokio::spawn(async move { while from.recv().await.is_some() {} });
    eventually("the step runs", async || is_running(&seconds)).await;
    cancel.cancel();
    assert_eq!(building.await.unwrap(), Err(EngineError::Cancelled));
    eventually("the step is gone", async || !is_running(&seconds)).await;
    reading.await.unwrap();
    eventually("every connection is closed", async || connections() <= before).await;
}

fn is_running(seconds: &str) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| line == wanted.as_bytes())
}

#[tokio::test]
async fn builds_leave_no_connection_behind() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 108).await;
    let connections = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = connections();
    for _ in 0..3 {
        let context = w.context(&[("Dockerfile", "FROM busybox\nRUN true\n")]);
        build(w.engine.as_ref(), request(&w.app, context)).await.0.unwrap();
    }
    eventually("every connection is closed", async || connections() <= before).await;
}

#[tokio::test]
async fn a_build_runs_in_the_control_group_that_was_asked_for() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 109).await;
    let group = Group::named("place");
    let dockerfile = format!("FROM busybox\nRUN echo {} && cat /proc/self/cgroup\n", uuid::Uuid::new_v4());
    let mut request = request(&w.app, w.context(&[("Dockerfile", &dockerfile)]));
    request.cgroup_parent = Some(group.name.clone());
    let (built, output) = build(w.engine.as_ref(), request).await;
    built.unwrap();
    let inside = |piece: &BuildOutput| matches!(piece, BuildOutput::Line(line) if line.contains(&group.name));
    assert!(output.iter().any(inside), "{output:#?}");
}

#[tokio::test]
async fn a_build_over_the_memory_of_its_control_group_says_so() {
    let (engines, _leftovers) = crate::docker().await;
    let w = world(&engines, 110).await;
    let group = Group::named("memory").with_memory(32 * 1024 * 1024);
    let dockerfile = format!("FROM busybox\nRUN echo {} && tail /dev/zero\n", uuid::Uuid::new_v4());
    let mut request = request(&w.app, w.context(&[("Dockerfile", &dockerfile)]));
    request.cgroup_parent = Some(group.name.clone());
    let (built, _) = build(w.engine.as_ref(), request).await;
    let Err(EngineError::BuildFailed { step, out_of_memory, .. }) = &built else { panic!("{built:?}") };
    assert!(*out_of_memory && step.contains("tail /dev/zero"), "{built:?}");
}

/// A control group of this run, of version 1 or 2.
struct Group {
    name: String,
}

impl Group {
    fn named(what: &str) -> Self {
        Self { name: format!("/refloat-contract-{what}-{}", std::process::id()) }
    }

    fn with_memory(self, bytes: u64) -> Self {
        let [v1, v2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let (root, limit) = if v1.exists() { (v1, "memory.limit_in_bytes") } else { (v2, "memory.max") };
        let path = root.join(self.name.trim_start_matches('/'));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(limit), bytes.to_string()).unwrap();
        self
    }
}

impl Drop for Group {
    /// BuildKit makes the group in every hierarchy, and one of its own below.
    fn drop(&mut self) {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies =
            std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        for hierarchy in hierarchies.chain([root.to_owned()]) {
            let group = hierarchy.join(self.name.trim_start_matches('/'));
            let _ = std::fs::remove_dir(group.join("buildkit"));
            let _ = std::fs::remove_dir(group);
        }
    }
}
