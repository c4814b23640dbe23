use super::*;

fn refused(text: &str) -> String {
    match Settings::parse(text) {
        Ok(settings) => format!("accepted: {settings:?}"),
        Err(error) => format!("{}\n{}", error.message, error.next),
    }
}

fn accepted(text: &str) -> Settings {
    Settings::parse(text).unwrap_or_else(|e| panic!("{}: {}", e.message, e.next))
}

#[test]
fn every_documented_key_is_accepted() {
    let text = include_str!("../settings.rs");
    let example: String = text
        .lines()
        .skip_while(|l| *l != "//! ```toml")
        .skip(1)
        .take_while(|l| *l != "//! ```")
        .map(|l| format!("{}\n", l.trim_start_matches("//!").trim_start()))
        .collect();
    assert!(example.contains("schema = 1"));
    let settings = accepted(&example);
    let api = &settings.process["api"];
    assert_eq!(api.memory, Some(MemoryMib(512)));
    assert_eq!(api.cpu, Some(CpuMillis(500)));
    assert_eq!(api.start_timeout, Some(StartTimeout(60_000)));
    assert_eq!(settings.volumes["data"].path(), "/data");
    assert_eq!(settings.env.required, ["DATABASE_URL"]);
}

#[test]
fn an_unknown_key_is_refused_at_every_level_with_the_nearest_one() {
    for (text, key, near) in [
        ("ap = 'x'", "\"ap\"", "\"app\""),
        ("[process.web]\nprot = 1", "\"process.web.prot\"", "\"process.web.port\""),
        ("[build]\noutdir = 'x'", "\"build.outdir\"", "\"build.output\""),
        ("[env]\nrequire = []", "\"env.require\"", "\"env.required\""),
        ("[volumes]\ndata = { proces = 'a', path = '/d' }", "\"volumes.data.proces\"", "\"volumes.data.process\""),
    ] {
        let said = refused(text);
        assert!(said.contains(key) && said.contains(&format!("Did you mean {near}?")), "{said}");
    }
}

#[test]
fn a_key_that_is_near_to_nothing_lists_what_there_is() {
    assert!(refused("[build]\nzzz = 1").contains("Known here: folder, command"));
}

#[test]
fn a_newer_schema_says_what_to_install() {
    insta::assert_snapshot!(refused("schema = 2"), @r"
    refloat.toml has schema 2; this version of refloat understands schema 1.
    Install a newer refloat on this computer and on the server, or write the file for schema 1.
    ");
}

#[test]
fn a_syntax_error_names_its_line() {
    let said = refused("schema = 1\napp = \n");
    assert!(said.starts_with("refloat.toml, line 2: "), "{said}");
}

#[test]
fn a_value_of_the_wrong_type_names_its_line() {
    let said = refused("[process.web]\nport = 'http'\n");
    assert!(said.starts_with("refloat.toml, line 2: "), "{said}");
}

#[test]
fn a_command_for_a_shell_is_refused_as_text() {
    assert!(refused("[process.web]\ncommand = 'a && b'").contains("write an array"));
    assert_eq!(
        accepted("[process.web]\ncommand = 'node a.js'").process["web"].command,
        Some(Command(vec!["node".into(), "a.js".into()]))
    );
}

#[test]
fn units_mean_what_they_say() {
    for (written, mib) in [("'1GiB'", 1024), ("256", 256), ("'0.5g'", 512), ("'64 MiB'", 64)] {
        let settings = accepted(&format!("[process.web]\nmemory = {written}"));
        assert_eq!(settings.process["web"].memory, Some(MemoryMib(mib)), "{written}");
    }
    for written in ["1", "'10kb'", "'x'", "-5", "nan", "inf", "1e30"] {
        assert!(
            refused(&format!("[process.web]\nmemory = {written}")).starts_with("refloat.toml, line 2"),
            "{written}"
        );
    }
}

#[test]
fn paths_that_leave_the_source_are_refused() {
    for path in ["../x", "/etc", "a/../../b", "", "a//b"] {
        assert!(refused(&format!("[build]\nfolder = '{path}'")).contains("below the root"), "{path}");
    }
    accepted("[build]\nfolder = './apps/shop/'");
}

#[test]
fn a_process_cannot_mount_a_volume_that_is_not_declared() {
    assert!(refused("[process.api]\nvolumes = ['data']").contains("Add `data = \"/data\"` under [volumes]."));
}

#[test]
fn names_and_routes_that_a_release_could_not_hold_are_refused() {
    assert!(refused("app = 'My App'").contains("cannot be a name"));
    assert!(refused("[process.Web]\nport = 1").contains("cannot be a name"));
    assert!(refused("[process.web]\nroutes = ['api']").contains("is no path prefix"));
    assert!(refused("[volumes]\ndata = '/'").contains("is no mount path"));
    assert!(refused("[process.tick]\nkind = 'cron'").contains("cannot be run yet"));
}

#[test]
fn only_capabilities_of_the_usual_set_that_are_not_there_anyway_can_be_given_back() {
    let of = |name: &str| refused(&format!("[process.web]\ncapabilities = ['{name}']"));
    for name in crate::capability::DROPPED {
        assert!(of(name).starts_with("accepted"), "{name}");
        assert!(of(&format!("CAP_{name}")).starts_with("accepted"), "{name}");
    }
    for (name, said) in [
        (
            "NET_ROW",
            "line 2: \"NET_ROW\" is no capability that can be given back; did you mean NET_RAW? there are AUDIT_WRITE",
        ),
        ("CHROOT", "did you mean SYS_CHROOT?"),
        ("SYS_ADMIN", "\"SYS_ADMIN\" is no capability that can be given back; there are AUDIT_WRITE"),
        ("ALL", "\"ALL\" is no capability that can be given back; there are "),
        ("NET_ADMIN", "\"NET_ADMIN\" is no capability that can be given back; "),
        ("CHOWN", "the capability CHOWN need not be given back: every own Dockerfile has it"),
    ] {
        assert!(of(name).contains(said), "{name}: {}", of(name));
    }
    assert!(of("SYS_ADMIN").contains("AUDIT_WRITE, FSETID, MKNOD, NET_RAW, SETFCAP, SETPCAP, SYS_CHROOT"));
}

#[test]
fn the_reserved_table_is_accepted_as_it_is() {
    assert!(accepted("[checks]\nanything = { goes = [1] }").checks.contains_key("anything"));
}
