//! What a script of package.json would start: a server, a development server, a file that is not there.
//!
//! Half of the `start` scripts in exports must not run in production. A script is never handed to a shell when its one
//! command can be told: the argument array goes into the image.

use super::folder::{Folder, normal};
use super::package_json::Manifest;

/// What a script starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    /// A server by its own command.
    Run {
        /// The argument array.
        command: Vec<String>,
        /// The file that is run.
        entry: String,
        /// The package that runs it, when it is not Node: `tsx`.
        runner: Option<String>,
    },
    /// Something that only the script itself can start.
    Script,
    /// A server for development.
    Development(String),
    /// A server for files that are there.
    StaticServer(String),
    /// A file that is neither there nor made by a build.
    Missing(String),
}

/// What a script starts, and what it would do before that and will not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// What it starts.
    pub(crate) start: Start,
    /// Commands that change a database: they are left out.
    pub(crate) database: Vec<String>,
}

/// Most steps from a script to the scripts that it runs.
const MAX_STEPS: usize = 5;
/// Programs that run a file.
const RUNNERS: [&str; 6] = ["tsx", "ts-node", "esno", "bun", "swc-node", "babel-node"];
/// Programs that change a database when they are told so.
const DATABASE_TOOLS: [&str; 6] = ["prisma", "drizzle-kit", "knex", "sequelize", "sequelize-cli", "typeorm"];
/// Options of Node that take the next word.
const TAKES_VALUE: [&str; 6] = ["-r", "--require", "--import", "--loader", "--experimental-loader", "--env-file"];

/// Reads a script. `built` tells whether a build makes files that are not in the source.
pub(crate) fn read(package: &Folder<'_>, manifest: &Manifest, script: &str, built: bool) -> Reading {
    let mut database = Vec::new();
    let reader = Reader { package, manifest, built };
    let start = reader.script(script, MAX_STEPS, &mut database);
    Reading { start, database }
}

struct Reader<'r, 'a> {
    package: &'r Folder<'a>,
    manifest: &'r Manifest,
    built: bool,
}

impl Reader<'_, '_> {
    fn script(&self, script: &str, steps: usize, database: &mut Vec<String>) -> Start {
        let Some(steps) = steps.checked_sub(1) else { return Start::Script };
        let commands: Vec<&str> = script.split("&&").map(str::trim).filter(|c| !c.is_empty()).collect();
        let Some((last, before)) = commands.split_last() else { return Start::Missing("nothing".to_owned()) };
        let mut other = false;
        for command in before {
            let words = words(command);
            if self.changes_database(&words, steps) {
                database.push((*command).to_owned());
            } else if !self.only_builds(&words) {
                other = true;
            }
        }
        match self.command(last, steps, database) {
            Start::Run { .. } if other => Start::Script,
            start => start,
        }
    }

    fn command(&self, command: &str, steps: usize, database: &mut Vec<String>) -> Start {
        let all = words(command);
        if command.contains(['|', ';', '>', '<', '`', '(']) || command.contains("$(") || all.contains(&"&") {
            return if all.iter().any(|w| is_development(w, &[])) {
                Start::Development(command.to_owned())
            } else {
                Start::Script
            };
        }
        match all.as_slice() {
            [] => Start::Missing("nothing".to_owned()),
            ["npm" | "pnpm" | "yarn" | "bun", "run" | "run-script", name, ..] => {
                self.named(name, command, steps, database)
            }
            ["npm" | "pnpm" | "yarn", "start", ..] => self.named("start", command, steps, database),
            ["yarn" | "pnpm", name, ..] if self.manifest.script(name).is_some() => {
                self.named(name, command, steps, database)
            }
            [first, rest @ ..] if is_development(first, rest) => Start::Development(command.to_owned()),
            [first, rest @ ..] if is_static_server(first, rest) => Start::StaticServer(command.to_owned()),
            ["node", rest @ ..] => self.node(command, rest),
            [runner, rest @ ..] if RUNNERS.contains(runner) => self.runner(runner, rest),
            _ => Start::Script,
        }
    }

    fn named(&self, name: &str, command: &str, steps: usize, database: &mut Vec<String>) -> Start {
        match self.manifest.script(name) {
            Some(script) => self.script(script, steps, database),
            // `bun run server.ts` runs a file.
            None if command.starts_with("bun ") => self.runner("bun", &[name]),
            None => Start::Missing(format!("the script \"{name}\"")),
        }
    }

