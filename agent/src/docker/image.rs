//! Images: looked at, kept by our tag, let go, read out as a tar archive.
//!
//! An image is named by what the engine calls its id. With the engine's own image store that is the config digest.
//! With the containerd image store (`docker info` names the driver type `io.containerd.snapshotter.v1`) it is the
//! manifest digest: as fixed and as content-addressed, but another one than the same image has elsewhere. The API gives
//! no config digest there, so what is compared between servers must not be this id.

use std::collections::HashMap;

use bollard::models::{ImageConfig, ImageInspect};
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use refloat_model::{AppName, ImageDigest, ReleaseNumber};
use time::{Duration, OffsetDateTime};
use tokio::sync::mpsc;

use super::connect::{CHANGE_TIMEOUT_MS, READ_TIMEOUT_MS, STREAM_IDLE_TIMEOUT_MS, next_within, within};
use super::engine::{EngineError, ImageInfo};
use super::real::DockerEngine;
use super::run::OneOff;

/// How long an image that no release has kept is held: a deployment that was cut off in its build is long over.
const FRESH_KEPT: Duration = Duration::hours(24);

impl DockerEngine {
    pub(super) async fn image_info(&self, digest: &ImageDigest) -> Result<Option<ImageInfo>, EngineError> {
        Ok(self.inspect_image(digest.as_str()).await?.map(|found| info(&found)))
    }

    pub(super) async fn tag_for_release(
        &self,
        digest: &ImageDigest,
        app: &AppName,
        release: ReleaseNumber,
    ) -> Result<(), EngineError> {
        self.tag(digest, &self.host.repository(app), &release.to_string()).await?;
        self.drop_fresh_tags(digest).await
    }

    async fn tag(&self, digest: &ImageDigest, repository: &str, tag: &str) -> Result<(), EngineError> {
        const WHAT: &str = "to tag the image";
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let call = self.docker().await?.tag_image(digest.as_str(), Some(options));
        within(WHAT, CHANGE_TIMEOUT_MS, call).await.map_err(|f| f.about(WHAT, &format!("the image {digest}")))
    }

    /// Removes images that were built more than a day ago and that no release has kept: builds whose output was read
    /// out, or that an agent was killed in. May be called at any time.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn remove_stale_builds(&self) -> Result<usize, EngineError> {
        const WHAT: &str = "to list the images";
        let reference = vec![self.host.fresh_repository()];
        let filters = HashMap::from([("reference".to_owned(), reference)]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let call = self.docker().await?.list_images(Some(options));
        let found = within(WHAT, READ_TIMEOUT_MS, call).await.map_err(|f| f.refused(WHAT))?;
        let fresh = format!("{}:", self.host.fresh_repository());
        let mut removed = 0;
        for tag in found.into_iter().flat_map(|image| image.repo_tags).filter(|tag| tag.starts_with(&fresh)) {
            if self.inspect_image(&tag).await?.is_some_and(|image| is_stale(&image, OffsetDateTime::now_utc())) {
                self.untag(&tag).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn drop_fresh_tags(&self, digest: &ImageDigest) -> Result<(), EngineError> {
        let fresh = format!("{}:", self.host.fresh_repository());
        let tags = self.inspect_image(digest.as_str()).await?.and_then(|found| found.repo_tags).unwrap_or_default();
        for tag in tags.iter().filter(|tag| tag.starts_with(&fresh)) {
            self.untag(tag).await?;
        }
        Ok(())
    }

    pub(super) async fn untag(&self, tag: &str) -> Result<(), EngineError> {
        const WHAT: &str = "to remove the image";
        let options = RemoveImageOptionsBuilder::default().noprune(false).build();
        match within(WHAT, CHANGE_TIMEOUT_MS, self.docker().await?.remove_image(tag, Some(options), None)).await {
            Err(fault) if fault.is_status(404) => Ok(()),
            answer => answer.map(|_| ()).map_err(|f| f.refused(WHAT)),
        }
    }

    pub(super) async fn inspect_image(&self, image: &str) -> Result<Option<ImageInspect>, EngineError> {
        const WHAT: &str = "to look at the image";
        match within(WHAT, READ_TIMEOUT_MS, self.docker().await?.inspect_image(image)).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_status(404) => Ok(None),
            Err(fault) => Err(fault.refused(WHAT)),
        }
    }

    pub(super) async fn export_image(&self, image: &ImageDigest, to: mpsc::Sender<Vec<u8>>) -> Result<(), EngineError> {
        let container = OneOff::for_export(self, image).await?;
        let sent = self.send_archive(container.name(), &to).await;
        container.remove(self).await.and(sent)
    }

    async fn send_archive(&self, container: &str, to: &mpsc::Sender<Vec<u8>>) -> Result<(), EngineError> {
        const WHAT: &str = "to read the image";
        let mut archive = Box::pin(self.docker().await?.export_container(container));
        while let Some(chunk) =
            next_within(WHAT, STREAM_IDLE_TIMEOUT_MS, &mut archive).await.map_err(|f| f.about(WHAT, container))?
        {
            if to.send(chunk.to_vec()).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// An image without a known time of its tag is held.
fn is_stale(image: &ImageInspect, now: OffsetDateTime) -> bool {
    let tagged = image.metadata.as_ref().and_then(|metadata| metadata.last_tag_time);
    tagged.is_some_and(|at| now - at > FRESH_KEPT)
}

fn info(found: &ImageInspect) -> ImageInfo {
    let config = found.config.as_ref();
    ImageInfo {
        exposed_ports: config.map(exposed_tcp).unwrap_or_default(),
        size_bytes: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        user: config.and_then(|c| c.user.clone()).unwrap_or_default(),
    }
}

/// "8080/tcp" and "8080" are TCP.
fn exposed_tcp(config: &ImageConfig) -> Vec<u16> {
    let ports = config.exposed_ports.iter().flatten();
    let mut tcp: Vec<u16> = ports.filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok()).collect();
    tcp.sort_unstable();
    tcp.dedup();
    tcp
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageInspectMetadata;

    use super::*;

    #[test]
    fn an_image_that_no_release_kept_is_stale_after_a_day() {
        let tagged = OffsetDateTime::UNIX_EPOCH;
        let metadata = Some(ImageInspectMetadata { last_tag_time: Some(tagged) });
        let image = ImageInspect { metadata, ..ImageInspect::default() };
        assert!(!is_stale(&image, tagged + Duration::hours(23)));
        assert!(is_stale(&image, tagged + Duration::hours(25)));
        assert!(!is_stale(&ImageInspect::default(), tagged + Duration::days(9)));
    }

    #[test]
    fn only_tcp_ports_count_and_they_are_sorted() {
        let exposed = ["8080/tcp", "53/udp", "80", "8080/tcp"].map(str::to_owned).to_vec();
        let config = ImageConfig { exposed_ports: Some(exposed), ..ImageConfig::default() };
        assert_eq!(exposed_tcp(&config), [80, 8080]);
    }
}
