//! What is asked and what is answered: the endpoints, as a function of the path, the query, the time and what was seen.

use std::sync::LazyLock;

use podkit_dataplane::module::{Answer, Query};
use serde::Serialize;

use super::census::Instant;
use super::detail;
use super::procfs::Proc;
use super::query::{self, Asked, At};
use super::service::Door;
use super::snapshot::Sort;
use super::text;
use super::watch::Shared;

/// The page on the admin server. Its script is apart, so that the page's policy can allow no other.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let style = [
        podkit_dataplane::admin::STYLE,
        include_str!("page/page.css"),
    ]
    .concat();
    include_str!("page/page.html").replace("/*STYLE*/", &style)
});

/// The page on a listener of its own: without the links to what only the admin server has.
static OWN_PAGE: LazyLock<String> = LazyLock::new(|| {
    let mut page = PAGE.clone();
    if let (Some(from), Some(to)) = (page.find("<!--ADMIN-->"), page.find("<!--/ADMIN-->")) {
        page.replace_range(from..to, "");
    }
    page
});

const SCRIPT: &str = include_str!("page/page.js");

/// The paths that are answered here; one that ends in `/` covers what is below it.
pub(crate) const PATHS: &[&str] = &[
    "/",
    "/topz",
    "/topz.js",
    "/api/processes",
    "/api/processes/",
    "/api/history",
];

const SELECT: &[&str] = &["sort", "at", "container", "pid", "limit"];

/// Answers a GET of one of [`PATHS`]. `proc` is read for one process's details only.
pub(crate) fn answer(
    shared: &Shared,
    proc: &Proc,
    door: Door,
    asked: &Query<'_>,
    now: Instant,
) -> Answer {
    let answer = match asked.path {
        "/" if door == Door::Own => Ok(html(OWN_PAGE.as_bytes())),
        "/" => Ok(html(PAGE.as_bytes())),
        "/topz.js" => Ok(with(
            "text/javascript; charset=utf-8",
            SCRIPT.as_bytes().to_vec(),
        )),
        "/topz" => table(shared, asked.query, now),
        "/api/processes" => processes(shared, asked.query, now),
        "/api/history" => history(shared, asked.query, now),
        path => match path.strip_prefix("/api/processes/") {
            Some(pid) => one(shared, proc, pid, asked.query, now),
            None => Err(Refusal(
                404,
                "not found; / links to what is here".to_owned(),
            )),
        },
    };
    answer.unwrap_or_else(|Refusal(status, why)| plain(status, why))
}

/// A status and a line.
struct Refusal(u16, String);

fn bad(why: String) -> Refusal {
    Refusal(400, why)
}

fn missing(why: String) -> Refusal {
    Refusal(404, why)
}

fn table(shared: &Shared, query: &str, now: Instant) -> Result<Answer, Refusal> {
    let asked = query::parse(query, SELECT).map_err(bad)?;
    let seen = shared.lock();
    let snapshot = seen.source(now).snapshot(&asked).map_err(missing)?;
    Ok(plain(200, text::table(&snapshot)))
}

fn processes(shared: &Shared, query: &str, now: Instant) -> Result<Answer, Refusal> {
    let asked = query::parse(query, SELECT).map_err(bad)?;
    let seen = shared.lock();
    let snapshot = seen.source(now).snapshot(&asked).map_err(missing)?;
    Ok(json(&snapshot))
}

fn history(shared: &Shared, query: &str, now: Instant) -> Result<Answer, Refusal> {
    let asked = query::parse(query, &["pid"]).map_err(bad)?;
    let seen = shared.lock();
    let source = seen.source(now);
    let Some(pid) = asked.pid else {
        return Ok(json(&source.by_container()));
    };
    let series = source.of_process(pid);
    series
        .map(|series| json(&series))
        .ok_or_else(|| missing(format!("the history knows no process {pid}")))
}

fn one(
    shared: &Shared,
    proc: &Proc,
    pid: &str,
    query: &str,
    now: Instant,
) -> Result<Answer, Refusal> {
    query::parse(query, &[]).map_err(bad)?;
    let pid = pid
        .parse()
        .map_err(|_| bad("a process id follows /api/processes/".to_owned()))?;
    let asked = Asked {
        at: At::Now,
        sort: Sort::Pid,
        container: None,
        pid: Some(pid),
        limit: None,
    };
    let seen = shared.lock();
    let snapshot = seen.source(now).snapshot(&asked).map_err(missing)?;
    let none = || missing(format!("there is no process {pid}"));
    let (row, start) = snapshot
        .processes
        .into_iter()
        .next()
        .zip(seen.start_of(pid))
        .ok_or_else(none)?;
    let detail = detail::read(proc, row, start).map_err(missing)?;
    Ok(json(&detail))
}

fn html(body: &[u8]) -> Answer {
    with("text/html; charset=utf-8", body.to_vec())
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            with("application/json", body)
        }
        Err(error) => plain(500, format!("podkit could not write its answer: {error}")),
    }
}

fn plain(status: u16, mut text: String) -> Answer {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        body: text.into_bytes(),
    }
}

fn with(content_type: &'static str, body: Vec<u8>) -> Answer {
    Answer {
        status: 200,
        content_type,
        body,
    }
}
