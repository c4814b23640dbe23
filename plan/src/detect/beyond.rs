//! Shapes that are recognised and cannot be built yet: named, so that nobody has to guess.

use super::folder::Folder;
use super::package_json::Manifest;
use crate::error::{PlanError, PlanErrorKind};

/// How the output of a framework can be used today.
#[derive(Clone, Copy, PartialEq)]
enum Today {
    /// Its build writes pages.
    Pages(&'static str),
    /// It needs a server.
    Server,
    /// It is no web app.
    Nothing(&'static str),
}

/// Packages that make a shape, the most telling first.
const PACKAGES: [(&str, &str, Today); 26] = [
    ("next", "a Next.js app", Today::Server),
    ("@tanstack/react-start", "a TanStack Start app", Today::Server),
    ("@tanstack/solid-start", "a TanStack Start app", Today::Server),
    ("@tanstack/start", "a TanStack Start app", Today::Server),
    ("nuxt", "a Nuxt app", Today::Server),
    ("@sveltejs/kit", "a SvelteKit app", Today::Server),
    ("@react-router/dev", "a React Router app in framework mode", Today::Server),
    ("@remix-run/dev", "a Remix app", Today::Server),
    ("@solidjs/start", "a SolidStart app", Today::Server),
    ("vinxi", "a Vinxi app", Today::Server),
    ("nitro", "a Nitro app", Today::Server),
    ("nitropack", "a Nitro app", Today::Server),
    ("astro", "an Astro site", Today::Pages("dist")),
    ("react-scripts", "a Create React App page", Today::Pages("build")),
    ("@craco/craco", "a Create React App page (with craco)", Today::Pages("build")),
    ("@angular/core", "an Angular app", Today::Pages("dist/NAME/browser")),
    ("@vue/cli-service", "a Vue CLI app", Today::Pages("dist")),
    ("gatsby", "a Gatsby site", Today::Pages("public")),
    ("@builder.io/qwik-city", "a Qwik City app", Today::Server),
    ("@11ty/eleventy", "an Eleventy site", Today::Pages("_site")),
    ("@docusaurus/core", "a Docusaurus site", Today::Pages("build")),
    ("vitepress", "a VitePress site", Today::Pages("docs/.vitepress/dist")),
    ("parcel", "a Parcel page", Today::Pages("dist")),
    (
        "electron",
        "a desktop app (Electron)",
        Today::Nothing(
            "A server cannot run it. If it can be built as a web page, deploy that: `refloat deploy --prebuilt DIR`.",
        ),
    ),
    ("expo", "an Expo app", Today::Pages("dist")),
    (
        "react-native",
        "a mobile app (React Native)",
        Today::Nothing("A server cannot run it; its web part can be deployed with --prebuilt."),
    ),
];

/// Files that make a shape without Node.
const FILES: [(&str, &str); 14] = [
    ("requirements.txt", "a Python app"),
    ("pyproject.toml", "a Python app"),
    ("Pipfile", "a Python app"),
    ("manage.py", "a Django app"),
    ("main.py", "a Python app"),
    ("server.py", "a Python app"),
    ("app.py", "a Python app"),
    ("go.mod", "a Go app"),
    ("Cargo.toml", "a Rust app"),
    ("Gemfile", "a Ruby app"),
    ("composer.json", "a PHP app"),
    ("pom.xml", "a Java app"),
    ("build.gradle", "a Java app"),
    ("deno.json", "a Deno app"),
];

/// Refuses a package of a framework that cannot be built yet.
pub(crate) fn of_package(folder: &Folder<'_>, manifest: &Manifest) -> Result<(), PlanError> {
    match PACKAGES.iter().find(|(package, ..)| manifest.wants(package)) {
        Some((package, what, today)) => {
            Err(refusal(what, &format!("{} depends on {package}", folder.join("package.json")), *today))
        }
        None => Ok(()),
    }
}

/// Refuses a folder with an app that needs no Node, naming it; nothing when there is none.
pub(crate) fn of_files(folder: &Folder<'_>) -> Result<(), PlanError> {
    match other_language(folder) {
        Some((what, file)) => Err(refusal(&what, &format!("{} is there", folder.join(file)), Today::Server)),
        None => Ok(()),
    }
}

/// What a folder holds that is not Node, and the file that shows it.
pub(crate) fn other_language(folder: &Folder<'_>) -> Option<(String, &'static str)> {
    let (file, what) = FILES.iter().find(|(file, _)| folder.has(file))?;
    let framework = python_framework(folder).filter(|_| *what == "a Python app");
    let what = framework.map_or_else(|| (*what).to_owned(), |f| format!("{what} ({f})"));
    Some((what, file))
}

fn python_framework(folder: &Folder<'_>) -> Option<&'static str> {
    let text: String = ["requirements.txt", "pyproject.toml", "Pipfile", "server.py", "main.py", "app.py"]
        .iter()
        .filter_map(|file| folder.text(file))
        .map(|text| text.to_ascii_lowercase())
        .collect();
    [("fastapi", "FastAPI"), ("django", "Django"), ("flask", "Flask"), ("streamlit", "Streamlit")]
        .into_iter()
        .find(|(word, _)| text.contains(word))
        .map(|(_, name)| name)
}

/// Refuses a page whose server is in another language, unless `refloat.toml` says how that one is built.
pub(crate) fn of_server_beside(folder: &Folder<'_>) -> Result<(), PlanError> {
    match other_language(folder) {
        Some((what, file)) => Err(PlanError::new(
            PlanErrorKind::NotYet,
            format!(
                "Beside the page there is {what} ({} is there), and refloat cannot build that yet.",
                folder.join(file)
            ),
            format!(
                "Give it a Dockerfile and name it in refloat.toml: [process.api] with dockerfile = \"{}\" and routes = [\"/api\"]; the page is still built as it is.",
                folder.join("Dockerfile")
            ),
        )),
        None => Ok(()),
    }
}

fn refusal(what: &str, because: &str, today: Today) -> PlanError {
    let own = "add a Dockerfile and name it in refloat.toml (`dockerfile = \"Dockerfile\"` under [build])";
    let next = match today {
        Today::Pages(output) => {
            format!("Build it on this computer and deploy the result, `refloat deploy --prebuilt {output}`, or {own}.")
        }
        Today::Server => format!("Until then, {own}."),
        Today::Nothing(why) => why.to_owned(),
    };
    PlanError::new(PlanErrorKind::NotYet, format!("This is {what} ({because}), which refloat cannot build yet."), next)
}
