//! `podkit metrics` as a statsd: lines by UDP, TCP and a unix socket, mapped, scraped in both formats, over reloads.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::{http, until};

use rustix::process::Signal;

use crate::openmetrics::{Samples, parse};

const OPEN: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

fn scrape(addr: SocketAddr, headers: &str) -> Samples {
    let page = http::get_with(addr, "/metrics", headers).expect("a scrape");
    let open = !headers.is_empty();
    parse(&page.text(), open).unwrap_or_else(|why| panic!("{why}\n{}", page.text()))
}

fn map(path: &Path, name: &str) {
    let text = format!(
        "mappings:\n- match: app.*.requests\n  name: {name}\n  labels: {{app: $1}}\n- match: app.*.time\n  name: app_seconds\n  \
         observer_type: histogram\n  labels: {{app: $1}}\n"
    );
    std::fs::write(path, text).expect("a new file");
}

#[test]
fn lines_are_counted_mapped_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mapping, socket) = (dir.path().join("map.yml"), dir.path().join("statsd.sock"));
    map(&mapping, "app_requests_total");
    let (listen, statsd) = (free_addr(), free_addr());
    let source = format!(
        "--source=statsd://{statsd};mapping={};unixgram={};max-series=1000",
        mapping.display(),
        socket.display()
    );
    let args = [format!("--listen={listen}"), source];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let module = Module::start("metrics", &args, &[]);

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.send_to(b"app.web.requests:1|c\napp.web.requests:2|c\n", statsd)
        .expect("sent");
    let mut tcp = TcpStream::connect(statsd).expect("a connection");
    tcp.write_all(b"app.web.requests:4|c\napp.web.time:30|ms\nplain:1|c|#k:v\nplain:9|g\n")
        .expect("written");
    drop(tcp);
    UnixDatagram::unbound()
        .and_then(|unix| unix.send_to(b"app.web.requests:8|c\nbad", &socket))
        .expect("sent");
    let requests = "app_requests_total{app=\"web\"}";
    let all = until("all lines", || {
        let all = scrape(listen, "");
        (all.get("statsd_exporter_lines_total") == Some(&8.0)).then_some(all)
    });
    for (name, value) in [
        (requests, 15.0),
        ("app_seconds_bucket{app=\"web\",le=\"0.025\"}", 0.0),
        ("app_seconds_bucket{app=\"web\",le=\"0.05\"}", 1.0),
        ("plain{k=\"v\"}", 1.0),
        ("plain_gauge", 9.0),
        ("podkit_metrics_statsd_bad_lines_total", 1.0),
        ("statsd_exporter_udp_packets_total", 1.0),
        ("statsd_exporter_udp_packet_drops_total", 0.0),
        ("podkit_metrics_source_up{source=\"statsd\"}", 1.0),
    ] {
        assert_eq!(all.get(name), Some(&value), "{name} in {all:#?}");
    }
    let open = scrape(listen, OPEN);
    assert_eq!(open.get(requests), Some(&15.0));

    // A mapping that can't be read changes nothing; another one, no counts.
    std::fs::write(&mapping, "mappings: 1\n").expect("written");
    module.process.signal(Signal::HUP);
    let loads = |outcome| format!("statsd_exporter_config_reloads_total{{outcome=\"{outcome}\"}}");
    until("a refused reload", || {
        (scrape(listen, "").get(&loads("failure")) == Some(&1.0)).then_some(())
    });
    udp.send_to(b"app.web.requests:1|c", statsd).expect("sent");
    until("the old mapping", || {
        (scrape(listen, "").get(requests) == Some(&16.0)).then_some(())
    });
    map(&mapping, "renamed_total");
    module.process.signal(Signal::HUP);
    until("a reload", || {
        (scrape(listen, "").get(&loads("success")) == Some(&1.0)).then_some(())
    });
    udp.send_to(b"app.web.requests:1|c", statsd).expect("sent");
    let all = until("the new mapping", || {
        let all = scrape(listen, "");
        all.contains_key("renamed_total{app=\"web\"}")
            .then_some(all)
    });
    assert_eq!(all.get(requests), Some(&16.0));

    // A second one has no place, and says so.
    let args = [
        "metrics".to_owned(),
        format!("--listen={}", free_addr()),
        format!("--source=statsd://{statsd};proto=udp"),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let finished = podkit(&args);
    assert_eq!(finished.code, Some(1));
    let line = format!("podkit metrics: --source: udp {statsd}: address in use\n");
    assert!(finished.err.ends_with(&line), "{}", finished.err);
}

/// What was sent before the stop is there until the end.
#[test]
fn a_burst_is_taken_without_loss() {
    let (listen, statsd) = (free_addr(), free_addr());
    let args = [
        format!("--listen={listen}"),
        format!("--source=statsd://{statsd};read-buffer=16Mi"),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let _module = Module::start("metrics", &args, &[]);
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let packet = "burst:1|c\n".repeat(140);
    for at in 0..1000 {
        udp.send_to(packet.as_bytes(), statsd).expect("sent");
        if at % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let all = until("all that the kernel kept", || {
        let all = scrape(listen, "");
        let lost = all.get("statsd_exporter_udp_packet_drops_total")?;
        let got = all.get("statsd_exporter_udp_packets_total")?;
        (got + lost == 1000.0).then_some(all)
    });
    let packets = all["statsd_exporter_udp_packets_total"];
    assert_eq!(all["burst"], packets * 140.0);
}
