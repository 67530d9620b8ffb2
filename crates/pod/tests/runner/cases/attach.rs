//! Those who attach to a container's first process.

use podkit_pod::control::{Attach, Client, ClientError, Ended, Kind, Part, Reply, Request, Size};

use super::*;

/// What came until the texts had been seen, as one text for each stream.
async fn read(reply: &mut Reply, texts: &[&str]) -> [String; 2] {
    let mut seen = [String::new(), String::new()];
    let all = |seen: &[String; 2]| {
        texts
            .iter()
            .all(|text| seen.iter().any(|one| one.contains(text)))
    };
    let reading = async {
        while !all(&seen) {
            match reply.next().await {
                Ok(Part::Frame(frame)) => {
                    let to = usize::from(frame.kind == Kind::Errors);
                    seen[to] += &String::from_utf8_lossy(&frame.bytes);
                }
                other => panic!("{other:?} instead of {texts:?}: {seen:?}"),
            }
        }
    };
    let patience = tokio::time::timeout(PATIENCE, reading).await;
    assert!(patience.is_ok(), "no {texts:?}: {seen:?}");
    seen
}

async fn attach(pod: &Pod, name: &str, stdin: bool) -> Result<(Client, Reply), ClientError> {
    let run = pod.dir.path().join("state/run/pods").join(full(name));
    let request = Request::Attach(Attach {
        container: "app".to_owned(),
        stdin,
    });
    let (client, mut reply) = Client::ask(&run, &request).await?;
    // From here on it misses nothing.
    match reply.next().await? {
        Part::Frame(frame) => assert!(frame.kind == Kind::Output && frame.bytes.is_empty()),
        Part::Ended(ended) => panic!("{ended:?}"),
    }
    Ok((client, reply))
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work);
}

/// A container that reads, with these fields.
fn listener(name: &str, fields: &str) -> Pod {
    let spec = format!(
        "  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: app, image: podkit, command: [/podkit, app, listen], {fields}}}"
    );
    Pod::start(&manifest(name, &spec), &[])
}

pub(super) fn several_are_attached_and_the_first_closes_the_input() {
    alone(|| {
        let mut pod = listener("attach", "stdin: true, stdinOnce: true");
        pod.log("app", "terminal: false");
        block_on(async {
            // One only looks.
            let (_only_looks, mut looker) = attach(&pod, "attach", false).await.expect("attached");
            let (mut typist, mut typed) = attach(&pod, "attach", true).await.expect("attached");
            typist.input(b"one\n").await.expect("a connection");
            let own = read(&mut typed, &["got one\n", "heard one\n"]).await;
            assert_eq!(own, ["got one\n", "heard one\n"]);
            assert_eq!(read(&mut looker, &["got one\n", "heard one\n"]).await, own);
            // Who leaves closes the input, and the container goes on to its end.
            drop((typist, typed));
            read(&mut looker, &["the end\n"]).await;
            let ended = looker.done().await.expect("an end");
            assert_eq!(ended, Ended { exit_code: None });
        });
        let (code, lines, _) = pod.end();
        assert_eq!(code, Some(0), "{lines:#?}");
        let kept = |text: &str| lines.iter().any(|line| line["line"] == text);
        assert!(
            kept("got one") && kept("heard one") && kept("the end"),
            "{lines:#?}"
        );
    });
}

pub(super) fn a_terminal_is_attached_to() {
    alone(|| {
        let mut pod = listener("attty", "stdin: true, tty: true");
        pod.log("app", "terminal: true");
        block_on(async {
            let (mut client, mut reply) = attach(&pod, "attty", true).await.expect("attached");
            let size = Size {
                rows: 33,
                columns: 99,
            };
            client.resize(size).await.expect("a connection");
            client.input(b"hello\r").await.expect("a connection");
            // The terminal shows what is typed, and all comes out of it.
            let [out, errors] = read(&mut reply, &["got hello\r\n", "heard hello\r\n"]).await;
            assert!(out.starts_with("hello\r\n"), "{out:?}");
            assert_eq!(errors, "");
            drop((client, reply));
            // Without stdinOnce the next one may go on.
            let (mut client, mut reply) = attach(&pod, "attty", true).await.expect("attached");
            client.input(b"leave\r").await.expect("a connection");
            read(&mut reply, &["got leave\r\n"]).await;
            reply.done().await.expect("an end");
        });
        let (code, lines, _) = pod.end();
        assert_eq!(code, Some(0));
        let of = |text: &str| {
            lines
                .iter()
                .find(|line| line["line"].as_str().is_some_and(|l| l.contains(text)))
                .unwrap_or_else(|| panic!("no {text}: {lines:#?}"))
        };
        // As with the CRI, the log has one stream, and the terminal's own ends of lines.
        assert_eq!(of("heard hello")["stream"], "stdout");

        let mut pod = listener("atnone", "tty: true");
        pod.log("app", "terminal: true");
        block_on(async {
            let refused = attach(&pod, "atnone", true)
                .await
                .expect_err("refused")
                .to_string();
            assert!(
                refused
                    .contains("container app: it has no standard input: its `stdin` is not true"),
                "{refused}"
            );
        });
        // It has no handler: asked twice it is killed.
        pod.signal(Signal::INT);
        pod.event("app", "Killing");
        pod.signal(Signal::INT);
        pod.end();
    });
}