    fn node(&self, command: &str, rest: &[&str]) -> Start {
        let mut at = 0;
        while let Some(word) = rest.get(at).filter(|w| w.starts_with('-')) {
            if word.starts_with("--watch") {
                return Start::Development(command.to_owned());
            }
            if matches!(*word, "-e" | "--eval" | "-p") {
                return Start::Script;
            }
            // An `.env` file never reaches the image, and Node ends when it is not there.
            if word.starts_with("--env-file") {
                return self.node(command, &without(rest, at, if word.contains('=') { 1 } else { 2 }));
            }
            at += if TAKES_VALUE.contains(word) { 2 } else { 1 };
        }
        let Some(file) = rest.get(at) else { return Start::Script };
        let runner = rest[..at]
            .iter()
            .any(|w| w.starts_with("--loader") || *w == "tsx" || w.contains("tsx"))
            .then(|| "tsx".to_owned());
        match self.file(file) {
            Some(entry) => Start::Run { command: argv("node", rest), entry, runner },
            None => Start::Missing(normal(file)),
        }
    }

    fn runner(&self, runner: &str, rest: &[&str]) -> Start {
        if rest.iter().any(|w| matches!(*w, "watch" | "--watch" | "--hot")) {
            return Start::Development(format!("{runner} {}", rest.join(" ")));
        }
        let skip = usize::from(runner == "bun" && rest.first() == Some(&"run"));
        let Some(file) = rest.iter().skip(skip).find(|w| !w.starts_with('-')) else { return Start::Script };
        match self.file(file) {
            Some(entry) if runner == "bun" => {
                Start::Run { command: argv("bun", rest), entry, runner: Some("bun".to_owned()) }
            }
            Some(entry) => {
                let program = format!("node_modules/.bin/{runner}");
                Start::Run { command: argv(&program, rest), entry, runner: Some(runner.to_owned()) }
            }
            None => Start::Missing(normal(file)),
        }
    }

    /// The file that a word names, as it is in the source or as a build will make it.
    fn file(&self, word: &str) -> Option<String> {
        let path = normal(word.trim_matches(['"', '\'']));
        let candidates =
            ["", ".js", ".mjs", ".cjs", ".ts", "/index.js", "/index.mjs", "/index.cjs"].map(|e| format!("{path}{e}"));
        let found = candidates.into_iter().find(|c| self.package.has(c));
        let top = path.split('/').next().unwrap_or_default().to_owned();
        let made = ["dist", "build", "out", "lib", ".output", "server-dist", "dist-server"].contains(&top.as_str())
            && path != top;
        found.or_else(|| (self.built && (made || path == "dist")).then_some(path))
    }

    fn changes_database(&self, words: &[&str], steps: usize) -> bool {
        match words {
            ["npm" | "pnpm" | "yarn" | "bun", "run", name, ..] => {
                match (self.manifest.script(name), steps.checked_sub(1)) {
                    (Some(script), Some(steps)) => {
                        script.split("&&").any(|c| self.changes_database(&self::words(c), steps))
                    }
                    _ => false,
                }
            }
            [tool, rest @ ..] if DATABASE_TOOLS.contains(tool) => {
                let told = [
                    "push",
                    "migrate",
                    "migrate:latest",
                    "db:migrate",
                    "up",
                    "migration:run",
                    "deploy",
                    "seed",
                    "db:seed",
                ];
                rest.iter().any(|w| told.contains(w))
            }
            _ => false,
        }
    }

    /// Whether a command makes again what the image's build makes already, or generates a client.
    fn only_builds(&self, words: &[&str]) -> bool {
        matches!(
            words,
            ["npm" | "pnpm" | "yarn" | "bun", "run", "build", ..]
                | ["yarn" | "pnpm", "build", ..]
                | ["tsc" | "esbuild" | "tsup", ..]
                | ["vite" | "next" | "astro", "build", ..]
                | ["prisma", "generate", ..]
        )
    }
}

fn without<'w>(words: &[&'w str], at: usize, count: usize) -> Vec<&'w str> {
    let mut words = words.to_vec();
    words.drain(at..(at + count).min(words.len()));
    words
}

fn argv(program: &str, rest: &[&str]) -> Vec<String> {
    let rest = rest.iter().map(|w| w.trim_matches(['"', '\'']).to_owned());
    [program.to_owned()].into_iter().chain(rest).collect()
}

