//! The layers of an image: received, checked, unpacked, up to three at once, and finished in their order.
//!
//! A layer is unpacked while it is received: the bytes go to the blob's file and, through a short queue, to a thread that
//! unpacks them. What was unpacked before the digest is known to be wrong is thrown away.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::origin::Origin;
use super::{Cancelled, PullError};
use crate::image::digest::Digest;
use crate::image::manifest::{ConfigFile, Descriptor, Manifest};
use crate::image::store::{Blob, Layer, LayerLock, Receiving, Store, Unpacked};
use crate::image::unpack::{self, Owners};
use crate::image::{Event, LayerState, Progress};

/// Layers that are received at once, as containerd and Docker do.
const AT_ONCE: usize = 3;
/// Read at a time.
const PIECE: usize = 64 * 1024;
/// Pieces that wait to be unpacked, for each layer.
const QUEUE: usize = 16;
/// Failures in a row without a single byte in between.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A registry that says "later" is waited for so long at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Makes sure that all layers are unpacked and their blobs are here.
pub(super) fn take(
    store: &Store,
    origin: &dyn Origin,
    manifest: &Manifest,
    config: &ConfigFile,
    progress: &dyn Progress,
    cancelled: &Cancelled,
) -> Result<(), PullError> {
    let (blobs, diff_ids) = (&manifest.layers, &config.rootfs.diff_ids);
    if blobs.len() != diff_ids.len() {
        let message = format!(
            "it has {} layers and its configuration names {}: it is no container image",
            blobs.len(),
            diff_ids.len()
        );
        return Err(PullError::fatal(message));
    }
    if let Some(layer) = blobs
        .iter()
        .find(|layer| layer.media_type.contains("encrypted"))
    {
        let message = format!("the layer {} is encrypted, which is not read", layer.digest);
        return Err(PullError::fatal(message));
    }
    progress.event(Event::Found {
        layers: blobs
            .iter()
            .map(|blob| (blob.digest.clone(), blob.size))
            .collect(),
    });
    let chain_ids = config.chain_ids();
    let layers = Layers {
        store,
        origin,
        blobs,
        diff_ids,
        chain_ids: &chain_ids,
        progress,
        cancelled,
        next: Mutex::new(0),
        failed: AtomicUsize::new(0),
    };
    let unpacked = layers.receive_all()?;
    layers.finish(unpacked)
}

struct Layers<'a> {
    store: &'a Store,
    origin: &'a dyn Origin,
    blobs: &'a [Descriptor],
    diff_ids: &'a [Digest],
    chain_ids: &'a [Digest],
    progress: &'a dyn Progress,
    cancelled: &'a Cancelled,
    /// The next layer that nobody has begun.
    next: Mutex<usize>,
    failed: AtomicUsize,
}

