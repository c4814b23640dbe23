//! The wire contract only grows: a field, value or method that once was there keeps its number, name and type.
//!
//! `descriptor_snapshot.txt` has one line for each of them. Every line must still be true; new ones are allowed, but
//! must be written down: `UPDATE_SNAPSHOT=1 cargo nextest run -p refloat-proto` adds them and never removes any.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};

fn snapshot_file() -> PathBuf {
    // Asked when it runs: clones that share a target folder share the compiled test.
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    PathBuf::from(crate_folder).join("tests/descriptor_snapshot.txt")
}

fn snapshot() -> BTreeSet<String> {
    let text = std::fs::read_to_string(snapshot_file()).expect("the snapshot is checked in");
    text.lines().map(str::to_owned).collect()
}

fn contract() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(refloat_proto::FILE_DESCRIPTOR_SET).expect("the descriptors decode");
    let own = |file: &&FileDescriptorProto| file.package().starts_with("refloat.");
    set.file.iter().filter(own).flat_map(file_lines).collect()
}

fn file_lines(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let messages = file.message_type.iter().flat_map(|m| message_lines(package, m));
    let enums = file.enum_type.iter().flat_map(|e| enum_lines(package, e));
    let services = file.service.iter().flat_map(|s| service_lines(package, s));
    messages.chain(enums).chain(services).collect()
}

fn message_lines(scope: &str, message: &DescriptorProto) -> Vec<String> {
    let name = format!("{scope}.{}", message.name());
    let mut lines = vec![format!("message {name}")];
    lines.extend(message.field.iter().map(|f| field_line(&name, message, f)));
    lines.extend(message.nested_type.iter().flat_map(|m| message_lines(&name, m)));
    lines.extend(message.enum_type.iter().flat_map(|e| enum_lines(&name, e)));
    lines
}

fn field_line(message: &str, parent: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let label = if field.label() == Label::Repeated { "repeated " } else { "" };
    let choice = match field.oneof_index.and_then(|i| parent.oneof_decl.get(usize::try_from(i).ok()?)) {
        Some(oneof) => format!(" of {}", oneof.name()),
        None => String::new(),
    };
    format!("field {message} {} = {label}{kind} {}{choice}", field.number(), field.name())
}

fn enum_lines(scope: &str, of: &EnumDescriptorProto) -> Vec<String> {
    let value = |v: &prost_types::EnumValueDescriptorProto| {
        format!("value {scope}.{} {} = {}", of.name(), v.number(), v.name())
    };
    of.value.iter().map(value).collect()
}

fn service_lines(package: &str, service: &ServiceDescriptorProto) -> Vec<String> {
    let stream = |yes: bool| if yes { "stream " } else { "" };
    let line = |m: &MethodDescriptorProto| {
        let (input, output) = (m.input_type().trim_start_matches('.'), m.output_type().trim_start_matches('.'));
        let (up, down) = (stream(m.client_streaming()), stream(m.server_streaming()));
        format!("rpc {package}.{}.{} ({up}{input}) returns ({down}{output})", service.name(), m.name())
    };
    service.method.iter().map(line).collect()
}

/// What the snapshot promises and the contract no longer keeps.
fn broken(snapshot: &BTreeSet<String>, contract: &BTreeSet<String>) -> Vec<String> {
    snapshot.difference(contract).cloned().collect()
}

#[test]
fn nothing_was_removed_renumbered_renamed_or_retyped_and_additions_are_written_down() {
    let contract = contract();
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        let all: BTreeSet<String> = snapshot().union(&contract).cloned().collect();
        let text: String = all.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(snapshot_file(), text).expect("the snapshot can be written");
    }
    let snapshot = snapshot();
    let broken = broken(&snapshot, &contract);
    assert!(broken.is_empty(), "the contract no longer has:\n{}", broken.join("\n"));
    let unwritten: Vec<_> = contract.difference(&snapshot).cloned().collect();
    assert!(
        unwritten.is_empty(),
        "new in the contract, to be written down with UPDATE_SNAPSHOT=1 cargo nextest run -p refloat-proto:\n{}",
        unwritten.join("\n")
    );
}

#[test]
fn a_renumbered_field_breaks_the_contract_and_a_new_one_does_not() {
    let field = |number: i32, name: &str, kind: Type| {
        let mut field =
            FieldDescriptorProto { name: Some(name.to_owned()), number: Some(number), ..Default::default() };
        field.set_type(kind);
        field
    };
    let message = |fields: Vec<FieldDescriptorProto>| -> BTreeSet<String> {
        let message = DescriptorProto { name: Some("M".to_owned()), field: fields, ..Default::default() };
        message_lines("p", &message).into_iter().collect()
    };
    let old = message(vec![field(1, "a", Type::String)]);
    assert_eq!(old.iter().map(String::as_str).collect::<Vec<_>>(), ["field p.M 1 = string a", "message p.M"]);
    assert_eq!(broken(&old, &message(vec![field(1, "a", Type::String), field(2, "b", Type::Bool)])), [""; 0]);
    for changed in [field(2, "a", Type::String), field(1, "b", Type::String), field(1, "a", Type::Bytes)] {
        assert_eq!(broken(&old, &message(vec![changed])), ["field p.M 1 = string a"]);
    }
}
