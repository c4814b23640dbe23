//! Reads the wire contract and writes `method.rs`: one enum variant for every method that a client can call, so that a
//! `match` over permissions without an arm for a new method does not compile.

use std::fmt::Write as _;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The package whose services the agent serves. The other packages are no services of the agent.
const PACKAGE: &str = "refloat.v1";
/// Services that the agent serves beside its own.
const STANDARD: [(&str, &[&str]); 2] = [
    ("grpc.health.v1.Health", &["Check", "Watch"]),
    ("grpc.reflection.v1.ServerReflection", &["ServerReflectionInfo"]),
];

struct Row {
    variant: String,
    path: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = FileDescriptorSet::decode(refloat_proto::FILE_DESCRIPTOR_SET)?;
    let rows = rows(&descriptors);
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("method.rs");
    std::fs::write(out, source(&rows)?)?;
    Ok(())
}

fn rows(descriptors: &FileDescriptorSet) -> Vec<Row> {
    let own = descriptors.file.iter().filter(|file| file.package() == PACKAGE).flat_map(|file| &file.service);
    let own = own.flat_map(|service| {
        let name = format!("{PACKAGE}.{}", service.name());
        service.method.iter().map(move |method| row(&name, method.name())).collect::<Vec<_>>()
    });
    let standard = STANDARD.iter().flat_map(|(service, methods)| methods.iter().map(|method| row(service, method)));
    own.chain(standard).collect()
}

fn row(service: &str, method: &str) -> Row {
    let name = service.rsplit('.').next().unwrap_or_default();
    let short = name.strip_suffix("Service").unwrap_or(name);
    Row { variant: format!("{short}{method}"), path: format!("/{service}/{method}") }
}

fn source(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "/// Every method that can be called over the agent's listeners.")?;
    writeln!(out, "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]")?;
    writeln!(out, "pub enum Method {{")?;
    for row in rows {
        writeln!(out, "    /// `{}`\n    {},", row.path, row.variant)?;
    }
    writeln!(out, "}}\n\nimpl Method {{\n    /// Every method, in the order of the contract.")?;
    writeln!(out, "    pub const ALL: [Self; {}] = [", rows.len())?;
    for row in rows {
        writeln!(out, "        Self::{},", row.variant)?;
    }
    writeln!(
        out,
        "    ];\n\n    /// Its path on the wire.\n    #[must_use]\n    pub fn path(self) -> &'static str {{"
    )?;
    writeln!(out, "        match self {{")?;
    for row in rows {
        writeln!(out, "            Self::{} => \"{}\",", row.variant, row.path)?;
    }
    writeln!(
        out,
        "        }}\n    }}\n\n    /// The method of a path; `None` for every path that the contract does not name."
    )?;
    writeln!(out, "    #[must_use]\n    pub fn of(path: &str) -> Option<Self> {{\n        match path {{")?;
    for row in rows {
        writeln!(out, "            \"{}\" => Some(Self::{}),", row.path, row.variant)?;
    }
    writeln!(out, "            _ => None,\n        }}\n    }}\n}}")?;
    Ok(out)
}
