//! `podkit tls` in this process, on free ports, with real sockets on both sides: a client that is not podkit's, and an
//! application that shows what it was asked.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod certificates;
mod clients;
mod http;
mod http2;
mod oracles;
mod origin;
mod proxied;
mod tcp;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use podkit_dataplane::module::{Section, Setup};
use podkit_dataplane::net::Listeners;
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{Param, Values};
use podkit_foundation::telemetry::metrics::{Format, Registry};
use podkit_sidecar::tls::MODULE;
use podkit_testkit::net::free_addr;

/// The module, running.
struct Tls {
    /// Where it listens.
    addr: SocketAddr,
    registry: Registry,
    lifecycle: Lifecycle,
    asks: mpsc::Sender<Ask>,
    thread: Option<JoinHandle<()>>,
}

/// What is asked of the thread that the module lives on.
enum Ask {
    Reload(mpsc::Sender<Result<(), String>>),
    Page(mpsc::Sender<Vec<Section>>),
    Checks(mpsc::Sender<Vec<(&'static str, Result<(), String>)>>),
}

fn values(flags: &[(String, String)]) -> Values {
    let given = |param: &Param| -> Vec<String> {
        let mine = flags.iter().filter(|(name, _)| *name == param.flag());
        mine.map(|(_, value)| value.clone()).collect()
    };
    let params = MODULE.spec.params.iter().copied().flatten();
    Values::gather(params, &given, &|_| None)
}

impl Tls {
    /// Starts it in front of `upstream`, with two workers.
    fn start(upstream: SocketAddr, flags: &[(&str, &str)]) -> Self {
        Self::start_at(&upstream.to_string(), flags)
    }

    /// The same, with an upstream of any form.
    fn start_at(upstream: &str, flags: &[(&str, &str)]) -> Self {
        let addr = free_addr();
        let mut all = vec![
            ("listen".to_owned(), addr.to_string()),
            ("upstream".to_owned(), upstream.to_string()),
        ];
        all.extend(
            flags
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let (registry, lifecycle) = (Registry::default(), Lifecycle::new());
        let setup = Setup {
            lifecycle: lifecycle.clone(),
            metrics: registry.clone(),
            workers: 2,
            listeners: Listeners::default(),
            admin: podkit_foundation::params::Addr::Port(0),
            drain_timeout: Duration::from_secs(25),
            settled: || {},
        };
        let (asks, asked) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || live(&all, &setup, &asked, &ready));
        is_ready.recv().expect("it starts");
        Self {
            addr,
            registry,
            lifecycle,
            asks,
            thread: Some(thread),
        }
    }

    fn ask<T>(&self, ask: impl FnOnce(mpsc::Sender<T>) -> Ask) -> T {
        let (answer, answered) = mpsc::channel();
        self.asks.send(ask(answer)).expect("it lives");
        answered.recv().expect("it answers")
    }

    /// SIGHUP.
    fn reload(&self) -> Result<(), String> {
        self.ask(Ask::Reload)
    }

    fn page(&self) -> Vec<Section> {
        self.ask(Ask::Page)
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.ask(Ask::Checks)
    }

    /// What stands first on the page in red.
    fn alert(&self) -> Option<String> {
        self.page().into_iter().find_map(|section| section.alert)
    }

    fn metrics(&self) -> String {
        self.registry.encode(Format::Prometheus)
    }

    /// The value of one sample; 0 when it is not there.
    fn metric(&self, sample: &str) -> f64 {
        let text = self.metrics();
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(name, _)| *name == sample);
        found.map_or(0.0, |(_, value)| value.parse().expect("a number"))
    }

    /// Waits until a sample has a value.
    fn metric_becomes(&self, sample: &str, wanted: f64) {
        podkit_testkit::until(sample, || (self.metric(sample) >= wanted).then_some(()));
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stopped);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn live(
    flags: &[(String, String)],
    setup: &Setup,
    asked: &mpsc::Receiver<Ask>,
    ready: &mpsc::Sender<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let service = (MODULE.build)(&values(flags), setup).unwrap();
        std::rc::Rc::clone(&service).start().unwrap();
        setup.lifecycle.advance(Phase::Ready);
        ready.send(()).unwrap();
        while setup.lifecycle.phase() < Phase::Stopped {
            match asked.try_recv() {
                Ok(Ask::Reload(answer)) => answer.send(service.reload()).unwrap(),
                Ok(Ask::Page(answer)) => answer.send(service.page()).unwrap(),
                Ok(Ask::Checks(answer)) => answer.send(service.checks()).unwrap(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            }
        }
    });
}

/// An application: answers each request with its own text as it came, on kept-alive connections.
struct App {
    addr: SocketAddr,
}

impl App {
    fn start() -> Self {
        Self::answering(|head| {
            let length = head.len();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: text/plain\r\n\r\n{head}").into_bytes()
        })
    }

    fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + Clone + 'static) -> Self {
        Self::speaking(move |mut stream| {
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..count]);
                while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head: Vec<u8> = bytes.drain(..end + 4).collect();
                    if stream
                        .write_all(&answer(&String::from_utf8_lossy(&head)))
                        .is_err()
                    {
                        return;
                    }
                }
            }
        })
    }

    /// Any protocol: a thread for each connection.
    fn speaking(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { addr }
    }
}

/// The fields of a request as the application saw them, by lower-case name; those that came twice joined by `|`.
fn fields(text: &str) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines().skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            let known = fields.entry(name.to_ascii_lowercase()).or_default();
            let bar = if known.is_empty() { "" } else { "|" };
            known.push_str(&format!("{bar}{}", value.trim()));
        }
    }
    fields
}
