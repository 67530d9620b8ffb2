//! Ports and names.

use super::*;

pub(super) fn readiness_and_published_ports() {
    alone(|| {
        let port = free_port();
        let spec = r#"
  containers:
  - name: app
    image: podkit
    args: [app, serve, "PORT", "50"]
    ports: [{containerPort: PORT, name: http}]
    readinessProbe: {httpGet: {port: http, path: /}}
"#
        .replace("PORT", &port.to_string());
        let begin = Instant::now();
        let mut pod = Pod::start(&manifest("ready", &spec), &[]);
        // What it says of itself may come after what was seen of it.
        pod.until("its word", 1, |line| line["line"] == "serving");
        let serving = begin.elapsed();
        pod.until("a ready pod", 1, |line| {
            line["type"] == "pod" && line["ready"] == true
        });
        // Long before the period of ten seconds is over.
        assert!(begin.elapsed() - serving < Duration::from_secs(5));
        // And without a warning, unless it served so late that the attempt which counts, a second after its start, came before.
        assert!(
            serving > Duration::from_millis(900)
                || pod.seen.iter().all(|line| line["reason"] != "Unhealthy"),
            "{:#?}",
            pod.seen
        );
        let address = pod.until("address", 1, |line| line["type"] == "address");
        assert_eq!(address["url"], format!("http://127.0.0.1:{port}"));
        assert!(get(port).expect("an answer").ends_with("\r\n\r\nok"));
        assert_eq!(pod.stop().0, Some(0));
        assert!(get(port).is_err(), "the port is free again");
    });
}

pub(super) fn the_network_files() {
    alone(|| {
        let spec = r#"
  restartPolicy: Never
  hostname: box
  containers:
  - {name: app, image: podkit, args: [app, cat, /etc/hostname, /etc/hosts, /etc/resolv.conf], env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}
"#;
        let (code, lines, _) = Pod::start(&manifest("etc", spec), &[]).end();
        assert_eq!(code, Some(0));
        let log: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["line"].as_str())
            .collect();
        assert_eq!(log[0], "box");
        let hosts = "# Kubernetes-managed hosts file.";
        assert_eq!(log[1..3], [hosts, "127.0.0.1\tlocalhost"], "{log:#?}");
        assert!(
            log.iter()
                .any(|line| line.starts_with("10.87.") && line.ends_with("\tbox"))
        );
    });
}

pub(super) fn a_port_that_is_taken() {
    alone(|| {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let spec = "  containers:\n  - {name: app, image: podkit, args: [app, sleep], ports: [{containerPort: PORT}]}\n".replace("PORT", &port.to_string());
        let (code, lines, said) = Pod::start(&manifest("taken", &spec), &[]).end();
        assert_eq!((code, lines.len()), (Some(1), 0));
        assert!(
            said.starts_with(&format!(
                "port {port} of container app: 127.0.0.1:{port} is taken by "
            )),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1);
        let mut pod = Pod::start(&manifest("taken", &spec), &["--no-publish"]);
        pod.log("app", "sleeping");
        assert_eq!(pod.stop().0, Some(0));
    });
}
