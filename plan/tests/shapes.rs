//! Every shape that is planned, as a small source in memory and the plan that is printed for it.

use std::fmt::Write;

use refloat_plan::plan::{Build, Plan};
use refloat_plan::render::render;
use refloat_plan::source::MemorySource;
use refloat_plan::{PlanError, Request, plan};

type Files<'a> = &'a [(&'a str, &'a str)];

fn planned(files: Files<'_>, prebuilt: bool) -> Result<Plan, PlanError> {
    let source = MemorySource::new(files.iter().map(|(path, text)| (*path, *text)));
    plan(&source, &Request { folder_name: "my-folder".to_owned(), prebuilt })
}

/// The plan as people see it, and the Dockerfiles that nobody should have to see.
fn shown(result: Result<Plan, PlanError>) -> String {
    let plan = match result {
        Ok(plan) => plan,
        Err(error) => return format!("{}\nnext: {}\nlooked for: {:?}\n", error.message, error.next, error.looked_for),
    };
    let mut out = render(&plan);
    for build in &plan.builds {
        if let Build::Image { name, dockerfile, context, .. } | Build::Tree { name, dockerfile, context, .. } = build {
            let _ = write!(out, "\n--- {name} in \"{context}\"\n{dockerfile}");
        }
    }
    out
}

macro_rules! check {
    (prebuilt, $files:expr) => {
        insta::assert_snapshot!(shown(planned(&$files, true)))
    };
    ($files:expr) => {
        insta::assert_snapshot!(shown(planned(&$files, false)))
    };
}

fn ready(files: Files<'_>) -> Plan {
    planned(files, false).expect("the source has a plan")
}

fn decided(plan: &Plan, part: &str) -> bool {
    plan.reasons.iter().any(|r| format!("{}: {}", r.decision, r.because).contains(part))
}

fn noted(plan: &Plan, part: &str) -> bool {
    plan.notes.iter().any(|n| n.text.contains(part))
}

fn dockerfile<'p>(plan: &'p Plan, wanted: &str) -> &'p str {
    plan.builds
        .iter()
        .find_map(|b| match b {
            Build::Image { name, dockerfile, .. } | Build::Tree { name, dockerfile, .. } if name == wanted => {
                Some(dockerfile.as_str())
            }
            _ => None,
        })
        .unwrap_or_default()
}

const VITE: &str = r#"{ "name": "shop", "scripts": { "dev": "vite", "build": "vite build", "preview": "vite preview" },
  "dependencies": { "react": "^19.0.0" }, "devDependencies": { "vite": "^7.1.0" } }"#;
const VITE_LOCK: &str = r#"{ "lockfileVersion": 3, "packages": { "": { "name": "shop",
  "dependencies": { "react": "^19.0.0" }, "devDependencies": { "vite": "^7.1.0" } } } }"#;
const STALE_LOCK: &str = r#"{ "lockfileVersion": 3, "packages": { "": { "name": "shop",
  "dependencies": { "react": "^18.0.0" }, "devDependencies": { "vite": "^7.1.0" } } } }"#;
const PNPM_LOCK: &str = "lockfileVersion: '9.0'\n\nimporters:\n\n  .:\n    dependencies:\n      react:\n        specifier: ^19.0.0\n        version: 19.0.0\n    devDependencies:\n      vite:\n        specifier: ^7.1.0\n        version: 7.1.0\n\npackages:\n\n  react@19.0.0:\n    resolution: {integrity: x}\n";
const YARN_LOCK: &str = "# yarn lockfile v1\n\nreact@^19.0.0:\n  version \"19.0.0\"\n\n\"vite@^6.0.0 || ^7.0.0\", vite@^7.1.0:\n  version \"7.1.0\"\n";
const BERRY_LOCK: &str = "__metadata:\n  version: 8\n\n\"react@npm:^19.0.0\":\n  version: 19.0.0\n\n\"vite@npm:^7.0.0, vite@npm:^7.1.0\":\n  version: 7.1.0\n\n\"shop@workspace:.\":\n  version: 0\n";
const BUN_LOCK: &str = "{\n  \"lockfileVersion\": 1,\n  \"workspaces\": {\n    \"\": {\n      \"name\": \"shop\",\n      \"dependencies\": { \"react\": \"^19.0.0\", },\n      \"devDependencies\": { \"vite\": \"^7.1.0\", },\n    },\n  },\n}\n";
const PAGE: &str = "<div id=root></div><script type=module src=/src/main.tsx></script>";
const EXPRESS: &str =
    r#"{ "name": "api", "scripts": { "start": "node index.js" }, "dependencies": { "express": "^5.0.0" } }"#;
const LISTEN: &str = "const app = require('express')();\napp.get('/health', (q, s) => s.end());\napp.listen(process.env.PORT || 3001);\n";

// Vite pages

#[test]
fn a_vite_page_with_a_matching_npm_lockfile_is_built_into_files() {
    check!([
        ("package.json", VITE),
        ("package-lock.json", VITE_LOCK),
        ("index.html", PAGE),
        ("src/main.tsx", "fetch(import.meta.env.VITE_API_URL + import.meta.env.MODE)"),
        (".env", "VITE_API_URL=https://api.example.org\nVITE_UNUSED=1\nSERVER_ONLY=2\n"),
    ]);
}

#[test]
fn a_lockfile_that_drifted_is_not_installed_strictly() {
    check!([("package.json", VITE), ("package-lock.json", STALE_LOCK), ("index.html", PAGE)]);
}

