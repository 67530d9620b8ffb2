//! A registry with one image, `data:1`, on the loopback.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use podkit_pod::image::{Digest, Platform};
use serde_json::json;

/// It serves for as long as the test program runs.
pub(crate) struct Registry {
    port: u16,
    open: Arc<AtomicBool>,
}

/// Path → media type and bytes.
type Documents = BTreeMap<String, (&'static str, Vec<u8>)>;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Registry {
    /// Layers of files (path, mode, text), the lowest first. Unless it is `open` it says that it knows nothing.
    pub(crate) fn start(layers: &[&[(&str, u32, &str)]], open: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let documents = image(layers);
        let open = Arc::new(AtomicBool::new(open));
        let is_open = Arc::clone(&open);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let documents = match is_open.load(Ordering::SeqCst) {
                    true => &documents,
                    false => &Documents::new(),
                };
                let _answered = answer(stream, documents);
            }
        });
        Self { port, open }
    }

    /// From now on it has the image.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// The image's name.
    pub(crate) fn reference(&self) -> String {
        format!("127.0.0.1:{}/data:1", self.port)
    }
}

fn image(layers: &[&[(&str, u32, &str)]]) -> Documents {
    let mut documents = Documents::new();
    let mut add = |kind: &'static str, bytes: Vec<u8>| {
        let (digest, size) = (Digest::of(&bytes).to_string(), bytes.len());
        let path = match kind {
            MANIFEST => format!("/v2/data/manifests/{digest}"),
            _ => format!("/v2/data/blobs/{digest}"),
        };
        documents.insert(path, (kind, bytes));
        json!({"mediaType": kind, "digest": digest, "size": size})
    };
    let tars = layers.iter().map(|files| tar(files));
    let layers: Vec<_> = tars.map(|tar| add(LAYER, tar)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": Platform::host().architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = add(CONFIG, config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    add(MANIFEST, manifest.clone());
    documents.insert("/v2/data/manifests/1".to_owned(), (MANIFEST, manifest));
    documents
}

fn tar(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        tar.append_data(&mut header, path, text.as_bytes())
            .expect("memory");
    }
    tar.into_inner().expect("memory")
}

fn answer(mut stream: TcpStream, documents: &Documents) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next(), words.next().unwrap_or_default());
    let nothing: &[u8] =
        br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let (status, kind, body) = match documents.get(path) {
        Some((kind, bytes)) => ("200 OK", *kind, bytes.as_slice()),
        None => ("404 Not Found", "application/json", nothing),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    match method {
        Some("HEAD") => Ok(()),
        _ => stream.write_all(body),
    }
}
