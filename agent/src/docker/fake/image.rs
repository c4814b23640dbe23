//! The fake engine's images and its builder, which knows FROM, COPY, RUN, EXPOSE and USER.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use refloat_model::ImageDigest;

use super::behaviour::Behaviour;
use super::shell::{self, Act};
use crate::docker::{EngineError, ImageInfo};

#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) info: ImageInfo,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) tags: BTreeSet<String>,
    pub(super) behaviour: Option<Behaviour>,
}

impl Image {
    pub(super) fn empty() -> Self {
        let info = ImageInfo { exposed_ports: Vec::new(), size_bytes: 1_000_000, user: String::new() };
        Self { info, files: BTreeMap::new(), tags: BTreeSet::new(), behaviour: None }
    }

    /// Its file system as a tar archive.
    pub(super) fn archive(&self) -> Result<Vec<u8>, EngineError> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, bytes.as_slice()).map_err(|e| refused(e.to_string()))?;
        }
        archive.into_inner().map_err(|e| refused(e.to_string()))
    }
}

/// One instruction of a Dockerfile.
#[derive(Debug)]
pub(super) struct Instruction {
    /// "[2/3] RUN echo x".
    pub(super) text: String,
    /// What a RUN does.
    pub(super) acts: Vec<Act>,
    /// Identity of everything up to it, for the cache.
    pub(super) chain: [u8; 32],
}

/// A build that was read and not yet done.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) instructions: Vec<Instruction>,
    pub(super) image: Image,
    pub(super) digest: ImageDigest,
}

/// Reads a build context.
pub(super) fn read(context: &Path, dockerfile: &str) -> Result<Recipe, EngineError> {
    let files = unpack(context)?;
    let text = files.get(dockerfile).ok_or_else(|| failed(format!("there is no {dockerfile}")))?;
    let text = String::from_utf8_lossy(text).into_owned();
    let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let steps = lines.iter().filter(|line| makes_a_step(line)).count();
    let (mut image, mut instructions, mut chain) = (Image::empty(), Vec::new(), [0; 32]);
    for line in lines {
        chain = link(chain, line.as_bytes());
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "FROM" | "RUN" => {}
            "COPY" => chain = link(chain, copy(rest, &files, &mut image)?),
            "EXPOSE" => {
                image.info.exposed_ports.extend(rest.split('/').next().and_then(|port| port.parse::<u16>().ok()))
            }
            "USER" => image.info.user = rest.to_owned(),
            "CMD" | "ENV" | "WORKDIR" | "ARG" => {}
            _ => return Err(failed(format!("dockerfile parse error: unknown instruction: {word}"))),
        }
        if makes_a_step(line) {
            let text = format!("[{}/{steps}] {line}", instructions.len() + 1);
            let acts = if word == "RUN" { shell::parse(rest) } else { Vec::new() };
            instructions.push(Instruction { text, acts, chain });
        }
    }
    image.info.exposed_ports.sort_unstable();
    let digest = digest_of(&chain);
    Ok(Recipe { instructions, image, digest })
}

/// A digest that looks like one of an image.
pub(super) fn digest_of(bytes: &[u8]) -> ImageDigest {
    let text = format!("sha256:{}", blake3::hash(bytes).to_hex());
    match ImageDigest::new(text) {
        Ok(digest) => digest,
        Err(_) => unreachable!("64 hexadecimal digits are a digest"),
    }
}

fn copy<'f>(rest: &str, files: &'f BTreeMap<String, Vec<u8>>, image: &mut Image) -> Result<&'f [u8], EngineError> {
    let (from, to) = rest.split_once(' ').unwrap_or((rest, "/"));
    let bytes = files.get(from).ok_or_else(|| failed(format!("\"/{from}\": not found")))?;
    let to = if to.ends_with('/') { format!("{to}{from}") } else { to.to_owned() };
    image.files.insert(to.trim_start_matches('/').to_owned(), bytes.clone());
    Ok(bytes)
}

fn makes_a_step(line: &str) -> bool {
    ["FROM ", "RUN ", "COPY "].iter().any(|word| line.starts_with(word))
}

fn link(chain: [u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chain).update(bytes);
    *hasher.finalize().as_bytes()
}

fn unpack(context: &Path) -> Result<BTreeMap<String, Vec<u8>>, EngineError> {
    let unreadable = |e: std::io::Error| refused(format!("the build's files cannot be read: {e}"));
    let file = std::fs::File::open(context).map_err(unreadable)?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(file).entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(unreadable)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

fn failed(line: String) -> EngineError {
    EngineError::BuildFailed { step: "reading the Dockerfile".to_owned(), lines: vec![line], out_of_memory: false }
}

fn refused(message: String) -> EngineError {
    EngineError::Refused { what: "to build", message }
}