#[test]
fn a_lockfile_without_the_peers_of_its_packages_is_not_installed_strictly() {
    let lock = |test: &str| {
        format!(
            r#"{{ "lockfileVersion": 3, "packages": {{ "": {{ "name": "shop", "dependencies": {{ "react": "^19.0.0" }},
            "devDependencies": {{ "vite": "^7.1.0" }} }}, "node_modules/react": {{}},
            "node_modules/vite": {{ "dependencies": {{ "react": "*" }}, "peerDependencies": {{ "less": "*" }},
            "peerDependenciesMeta": {{ "less": {{ "optional": true }} }} }},
            "node_modules/vite/node_modules/test": {test} }} }}"#
        )
    };
    let plan = |test: &str, settings: &str| {
        ready(&[("package.json", VITE), ("package-lock.json", &lock(test)), (".npmrc", settings), ("index.html", PAGE)])
    };
    let lacks = r#"{ "peerDependencies": { "react": "*", "@test/dom": "*" } }"#;
    let lenient = plan(lacks, "");
    assert!(noted(&lenient, "package-lock.json lacks @test/dom, which its packages need"), "{:?}", lenient.notes);
    assert!(dockerfile(&lenient, "web").contains(" npm install"), "{}", dockerfile(&lenient, "web"));
    for (test, settings) in [
        (r#"{ "peerDependencies": { "react": "*" } }"#, ""),
        (r#"{ "optional": true, "dependencies": { "@test/dom": "*" } }"#, ""),
        (lacks, "legacy-peer-deps = true\n"),
    ] {
        let strict = plan(test, settings);
        assert!(
            strict.notes.is_empty() && dockerfile(&strict, "web").contains(" npm ci"),
            "{test}: {:?}",
            strict.notes
        );
    }
}

#[test]
fn the_lockfile_that_matches_wins_over_one_that_was_left_behind() {
    check!([
        ("package.json", VITE),
        ("package-lock.json", STALE_LOCK),
        ("bun.lock", BUN_LOCK),
        ("bun.lockb", "\0"),
        ("index.html", PAGE)
    ]);
}

#[test]
fn pnpm_is_installed_by_the_version_of_its_lockfile() {
    check!([("package.json", VITE), ("pnpm-lock.yaml", PNPM_LOCK), ("index.html", PAGE)]);
}

#[test]
fn the_first_yarn_is_used_for_its_lockfile() {
    check!([("package.json", VITE), ("yarn.lock", YARN_LOCK), ("index.html", PAGE)]);
}

#[test]
fn a_later_yarn_is_used_for_its_lockfile() {
    check!([("package.json", VITE), ("yarn.lock", BERRY_LOCK), ("index.html", PAGE)]);
}

#[test]
fn a_later_yarn_is_the_one_that_writes_the_format_of_the_lockfile() {
    let of = |format: &str, field: &str| {
        let lock = BERRY_LOCK.replace("  version: 8\n", format);
        let manifest = VITE.replacen('{', &format!("{{ {field}"), 1);
        let plan = ready(&[("package.json", &manifest), ("yarn.lock", &lock), ("index.html", PAGE)]);
        let line =
            dockerfile(&plan, "web").lines().find(|l| l.contains("npm install -g")).unwrap_or_default().to_owned();
        line.rsplit_once("cli-dist@").map(|(_, version)| version.to_owned())
    };
    for (format, version) in [
        ("  version: 4\n", "3"),
        ("  version: 6\n  cacheKey: 8\n", "3"),
        ("  cacheKey: 10c0\n  version: 8\n", "4.13.0"),
        ("  version: 9\n", "4.14.1"),
        ("  version: 10\n", "4"),
        ("", "4"),
    ] {
        assert_eq!(of(format, "").as_deref(), Some(version), "{format}");
    }
    let pinned = "\"packageManager\": \"yarn@4.5.3+sha224.abc\",";
    assert_eq!(of("  version: 8\n", pinned).as_deref(), Some("4.5.3"));
}

#[test]
fn the_package_manager_field_outranks_lockfiles() {
    let package = VITE.replacen("\"name\"", "\"packageManager\": \"pnpm@10.4.1+sha512.abc\", \"name\"", 1);
    let plan = ready(&[
        ("package.json", &package),
        ("package-lock.json", VITE_LOCK),
        ("pnpm-lock.yaml", PNPM_LOCK),
        ("index.html", PAGE),
    ]);
    assert!(decided(&plan, "packageManager in package.json is pnpm@10.4.1"));
    assert!(dockerfile(&plan, "web").contains("npm install -g --force pnpm@10.4.1\n"));
}

#[test]
fn without_a_lockfile_the_release_is_not_reproducible_and_that_is_said() {
    let plan = ready(&[("package.json", VITE), ("index.html", PAGE)]);
    assert!(noted(&plan, "Not reproducible: there is no lockfile for npm"));
    assert!(dockerfile(&plan, "web").contains("npm install \\\n"));
}

#[test]
fn the_old_lockfile_of_bun_alone_is_not_trusted() {
    let plan = ready(&[("package.json", VITE), ("bun.lockb", "\0\u{1}"), ("index.html", PAGE)]);
    assert!(decided(&plan, "package manager: bun"));
    assert!(noted(&plan, "bun.lockb is not used: its format is binary"));
    assert!(!dockerfile(&plan, "web").contains("bun.lockb"));
}

#[test]
fn a_lockfile_without_the_packages_for_linux_is_not_used() {
    let lock = VITE_LOCK.replacen(
        "\"packages\": {",
        "\"packages\": { \"node_modules/rollup\": {}, \"node_modules/@rollup/rollup-darwin-arm64\": {},",
        1,
    );
    let plan = ready(&[("package.json", VITE), ("package-lock.json", &lock), ("index.html", PAGE)]);
    assert!(noted(&plan, "it was made on another system"));
    assert!(dockerfile(&plan, "web").contains("COPY package.json ./\n"));
}

#[test]
fn the_output_folder_comes_from_the_configuration() {
    let config = "export default { build: { outDir: 'build' }, base: '/shop/' }";
    let plan = ready(&[("package.json", VITE), ("vite.config.ts", config), ("index.html", PAGE)]);
    assert!(dockerfile(&plan, "web").ends_with("COPY --from=build /app/build/ /\n"));
    assert!(noted(&plan, "sets base to \"/shop/\""));
    let relative =
        ready(&[("package.json", VITE), ("vite.config.js", "export default { base: './' }"), ("index.html", PAGE)]);
    assert!(noted(&relative, "vite.config.js sets base to \"./\": a page whose address has more than one part"));
}

#[test]
fn a_real_404_page_takes_the_place_of_the_fallback() {
    check!([
        ("package.json", VITE),
        ("package-lock.json", VITE_LOCK),
        ("index.html", PAGE),
        ("public/404.html", "<h1>Gone</h1>"),
        ("public/assets/logo.svg", "")
    ]);
}

#[test]
fn a_404_page_that_only_redirects_does_not() {
    let plan = ready(&[
        ("package.json", VITE),
        ("index.html", PAGE),
        ("public/404.html", "<script>location.replace('/?p=' + location.pathname)</script>"),
    ]);
    assert!(decided(&plan, "unknown pages answer with index.html: public/404.html only sends visitors back"));
}

#[test]
fn a_secret_in_a_committed_env_file_is_not_published() {
    let plan = ready(&[
        ("package.json", VITE),
        ("index.html", PAGE),
        ("src/a.ts", "import.meta.env.VITE_STRIPE_SECRET_KEY; import.meta.env.VITE_NAME"),
        (".env.production", "VITE_STRIPE_SECRET_KEY=sk_live_1\nVITE_NAME=x\n"),
    ]);
    assert_eq!(plan.build_env, ["VITE_NAME", "VITE_STRIPE_SECRET_KEY"]);
    assert_eq!(plan.build_env_defaults, [("VITE_NAME".to_owned(), "x".to_owned())]);
    assert!(noted(&plan, "VITE_STRIPE_SECRET_KEY in a committed .env looks like a secret"));
    assert!(!format!("{plan:?}").contains("sk_live_1"));
}

#[test]
fn what_an_install_script_reads_is_copied_before_the_install() {
    let package = r#"{ "name": "shop", "scripts": { "build": "vite build", "postinstall": "patch-package && node tools/setup.js" }, "devDependencies": { "vite": "7" } }"#;
    let plan = ready(&[
        ("package.json", package),
        ("index.html", PAGE),
        ("tools/setup.js", ""),
        ("tools/more.js", ""),
        ("patches/a.patch", ""),
        (".npmrc", ""),
    ]);
    let text = dockerfile(&plan, "web");
    assert!(
        text.contains("COPY .npmrc package.json ./\nCOPY patches ./patches\nCOPY tools ./tools\nRUN --mount"),
        "{text}"
    );
}

#[test]
fn an_install_script_that_builds_gets_the_whole_source_first() {
    let package = r#"{ "scripts": { "build": "vite build", "postinstall": "npm run build" }, "devDependencies": { "vite": "7" } }"#;
    let plan = ready(&[("package.json", package), ("index.html", PAGE)]);
    assert!(decided(&plan, "the install comes after the whole source"));
    let text = dockerfile(&plan, "web");
    assert!(text.contains("FROM base AS build\nCOPY . .\nRUN --mount"), "{text}");
}

#[test]
fn the_node_version_is_that_of_nvmrc() {
    let plan = ready(&[("package.json", VITE), ("index.html", PAGE), (".nvmrc", "v22.3.0\n")]);
    assert!(dockerfile(&plan, "web").starts_with("FROM node:22-slim"));
}

#[test]
fn a_workspace_is_installed_from_its_root() {
    check!([
        ("package.json", r#"{ "name": "all", "private": true, "workspaces": ["client", "packages/*"] }"#),
        (
            "package-lock.json",
            r#"{ "lockfileVersion": 3, "packages": { "": { "name": "all" },
            "client": { "devDependencies": { "vite": "7", "ui": "*" } }, "packages/ui": {} } }"#
        ),
        (
            "client/package.json",
            r#"{ "name": "client", "scripts": { "build": "vite build" }, "devDependencies": { "vite": "7", "ui": "*" } }"#
        ),
        ("client/index.html", PAGE),
        ("packages/ui/package.json", r#"{ "name": "ui" }"#),
    ]);
}

// Builders and what they leave behind

#[test]
fn a_lovable_export_is_named_by_its_folder_and_its_functions_are_told() {
    check!([
        (
            "package.json",
            r#"{ "name": "vite_react_shadcn_ts", "scripts": { "build": "vite build", "start": "vite preview" },
            "dependencies": { "@supabase/supabase-js": "2" }, "devDependencies": { "vite": "5", "lovable-tagger": "1" } }"#
        ),
        ("index.html", PAGE),
        ("src/pay.ts", "supabase.functions.invoke('pay')"),
        ("supabase/functions/pay/index.ts", "Deno.serve(() => {})"),
        ("supabase/functions/_shared/cors.ts", ""),
    ]);
}

