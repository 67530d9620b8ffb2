//! Representative queries, of a real MariaDB and of a real PostgreSQL: a lock and a stopped server are found out in time, a query that
//! hangs is ended on the server, and a changed password is found by the next login.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use podkit_testkit::mariadb::MariaDb;
use podkit_testkit::postgres::Postgres;
use podkit_testkit::{Need, able, program, until};
use rustix::process::Signal;

use super::Ground;

/// What differs between the two.
trait Server {
    /// Scheme, address and path.
    fn url(&self) -> String;

    /// The client with what it needs to come as who may do all; it takes statements from its input.
    fn client(&self) -> Command;

    /// Locks `t`, for as long as the client is there.
    const LOCK: &str;

    /// Counts the probe's queries that are going on.
    const BUSY: &str;

    /// The same, of the one that is endless.
    const ENDED: &str;

    /// Goes on for very long, and does not look whether who asked is still there.
    const ENDLESS: &str;

    /// Changes the password of `probe`.
    const PASSWORD: &str;

    /// What the probe says then.
    const DENIED: &str;

    fn signal(&self, signal: Signal);

    /// Executes statements; what they give.
    fn sql(&self, statements: &str) -> String {
        let mut client = self.client();
        let output = client.arg(Self::EXECUTE).arg(statements).output().unwrap();
        assert!(output.status.success(), "{statements}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Executes statements, and stays.
    fn begin(&self, statements: &str) -> Child {
        let client = self.client().stdin(Stdio::piped()).spawn().unwrap();
        writeln!(client.stdin.as_ref().unwrap(), "{statements}").unwrap();
        client
    }

    /// The client's flag in front of statements.
    const EXECUTE: &str;
}

impl Server for MariaDb {
    fn url(&self) -> String {
        format!("mysql://{}/app", self.addr)
    }

    fn client(&self) -> Command {
        let mut command = Command::new(program("mariadb").unwrap());
        command.args(["--no-defaults", "-N", "-uroot", "--unbuffered", "-S"]);
        command.arg(&self.socket);
        command
    }

    const EXECUTE: &str = "-e";
    const LOCK: &str = "LOCK TABLES app.t WRITE;";
    const BUSY: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'probe' AND info LIKE 'SELECT v%'";
    const ENDED: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'probe' AND info LIKE 'SELECT version%'";
    const ENDLESS: &str = "SELECT version(), BENCHMARK(1000000000000, MD5('a'))";
    const PASSWORD: &str = "ALTER USER probe@'%' IDENTIFIED BY 'other'";
    const DENIED: &str = "answered 1045: Access denied";

    fn signal(&self, signal: Signal) {
        self.server.process.signal(signal);
    }
}

impl Server for Postgres {
    fn url(&self) -> String {
        format!("postgres://{}/postgres", self.addr)
    }

    fn client(&self) -> Command {
        let mut command = Command::new(program("psql").unwrap());
        command.args(["-XAtqU", "postgres", "-p", &self.addr.port().to_string()]);
        command.arg("-h").arg(self.server.dir());
        command
    }

    const EXECUTE: &str = "-c";
    const LOCK: &str = "BEGIN; LOCK TABLE t;";
    const BUSY: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'probe' AND state = 'active'";
    const ENDED: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'probe' AND state = 'active' AND query LIKE 'SELECT version%'";
    const ENDLESS: &str = "SELECT version(), pg_sleep(3600)";
    const PASSWORD: &str = "ALTER ROLE probe PASSWORD 'other'";
    const DENIED: &str = "answered 28P01: password authentication failed";

    fn signal(&self, signal: Signal) {
        self.signal_all(signal);
    }
}

fn check<S: Server>(server: &S) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("password");
    std::fs::write(&secret, "secret\n").unwrap();
    let (url, who) = (
        server.url(),
        format!("user=probe;password-file={}", secret.display()),
    );
    let ground = Ground::start(&[
        format!("--probe=stock={url};{who};query=SELECT v FROM t WHERE k = 1;rows=1;value=full"),
        format!("--probe=odd={url};{who};query=SELECT v FROM t;rows=5-;for=startup"),
        format!("--probe=write={url};{who};query=DELETE FROM t;for=startup"),
        "--relogin=1s".to_owned(),
    ]);
    ground.wait("/readyz", 200);
    until("both were tried", || {
        let text = ground.get("/startupz").text();
        let odd = text.contains("[-]odd failed: gives 1 row, not at least 5");
        (odd && text.contains("[-]write failed: answered ")).then_some(())
    });
    assert_eq!(
        Server::sql(server, "SELECT count(*) FROM app.t"),
        "1",
        "it can't write"
    );

    // Connections are kept from one try to the next.
    let counts = until("there are some results", || {
        let path = "/why?probe=stock&format=json";
        let why = ground.module.admin(path).json();
        let results = why["probes"][0]["results"].as_array()?;
        let count = |phase: &str| {
            let has = |result: &&serde_json::Value| result["phases_ms"][phase].is_number();
            results.iter().filter(has).count()
        };
        (results.len() >= 8).then(|| [count("connect"), count("auth"), count("query")])
    });
    assert!(
        counts[0] <= counts[1] && counts[1] < counts[2],
        "{counts:?}"
    );

    // Another value is not what is wanted.
    Server::sql(server, "UPDATE app.t SET v = 'empty'");
    let failed = ground.wait("/readyz", 503).text();
    assert!(
        failed.contains("[-]stock failed: gives empty, not full"),
        "{failed}"
    );
    Server::sql(server, "UPDATE app.t SET v = 'full'");
    ground.wait("/readyz", 200);

    // A lock: one query at a time waits on the server, whatever was given up.
    let mut lock = server.begin(S::LOCK);
    let failed = ground.wait("/readyz", 503).text();
    assert!(failed.contains("[-]stock failed: "), "{failed}");
    let until_tried = |count: f64| {
        until("it was tried again", || {
            let failures = ground
                .module
                .metric("podkit_health_results_total{probe=\"stock\",result=\"failure\"}");
            (failures? >= count).then_some(())
        });
    };
    until_tried(6.0);
    // Of each of the three probes.
    let busy: u32 = Server::sql(server, S::BUSY).parse().unwrap();
    assert!(busy <= 3, "{busy}");
    drop(lock.stdin.take());
    lock.wait().unwrap();
    ground.wait("/readyz", 200);
    until("nothing is left", || {
        (Server::sql(server, S::BUSY) == "0").then_some(())
    });

    server.signal(Signal::STOP);
    let failed = ground.wait("/readyz", 503).text();
    assert!(failed.contains("no answer within 1000 ms (in "), "{failed}");
    server.signal(Signal::CONT);
    ground.wait("/readyz", 200);
    // One that would not end.
    let slow = Ground::start(&[format!(
        "--probe=slow={url};{who};period=1h;timeout=300ms;query={}",
        S::ENDLESS
    )]);
    until("it is given up", || {
        slow.module
            .metric("podkit_health_results_total{probe=\"slow\",result=\"failure\"}")
            .filter(|count| *count > 0.0)
    });
    until("it is ended on the server", || {
        (Server::sql(server, S::ENDED) == "0").then_some(())
    });
    drop(slow);

    // The connection that is there goes on; the next login tells.
    Server::sql(server, S::PASSWORD);
    let failed = ground.wait("/readyz", 503).text();
    assert!(failed.contains(S::DENIED), "{failed}");
    std::fs::write(&secret, "other\n").unwrap();
    ground.wait("/readyz", 200);
}

#[test]
fn mariadb_is_asked_for_work() {
    if !able(&[Need::Program("mariadbd"), Need::Program("mariadb")]) {
        return;
    }
    let sql = "CREATE DATABASE app;\nCREATE TABLE app.t (k INT PRIMARY KEY, v TEXT);\nINSERT INTO app.t VALUES (1, 'full');\n\
               CREATE USER probe@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON app.* TO probe@'%';\n";
    check(&MariaDb::start(sql, &[]));
}

#[test]
fn postgres_is_asked_for_work() {
    if !able(&[Need::Program("psql"), Need::Program("setpriv")]) {
        return;
    }
    let server = Postgres::start("secret", &[]);
    let made = Postgres::sql(
        &server,
        "CREATE TABLE t (k INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'full'); CREATE SCHEMA app; \
         CREATE VIEW app.t AS SELECT * FROM t; CREATE ROLE probe LOGIN PASSWORD 'secret'; GRANT ALL ON t TO probe",
    );
    assert!(made.is_some());
    check(&server);
}
