//! What containers write to their standard output and error.

use super::*;

pub(super) fn logs_apart_and_whole() {
    alone(|| {
        let spec = "  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: app, image: podkit, args: [app, both]}\n";
        let mut pod = Pod::start(&manifest("logs", spec), &[]);
        let partial = pod.log("app", "no end");
        assert_eq!(partial["partial"], true);
        assert_eq!(partial["line"], "no end \u{1b}[2J");
        let stream = |pod: &Pod, text: &str| {
            let line = pod
                .seen
                .iter()
                .find(|line| line["line"] == text)
                .expect("a line");
            line["stream"].clone()
        };
        assert_eq!(stream(&pod, "to stdout"), "stdout");
        assert_eq!(stream(&pod, "to stderr"), "stderr");
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn a_flood_holds_nobody_up() {
    alone(|| {
        let port = free_port();
        let spec = r#"
  terminationGracePeriodSeconds: 2
  containers:
  - {name: flood, image: podkit, args: [app, flood]}
  - name: app
    image: podkit
    args: [app, serve, "PORT", "200"]
    ports: [{containerPort: PORT}]
    readinessProbe: {tcpSocket: {port: PORT}, periodSeconds: 1}
"#
        .replace("PORT", &port.to_string());
        let mut pod = Pod::start(&manifest("flood", &spec), &[]);
        pod.wait("ready app", |line| {
            line["type"] == "container" && line["container"] == "app" && line["ready"] == true
        });
        let begin = Instant::now();
        get(port).expect("an answer");
        // The flood goes on, and who had to wait for its end would wait for ever.
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{:?}",
            begin.elapsed()
        );
        let resident = resident_kib(pod.child.id());
        assert!(resident < 24 * 1024, "{resident} KiB");
        assert_eq!(pod.stop().0, Some(0));
    });
}

pub(super) fn standard_output_goes_away() {
    alone(|| {
        let port = free_port();
        let spec = r#"
  terminationGracePeriodSeconds: 2
  containers:
  - {name: flood, image: podkit, args: [app, flood]}
  - {name: app, image: podkit, args: [app, serve, "PORT"], ports: [{containerPort: PORT}]}
"#
        .replace("PORT", &port.to_string());
        let mut pod = Pod::start(&manifest("pipe", &spec), &[]);
        pod.log("app", "serving");
        pod.close_stdout();
        std::thread::sleep(Duration::from_millis(300));
        get(port).expect("the pod goes on");
        assert_eq!(pod.stop().0, Some(0));
    });
}