#[test]
fn functions_for_vercel_are_told_with_what_calls_them() {
    let plan = ready(&[
        ("package.json", VITE),
        ("index.html", PAGE),
        ("api/hello.ts", "export default function handler(req, res) { res.end() }"),
        ("api/_lib/db.ts", "export default 1"),
        ("src/a.ts", "fetch('/api/hello')"),
    ]);
    assert!(noted(&plan, "1 function (/api/hello) for Vercel will not run here; called by src/a.ts."));
    assert_eq!(plan.processes.len(), 1);
}

#[test]
fn builders_are_known_by_what_they_leave_behind() {
    let with = |package: &str, file: &str, text: &str| {
        ready(&[("package.json", package), ("index.html", PAGE), (file, text)]).builder.unwrap_or_default()
    };
    assert_eq!(with(VITE, ".bolt/config.json", "{}"), "Bolt");
    assert_eq!(with(VITE, "README.md", "Edit at https://lovable.dev/projects/1"), "Lovable");
    assert_eq!(with(VITE, "README.md", "built with v0.dev"), "v0");
    assert_eq!(with(VITE, "base44/entities/User.json", "{}"), "Base44");
    assert_eq!(with(VITE, ".emergent/emergent.yml", ""), "Emergent");
    assert_eq!(with(VITE, "README.md", "hello"), "");
}

