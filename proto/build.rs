//! Compiles the contract with a protoc written in Rust, so that a build needs no other program.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 8] = [
    "refloat/v1/common.proto",
    "refloat/v1/identity.proto",
    "refloat/v1/source.proto",
    "refloat/v1/release.proto",
    "refloat/v1/deployment.proto",
    "refloat/v1/app.proto",
    "refloat/edge/v1/control.proto",
    "refloat/ledger/v1/record.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=refloat");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // A value of the environment must never be printed by way of Debug.
    tonic_prost_build::configure().skip_debug(["refloat.v1.EnvValue"]).compile_fds(descriptors)?;
    Ok(())
}
