//! topz as a person meets it: in a browser, in a terminal, and held against `/proc`.

use std::net::SocketAddr;
use std::process::Command;

use podkit_testkit::browser::Browser;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::process::Process;
use podkit_testkit::{Need, Turn, able, http, machine, until};
use serde_json::Value;

/// topz on this machine, looking ten times a second.
fn start() -> (Module, SocketAddr) {
    let listen = free_addr();
    let module = Module::start(
        "topz",
        &[&format!("--listen={listen}"), "--interval=100ms"],
        &[],
    );
    (module, listen)
}

/// The process with this id, once topz has seen it.
fn seen(listen: SocketAddr, pid: u32) -> Value {
    until("topz to see the process", || {
        let all = http::get(listen, "/api/processes").ok()?.json();
        all["processes"]
            .as_array()?
            .iter()
            .find(|process| process["pid"] == pid)
            .cloned()
    })
}

#[test]
fn figures_are_those_of_proc() {
    let _turn = Turn::shared();
    let (_topz, listen) = start();
    let sleeper = Process::spawn("sleep", Command::new("sleep").arg("1000"));
    let process = seen(listen, sleeper.pid());
    let rss = machine::rss_kib(sleeper.pid()) * 1024;
    let shown = process["memory_bytes"].as_u64().unwrap();
    assert!(
        shown.abs_diff(rss) <= 512 * 1024,
        "{shown} and {rss}: {process}"
    );
    assert_eq!(process["threads"], 1);
    assert_eq!(process["command"], "sleep 1000");
    // One that burns a core shows as one core.
    let burner = Process::spawn("sh", Command::new("sh").args(["-c", "while :; do :; done"]));
    until("the burner's CPU", || {
        let process = seen(listen, burner.pid());
        (process["cpu_percent"].as_f64()? > 20.0).then_some(())
    });
}

#[test]
fn what_was_is_still_there() {
    let _turn = Turn::shared();
    let (_topz, listen) = start();
    let sleeper = Process::spawn("sleep", Command::new("sleep").arg("1001"));
    let pid = sleeper.pid();
    let at = seen(listen, pid);
    assert!(at.is_object());
    let now = http::get(listen, "/api/processes").unwrap().json()["at"]
        .as_f64()
        .unwrap();
    drop(sleeper);
    until("the sleeper to be gone", || {
        let all = http::get(listen, "/api/processes").ok()?.json();
        (!all["processes"]
            .as_array()?
            .iter()
            .any(|process| process["pid"] == pid))
        .then_some(())
    });
    let then = http::get(listen, &format!("/api/processes?at={now}"))
        .unwrap()
        .json();
    assert!(
        then["processes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|process| process["pid"] == pid),
        "look {} at {}, asked for {now}",
        then["look"],
        then["at"]
    );
    // As soon as the history goes back that far.
    until("a second of history", || {
        (http::get(listen, "/topz?at=-1s").ok()?.status == 200).then_some(())
    });
    let wrong = http::get(listen, "/topz?at=yesterday").unwrap();
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.text().trim().lines().count(), 1, "{}", wrong.text());
}

#[test]
fn secrets_in_command_lines_are_masked_everywhere() {
    let _turn = Turn::shared();
    const SECRET: &str = "e2e-s3cret-value";
    let (topz, listen) = start();
    let holder = Process::spawn(
        "sh",
        Command::new("sh").args([
            "-c",
            "kill -STOP $$",
            "sh",
            "--password=e2e-s3cret-value",
            "--token",
            SECRET,
        ]),
    );
    let process = seen(listen, holder.pid());
    let command = process["command"].as_str().unwrap();
    assert!(
        command.contains("--password=") && !command.contains(SECRET),
        "{command}"
    );
    let paths = [
        "/",
        "/topz",
        "/api/processes",
        "/metrics",
        "/config",
        "/api/history",
    ];
    let detail = [format!("/api/processes?pid={}", holder.pid())];
    for path in paths
        .iter()
        .copied()
        .chain(detail.iter().map(String::as_str))
    {
        assert!(
            !http::get(listen, path).unwrap().text().contains(SECRET),
            "{path}"
        );
        let admin = http::get(topz.admin, path).unwrap().text();
        assert!(!admin.contains(SECRET), "{path} of the admin server");
    }
}