// Node servers

#[test]
fn a_node_server_is_an_image_without_packages_for_development() {
    check!([
        (
            "package.json",
            r#"{ "name": "api", "scripts": { "start": "node index.js", "dev": "nodemon index.js" },
            "dependencies": { "express": "^5.0.0" }, "devDependencies": { "nodemon": "3" } }"#
        ),
        (
            "package-lock.json",
            r#"{ "lockfileVersion": 3, "packages": { "": { "dependencies": { "express": "^5.0.0" }, "devDependencies": { "nodemon": "3" } } } }"#
        ),
        ("index.js", LISTEN),
    ]);
}

#[test]
fn a_server_that_is_compiled_keeps_its_dependencies_in_a_layer_of_their_own() {
    check!([
        (
            "package.json",
            r#"{ "name": "api", "scripts": { "start": "node dist/index.js", "build": "tsc" },
            "dependencies": { "fastify": "5" }, "devDependencies": { "typescript": "5" } }"#
        ),
        ("src/index.ts", "import Fastify from 'fastify';\nFastify().listen({ port: 3000, host: '0.0.0.0' });"),
    ]);
}

#[test]
fn a_server_run_by_tsx_keeps_the_packages_for_development() {
    let plan = ready(&[
        (
            "package.json",
            r#"{ "scripts": { "start": "tsx src/index.ts" }, "dependencies": { "hono": "4" }, "devDependencies": { "tsx": "4" } }"#,
        ),
        ("src/index.ts", "serve({ fetch: app.fetch, port: Number(process.env.PORT) })"),
    ]);
    let text = dockerfile(&plan, "app");
    assert!(text.ends_with("CMD [\"node_modules/.bin/tsx\", \"src/index.ts\"]\n"), "{text}");
    assert!(!text.contains("--omit=dev"), "{text}");
}

