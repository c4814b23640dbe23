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

/// What the server answers with: the CLI prints it as JSON. Requests stay out, since they carry secrets.
const ANSWERS: [&str; 33] = [
    "Accepted",
    "ActivationView",
    "AppStatus",
    "CancelResponse",
    "Change",
    "DeploymentEvent",
    "DiffReleasesResponse",
    "Downtime",
    "EnvName",
    "Fetched",
    "FileChange",
    "Generation",
    "GetReleaseResponse",
    "GetStatusResponse",
    "HostStatus",
    "InstanceStatus",
    "ListAppsResponse",
    "ListEnvResponse",
    "ListReleasesResponse",
    "LogLine",
    "Note",
    "Origin",
    "Outcome",
    "OutputLine",
    "PhaseChanged",
    "Problem",
    "ProcessView",
    "Progress",
    "ReleaseSummary",
    "RunningDeployment",
    "Timing",
    "UploadResponse",
    "WhoAmIResponse",
];

/// Fields of bytes in them: ids and digests, printed as hexadecimal digits.
const DIGESTS: [&str; 3] = ["ReleaseSummary.id", "GetReleaseResponse.source", "GetReleaseResponse.plan"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=refloat");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // A value of the environment must never be printed by way of Debug.
    let mut builder = tonic_prost_build::configure().skip_debug(["refloat.v1.EnvValue"]);
    for name in ANSWERS {
        builder = builder.message_attribute(format!(".refloat.v1.{name}"), "#[derive(serde::Serialize)]");
    }
    for field in DIGESTS {
        builder = builder
            .field_attribute(format!(".refloat.v1.{field}"), "#[serde(serialize_with = \"crate::json::hexadecimal\")]");
    }
    builder
        .enum_attribute(".refloat.v1.DeploymentEvent.event", "#[derive(serde::Serialize)]")
        .enum_attribute(".refloat.v1.DeploymentEvent.event", "#[serde(rename_all = \"snake_case\")]")
        .field_attribute(".refloat.v1.Outcome.kind", "#[serde(serialize_with = \"crate::json::outcome_kind\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
