//! What people see and do.

use std::os::unix::net::UnixStream;

use podkit_testkit::browser::Browser;
use podkit_testkit::{Need, Turn, able, http, until};

use super::{Load, Rig};

impl Rig {
    /// The status and text of a POST to the admin socket.
    pub(super) fn post(&self, path: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.dir.path().join("admin")).unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = http::exchange(&mut stream, request.as_bytes()).unwrap();
        (answer.status, answer.text())
    }
}

#[test]
fn state_is_changed_on_the_socket_only_and_shown_everywhere() {
    let _turn = Turn::shared();
    let Some(rig) = Rig::new(&[]) else { return };
    let name = rig.upstreams[0].addr.to_string();
    let path = format!("/upstreams/{name}/drain");
    let refused = http::send(rig.balance.admin, "POST", &path, "text/plain", b"").unwrap();
    assert_eq!(refused.status, 403);
    assert_eq!(rig.shown()[0]["state"], "ready");
    assert_eq!(rig.post("/upstreams/127.0.0.1:1/drain").0, 404);
    assert_eq!(rig.post(&path).0, 200);
    let page = rig.balance.admin("/").text();
    assert!(
        page.contains("draining") && page.contains("drained by request"),
        "{page}"
    );
    assert!(page.contains("href=\"/live\""), "{page}");
    let usable = |upstream: &str| {
        let sample = format!("podkit_upstream_usable{{upstream=\"{upstream}\"}}");
        rig.balance.metric(&sample)
    };
    assert_eq!(usable(&name), Some(0.0));
    assert_eq!(usable(&rig.upstreams[1].addr.to_string()), Some(1.0));
}

#[test]
fn the_page_plots_what_goes_on() {
    if !able(&[Need::Program("chromedriver"), Need::Program("nginx")]) {
        return;
    }
    let _turn = Turn::shared();
    let Some(mut rig) = Rig::new(&["--ready-failures=1"]) else {
        return;
    };
    let load = Load::start(rig.listen, 2);
    let browser = Browser::open(1000, 900, false);
    browser.visit(&format!("http://{}/live", rig.balance.admin));
    until("three upstreams with figures, and a line each", || {
        let seen = browser.script(
            "const rows = [...document.querySelectorAll('#upstreams tbody tr')];
             const lines = [...document.querySelectorAll('#plot-rate polyline')];
             return rows.length === 3 && lines.length === 3
               && rows.every((row) => row.children[1].textContent === 'ready' && Number(row.children[5].textContent) > 0)
               && lines.every((line) => line.getAttribute('points').split(' ').length > 2)
               && Number(document.getElementById('rate').textContent) > 0
               && document.getElementById('status').textContent === 'ready';",
        );
        (seen == true).then_some(())
    });
    rig.upstreams[2].stop();
    until("the page says that one is away, and why", || {
        let seen = browser.script(
            "const row = document.querySelectorAll('#upstreams tbody tr')[2];
             return [row.children[1].textContent, row.children[2].textContent, document.getElementById('summary').textContent];",
        );
        (seen[0] == "unready"
            && seen[1] == "nobody listens there"
            && seen[2] == "2 of 3 upstreams take requests")
            .then_some(())
    });
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    assert_eq!(load.end().1, Vec::<String>::new());
}
