//! nginx's `stub_status`, by the names of nginx-prometheus-exporter.

use std::rc::Rc;

use podkit_dataplane::http::{Ask, fetch};
use podkit_dataplane::upstream::Pool;

use super::{Ground, Planned, Spec};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};

/// The page has about a hundred bytes.
const MOST_BYTES: usize = 4096;

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let target = match spec.path.as_str() {
        "" | "/" => "/stub_status".to_owned(),
        path => path.to_owned(),
    };
    let pool = ground.pool(spec)?;
    Ok(vec![Planned::always(Nginx { pool, target })])
}

/// What [`read`] and the status make.
pub(super) fn names() -> Vec<(String, Kind)> {
    let name = |(name, kind): (&str, Kind)| (format!("nginx_{name}"), kind);
    [
        ("up", Kind::Gauge),
        ("connections_accepted", Kind::Counter),
        ("connections_active", Kind::Gauge),
        ("connections_handled", Kind::Counter),
        ("connections_reading", Kind::Gauge),
        ("connections_waiting", Kind::Gauge),
        ("connections_writing", Kind::Gauge),
        ("http_requests_total", Kind::Counter),
    ]
    .map(name)
    .into()
}

struct Nginx {
    pool: Rc<Pool>,
    target: String,
}

impl Collector for Nginx {
    fn collect<'a>(&'a mut self, _: &'a Answered) -> Collected<'a> {
        Box::pin(async {
            let ask = Ask {
                method: "GET",
                target: &self.target,
                fields: &[],
                body: b"",
                most: MOST_BYTES,
            };
            let got = fetch(&self.pool, ask).await?;
            if got.status != 200 {
                return Err(format!("answered {} to {}", got.status, self.target));
            }
            read(&String::from_utf8_lossy(&got.body)).ok_or_else(|| {
                format!(
                    "answered something else than stub_status to {}",
                    self.target
                )
            })
        })
    }

    fn status(&self, went: &Went) -> Batch {
        let mut batch = Batch::default();
        batch.gauge("nginx_up", "Status of the last metric scrape", went.up());
        batch
    }
}

/// The page of ngx_http_stub_status_module:
///
/// ```text
/// Active connections: 291
/// server accepts handled requests
///  16630948 16630948 31070465
/// Reading: 6 Writing: 179 Waiting: 106
/// ```
fn read(page: &str) -> Option<Batch> {
    let mut lines = page.lines();
    let active = lines.next()?.strip_prefix("Active connections:")?;
    lines
        .next()
        .filter(|line| line.contains("accepts handled requests"))?;
    let mut counts = lines
        .next()?
        .split_ascii_whitespace()
        .map(str::parse::<f64>);
    let mut count = || counts.next()?.ok();
    let (accepted, handled, requests) = (count()?, count()?, count()?);
    let words: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let [
        "Reading:",
        reading,
        "Writing:",
        writing,
        "Waiting:",
        waiting,
    ] = words[..]
    else {
        return None;
    };
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let mut batch = Batch::default();
    batch.counter(
        "nginx_connections_accepted",
        "Accepted client connections",
        accepted,
    );
    batch.gauge(
        "nginx_connections_active",
        "Active client connections",
        number(active)?,
    );
    batch.counter(
        "nginx_connections_handled",
        "Handled client connections",
        handled,
    );
    batch.gauge(
        "nginx_connections_reading",
        "Connections where NGINX is reading the request header",
        number(reading)?,
    );
    batch.gauge(
        "nginx_connections_waiting",
        "Idle client connections",
        number(waiting)?,
    );
    batch.gauge(
        "nginx_connections_writing",
        "Connections where NGINX is writing the response back to the client",
        number(writing)?,
    );
    batch.counter("nginx_http_requests_total", "Total http requests", requests);
    Some(batch)
}

/// No bytes upset it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) const FUZZ: podkit_foundation::fuzz::Target = podkit_foundation::fuzz::Target {
    name: "metrics-nginx",
    seeds: &[
        b"Active connections: 291 \nserver accepts handled requests\n 16630948 16630948 31070465 \nReading: 6 Writing: 179 Waiting: 106 \n",
    ],
    run: |bytes| {
        if let Some(batch) = read(&String::from_utf8_lossy(bytes)) {
            crate::metrics::fuzz::check_page(&batch);
        }
    },
};

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_page_is_read() {
        let page = "Active connections: 291 \nserver accepts handled requests\n 16630948 16630947 31070465 \n\
                    Reading: 6 Writing: 179 Waiting: 106 \n";
        let batch = read(page).unwrap();
        let shown: Vec<(&str, f64)> = batch
            .families()
            .iter()
            .map(|family| (&*family.name, family.samples[0].value))
            .collect();
        assert_eq!(
            shown,
            [
                ("nginx_connections_accepted", 16_630_948.0),
                ("nginx_connections_active", 291.0),
                ("nginx_connections_handled", 16_630_947.0),
                ("nginx_connections_reading", 6.0),
                ("nginx_connections_waiting", 106.0),
                ("nginx_connections_writing", 179.0),
                ("nginx_http_requests_total", 31_070_465.0),
            ]
        );
        for cut in 0..page.trim_end().len() {
            assert!(
                read(&page[..cut]).is_none() || cut > page.len() - 5,
                "{cut}"
            );
        }
        assert!(read("<html>").is_none());
    }
}
