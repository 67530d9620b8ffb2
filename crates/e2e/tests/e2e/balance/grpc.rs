//! gRPC by tonic on both sides, through balance: calls of every kind, over HTTP/2 in the clear and over TLS, and how they end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use podkit_testkit::certs::Authority;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::{DEADLINE, Turn, until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::server::{
    ClientStreamingService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::raw::Raw;

/// The application: the path says what it does.
#[derive(Clone, Default)]
struct App(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    /// Calls that were given up before they were answered.
    dropped: AtomicU64,
    healthy: AtomicU64,
}

impl App {
    /// One that is healthy.
    fn new() -> Self {
        let app = Self::default();
        app.0.healthy.store(1, Ordering::Relaxed);
        app
    }

    /// Serves in a thread that ends with the test's process.
    fn serve(self) -> SocketAddr {
        let addr = free_addr();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let incoming = TcpIncoming::bind(addr).unwrap().with_nodelay(Some(true));
                ready.send(()).unwrap();
                let served = Server::builder().serve_with_incoming(self, incoming);
                served.await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        addr
    }
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl tower_service::Service<http::Request<Body>> for App {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Later<Result<http::Response<Body>, std::convert::Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let app = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            let path = request.uri().path().to_owned();
            Ok(match path.as_str() {
                "/grpc.health.v1.Health/Check" => grpc.unary(Health(app), request).await,
                "/test/Count" => grpc.server_streaming(Count, request).await,
                "/test/Sum" => grpc.client_streaming(Sum, request).await,
                "/test/Chat" => grpc.streaming(Chat(app), request).await,
                _ => grpc.unary(Unary(app, path), request).await,
            })
        })
    }
}

/// `grpc.health.v1`: field 1, SERVING or NOT_SERVING.
struct Health(App);

impl UnaryService<Bytes> for Health {
    type Response = Bytes;
    type Future = Later<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let healthy = self.0.0.healthy.load(Ordering::Relaxed);
        Box::pin(async move { Ok(Response::new(Bytes::from(vec![8, healthy as u8]))) })
    }
}

struct Unary(App, String);

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Later<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (counts, path) = (Arc::clone(&self.0.0), self.1.clone());
        Box::pin(async move {
            counts.begun.fetch_add(1, Ordering::Relaxed);
            match path.as_str() {
                "/test/Echo" => {
                    let field = request.metadata().get("x-question").cloned();
                    let mut answer = Response::new(request.into_inner());
                    if let Some(field) = field {
                        answer.metadata_mut().insert("x-answer", field);
                    }
                    Ok(answer)
                }
                "/test/Fail" => {
                    let mut status = Status::with_details(
                        Code::FailedPrecondition,
                        "not now: 50 % \u{fc}",
                        Bytes::from_static(b"\0\xff details"),
                    );
                    let more = "why".parse().unwrap();
                    status.metadata_mut().insert("x-more", more);
                    Err(status)
                }
                "/test/Hang" => {
                    let _given_up = Dropped(counts);
                    std::future::pending().await
                }
                _ => Err(Status::unimplemented("no such method")),
            }
        })
    }
}

/// Counts a call that ends because nobody wants it any more.
struct Dropped(Arc<Counts>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// So many messages of so many bytes; then, if it is asked for, an error.
struct Count;

impl ServerStreamingService<Bytes> for Count {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Later<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let text = String::from_utf8(request.into_inner().to_vec()).unwrap();
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap_or("0").parse::<usize>().unwrap();
        let (count, length, fails) = (next(), next(), next() == 1);
        let messages = (0..count).map(move |at| Ok(Bytes::from(vec![at as u8; length])));
        let end = fails.then(|| Err(Status::data_loss("the rest is gone")));
        Box::pin(async move {
            let all: Messages = Box::pin(tokio_stream::iter(messages.chain(end)));
            Ok(Response::new(all))
        })
    }
}

/// How many messages came, and their bytes.
struct Sum;

impl ClientStreamingService<Bytes> for Sum {
    type Response = Bytes;
    type Future = Later<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let (mut count, mut bytes) = (0, 0);
            let mut messages = request.into_inner();
            while let Some(message) = messages.message().await? {
                count += 1;
                bytes += message.len();
            }
            Ok(Response::new(format!("{count} {bytes}").into()))
        })
    }
}

/// Each message back as it comes.
struct Chat(App);

impl StreamingService<Bytes> for Chat {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Later<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let given_up = Dropped(Arc::clone(&self.0.0));
        let back = request.into_inner().map(move |message| {
            let _held = &given_up;
            message
        });
        Box::pin(async move {
            let back: Messages = Box::pin(back);
            Ok(Response::new(back))
        })
    }
}

/// The application, and a balance in front of it: in the clear and by TLS.
struct Rig {
    counts: Arc<Counts>,
    plain: SocketAddr,
    secure: SocketAddr,
    authority: Authority,
    modules: [Module; 2],
    _dir: tempfile::TempDir,
}