#[test]
fn short_lived_processes_are_counted() {
    let _turn = Turn::shared();
    let (topz, _listen) = start();
    let _storm = Process::spawn(
        "sh",
        Command::new("sh").args(["-c", "while :; do /bin/true; done"]),
    );
    until("short-lived processes", || {
        (topz.metric("podkit_topz_short_lived_total")? > 10.0).then_some(())
    });
}

/// The page in a real browser: loads, lives, sorts on a click, filters; light and dark, wide and narrow.
#[test]
fn the_page_loads_lives_and_sorts_in_a_browser() {
    if !able(&[Need::Program("chromium"), Need::Program("chromedriver")]) {
        return;
    }
    let _turn = Turn::shared();
    let (_topz, listen) = start();
    let _sleeper = Process::spawn("sleep", Command::new("sleep").arg("1003"));
    let pictures = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (name, width, height, dark) in [
        ("wide-light", 1400, 900, false),
        ("narrow-dark", 400, 800, true),
    ] {
        let browser = Browser::open(width, height, dark);
        browser.visit(&format!("http://{listen}/"));
        let rows = || {
            browser
                .script("return document.querySelectorAll('#processes tbody tr').length")
                .as_u64()
                .unwrap()
        };
        until("rows", || (rows() > 3).then_some(()));
        let state = || browser.script("return document.querySelector('#status').dataset.state");
        until("the page to live", || (state() == "live").then_some(()));
        until("a plot", || {
            (browser.script("return document.querySelectorAll('#plot-cpu path, #plot-cpu polyline, #plot-cpu svg').length").as_u64()? > 0).then_some(())
        });

        // It updates by itself: the look that it shows is another one later.
        let looks = "return performance.getEntriesByType('resource').filter(e => e.name.includes('api/processes')).length";
        let before = browser.script(looks).as_u64().unwrap();
        until("another look", || {
            (browser.script(looks).as_u64()? > before + 1).then_some(())
        });

        // A click on a column's head sorts by it, another turns it around.
        if browser.script("return document.querySelector('#group').getAttribute('aria-pressed')")
            == "true"
        {
            browser.click("#group");
        }
        let sorted = |ascending: bool| {
            let script = format!(
                "const pids = [...document.querySelectorAll('#processes tbody tr')].map(row => parseInt(row.cells[0].textContent, 10)).filter(pid => pid > 0);\
                 return pids.length > 3 && pids.every((pid, at) => at === 0 || (pids[at - 1] - pid) * {} <= 0)",
                if ascending { 1 } else { -1 }
            );
            browser.script(&script) == true
        };
        let direction = || {
            browser.script("return document.querySelector('#processes th[data-key=pid]').getAttribute('aria-sort')")
        };
        browser.click("#processes th[data-key=pid] button");
        let first = until("a sort", || direction().as_str().map(str::to_owned));
        until("rows in that order", || {
            sorted(first == "ascending").then_some(())
        });
        browser.click("#processes th[data-key=pid] button");
        until("the other order", || {
            (direction() != first.as_str() && sorted(first != "ascending")).then_some(())
        });

        browser.type_into("#filter", "sleep 1003");
        until("one row", || (rows() >= 1 && rows() <= 2).then_some(()));
        let fits =
            browser.script("return document.documentElement.scrollWidth <= window.innerWidth");
        assert_eq!(fits, true, "{name}: the page is wider than its window");
        browser.script("const filter = document.querySelector('#filter'); filter.value = ''; filter.dispatchEvent(new Event('input', {bubbles: true}))");
        until("all rows", || (rows() > 3).then_some(()));
        browser.screenshot(&pictures.join(format!("topz-{name}.png")));
        let errors = browser.console_errors();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[test]
fn connections_that_are_refused_are_counted() {
    let _turn = Turn::shared();
    let listen = free_addr();
    let args = [
        format!("--listen={listen}"),
        "--max-connections-per-ip=1".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let topz = Module::start("topz", &args, &[]);
    let mut first = http::dial(listen).unwrap();
    let request = b"GET /topz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(http::exchange(&mut first, request).unwrap().status, 200);
    let counted =
        |result: &str| topz.metric(&format!("podkit_connections_total{{result=\"{result}\"}}"));
    assert_eq!(counted("refused_address"), Some(0.0));
    let mut second = http::dial(listen).unwrap();
    assert!(http::exchange(&mut second, request).is_err());
    assert_eq!(
        (counted("accepted"), counted("refused_address")),
        (Some(1.0), Some(1.0))
    );
}