/// The words of a command without the assignments and wrappers in front.
fn words(command: &str) -> Vec<&str> {
    let mut words = command.split_whitespace().peekable();
    while let Some(word) = words.peek() {
        let assigns = word.split_once('=').is_some_and(|(name, _)| crate::settings::is_variable(name));
        let wraps = matches!(
            *word,
            "cross-env" | "env" | "npx" | "bunx" | "exec" | "dotenv" | "--" | "-y" | "--yes" | "--no-install"
        );
        if !(assigns || wraps) {
            break;
        }
        words.next();
    }
    words.collect()
}

fn is_development(program: &str, rest: &[&str]) -> bool {
    let first = rest.iter().find(|w| !w.starts_with('-')).copied().unwrap_or_default();
    match program {
        "nodemon" | "ts-node-dev" | "tsnd" | "webpack-dev-server" | "live-server" | "browser-sync" | "node-dev" => true,
        "vite" => !matches!(first, "build" | "preview"),
        "next" | "nuxt" | "astro" | "remix" | "vinxi" | "react-router" => first == "dev",
        "react-scripts" | "craco" | "expo" => first == "start",
        "ng" | "vue-cli-service" | "webpack" => first == "serve",
        "parcel" => first != "build",
        "wrangler" | "netlify" | "vercel" => first == "dev",
        "concurrently" => rest.iter().any(|w| w.contains("dev") || w.contains("vite")),
        _ => false,
    }
}

fn is_static_server(program: &str, rest: &[&str]) -> bool {
    match program {
        "serve" | "http-server" | "sirv" | "static-server" => true,
        "vite" | "astro" => rest.first() == Some(&"preview"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemorySource;

    fn check(script: &str, expected: &str) {
        let files = [("server.js", ""), ("src/index.ts", ""), ("package.json", "")];
        let source = MemorySource::new(files);
        let scripts = [
            ("dev", "vite"),
            ("serve:prod", "node server.js"),
            ("db:push", "prisma db push --accept-data-loss"),
            ("loop", "npm run loop"),
        ];
        let manifest = Manifest {
            scripts: scripts.into_iter().map(|(n, s)| (n.to_owned(), s.to_owned())).collect(),
            ..Manifest::default()
        };
        let reading = read(&Folder::at(&source, ""), &manifest, script, true);
        let shown = match reading.start {
            Start::Run { command, .. } => format!("run {}", command.join(" ")),
            Start::Script => "script".to_owned(),
            Start::Development(what) => format!("development: {what}"),
            Start::StaticServer(what) => format!("static: {what}"),
            Start::Missing(what) => format!("missing: {what}"),
        };
        let database =
            if reading.database.is_empty() { String::new() } else { format!(" without {:?}", reading.database) };
        assert_eq!(format!("{shown}{database}"), expected, "{script}");
    }

    #[test]
    fn scripts_are_read_for_what_they_start() {
        check("node server.js", "run node server.js");
        check(
            "NODE_ENV=production node --enable-source-maps ./server.js --x",
            "run node --enable-source-maps ./server.js --x",
        );
        check("cross-env A=1 node -r dotenv/config server", "run node -r dotenv/config server");
        check("node --env-file=.env server.js", "run node server.js");
        check("node dist/index.js", "run node dist/index.js");
        check("node gone.js", "missing: gone.js");
        check("vite", "development: vite");
        check("vite --host", "development: vite --host");
        check("vite preview --port 80", "static: vite preview --port 80");
        check("serve -s dist", "static: serve -s dist");
        check("nodemon server.js", "development: nodemon server.js");
        check("node --watch server.js", "development: node --watch server.js");
        check("tsx watch src/index.ts", "development: tsx watch src/index.ts");
        check("tsx src/index.ts", "run node_modules/.bin/tsx src/index.ts");
        check("bun run src/index.ts", "run bun src/index.ts");
        check("npm run dev", "development: vite");
        check("npm run serve:prod", "run node server.js");
        check("npm run gone", "missing: the script \"gone\"");
        check("npm run loop", "script");
        check("npm run build && node server.js", "run node server.js");
        check("npm run db:push && node server.js", "run node server.js without [\"npm run db:push\"]");
        check(
            "npx prisma migrate deploy && node server.js",
            "run node server.js without [\"npx prisma migrate deploy\"]",
        );
        check("mkdir -p data && node server.js", "script");
        check("vite & node server.js", "development: vite & node server.js");
        check("pm2-runtime start x", "script");
        check("", "missing: nothing");
    }
}
