//! `docker-daemon:REF`: what a Docker Engine on this machine has, by its API on a unix socket. (Docker Engine API,
//! `ImageInspect` and `ImageGet`)
//!
//! The engine is asked for the image's id first: what the store has already is not moved again.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{Archive, PullError};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::image::registry::Body;
use crate::image::store::Store;

/// Until the engine begins to answer: it packs the image meanwhile.
const ANSWER: Duration = Duration::from_secs(300);
/// An inspection, or an error.
const JSON_BYTES_MAX: u64 = 8 << 20;

/// An engine that listens on a unix socket.
pub(super) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// `$DOCKER_HOST`, when that is a unix socket; `/var/run/docker.sock` without it.
    pub(super) fn of_environment() -> Result<Self, PullError> {
        let socket = match std::env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => match host.strip_prefix("unix://") {
                Some(path) => path.into(),
                None => {
                    let message = format!("DOCKER_HOST is {host:?}; only unix:// is spoken");
                    return Err(PullError::fatal(message));
                }
            },
            _ => PathBuf::from("/var/run/docker.sock"),
        };
        Ok(Self { socket })
    }

    #[cfg(test)]
    pub(super) fn at(socket: &std::path::Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The digest of the image's configuration.
    pub(super) fn id(&self, reference: &Reference) -> Result<Digest, PullError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Inspected {
            id: String,
        }
        let body = self.get(&format!("/images/{}/json", reference.familiar()), reference)?;
        let mut bytes = Vec::new();
        body.take(JSON_BYTES_MAX).read_to_end(&mut bytes)?;
        let inspected: Inspected = serde_json::from_slice(&bytes).map_err(PullError::fatal)?;
        // Podman leaves the algorithm out.
        let id = inspected.id;
        let id = if id.contains(':') {
            id
        } else {
            format!("sha256:{id}")
        };
        id.parse().map_err(PullError::fatal)
    }

    /// The image as `docker save` gives it, in a file without a name.
    pub(super) fn save(&self, reference: &Reference, store: &Store) -> Result<Archive, PullError> {
        let body = self.get(&format!("/images/{}/get", reference.familiar()), reference)?;
        Archive::copy(body, store)
    }

    fn get(&self, path: &str, reference: &Reference) -> Result<Body, PullError> {
        let doing = |error: &dyn std::fmt::Display| {
            PullError::fatal(format!(
                "the Docker daemon at {}: {error}",
                self.socket.display()
            ))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let exchange = async {
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|e| doing(&e))?;
            let shaken = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = shaken.map_err(|e| doing(&e))?;
            tokio::spawn(async move {
                // What goes wrong is told where the answer is read.
                let _ended = connection.await;
            });
            let request = hyper::Request::get(path)
                .header(hyper::header::HOST, "docker")
                .body(Empty::<Bytes>::new())
                .map_err(|e| doing(&e))?;
            match tokio::time::timeout(ANSWER, sender.send_request(request)).await {
                Ok(response) => response.map_err(|e| doing(&e)),
                Err(_) => Err(doing(&"it does not answer")),
            }
        };
        let (head, incoming) = runtime.block_on(exchange)?.into_parts();
        let body = Body::new(runtime, incoming);
        match head.status {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => {
                Err(doing(&format!("no such image: {}", reference.familiar())))
            }
            status => Err(doing(&format!("it answered {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::image::pull::{Cancelled, Pull, Wanted};
    use crate::image::testing::layer;
    use crate::image::{Location, Platform, Quiet};
    use crate::plan::PullPolicy;

    /// An image as `docker save` writes it, and its id.
    fn saved() -> (Vec<u8>, Digest) {
        let tar = layer(&[("app", b"program")]);
        let config = json!({
            "architecture": Platform::host().architecture, "os": "linux", "config": { "Cmd": ["/app"] },
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&tar)] },
        });
        let config = config.to_string();
        let items =
            json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l/layer.tar"] }]);
        let items = items.to_string();
        let files: [(&str, &[u8]); 3] = [
            ("c.json", config.as_bytes()),
            ("l/layer.tar", &tar),
            ("manifest.json", items.as_bytes()),
        ];
        (layer(&files), Digest::of(config.as_bytes()))
    }

    #[test]
    fn an_engine_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (tar, id) = saved();
        let saves = Arc::new(AtomicUsize::new(0));
        let (counted, named) = (Arc::clone(&saves), id.to_string());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let line = lines.next().unwrap().unwrap();
                while !lines.next().unwrap().unwrap().is_empty() {}
                let json = format!("{{\"Id\": \"{named}\"}}").into_bytes();
                let (status, body) = match line.split(' ').nth(1).unwrap() {
                    "/images/app:1/json" => ("200 OK", json),
                    "/images/app:1/get" => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        ("200 OK", tar.clone())
                    }
                    _ => ("404 Not Found", b"{\"message\": \"no\"}".to_vec()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&body).unwrap();
            }
        });
        let store = Store::at(dir.path().join("store"));
        let daemon = Daemon::at(&socket);
        let get = |name: &str| {
            let reference: Reference = name.parse().unwrap();
            let wanted = Wanted::new(Location::Daemon(reference.clone()), PullPolicy::Never);
            let pull = Pull {
                store: &store,
                wanted: &wanted,
                progress: &Quiet,
                cancelled: &Cancelled::default(),
            };
            let _hold = store.hold().unwrap();
            let image = pull.daemon(&reference, &daemon);
            image.map_err(|stopped| stopped.tell(name.to_owned()).to_string())
        };
        let image = get("app:1").unwrap();
        assert_eq!((&image.id, image.pulled.is_some()), (&id, true));
        assert_eq!(
            std::fs::read(image.layers[0].join("app")).unwrap(),
            b"program"
        );
        assert_eq!(get("app:1").unwrap().pulled, None);
        assert_eq!(saves.load(Ordering::Relaxed), 1);
        let error = get("other:1").unwrap_err();
        assert!(error.contains("no such image: other:1"), "{error}");
        std::fs::remove_file(&socket).unwrap();
        assert!(get("app:1").unwrap_err().contains("the Docker daemon at"));
    }
}
