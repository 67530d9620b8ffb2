//! Probes over TLS, of real servers: whose certificate must come from `--upstream-ca` and be for the name that is asked.

use podkit_testkit::certs::{Authority, replace};
use podkit_testkit::mariadb::MariaDb;
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::nginx;
use podkit_testkit::podkit::Module;
use podkit_testkit::postgres::Postgres;
use podkit_testkit::redis::Redis;
use podkit_testkit::{Need, able, until};

use super::Ground;

/// The probes, all of which are ready with the right authority.
const PROBES: &[&str] = &["web", "port", "cache", "rpc", "mysql", "postgres"];

/// What `/readyz` says of each, once all say what is wanted.
fn wait(ground: &Ground, what: &str, wanted: impl Fn(&str, &str) -> bool) {
    until(what, || {
        let said = ground.get("/readyz?verbose").text();
        let all = PROBES.iter().all(|name| {
            let mut lines = said.lines();
            lines.any(|line| line[3..].starts_with(&format!("{name} ")) && wanted(name, line))
        });
        all.then_some(())
    });
}

#[test]
fn servers_are_verified() {
    let needs = [
        "nginx",
        "redis-server",
        "mariadbd",
        "mariadb",
        "psql",
        "setpriv",
    ];
    if !able(&needs.map(Need::Program)) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("servers"), Authority::new("another"));
    let pair = authority.server(&["127.0.0.1"]);
    let (cert, key) = pair.write(dir.path(), "server");
    let clients = dir.path().join("clients.pem");
    replace(&clients, &authority.pem());

    // nginx by HTTP/1.1, and by HTTP/2 in front of a gRPC server: the verdict of another health.
    let (web, rpc, plain) = (free_addr(), free_addr(), free_addr());
    let _judge = Module::start(
        "health",
        &[
            &format!("--listen={}", free_addr()),
            &format!("--grpc-listen={plain}"),
            "--probe=room=disk:///;free=1",
        ],
        &[],
    );
    let files = "ssl_certificate DIR/server.crt; ssl_certificate_key DIR/server.key;";
    let config = format!(
        "server {{ listen {web} ssl; {files} location / {{ return 200 fine; }} }}
         server {{ listen {rpc} ssl http2; {files} location / {{ grpc_pass grpc://{plain}; }} }}"
    );
    let _nginx = nginx(&config, Some(&pair), rpc, None);
    let redis = Redis::start_tls(&authority, dir.path());
    let mariadb = MariaDb::start(
        "CREATE USER probe@'%' IDENTIFIED BY 'secret' REQUIRE SSL;\n",
        &[
            &format!("--ssl-cert={}", cert.display()),
            &format!("--ssl-key={}", key.display()),
            &format!("--ssl-ca={}", clients.display()),
        ],
    );
    let postgres = Postgres::start("secret", &[]);
    postgres.offer_tls(&pair);

    // The wrong authority first.
    let (ours, ours_key) = authority.client("health", &[]).write(dir.path(), "health");
    let (ca, password) = (dir.path().join("ca.pem"), dir.path().join("password"));
    replace(&ca, &stranger.pem());
    replace(&password, "secret\n");
    let who = format!("password-file={}", password.display());
    let (mysql, postgres) = (mariadb.addr, postgres.addr);
    let probes = [
        format!("web=https://{web};body=fine"),
        format!("port=tls://{web}"),
        format!("cache=rediss://{};canary=probe", redis.addr),
        format!("rpc=grpcs://{rpc};service=room"),
        format!("mysql=mysql://{mysql};user=probe;{who};tls=verify"),
        format!("postgres=postgres://{postgres}/postgres;{who};tls=verify"),
        // Whoever it is, but not in the clear.
        format!("any=mysql://{mysql};user=probe;{who};tls=require;for=startup"),
        format!("clear=mysql://{mysql};user=probe;{who};tls=off;for=live;liveness=force"),
        format!("name=https://{web};server-name=other.test;for=live;liveness=force"),
    ];
    let mut args = vec![
        format!("--upstream-ca={}", ca.display()),
        format!("--upstream-cert={}", ours.display()),
        format!("--upstream-key={}", ours_key.display()),
    ];
    args.extend(probes.map(|probe| format!("--probe={probe};period=300ms")));
    let ground = Ground::start(&args);
    wait(&ground, "all are refused", |_, line| {
        line.starts_with("[-]") && line.contains("UnknownIssuer")
    });
    ground.wait("/startupz", 200);

    // Files are watched; a connection that was verified otherwise is not kept.
    replace(&ca, &authority.pem());
    wait(&ground, "all are let in", |_, line| line.starts_with("[+]"));
    assert_eq!(ground.get("/readyz").text(), "ok");
    for failed in ["[-]clear failed: answered ", "[-]name failed: TLS: "] {
        until(failed, || {
            let live = ground.get("/livez").text();
            live.contains(failed).then_some(())
        });
    }
    replace(&ca, &stranger.pem());
    wait(&ground, "all are refused again", |_, line| {
        line.starts_with("[-]") && line.contains("UnknownIssuer")
    });
}
