//! What is seen on a terminal while the images of pods are pulled.

use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Stdio};

use podkit_testkit::podkit::{command, podkit};

use crate::ground::{Ground, manifest, terminal};

const PULLING: &str = "Pulling [";

/// A state directory, and images whose layer takes its time: podkit itself.
struct Images {
    dir: tempfile::TempDir,
}

impl Images {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("podkit-bars-").tempdir();
        let images = Self { dir: dir.unwrap() };
        podkit(&[
            "image",
            "build",
            "-o",
            &format!("oci:{}", images.path("image")),
        ])
        .ok();
        images
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn file(&self, text: &str) -> String {
        let path = self.path("pods.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `podkit run` on a terminal of its own, with the image for these containers.
    fn run(&self, file: &str, containers: &[&str], args: &[&str]) -> Sitting {
        let state = self.path("state");
        let layout = self.path("image");
        let images = containers.iter();
        let images: Vec<String> = images.map(|name| format!("{name}=oci:{layout}")).collect();
        let mut all = vec!["run", file, "--state-dir", &state];
        for image in &images {
            all.extend(["--image", image]);
        }
        all.extend(args);
        Sitting::new(&all)
    }

    fn podkit(&self, args: &[&str]) {
        let state = self.path("state");
        podkit(&[args, &["--state-dir", &state]].concat()).ok();
    }
}

/// A command and who sits before its terminal.
struct Sitting {
    command: Child,
    ours: File,
    said: Vec<u8>,
}

impl Sitting {
    fn new(args: &[&str]) -> Self {
        let (ours, theirs) = terminal();
        // Wide enough that no line is broken.
        let size = rustix::termios::Winsize {
            ws_row: 40,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&ours, size).unwrap();
        let mut command = command(args);
        let end = || Stdio::from(theirs.try_clone().unwrap());
        command.env("NO_COLOR", "1").env("TERM", "xterm");
        let command = command.stdin(end()).stdout(end()).stderr(end());
        Self {
            command: command.spawn().unwrap(),
            ours: ours.into(),
            said: Vec::new(),
        }
    }

    /// Reads once; false at the end: nobody holds the other end any more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // The end is an error.
        let count = self.ours.read(&mut buffer).unwrap_or(0);
        self.said.extend_from_slice(&buffer[..count]);
        count > 0
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// All that was said, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        while self.read() {}
        let code = self.command.wait().unwrap().code();
        (self.text(), code)
    }
}

/// What it looks like at the end: bars were drawn, at most so many at once; they are gone, and every line is whole.
fn check(said: &str, most: usize, whole: impl Fn(&str) -> bool) -> Vec<String> {
    let screens = screens(said);
    let bars = |screen: &Vec<String>| {
        let lines = screen.iter();
        lines.filter(|line| line.starts_with(PULLING)).count()
    };
    let drawn = screens.iter().map(bars).max();
    assert_eq!(drawn, Some(most), "{said}");
    let screen = screens.into_iter().next_back().unwrap();
    for line in screen.iter().filter(|line| !line.is_empty()) {
        assert!(whole(line), "{line:?} of {screen:#?}");
    }
    screen
}

/// A line of a pod's output: who, a mark, and what.
fn is_said(line: &str) -> bool {
    let mark = line.split_whitespace().nth(1).unwrap_or_default();
    ["*", "|", "=", "!"].contains(&mark)
}

fn count(screen: &[String], part: &str) -> usize {
    let lines = screen.iter().filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ").contains(part)
    });
    lines.count()
}

fn version() -> String {
    format!("app | podkit {}", env!("CARGO_PKG_VERSION"))
}

/// A pod that pulls the image of one container.
fn pod(name: &str, container: &str, more: &str) -> String {
    let spec = format!(
        "restartPolicy: Never
containers:
- name: {container}
  image: r.example/podkit:other
  args: [--version]{more}"
    );
    manifest(&spec).replacen("e2e", name, 1)
}

#[test]
fn bars_are_below_the_lines_and_gone_at_the_end() {
    let Some(ground) = Ground::new() else { return };
    let images = Images::new();
    let spec = "restartPolicy: Never
initContainers:
- name: say
  image: podkit
  args: [--version]
containers:
- name: app
  image: r.example/podkit:other
  args: [--version]";
    let file = images.file(&manifest(spec));
    let (said, code) = images.run(&file, &["app"], &[]).end();
    assert_eq!(code, Some(0), "{said}");
    let screen = check(&said, 1, is_said);
    for part in [
        "Pulling image",
        "Successfully pulled",
        &version(),
        "Ended: Succeeded",
    ] {
        assert_eq!(count(&screen, part), 1, "{part} in {screen:#?}");
    }
    ground.assert_clean();
}