impl Layers<'_> {
    /// What had to be unpacked, by the layer's number.
    fn receive_all(&self) -> Result<Vec<(usize, Unpacked)>, PullError> {
        let done = Mutex::new(Vec::new());
        let error = Mutex::new(None);
        let work = || {
            loop {
                let worked = match self.begin() {
                    Ok(None) => return,
                    Ok(Some((number, layer))) => self.receive(number, layer).map(|unpacked| {
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.extend(unpacked.map(|unpacked| (number, unpacked)));
                    }),
                    Err(error) => Err(error),
                };
                if let Err(why) = worked {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
                    error.get_or_insert(why);
                    return;
                }
            }
        };
        std::thread::scope(|scope| -> io::Result<()> {
            for _ in 1..AT_ONCE.min(self.blobs.len()) {
                let thread = std::thread::Builder::new().name("layer".to_owned());
                thread.spawn_scoped(scope, work)?;
            }
            work();
            Ok(())
        })?;
        if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the next layer that needs work. The locks of an image's layers are taken in their order, by everybody: so two
    /// processes that pull images with the same base never wait for each other.
    fn begin(&self) -> Result<Option<(usize, Layer)>, PullError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let number = *next;
            if number == self.blobs.len() || self.failed.load(Ordering::Relaxed) > 0 {
                return Ok(None);
            }
            self.cancelled.check()?;
            *next += 1;
            let layer = self.store.lock_layer(&self.chain_ids[number])?;
            let digest = &self.blobs[number].digest;
            if matches!(layer, Layer::Present) && self.store.has_blob(digest) {
                self.tell(number, LayerState::Present);
                continue;
            }
            return Ok(Some((number, layer)));
        }
    }

    fn tell(&self, number: usize, state: LayerState) {
        let digest = self.blobs[number].digest.clone();
        self.progress.event(Event::Layer { digest, state });
    }

    /// Receives a layer, and unpacks it unless it is.
    fn receive(&self, number: usize, layer: Layer) -> Result<Option<Unpacked>, PullError> {
        let blob = &self.blobs[number];
        let doing = |error: PullError| error.doing(format!("layer {}", blob.digest));
        let received = match layer {
            Layer::Present => self.receive_blob(number, &mut |_| Ok(())).map(|()| None),
            Layer::Missing(lock) => self.receive_and_unpack(number, lock).map(Some),
        };
        let received = received.map_err(doing)?;
        self.tell(number, LayerState::Done);
        Ok(received)
    }

    fn receive_and_unpack(&self, number: usize, lock: LayerLock) -> Result<Unpacked, PullError> {
        let (sender, receiver) = sync_channel(QUEUE);
        let diff_id = &self.diff_ids[number];
        let (received, unpacked) = std::thread::scope(|scope| {
            let new = lock.new_path();
            let unpack = move || {
                let owners = Owners::of_this_process();
                unpack::layer(Queue::new(receiver), new, owners, diff_id.algorithm())
            };
            let thread = std::thread::Builder::new().name("unpack".to_owned());
            let thread = match thread.spawn_scoped(scope, unpack) {
                Ok(thread) => thread,
                Err(error) => return (Err(error.into()), None),
            };
            let received = self.receive_blob(number, &mut |bytes| give(&sender, bytes));
            if received.is_ok() {
                // Without it the end of the queue is not the end of the layer.
                let _ended = sender.send(Piece::End);
            }
            drop(sender);
            (received, thread.join().ok())
        });
        match (received, unpacked) {
            // It stopped taking bytes: its own reason counts.
            (_, Some(Err(error))) if error.kind() != io::ErrorKind::ConnectionAborted => {
                Err(PullError::from(error).doing("unpacking"))
            }
            (Err(error), _) => Err(error),
            (Ok(()), Some(Ok((tree, found)))) if found == *diff_id => {
                // While other layers are received.
                self.store.sync()?;
                Ok(Unpacked { lock, tree })
            }
            (Ok(()), Some(Ok((_, found)))) => Err(PullError::fatal(format!(
                "its tar has the digest {found}, and the configuration says {diff_id}"
            ))),
            (Ok(()), _) => Err(PullError::fatal("unpacking ended without a word")),
        }
    }

    /// Gets a blob into the store; `sink` sees all its bytes.
    fn receive_blob(
        &self,
        number: usize,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), PullError> {
        let blob = &self.blobs[number];
        let partial = match self.store.blob(blob)? {
            Blob::Missing(partial) => partial,
            Blob::Present(mut file) => {
                let mut buffer = vec![0; PIECE];
                loop {
                    match file.read(&mut buffer)? {
                        0 => return Ok(()),
                        read => sink(&buffer[..read])?,
                    }
                    self.cancelled.check()?;
                }
            }
        };
        let mut receiving = partial.receive(&mut *sink)?;
        let (mut failures, mut pause) = (0, FIRST_PAUSE);
        while receiving.length() < receiving.size() {
            let before = receiving.length();
            let Err(error) = self.receive_some(number, &mut receiving, sink) else {
                continue;
            };
            self.cancelled.check()?;
            if receiving.length() > before {
                (failures, pause) = (0, FIRST_PAUSE);
            }
            failures += 1;
            if !error.transient || failures == TRIES || self.failed.load(Ordering::Relaxed) > 0 {
                return Err(error);
            }
            let wait = error.retry_after.unwrap_or(pause).min(PAUSE_MAX);
            let line = format!("{}: {error}; trying again in {wait:?}", blob.digest.short());
            self.progress.event(Event::Retry(line));
            self.wait(wait)?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        receiving.finish().map_err(PullError::fatal)
    }

    /// Reads from where it is to the end, or as far as it goes.
    fn receive_some(
        &self,
        number: usize,
        receiving: &mut Receiving,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), PullError> {
        let mut source = self.origin.open(&self.blobs[number], receiving.length())?;
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) if receiving.length() < receiving.size() => {
                    return Err(PullError::transient("it ended too early"));
                }
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(PullError::transient(error)),
            };
            self.cancelled.check()?;
            receiving
                .append(&buffer[..read])
                .map_err(PullError::fatal)?;
            self.tell(number, LayerState::Received(receiving.length()));
            sink(&buffer[..read])?;
        }
    }

    /// Pauses, unless nobody waits any more.
    fn wait(&self, time: Duration) -> Result<(), PullError> {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() && self.failed.load(Ordering::Relaxed) == 0 {
            self.cancelled.check()?;
            let step = left.min(STEP);
            std::thread::sleep(step);
            left -= step;
        }
        Ok(())
    }

    /// Finishes what was unpacked, the lowest first, and names it when it is on the disk.
    fn finish(&self, mut unpacked: Vec<(usize, Unpacked)>) -> Result<(), PullError> {
        if unpacked.is_empty() {
            return Ok(());
        }
        unpacked.sort_by_key(|(number, _)| *number);
        let mut below: Vec<PathBuf> = Vec::with_capacity(self.blobs.len());
        let mut locks = Vec::new();
        let mut unpacked = unpacked.into_iter().peekable();
        for (number, chain_id) in self.chain_ids.iter().enumerate() {
            let path = match unpacked.next_if(|(of, _)| *of == number) {
                None => self.store.layer(chain_id).unwrap_or_default(),
                Some((_, Unpacked { lock, tree })) => {
                    tree.finish(&below).map_err(|error| {
                        let blob = &self.blobs[number].digest;
                        PullError::from(error).doing(format!("layer {blob}: unpacking"))
                    })?;
                    let path = lock.new_path().to_owned();
                    locks.push(lock);
                    path
                }
            };
            below.insert(0, path);
        }
        self.store.sync()?;
        for lock in &locks {
            lock.name()?;
        }
        Ok(())
    }
}

/// What goes through the queue.
enum Piece {
    Bytes(Box<[u8]>),
    End,
}

fn give(sender: &SyncSender<Piece>, bytes: &[u8]) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
    sender.send(Piece::Bytes(bytes.into())).map_err(gone)
}

/// The unpacker's end of the queue.
struct Queue {
    receiver: Receiver<Piece>,
    piece: Box<[u8]>,
    at: usize,
    ended: bool,
}

impl Queue {
    fn new(receiver: Receiver<Piece>) -> Self {
        Self {
            receiver,
            piece: Box::default(),
            at: 0,
            ended: false,
        }
    }
}

impl Read for Queue {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.recv() {
                Ok(Piece::Bytes(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Piece::End) => self.ended = true,
                // Receiving has failed, and says why.
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let rest = &self.piece[self.at..];
        let taken = rest.len().min(into.len());
        into[..taken].copy_from_slice(&rest[..taken]);
        self.at += taken;
        Ok(taken)
    }
}
