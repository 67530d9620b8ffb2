//! examples/node-paas, as its README uses it: pushes that are taken, and one for each way of breaking the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use podkit_testkit::net::loopback;
use podkit_testkit::{http, until};

use crate::ground::{events, log_of};
use crate::pushed::Pushed;

/// A program that answers `words`, with a line before its answer.
fn program(line: &str, words: &str) -> String {
    format!(
        "require('node:http').createServer((request, response) => {{\n{line}\nresponse.end('{words}');\n}}).listen(process.env.PORT);\n"
    )
}

/// Asks for the page over and over; at the end tells the answers that were not the page.
fn asker(stop: &Arc<AtomicBool>) -> JoinHandle<(usize, Vec<String>)> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut count, mut wrong) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match http::get(loopback(8080), "/") {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => wrong.push(answer.status.to_string()),
                Err(error) => wrong.push(error.to_string()),
            }
            count += 1;
        }
        (count, wrong)
    })
}

impl Pushed {
    /// Pushes a program that is to be refused at this step for this reason; the page stays.
    fn refused(&self, text: &str, step: &str, why: &str) {
        let before = self.page();
        let commit = self.push("server.js", text);
        let begin = format!("{commit}: {step}: ");
        let said = || {
            let lines = log_of(&self.pod, "sync");
            lines.into_iter().find(|line| line.contains(&begin))
        };
        let line = until("the refusal", said);
        assert!(line.contains(why), "{line}");
        let back = if step == "validate" {
            "stays)"
        } else {
            "is back)"
        };
        assert!(line.contains(back), "{line}");
        assert_eq!(self.page(), before);
        let page = self.admin("/");
        assert!(page.contains(&begin), "{page}");
        let sample = format!("podkit_git_refused_total{{repo=\"app\",step=\"{step}\"}} ");
        let metrics = self.admin("/metrics");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&sample));
        assert_ne!(count, Some("0"), "{metrics}");
    }

    /// Pushes a program that answers `words`, and waits until it alone does.
    fn taken(&self, line: &str, words: &str) {
        let commit = self.push("server.js", &program(line, words));
        until("the new version", || {
            let lines = log_of(&self.pod, "sync");
            let is_it = |line: &String| line.contains("\"published\"") && line.contains(&commit);
            lines.iter().any(is_it).then_some(())
        });
        assert_eq!(self.page(), words);
        assert!(!self.admin("/").contains("refused"));
    }
}

#[test]
fn a_push_runs_and_one_that_breaks_the_program_is_taken_back() {
    let Some(mut app) = Pushed::start("node-paas", "app.git", &["node", "git", "curl"]) else {
        return;
    };
    assert_eq!(app.page(), "The first version.\n");
    let stop = Arc::default();
    let asker = asker(&stop);
    app.taken("", "second");
    app.refused("syntax error", "validate", "SyntaxError");
    app.refused(
        &format!("{}nowhere.to();", program("", "third")),
        "reload",
        "server.js ended (1) ReferenceError: nowhere is not defined",
    );
    app.refused(
        "setInterval(() => {}, 1000);",
        "reload",
        "server.js does not listen within 5000 ms",
    );
    app.taken("", "fourth");
    // Nobody who asked meanwhile has seen anything of it.
    stop.store(true, Ordering::Relaxed);
    let (count, wrong) = asker.join().unwrap();
    println!("{count} requests");
    assert!(count > 100 && wrong.is_empty(), "of {count}: {wrong:?}");
    app.refused(
        &program("response.statusCode = 500;", "fifth"),
        "confirm",
        "not within 3000 ms: http://127.0.0.1:8080/ answered 500: fifth",
    );
    app.taken("", "sixth");
    // A program that ends by itself is run again, in the same container.
    let dies = "if (request.url === '/die') process.exit(1);";
    app.taken(dies, "seventh");
    assert!(http::get(loopback(8080), "/die").is_err());
    until("the program to run again", || {
        let answer = http::get(loopback(8080), "/").ok()?;
        (answer.text() == "seventh").then_some(())
    });
    let started = events(&app.pod, &["Started"]);
    assert_eq!(
        started,
        ["install", "first", "sync", "app"].map(|name| format!("{name} Started"))
    );
    assert_eq!(app.pod.stop(), 0, "{}", app.pod.process.shown());
    app.ground.assert_clean();
}