impl Rig {
    fn start(flags: &[&str]) -> Self {
        let app = App::new();
        let counts = Arc::clone(&app.0);
        let upstream = app.serve();
        let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
        let (cert, key) = authority.server(&["localhost"]).write(dir.path(), "server");
        let to = format!("--upstream=h2c://{upstream}");
        let (cert, key) = (
            format!("--cert={}", cert.display()),
            format!("--key={}", key.display()),
        );
        let (plain, secure) = (free_addr(), free_addr());
        let start = |listen: SocketAddr, more: &[&str]| {
            let at = format!("--listen={listen}");
            let mut args = vec![at.as_str(), &to, "--ready=grpc", "--ready-period=50ms"];
            args.extend(flags);
            args.extend(more);
            Module::start("balance", &args, &[])
        };
        let modules = [start(plain, &[]), start(secure, &[&cert, &key])];
        Self {
            counts,
            plain,
            secure,
            authority,
            modules,
            _dir: dir,
        }
    }

    /// A client of each kind.
    fn clients(&self) -> [Client; 2] {
        let plain = Endpoint::new(format!("http://{}", self.plain)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        let secure = Endpoint::new(format!("https://{}", self.secure)).unwrap();
        let secure = secure.tls_config(tls).unwrap();
        [plain, secure].map(|to| Client::new(to.connect_lazy()))
    }

    /// Waits until the application has counted so many.
    async fn count(&self, what: &AtomicU64, wanted: u64) {
        let since = Instant::now();
        while what.load(Ordering::Relaxed) < wanted {
            assert!(since.elapsed() < DEADLINE, "not {wanted} in time");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs `work` for a client in the clear and for one by TLS.
fn for_both(flags: &[&str], work: &impl AsyncFn(&Rig, Client)) {
    let _turn = Turn::shared();
    let rig = Rig::start(flags);
    runtime().block_on(async {
        for client in rig.clients() {
            let done = tokio::time::timeout(DEADLINE, work(&rig, client));
            done.await.expect("it is done in time");
        }
    });
}

#[derive(Clone)]
struct Client(tonic::client::Grpc<Channel>);

type Answer<T> = Result<Response<T>, Status>;

impl Client {
    fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    async fn unary(&mut self, path: &'static str, request: Request<Bytes>) -> Answer<Bytes> {
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        self.0.unary(request, path, Raw).await
    }

    async fn count(&mut self, what: &'static str) -> Answer<Streaming<Bytes>> {
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test/Count");
        let request = Request::new(Bytes::from_static(what.as_bytes()));
        self.0.server_streaming(request, path, Raw).await
    }

    async fn chat(&mut self) -> (mpsc::Sender<Bytes>, Streaming<Bytes>) {
        self.0.ready().await.unwrap();
        let (send, messages) = mpsc::channel(4);
        let path = http::uri::PathAndQuery::from_static("/test/Chat");
        let request = Request::new(ReceiverStream::new(messages));
        let answer = self.0.streaming(request, path, Raw).await.unwrap();
        (send, answer.into_inner())
    }
}

#[test]
fn a_message_for_a_message() {
    for_both(&[], &async |_, mut client| {
        for length in [0, 1, 16_384, 1 << 20] {
            let message = Bytes::from(vec![b'm'; length]);
            let mut request = Request::new(message.clone());
            let question = "42".parse().unwrap();
            request.metadata_mut().insert("x-question", question);
            let answer = client.unary("/test/Echo", request).await.unwrap();
            assert_eq!(answer.metadata().get("x-answer").unwrap(), "42");
            assert_eq!(answer.into_inner(), message);
        }
    });
}

#[test]
fn a_stream_of_answers() {
    for_both(&[], &async |_, mut client| {
        let mut answers = client.count("300 10000").await.unwrap().into_inner();
        for at in 0..300 {
            let message = answers.message().await.unwrap().expect("there are 300");
            assert_eq!(message, vec![at as u8; 10_000], "{at}");
        }
        assert_eq!(answers.message().await.unwrap(), None);
        assert!(answers.trailers().await.unwrap().is_some());
    });
}

#[test]
fn a_stream_of_messages() {
    for_both(&[], &async |_, mut client| {
        client.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test/Sum");
        let messages = tokio_stream::iter((0..300).map(|at| Bytes::from(vec![b'm'; at * 10])));
        let request = Request::new(messages);
        let answer = client.0.client_streaming(request, path, Raw).await;
        assert_eq!(answer.unwrap().into_inner(), "300 448500");
    });
}

/// Longer than every other bound: a stream both ways that is silent is not one that hangs.
#[test]
fn both_ways_at_once_with_silence() {
    let flags = [
        "--response-timeout=1s",
        "--body-timeout=1s",
        "--idle-timeout=1s",
    ];
    for_both(&flags, &async |_, mut client| {
        let (send, mut answers) = client.chat().await;
        for word in ["one", "two", "three"] {
            send.send(Bytes::from(word)).await.unwrap();
            assert_eq!(answers.message().await.unwrap().unwrap(), word);
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        drop(send);
        assert_eq!(answers.message().await.unwrap(), None);
    });
}

#[test]
fn and_ends_when_the_silence_is_longer_than_it_may_be() {
    for_both(&["--tunnel-timeout=2s"], &async |rig, mut client| {
        let before = rig.counts.dropped.load(Ordering::Relaxed);
        let (send, mut answers) = client.chat().await;
        send.send(Bytes::from("one")).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), "one");
        let error = answers.message().await.unwrap_err();
        assert_ne!(error.code(), Code::Ok, "{error}");
        // The application learns of it too.
        rig.count(&rig.counts.dropped, before + 1).await;
    });
}

#[test]
fn errors_come_as_they_are() {
    for_both(&[], &async |_, mut client| {
        // In the head, as there is nothing else.
        let request = Request::new(Bytes::new());
        let status = client.unary("/test/Fail", request).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "not now: 50 % \u{fc}");
        assert_eq!(status.details(), b"\0\xff details");
        assert_eq!(status.metadata().get("x-more").unwrap(), "why");
        let request = Request::new(Bytes::new());
        let status = client.unary("/test/None", request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        // In the trailers, behind messages.
        let mut answers = client.count("3 10 1").await.unwrap().into_inner();
        for _ in 0..3 {
            assert_eq!(answers.message().await.unwrap().unwrap().len(), 10);
        }
        let status = answers.message().await.unwrap_err();
        assert_eq!(status.code(), Code::DataLoss);
        assert_eq!(status.message(), "the rest is gone");
    });
}

#[test]
fn a_deadline_ends_the_call_at_the_application_too() {
    for_both(&[], &async |rig, mut client| {
        let before = rig.counts.dropped.load(Ordering::Relaxed);
        let mut request = Request::new(Bytes::new());
        request.set_timeout(Duration::from_secs(2));
        let since = Instant::now();
        let status = client.unary("/test/Hang", request).await.unwrap_err();
        assert!(
            matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded),
            "{status}"
        );
        assert!(since.elapsed() >= Duration::from_secs(2));
        rig.count(&rig.counts.dropped, before + 1).await;
    });
}

#[test]
fn a_call_that_is_given_up_is_given_up_at_the_application_too() {
    for_both(&[], &async |rig, client| {
        let begun = rig.counts.begun.load(Ordering::Relaxed);
        let before = rig.counts.dropped.load(Ordering::Relaxed);
        let mut other = client.clone();
        let call = tokio::spawn(async move {
            let request = Request::new(Bytes::new());
            other.unary("/test/Hang", request).await.map(drop)
        });
        rig.count(&rig.counts.begun, begun + 1).await;
        call.abort();
        rig.count(&rig.counts.dropped, before + 1).await;
        // And a stream whose answers nobody wants.
        let mut client = client;
        let (send, answers) = client.chat().await;
        send.send(Bytes::from("one")).await.unwrap();
        drop((send, answers));
        rig.count(&rig.counts.dropped, before + 2).await;
        // The connection goes on.
        let request = Request::new(Bytes::from("still"));
        let answer = client.unary("/test/Echo", request).await.unwrap();
        assert_eq!(answer.into_inner(), "still");
    });
}

/// What is not ready by its health service gets nothing while another one is.
#[test]
fn health_decides_who_is_called() {
    let other = App::new();
    let second = format!("--upstream=h2c://{}", other.clone().serve());
    let flags = [second.as_str(), "--ready-failures=1"];
    for_both(&flags, &async |rig, mut client| {
        let path = "/grpc.health.v1.Health/Check";
        let answer = client.unary(path, Request::new(Bytes::new())).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(&answer[..], [8, 1], "it is a service like others");
        // The first one of both.
        let becomes = |wanted: &'static str| {
            let is = |module: &Module| {
                module.admin("/upstreams").json()["upstreams"][0]["state"] == wanted
            };
            until(wanted, || rig.modules.iter().all(is).then_some(()));
        };
        rig.counts.healthy.store(2, Ordering::Relaxed);
        becomes("unready");
        let [begun, others] = [&rig.counts, &other.0].map(|app| app.begun.load(Ordering::Relaxed));
        for _ in 0..20 {
            let request = Request::new(Bytes::from("who"));
            client.unary("/test/Echo", request).await.unwrap();
        }
        assert_eq!(rig.counts.begun.load(Ordering::Relaxed), begun);
        assert_eq!(other.0.begun.load(Ordering::Relaxed), others + 20);
        rig.counts.healthy.store(1, Ordering::Relaxed);
        becomes("ready");
    });
}

#[test]
fn without_an_upstream_calls_end_as_unavailable() {
    let _turn = Turn::shared();
    let (listen, nobody) = (free_addr(), free_addr());
    let (at, to) = (
        format!("--listen={listen}"),
        format!("--upstream=h2c://{nobody}"),
    );
    let _balance = Module::start("balance", &[&at, &to, "--ready=off"], &[]);
    runtime().block_on(async {
        let to = Endpoint::new(format!("http://{listen}")).unwrap();
        let mut client = Client::new(to.connect_lazy());
        let request = Request::new(Bytes::new());
        let status = client.unary("/test/Echo", request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(status.message(), "the upstream accepts no connections");
    });
}
