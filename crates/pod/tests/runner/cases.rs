//! The cases.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Machine, Pod, manifest, story};

type Case = fn();

pub(crate) const ALL: &[(&str, Case)] = &[("order_of_start_and_stop", order_of_start_and_stop)];

fn order_of_start_and_stop() {
    let before = Machine::look();
    let mut pod = Pod::start(
        &manifest(
            "order",
            r#"
  terminationGracePeriodSeconds: 5
  initContainers:
  - {name: init, image: podkit, args: [app, exit, "0"]}
  - {name: side, image: podkit, args: [app, sleep], restartPolicy: Always}
  containers:
  - {name: one, image: podkit, args: [app, sleep]}
  - {name: two, image: podkit, args: [app, sleep]}
"#,
        ),
        &[],
    );
    pod.ready();
    let (code, lines, said) = pod.stop();
    let story = story(&lines);
    assert_eq!(code, Some(0), "{said} {lines:#?}");
    let (start, stop) = story.split_at(
        story
            .iter()
            .position(|word| word == "pod Killing")
            .expect("a stop"),
    );
    assert_eq!(
        start,
        [
            "init Started",
            "init Completed",
            "side Started",
            "one Started",
            "two Started"
        ]
    );
    assert_eq!(stop[..3], ["pod Killing", "one Killing", "two Killing"]);
    assert_eq!(stop[5..], ["side Killing", "side Completed"]);
    assert_eq!(Machine::look(), before);
}
