//! examples/statsd, as its README uses it.

use std::net::UdpSocket;

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{repository, until};

use crate::ground::{Ground, read};
use crate::redis_metrics_example::asked;

#[test]
fn the_example_is_as_its_readme_says() {
    let Some(ground) = Ground::with(&["bash", "prometheus"]) else {
        return;
    };
    let example = repository().join("examples/statsd/pod.yaml");
    let mut pod = Pod::run_text(&read(&example), &[]);
    pod.wait_ready();
    for (what, query) in [
        (
            "requests by page",
            "sum(rate(shop_requests_total%7Bpage=%22cart%22,code=%22200%22%7D[15s]))",
        ),
        (
            "their time",
            "histogram_quantile(0.9,sum%20by%20(le)%20(rate(shop_request_seconds_bucket[15s])))",
        ),
        ("different users", "shop_users"),
    ] {
        until(what, || asked(query).filter(|value| *value > 0.0));
    }
    for query in [
        "podkit_metrics_statsd_bad_lines_total",
        "statsd_exporter_udp_packet_drops_total",
        "count(ALERTS)%20or%20vector(0)",
    ] {
        assert_eq!(asked(query), Some(0.0), "{query}");
    }
    // Others than the application may say something too, from the machine.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let firing = "count(ALERTS%7Balertname=%22ShopFails%22,alertstate=%22firing%22%7D)";
    until("requests that fail", || {
        let line = b"shop.requests.cart.500:5|c";
        udp.send_to(line, loopback(9125)).unwrap();
        asked(firing)
    });
    // What can't be read is told of.
    udp.send_to(b"shop.requests", loopback(9125)).unwrap();
    let errors = "sum(statsd_exporter_sample_errors_total%7Breason=%22malformed_line%22%7D)";
    until("the line that is none", || {
        (asked(errors) == Some(1.0)).then_some(())
    });
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    ground.assert_clean();
}
