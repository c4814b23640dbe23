//! A deploy whose upload is under way for as long as a test wants it to be.

use std::process::Child;
use std::time::Duration;

use refloat_testkit::command::{Finished, begin};
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::laptop::Laptop;
use refloat_testkit::meter::Meter;
use refloat_testkit::project::noise;

use crate::scene::Scene;

/// What is to be sent. It does not compress.
const SOURCE_BYTES: usize = 24 << 20;
/// What has passed when the rest is held back: much more than everything that comes before an upload.
const PASSED_BYTES: u64 = 8 << 20;
const BEGUN: Duration = Duration::from_secs(60);

/// The deploy, of another laptop than the scene's, through a relay that keeps the second half of its upload.
#[derive(Debug)]
pub struct HeldUpload {
    deploy: Child,
    meter: Meter,
    /// Holds the keys of the deploy.
    _laptop: Laptop,
}

impl HeldUpload {
    /// Begins to deploy the scene's project with a large file, and waits until much of it has reached the agent.
    ///
    /// # Panics
    /// When it does not within a minute.
    #[must_use]
    pub fn begin(scene: &Scene) -> Self {
        scene.project.write("large.bin", noise(1, SOURCE_BYTES));
        let laptop = scene.laptop.beside();
        let meter = Meter::at(laptop.host_address().into(), scene.host.agent_address());
        laptop.pair_at(&scene.host, meter.address());
        meter.hold_after(PASSED_BYTES);
        let deploy = begin(&mut laptop.command(scene.project.folder(), &["deploy"]));
        eventually_true("half of the upload has passed", BEGUN, || meter.holds());
        Self { deploy, meter, _laptop: laptop }
    }

    /// That the deploy is still in its upload.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_under_way(&mut self) {
        let sent = self.meter.sent_bytes();
        assert!(self.meter.holds(), "the upload is not held back after {sent} bytes");
        assert!(sent < SOURCE_BYTES as u64, "{sent} bytes were sent: that is all of it");
        let ended = self.deploy.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "the deploy has ended: {ended:?}");
    }

    /// Lets the rest pass, and waits until the deploy has ended.
    #[must_use]
    pub fn finish(self) -> Finished {
        self.meter.let_go();
        Finished::end_of(self.deploy)
    }
}
