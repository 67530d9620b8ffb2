//! What is seen on a terminal while a pod's images are pulled.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use podkit_testkit::podkit::{command, podkit};

use crate::ground::{Ground, manifest, terminal};

#[test]
fn bars_are_below_the_lines_and_gone_at_the_end() {
    let Some(ground) = Ground::new() else { return };
    let dir = tempfile::Builder::new().prefix("podkit-bars-").tempdir();
    let dir = dir.unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    // A layer that takes its time: podkit itself.
    let layout = format!("oci:{}", path("image"));
    podkit(&["image", "build", "-o", &layout]).ok();
    let spec = "restartPolicy: Never
initContainers:
- name: say
  image: podkit
  args: [--version]
containers:
- name: app
  image: r.example/podkit:other
  args: [--version]";
    std::fs::write(path("pod.yaml"), manifest(spec)).unwrap();
    let (ours, theirs) = terminal();
    // Wide enough that no bar is broken.
    let size = rustix::termios::Winsize {
        ws_row: 40,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&ours, size).unwrap();
    let (source, file, state) = (format!("app={layout}"), path("pod.yaml"), path("state"));
    let args = ["run", &file, "--image", &source, "--state-dir", &state];
    // In a block of its own: the command keeps the terminal open.
    let mut run = {
        let mut run = command(&args);
        let end = || Stdio::from(theirs.try_clone().unwrap());
        run.env("NO_COLOR", "1").env("TERM", "xterm");
        let run = run.stdin(end()).stdout(end()).stderr(end());
        run.spawn().unwrap()
    };
    drop(theirs);
    let mut said = Vec::new();
    // Its end is an error: nobody holds the other end any more.
    let mut ours = File::from(ours);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        said.extend_from_slice(&buffer[..count]);
    }
    let said = String::from_utf8(said).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0), "{said}");
    let drawn = said
        .split('\r')
        .any(|part| part.contains("Downloading") && part.contains('['));
    assert!(drawn, "{said}");
    let screen = screen(&said);
    let marks = ["*", "|", "=", "!"];
    for line in screen.iter().filter(|line| !line.is_empty()) {
        let mark = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(marks.contains(&mark), "{line:?} of {screen:#?}");
    }
    let version = format!("app | podkit {}", env!("CARGO_PKG_VERSION"));
    for part in [
        "Pulling image",
        "Successfully pulled",
        &version,
        "Ended: Succeeded",
    ] {
        let lines = screen.iter().filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.join(" ").contains(part)
        });
        assert_eq!(lines.count(), 1, "{part} in {screen:#?}");
    }
    ground.assert_clean();
}

/// The lines that a terminal of endless height shows in the end. Knows what the bars use: CR, LF, cursor up and down, and the
/// erasure of a line. (ECMA-48, 8.3.22, 8.3.19, 8.3.41)
fn screen(said: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut row, mut column) = (0usize, 0usize);
    let mut rest = said.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
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
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}