#[test]
fn bars_under_watch() {
    let Some(ground) = Ground::new() else { return };
    let images = Images::new();
    let file = images.file(&pod("web", "app", ""));
    let (said, code) = images.run(&file, &["app"], &["--watch"]).end();
    assert_eq!(code, Some(0), "{said}");
    let screen = check(&said, 1, is_said);
    assert_eq!(count(&screen, &version()), 1, "{screen:#?}");
    ground.assert_clean();
}

#[test]
fn bars_of_a_job() {
    let Some(ground) = Ground::new() else { return };
    let images = Images::new();
    let file = images.file(
        "apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: app
        image: r.example/podkit:other
        args: [--version]
",
    );
    let (said, code) = images.run(&file, &["app"], &[]).end();
    assert_eq!(code, Some(0), "{said}");
    let screen = check(&said, 1, is_said);
    assert_eq!(count(&screen, "Job completed"), 1, "{screen:#?}");
    ground.assert_clean();
}

#[test]
fn an_image_of_several_pods_has_one_bar_and_errors_stay() {
    let Some(ground) = Ground::new() else { return };
    let images = Images::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!("\n  ports: [{{containerPort: 80, hostPort: {port}}}]");
    let pods = [
        pod("one", "app", ""),
        pod("two", "app", ""),
        pod("three", "other", &ports),
    ];
    let file = images.file(&pods.join("---\n"));
    let (said, code) = images.run(&file, &["app", "other"], &[]).end();
    assert_eq!(code, Some(1), "{said}");
    let is_error = |line: &str| line.starts_with("podkit: ");
    let screen = check(&said, 1, |line| is_said(line) || is_error(line));
    assert_eq!(count(&screen, &version()), 2, "{screen:#?}");
    let errors = screen.iter().filter(|line| is_error(line));
    assert_eq!(errors.count(), 1, "{screen:#?}");
    ground.assert_clean();
}

#[test]
fn bars_while_a_detached_pod_is_waited_for() {
    let Some(ground) = Ground::new() else { return };
    let images = Images::new();
    let file = images.file(&pod("web", "app", ""));
    let (said, code) = images.run(&file, &["app"], &["-d", "--wait"]).end();
    assert_eq!(code, Some(0), "{said}");
    let screen = check(&said, 1, |line| line.starts_with("pod/web "));
    for part in ["pod/web started", "pod/web ready"] {
        assert_eq!(count(&screen, part), 1, "{part} in {screen:#?}");
    }
    images.podkit(&["stop", "web"]);
    ground.assert_clean();
}

#[test]
fn a_pod_goes_on_when_nobody_waits_for_it_any_more() {
    let Some(ground) = Ground::new() else { return };
    let images = Images::new();
    let file = images.file(&pod("web", "app", ""));
    let mut run = images.run(&file, &["app"], &["-d", "--wait"]);
    while !run.text().contains(PULLING) {
        assert!(run.read(), "{}", run.text());
    }
    run.command.kill().unwrap();
    let (said, code) = run.end();
    assert_eq!(code, None, "{said}");
    images.podkit(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/web",
    ]);
    images.podkit(&["stop", "web"]);
    ground.assert_clean();
}

/// The lines that a terminal of endless height shows after each line and at the end. Knows what the bars use: CR, LF, cursor up
/// and down, and the erasure of a line. (ECMA-48, 8.3.22, 8.3.19, 8.3.41)
fn screens(said: &str) -> Vec<Vec<String>> {
    let mut screens = Vec::new();
    let mut lines = vec![String::new()];
    let (mut row, mut column) = (0usize, 0usize);
    let mut rest = said.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => {
                screens.push(shown(&lines));
                column = 0;
            }
            '\n' => {
                screens.push(shown(&lines));
                row += 1;
            }
            '\x1b' => {
                assert_eq!(rest.next(), Some('['), "{said:?}");
                let mut sequence = String::new();
                for c in rest.by_ref() {
                    sequence.push(c);
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
                let (count, what) = sequence.split_at(sequence.len() - 1);
                let count = count.parse().unwrap_or(1);
                match what {
                    "A" => row = row.saturating_sub(count),
                    "B" => row += count,
                    "K" => lines[row].clear(),
                    _ => panic!("{sequence:?} in {said:?}"),
                }
            }
            c => {
                let mut line: Vec<char> = lines[row].chars().collect();
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                lines[row] = line.into_iter().collect();
                column += 1;
            }
        }
        if lines.len() <= row {
            lines.resize(row + 1, String::new());
        }
    }
    screens.push(shown(&lines));
    screens
}

fn shown(lines: &[String]) -> Vec<String> {
    let lines = lines.iter().map(|line| line.trim_end().to_owned());
    lines.collect()
}
