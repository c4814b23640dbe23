//! An app that holds connections to Postgres, as a standby that runs, that is stopped, and that was paused while the
//! server closed its connections.

use std::time::Duration;

use refloat_e2e::scene::Scene;
use refloat_testkit::command::system;
use refloat_testkit::eventually;
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::host::Options;
use refloat_testkit::project::Project;
use refloat_testkit::reservation::Reservation;

const DEADLINE: Duration = Duration::from_secs(90);
/// Postgres closes sessions that are idle for this long.
const IDLE_SESSION_TIMEOUT: &str = "2s";

/// A server on the host's own network, where every container reaches it.
struct Postgres {
    container: String,
    url: String,
    _port: Reservation,
}

impl Postgres {
    fn start() -> Self {
        let port = Reservation::port();
        let listen = format!("port={}", port.number());
        let idle = format!("idle_session_timeout={IDLE_SESSION_TIMEOUT}");
        let start = ["run", "--detach", "--network", "host", "--env", "POSTGRES_PASSWORD=secret", "postgres:17"];
        let settings = ["postgres", "-c", &listen, "-c", &idle, "-c", "listen_addresses=*"];
        let container = system("docker", &[&start[..], &settings].concat());
        let gateway =
            system("docker", &["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]);
        let url = format!("postgres://postgres:secret@{gateway}:{}/postgres", port.number());
        let this = Self { container, url, _port: port };
        eventually_true("Postgres answers", DEADLINE, || this.sessions().is_some());
        this
    }

    /// How many sessions apps hold; `None` while it does not answer.
    fn sessions(&self) -> Option<usize> {
        let query = "select count(*) from pg_stat_activity where application_name = 'pool'";
        let port = self.url.rsplit(':').next()?.trim_end_matches("/postgres");
        let psql = [
            "exec",
            "--env",
            "PGPASSWORD=secret",
            &self.container,
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            "postgres",
            "-tAc",
            query,
        ];
        let mut command = std::process::Command::new("docker");
        let said = refloat_testkit::command::Finished::of(command.args(psql));
        said.stdout.trim().parse().ok()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        system("docker", &["rm", "--force", "--volumes", &self.container]);
    }
}

const SERVER: &str = r#"
import { createServer } from "node:http";
import pg from "pg";

const VERSION = "v1";
const url = process.env.DATABASE_URL ?? process.env.STORE;
const pool = url && new pg.Pool({ connectionString: url, max: 3, idleTimeoutMillis: 0, application_name: "pool" });

// Idle connections that the server closes are the pool's normal life; without this the driver ends the process.
pool?.on("error", () => {});

const server = createServer(async (request, response) => {
  try {
    const count = pool ? (await pool.query("select 1 as one")).rows[0].one : 0;
    response.end(`${VERSION} read ${count}\n`);
  } catch (error) {
    response.writeHead(500).end(`${VERSION}: ${error.message}\n`);
  }
});
server.listen(Number(process.env.PORT ?? 3000));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"#;

/// Two releases of an app with a pool, which finds its database in the given variable.
fn scene(postgres: &Postgres, variable: &str, extra: &str) -> Scene {
    let project = Project::empty("with-pool");
    let package = r#"{"name":"with-pool","private":true,"type":"module","scripts":{"start":"node server.js"},"dependencies":{"pg":"^8"}}"#;
    project.write("package.json", package);
    project.write("server.js", SERVER);
    let scene = Scene::with_options(project, Options { extra: extra.to_owned(), ..Options::default() });
    scene.deploy().success();
    scene.refloat(&["env", "set", &format!("{variable}={}", postgres.url)]).success();
    scene.project.edit("server.js", "\"v1\"", "\"v2\"");
    scene.deploy().success();
    assert_eq!(scene.host.body("/").as_deref(), Some("v2 read 1\n"));
    scene
}

fn wait_for_state(scene: &Scene, state: &str) -> String {
    let of = |name: &String| scene.host.state_of(name);
    eventually(state, DEADLINE, || scene.host.containers().into_iter().find(|name| of(name) == state))
}

fn roll_back_cleanly(scene: &Scene) {
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch("v2 read 1", "v1 read 1");
}

#[test]
fn a_standby_that_holds_connections_runs_on_and_serves_at_once() {
    let postgres = Postgres::start();
    let scene = scene(&postgres, "DATABASE_URL", "");
    let running = |name: &&String| scene.host.state_of(name) == "running";
    assert_eq!(scene.host.containers().iter().filter(running).count(), 2);
    roll_back_cleanly(&scene);
}

#[test]
fn a_standby_that_was_stopped_is_started_again() {
    let postgres = Postgres::start();
    let scene = scene(&postgres, "DATABASE_URL", "[standby]\nrunning_s = 1\n");
    wait_for_state(&scene, "exited");
    roll_back_cleanly(&scene);
}

#[test]
fn a_paused_standby_whose_connections_the_server_closed_costs_no_request() {
    let postgres = Postgres::start();
    // Not recognisable as a database's address by its name: so it is paused.
    let scene = scene(&postgres, "STORE", "");
    wait_for_state(&scene, "paused");
    eventually_true("the server closed its sessions", DEADLINE, || postgres.sessions() == Some(0));
    roll_back_cleanly(&scene);
}
