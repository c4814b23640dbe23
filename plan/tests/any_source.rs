//! Whatever a source holds, it gives a plan or an error, and a plan that a release can hold.

use proptest::prelude::*;
use refloat_plan::plan::{BackendPlan, Build, Plan};
use refloat_plan::render::render;
use refloat_plan::settings::Settings;
use refloat_plan::source::MemorySource;
use refloat_plan::{Request, plan};

/// Names that detection looks for, so that random sources reach its depths.
const NAMES: [&str; 24] = [
    "package.json",
    "package-lock.json",
    "pnpm-lock.yaml",
    "yarn.lock",
    "bun.lock",
    "bun.lockb",
    "index.html",
    "vite.config.ts",
    "Dockerfile",
    "refloat.toml",
    "server.js",
    "server/package.json",
    "server/index.js",
    "client/package.json",
    "client/index.html",
    ".env",
    ".nvmrc",
    "pnpm-workspace.yaml",
    "api/hello.ts",
    "supabase/functions/x/index.ts",
    "src/main.tsx",
    "public/404.html",
    "backend/requirements.txt",
    "README.md",
];

/// Pieces of the texts that these files have.
const PIECES: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\n",
    " ",
    "\"scripts\":",
    "\"start\":",
    "\"build\":",
    "\"dependencies\":",
    "\"vite\":",
    "\"express\":",
    "\"^1.0.0\"",
    "\"workspaces\":",
    "\"packages/*\"",
    "\"node index.js\"",
    "\"npm run start\"",
    "\"packages\":",
    "\"\":",
    "importers:\n  .:\n    dependencies:\n      vite:\n        specifier: 1",
    "lockfileVersion: 5",
    "outDir: 'x'",
    "proxy: {",
    "'/api': ",
    "import.meta.env.VITE_X",
    "FROM node",
    "COPY a b\n",
    "EXPOSE 80\n",
    "CMD [\"vite\"]",
    "app.listen(3000)",
    "[process.web]\n",
    "port = 1\n",
    "A=\"b",
    "\\",
    "${X}",
    "é",
    "//",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES.as_slice()), 0..30);
    let valid = prop::sample::select(
        [
            r#"{ "scripts": { "build": "vite build", "start": "node server.js" }, "dependencies": { "vite": "1", "express": "1" } }"#,
            r#"{ "workspaces": ["client", "**"], "dependencies": { "express": "git+ssh://x" }, "packageManager": "pnpm@9" }"#,
            "app.use(express.static('x')); app.listen(process.env.PORT)",
        ]
        .as_slice(),
    );
    prop_oneof![
        3 => pieces.prop_map(|p| p.concat().into_bytes()),
        3 => valid.prop_map(|v| v.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(NAMES.as_slice()).prop_map(|n| n.as_bytes().to_vec()),
        1 => prop::collection::vec(prop_oneof![Just(b'/'), Just(b'='), Just(b'['), Just(0xff), Just(b'.'), Just(b'a'), Just(b'\n')], 1..12),
    ]
}

/// What whoever carries out a plan relies on.
fn is_sound(plan: &Plan) -> Result<(), TestCaseError> {
    let builds: Vec<&str> = plan.builds.iter().map(Build::name).collect();
    let label = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    prop_assert!(label(&plan.app) && plan.app.len() <= 40, "app {:?}", plan.app);
    prop_assert!(plan.processes.windows(2).all(|p| p[0].name < p[1].name), "processes in order");
    for process in &plan.processes {
        let (BackendPlan::Instance { build, .. } | BackendPlan::Files { build, .. }) = &process.backend;
        prop_assert!(builds.contains(&build.as_str()), "{build} is built");
        prop_assert!(label(&process.name) && process.name.len() <= 20, "process {:?}", process.name);
        prop_assert!(process.routes.iter().all(|r| r.starts_with('/')), "routes {:?}", process.routes);
    }
    for build in &plan.builds {
        if let Build::Image { dockerfile, own: false, .. } | Build::Tree { dockerfile, .. } = build {
            prop_assert!(dockerfile.contains("FROM "), "{dockerfile}");
            prop_assert!(!dockerfile.to_ascii_lowercase().contains("syntax"), "{dockerfile}");
        }
    }
    prop_assert!(!render(plan).is_empty(), "it can be printed");
    prop_assert_eq!(plan.digest(), plan.clone().digest());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_source_gives_a_sound_plan_or_an_error(
        files in prop::collection::vec((path(), text()), 0..8),
        folder_name in ".{0,60}",
        prebuilt in any::<bool>(),
    ) {
        let source = MemorySource::new(files);
        match plan(&source, &Request { folder_name, prebuilt }) {
            Ok(plan) => is_sound(&plan)?,
            Err(error) => prop_assert!(!error.message.is_empty() && !error.next.is_empty(), "{error:?}"),
        }
    }

    #[test]
    fn any_settings_are_read_or_refused(text in "(?s).{0,300}") {
        let _ = Settings::parse(&text);
    }
}

#[test]
fn the_same_source_gives_the_same_plan() {
    let files = [
        (
            "package.json",
            r#"{ "name": "x", "scripts": { "build": "vite build" }, "devDependencies": { "vite": "7" } }"#,
        ),
        ("index.html", ""),
    ];
    let once = plan(&MemorySource::new(files), &Request::default()).map(|p| p.digest()).ok();
    let twice = plan(&MemorySource::new(files), &Request::default()).map(|p| p.digest()).ok();
    assert!(once.is_some());
    assert_eq!(once, twice);
}

#[test]
fn brackets_without_end_do_not_exhaust_the_stack() {
    let deep = "[".repeat(900_000);
    for name in ["package.json", "package-lock.json", "bun.lock", "refloat.toml", "vite.config.ts", "pnpm-lock.yaml"] {
        let package = r#"{ "devDependencies": { "vite": "7" } }"#;
        let files = [("package.json", package), ("index.html", ""), (name, deep.as_str())];
        let _ = plan(&MemorySource::new(files), &Request::default());
    }
}