#[test]
fn a_start_script_that_is_a_development_server_is_not_run() {
    let plan = ready(&[
        ("package.json", r#"{ "scripts": { "start": "nodemon server.js" }, "dependencies": { "express": "5" } }"#),
        ("server.js", LISTEN),
    ]);
    assert!(decided(&plan, "the script \"start\" is not run: \"nodemon server.js\" is a server for development"));
    assert!(dockerfile(&plan, "app").ends_with("CMD [\"node\", \"server.js\"]\n"));
}

#[test]
fn a_start_script_with_a_missing_file_is_not_run() {
    let plan = ready(&[
        (
            "package.json",
            r#"{ "main": "app.js", "scripts": { "start": "node server.js" }, "dependencies": { "express": "5" } }"#,
        ),
        ("app.js", LISTEN),
    ]);
    assert!(decided(&plan, "the script \"start\" is not run: server.js does not exist"));
    assert!(dockerfile(&plan, "app").ends_with("CMD [\"node\", \"app.js\"]\n"));
}

#[test]
fn a_start_that_changes_the_database_is_run_without_that() {
    let plan = ready(&[
        (
            "package.json",
            r#"{ "scripts": { "start": "prisma migrate deploy && node index.js" }, "dependencies": { "express": "5", "@prisma/client": "6" } }"#,
        ),
        ("index.js", LISTEN),
        ("prisma/schema.prisma", ""),
    ]);
    assert!(noted(&plan, "\"prisma migrate deploy\" in the script \"start\" changes the database and is not run"));
    let text = dockerfile(&plan, "app");
    assert!(
        text.ends_with("CMD [\"node\", \"index.js\"]\n") && text.contains("install -y --no-install-recommends openssl"),
        "{text}"
    );
}

#[test]
fn a_port_that_is_written_down_is_taken() {
    let plan = ready(&[("package.json", EXPRESS), ("index.js", "const port = 4000; // 5000\napp.listen(port)")]);
    assert!(decided(&plan, "port 4000: the server listens on this number"));
    assert!(dockerfile(&plan, "app").contains("PORT=4000\n"));
}

#[test]
fn a_server_on_localhost_alone_is_warned_about() {
    let plan = ready(&[("package.json", EXPRESS), ("index.js", "app.listen(process.env.PORT, '127.0.0.1')")]);
    assert!(noted(&plan, "localhost alone"));
}

#[test]
fn a_server_that_writes_files_may_and_is_told_what_becomes_of_them() {
    let plan = ready(&[
        ("package.json", EXPRESS),
        ("index.js", "app.listen(process.env.PORT); fs.writeFileSync('db.json', '')"),
    ]);
    assert!(noted(&plan, "They are gone with the next release unless they lie in a volume"));
    let text = dockerfile(&plan, "app");
    assert!(text.contains("COPY --chown=1000:1000 . .\n") && text.contains("RUN chown 1000:1000 /app\n"), "{text}");
}

#[test]
fn a_server_without_packages_installs_nothing() {
    check!([
        ("package.json", r#"{ "name": "tiny", "type": "module" }"#),
        ("server.mjs", "createServer(f).listen(process.env.PORT)")
    ]);
}

#[test]
fn a_server_on_bun_runs_on_bun() {
    let plan = ready(&[
        ("package.json", r#"{ "scripts": { "start": "bun run src/index.ts" }, "dependencies": { "elysia": "1" } }"#),
        ("bun.lock", r#"{ "lockfileVersion": 1, "workspaces": { "": { "dependencies": { "elysia": "1" } } } }"#),
        ("src/index.ts", "new Elysia().listen(3000)"),
    ]);
    let text = dockerfile(&plan, "app");
    assert!(
        text.contains("bun install --frozen-lockfile --production") && text.contains("\nFROM base\nENV NODE_ENV"),
        "{text}"
    );
    assert!(text.ends_with("EXPOSE 3000\nCMD [\"bun\", \"src/index.ts\"]\n"), "{text}");
}

// A page and its server

#[test]
fn a_page_at_the_root_and_a_server_in_its_folder_are_two_processes() {
    check!([
        ("package.json", VITE),
        ("package-lock.json", VITE_LOCK),
        ("index.html", PAGE),
        (
            "vite.config.js",
            "export default { server: { proxy: { '/api': 'http://localhost:3001', '/uploads': { target: 'http://127.0.0.1:3001' } } } }"
        ),
        ("server/package.json", EXPRESS),
        ("server/index.js", LISTEN),
    ]);
}

#[test]
fn a_page_and_a_server_in_one_package_are_two_processes() {
    check!([
        (
            "package.json",
            r#"{ "name": "guestbook", "scripts": { "dev": "vite", "build": "vite build", "start": "node server/index.js" },
            "dependencies": { "express": "^5.0.0", "socket.io": "4" }, "devDependencies": { "vite": "^7.1.0" } }"#
        ),
        ("index.html", PAGE),
        ("server/index.js", LISTEN),
    ]);
}

#[test]
fn a_manifest_that_names_no_package_leaves_the_server_to_the_package_around_it() {
    let plan = ready(&[
        (
            "package.json",
            r#"{ "scripts": { "build": "vite build" }, "dependencies": { "express": "5" }, "devDependencies": { "vite": "7" } }"#,
        ),
        ("index.html", PAGE),
        ("server/package.json", r#"{ "type": "commonjs" }"#),
        ("server/index.js", LISTEN),
    ]);
    let text = dockerfile(&plan, "api");
    assert!(text.contains("npm install") && text.ends_with("CMD [\"node\", \"server/index.js\"]\n"), "{text}");
}

#[test]
fn a_server_that_answers_with_the_pages_is_one_process() {
    check!([
        (
            "package.json",
            r#"{ "name": "rest-express", "scripts": { "dev": "tsx server/index.ts", "build": "vite build && esbuild server/index.ts --bundle --outdir=dist",
            "start": "NODE_ENV=production node dist/index.js" }, "dependencies": { "express": "4" }, "devDependencies": { "vite": "5", "esbuild": "1" } }"#
        ),
        (
            "vite.config.ts",
            "export default { root: path.resolve(import.meta.dirname, 'client'), build: { outDir: path.resolve(import.meta.dirname, 'dist/public') } }"
        ),
        ("client/index.html", PAGE),
        ("client/src/main.tsx", "import.meta.env.VITE_KEY"),
        ("server/index.ts", "app.use(express.static('public')); app.listen(process.env.PORT)"),
    ]);
}

#[test]
fn frontend_and_backend_folders_are_two_processes() {
    check!([
        ("README.md", ""),
        ("frontend/package.json", VITE),
        ("frontend/package-lock.json", VITE_LOCK),
        ("frontend/index.html", PAGE),
        ("backend/package.json", EXPRESS),
        ("backend/index.js", LISTEN),
    ]);
}

#[test]
fn what_only_the_development_server_forwards_is_told() {
    let config =
        "export default { server: { proxy: { '/api': { target: 'https://api.example.org', changeOrigin: true } } } }";
    let plan = ready(&[("package.json", VITE), ("index.html", PAGE), ("vite.config.ts", config)]);
    assert!(noted(&plan, "forwards /api to https://api.example.org; in production nothing does"));
}

#[test]
fn sockets_go_to_the_server_too() {
    let plan = ready(&[
        ("package.json", VITE),
        ("index.html", PAGE),
        ("server/package.json", r#"{ "scripts": { "start": "node index.js" }, "dependencies": { "ws": "8" } }"#),
        ("server/index.js", "new WebSocketServer({ server, path: '/ws' }); server.listen(process.env.PORT)"),
    ]);
    let api = plan.processes.iter().find(|p| p.name == "api").map(|p| p.routes.clone());
    assert_eq!(api, Some(vec!["/api".to_owned(), "/ws".to_owned()]));
}

// Static folders

#[test]
fn a_folder_of_pages_is_published_as_it_is() {
    check!([("index.html", "<h1>Hi</h1>"), ("404.html", "<h1>Gone</h1>"), ("style.css", "")]);
}

#[test]
fn pages_in_a_folder_of_their_own_are_found() {
    let plan = ready(&[("README.md", ""), ("public/index.html", "")]);
    assert_eq!(plan.builds, [Build::Folder { name: "web".to_owned(), folder: "public".to_owned() }]);
}

// What other hosts would read

fn not_applied(files: Files<'_>) -> Option<String> {
    let page = [("package.json", VITE), ("package-lock.json", VITE_LOCK), ("index.html", PAGE)];
    let plan = ready(&[&page, files].concat());
    let told: Vec<&str> = plan.notes.iter().filter(|n| n.warn).map(|n| n.text.as_str()).collect();
    assert!(told.len() < 2, "one finding: {told:?}");
    told.first().map(|text| {
        text.strip_prefix("Not applied here, because another host would read it: ").unwrap_or(text).to_owned()
    })
}

#[test]
fn files_of_other_hosts_with_nothing_but_the_fallback_are_not_spoken_of() {
    for files in [
        &[("public/_redirects", "# all pages\n/*    /index.html   200\n")][..],
        &[("_redirects", "/* / 200!\n")],
        &[(
            "vercel.json",
            r#"{ "rewrites": [{ "source": "/(.*)", "destination": "/index.html" }], "framework": "vite" }"#,
        )],
        &[("vercel.json", r#"{ "routes": [{ "handle": "filesystem" }, { "src": "/.*", "dest": "/index.html" }] }"#)],
        &[("vercel.json", r#"{ "cleanUrls": false, "headers": [] }"#), ("netlify.toml", "[build]\npublish = 'dist'\n")],
        &[("netlify.toml", "[[redirects]]\nfrom = '/*'\nto = '/index.html'\nstatus = 200\n")],
        &[("vercel.json", "{ broken"), ("netlify.toml", "[broken"), ("public/_headers", "# nothing\n")],
    ] {
        assert_eq!(not_applied(files), None, "{files:?}");
    }
}

#[test]
fn what_else_they_hold_is_told_in_one_finding() {
    let vercel = r#"{ "rewrites": [{ "source": "/api/:path*", "destination": "https://api.example.org/:path*" },
        { "source": "/((?!api/).*)", "destination": "/" }], "crons": [{ "path": "/api/tick" }],
        "redirects": [{ "source": "/a", "destination": "/b" }], "headers": [{ "source": "/(.*)", "headers": [] }] }"#;
    let netlify =
        "[[headers]]\nfor = '/*'\n[headers.values]\nX-Frame-Options = 'DENY'\n[[redirects]]\nfrom = '/x'\nto = '/y'\n";
    let redirects =
        "/1 /one\n/2 id=:id /two/:id 301\n/3 https://example.org/3\n/4 /four\n/5 /five\n/* /index.html 200\n";
    assert_eq!(
        not_applied(&[
            ("vercel.json", vercel),
            ("netlify.toml", netlify),
            ("public/_redirects", redirects),
            ("public/_headers", "/*\n  X-Frame-Options: DENY\n/assets/*\n  Cache-Control: max-age=1\n"),
        ])
        .as_deref(),
        Some(
            "public/_redirects has redirects of /1, /2, /3 and 2 more; public/_headers has headers for /* and /assets/*; vercel.json has redirects of /a, rewrites of /api/:path*, headers for /(.*) and crons; netlify.toml has redirects of /x and headers for /*."
        )
    );
}

#[test]
fn a_fallback_that_the_plan_does_not_have_is_told() {
    let pages = [("index.html", "<p>"), ("about.html", "<p>"), ("_redirects", "/* /index.html 200\n")];
    assert!(noted(&ready(&pages), "_redirects has redirects of /*."));
    let fallback = ("refloat.toml", "schema = 1\n[process.web]\nfallback = 'index.html'\n");
    assert_eq!(ready(&[&pages[..], &[fallback]].concat()).notes, []);
}

#[test]
fn an_own_dockerfile_answers_by_itself_whatever_other_hosts_would_read() {
    let plan = ready(&[("Dockerfile", "FROM nginx\nEXPOSE 80\n"), ("_redirects", "/a /b\n"), ("index.html", PAGE)]);
    assert_eq!(plan.notes, []);
}

// Dockerfiles

#[test]
fn a_dockerfile_for_this_app_is_used() {
    check!([
        (
            "Dockerfile",
            "# syntax=docker/dockerfile:1\nFROM node:22\nWORKDIR /app\nCOPY package*.json ./\nRUN npm ci\nCOPY . .\nEXPOSE 3000\nCMD [\"node\", \"index.js\"]\n"
        ),
        ("package.json", EXPRESS),
        ("index.js", LISTEN),
    ]);
}

#[test]
fn a_dockerfile_that_copies_what_is_not_there_is_not_used_and_that_is_said() {
    let plan = ready(&[
        ("Dockerfile", "FROM nginx\nCOPY dist /usr/share/nginx/html\n"),
        ("package.json", VITE),
        ("index.html", PAGE),
    ]);
    assert!(noted(&plan, "Dockerfile is not used: it copies \"dist\", which is not there"));
    assert_eq!(plan.shape, "Vite single-page app");
}

#[test]
fn a_dockerfile_that_starts_a_development_server_is_not_used() {
    for command in [
        "CMD [\"npm\", \"run\", \"dev\"]",
        "CMD npx vite --host",
        "ENTRYPOINT [\"pnpm\", \"dev\"]",
        "CMD [\"sh\", \"-c\", \"npm run dev\"]",
    ] {
        let text = format!("FROM node\nCOPY . .\n{command}\n");
        let plan = ready(&[("Dockerfile", &text), ("package.json", VITE), ("index.html", PAGE)]);
        assert!(noted(&plan, "it starts a development server"), "{command}");
    }
}

#[test]
fn a_dockerfile_that_the_settings_name_is_used_whatever_is_thought_of_it() {
    let plan = ready(&[
        (
            "refloat.toml",
            "schema = 1\n[build]\ndockerfile = 'docker/Dockerfile'\nfolder = '.'\n[process.web]\nport = 5000\n",
        ),
        ("docker/Dockerfile", "FROM nginx\nCOPY gone /\n"),
        ("package.json", VITE),
    ]);
    assert_eq!(plan.shape, "own Dockerfile");
    assert!(noted(&plan, "docker/Dockerfile is used as refloat.toml says, although it copies \"gone\""));
    assert!(render(&plan).contains("port 5000"));
}

// Built elsewhere

#[test]
fn a_volume_of_the_dockerfile_that_is_not_in_the_settings_is_warned_about_with_the_lines_to_write() {
    let text = "FROM node:22\nVOLUME [\"/var/lib/shop/data\", \"/Uploads\"]\nVOLUME /data\nEXPOSE 80\nCMD node .\n";
    let source = |settings: &str| ready(&[("Dockerfile", text), ("refloat.toml", settings)]);
    let warned = |plan: &Plan| plan.notes.iter().filter(|n| n.warn).map(|n| n.text.clone()).collect::<Vec<_>>();
    assert_eq!(
        warned(&source("schema = 1\n")),
        [
            "What web writes to /Uploads, /data and /var/lib/shop/data is gone with the next release, although the Dockerfile has VOLUME for it, unless refloat.toml has under [volumes]: `uploads = \"/Uploads\"`, `data = \"/data\"` and `data-2 = \"/var/lib/shop/data\"`."
        ]
    );
    let worker = "[process.tick]\ncommand = ['node', 'tick.js']\n";
    let some = source(&format!(
        "schema = 1\n{worker}[volumes]\ndata = {{ process = 'web', path = '/data' }}\nfiles = {{ process = 'web', path = '/Uploads' }}\n"
    ));
    assert!(noted(&some, "What web writes to /var/lib/shop/data is gone"), "{:?}", some.notes);
    assert!(noted(&some, "`data-2 = { process = \"tick\", path = \"/data\" }`"), "{:?}", some.notes);
    let all = "schema = 1\n[volumes]\na = '/data'\nb = '/Uploads'\nc = '/var/lib/shop/data'\n";
    assert_eq!(warned(&source(all)), [""; 0]);
}

#[test]
fn a_capability_of_the_usual_set_is_given_back_to_an_own_dockerfile_and_shown() {
    let text = "FROM node:22\nEXPOSE 80\nCMD node .\n";
    let source = |list: &str| planned(&[("Dockerfile", text), ("refloat.toml", &format!("schema = 1\n{list}"))], false);
    let plain = source("").expect("a plan");
    assert!(decided(&plain, "web: capabilities CHOWN, DAC_OVERRIDE, FOWNER, SETUID, SETGID, KILL, NET_BIND_SERVICE: "));
    assert!(decided(&plain, "under [process.web] in refloat.toml gives others back"));
    let given = source("[process.web]\ncapabilities = ['cap_sys_chroot', 'NET_RAW', 'NET_RAW']\n").expect("a plan");
    assert!(render(&given).contains("             capabilities: CHOWN, DAC_OVERRIDE, FOWNER, SETUID, SETGID, KILL, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT\n"), "{}", render(&given));
    assert_ne!(given.digest(), plain.digest());
    assert_eq!(source("[process.web]\ncapabilities = []\n").expect("a plan").digest(), plain.digest());
}

#[test]
fn capabilities_where_they_have_no_use_are_refused() {
    let settings = "schema = 1\n[process.web]\ncapabilities = ['NET_RAW']\n";
    let refused = |files: Files<'_>| planned(files, false).expect_err("no use").message;
    let server = refused(&[("package.json", EXPRESS), ("index.js", LISTEN), ("refloat.toml", settings)]);
    assert!(server.contains("process.web.capabilities has no use: refloat makes its image"), "{server}");
    let page = refused(&[("package.json", VITE), ("index.html", PAGE), ("refloat.toml", settings)]);
    assert!(page.contains("process.web.capabilities has no use: it is a folder of files"), "{page}");
}

#[test]
fn a_built_page_with_hashed_scripts_falls_back_to_its_only_page() {
    check!(
        prebuilt,
        [
            ("index.html", "<script type=\"module\" crossorigin src=\"/assets/index-B7fGh2_k.js\"></script>"),
            ("assets/index-B7fGh2_k.js", ""),
        ]
    );
}

#[test]
fn built_pages_without_a_router_do_not_fall_back() {
    let plan = planned(&[("index.html", "<h1>x</h1>"), ("about.html", "")], true);
    let text = shown(plan);
    assert!(!text.contains("unknown pages"), "{text}");
}

#[test]
fn a_built_server_installs_what_production_needs_and_builds_nothing() {
    check!(
        prebuilt,
        [
            (
                "package.json",
                r#"{ "scripts": { "start": "node index.js", "build": "tsc" }, "dependencies": { "express": "5" }, "devDependencies": { "typescript": "5" } }"#
            ),
            ("index.js", LISTEN),
        ]
    );
}

#[test]
fn a_folder_that_is_not_built_says_what_was_looked_for() {
    check!(prebuilt, [("README.md", "")]);
}

// Settings

#[test]
fn settings_change_what_was_found() {
    check!([
        (
            "refloat.toml",
            "app = 'shop'\n[process.web]\nmemory = '1GiB'\ncpu = 0.5\nroutes = ['/', '/admin/']\nhealth = '/up'\nstart_timeout = '2m'\n[process.mail]\ncommand = 'node mail.js'\nkind = 'worker'\n[volumes]\ndata = { process = 'web', path = '/data' }\n[env]\nrequired = ['DATABASE_URL', 'API_KEY']\n"
        ),
        ("package.json", EXPRESS),
        ("index.js", LISTEN),
        ("mail.js", ""),
    ]);
}

#[test]
fn a_server_in_another_language_is_built_by_the_dockerfile_that_the_settings_name() {
    check!([
        ("refloat.toml", "schema = 1\n[process.api]\ndockerfile = 'backend/Dockerfile'\nroutes = ['/api']\n"),
        ("package.json", VITE),
        ("package-lock.json", VITE_LOCK),
        ("index.html", PAGE),
        (
            "backend/Dockerfile",
            "FROM python:3.13-slim\nCOPY requirements.txt .\nEXPOSE 8001\nCMD [\"uvicorn\", \"server:app\"]\n"
        ),
        ("backend/requirements.txt", "fastapi\n"),
    ]);
}

#[test]
fn files_that_the_settings_name_need_no_detection() {
    let plan = ready(&[
        ("refloat.toml", "schema = 1\n[process.site]\nfiles = 'pages'\nfallback = 'index.html'\n"),
        ("pages/index.html", ""),
    ]);
    assert_eq!(plan.builds, [Build::Folder { name: "site".to_owned(), folder: "pages".to_owned() }]);
    assert_eq!(plan.processes[0].routes, ["/"]);
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_write() {
    let with = |settings: &str| {
        shown(planned(&[("refloat.toml", settings), ("package.json", VITE), ("index.html", PAGE)], false))
    };
    assert!(with("[volumes]\ndata = '/data'").contains("nothing of this app runs in a container"));
    assert!(with("[process.web]\nport = 80").contains("process.web.port has no use"));
    assert!(with("[process.wrk]\ncommand = 'node x.js'").contains("the app has 0 images"));
    assert!(with("[build]\nfolder = 'gone'").contains("there is no folder \"gone\""));
    assert!(with("[build]\npackage_manager = 'cargo'").contains("is not known"));
    assert!(with("[process.api]\nfiles = 'gone'").contains("there is no folder \"gone\""));
}

#[test]
fn values_that_the_build_publishes_may_stand_in_the_settings() {
    let plan = ready(&[
        ("refloat.toml", "schema = 1\n[env]\npublic = { VITE_API = '/api' }\n"),
        ("package.json", VITE),
        ("index.html", PAGE),
    ]);
    assert_eq!(plan.build_env_defaults, [("VITE_API".to_owned(), "/api".to_owned())]);
    assert!(dockerfile(&plan, "web").contains("ARG VITE_API\n"));
}

// What cannot be built yet

#[test]
fn other_shapes_are_named_with_what_works_today() {
    let mut out = String::new();
    let node = |dependency: &str| format!("{{ \"dependencies\": {{ \"{dependency}\": \"1\" }} }}");
    for dependency in ["next", "@tanstack/react-start", "astro", "react-scripts", "expo", "electron", "@sveltejs/kit"] {
        out.push_str(&shown(planned(&[("package.json", &node(dependency))], false)));
    }
    for (file, text) in
        [("requirements.txt", "fastapi==0.1"), ("main.py", "import flask"), ("go.mod", ""), ("composer.json", "{}")]
    {
        out.push_str(&shown(planned(&[(file, text)], false)));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn an_emergent_export_is_named_with_both_of_its_parts() {
    check!([
        ("frontend/package.json", r#"{ "dependencies": { "react-scripts": "5", "@craco/craco": "7" } }"#),
        ("backend/server.py", "from fastapi import FastAPI"),
        ("backend/requirements.txt", "fastapi\n"),
    ]);
}

#[test]
fn a_page_beside_a_server_in_another_language_says_how_it_can_be_deployed() {
    check!([("package.json", VITE), ("index.html", PAGE), ("backend/main.py", "import fastapi")]);
}

#[test]
fn a_folder_without_an_app_says_what_was_looked_for() {
    check!([("README.md", "hello")]);
}

#[test]
fn a_broken_manifest_names_the_line() {
    check!([("package.json", "{ \"name\": \"x\",\n }")]);
}

#[test]
fn a_folder_with_nothing_in_it_says_so() {
    check!([]);
}
