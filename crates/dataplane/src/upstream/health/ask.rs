//! One check.

use std::future::poll_fn;
use std::io::IoSlice;

use super::{Check, HealthParams, grpc};
use crate::http::head::{ResponseHead, Scanner};
use crate::net::{Buf, Transport};
use crate::upstream::pool::Pool;

/// Bytes of an answer's head at most.
const HEAD_BYTES: usize = 16 * 1024;

/// Fields of an answer's head at most.
const FIELDS: usize = 100;

/// Whether the endpoint behind `pool` is ready, or why not. The caller bounds the time.
pub(super) async fn ask(pool: &Pool, params: &HealthParams) -> Result<(), String> {
    let connect = async || pool.connect().await.map_err(|error| error.to_string());
    let alone = async || {
        pool.connect_alone(None)
            .await
            .map_err(|error| error.to_string())
    };
    match &params.ready {
        Check::Off => Ok(()),
        Check::Tcp => alone().await.map(drop),
        Check::Http(path) => {
            let host = params
                .ready_host
                .as_deref()
                .unwrap_or_else(|| pool.target().host());
            let mut wire = connect().await?;
            let status = get(&mut wire, path, host).await?;
            match status {
                200..=399 => Ok(()),
                _ => Err(format!("{path} answers {status}")),
            }
        }
        Check::Grpc(service) => {
            let host = params
                .ready_host
                .as_deref()
                .unwrap_or_else(|| pool.target().host());
            grpc::check(alone().await?, host, service).await
        }
    }
}

/// The status of a GET.
async fn get<T: Transport>(io: &mut T, path: &str, host: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: podkit/{}\r\nConnection: close\r\nAccept: */*\r\n\r\n",
        podkit_foundation::VERSION
    );
    let bytes = request.as_bytes();
    let mut sent = 0;
    while sent < bytes.len() {
        let part = [IoSlice::new(&bytes[sent..])];
        sent += poll_fn(|cx| io.poll_write(cx, &part))
            .await
            .map_err(|error| error.to_string())?;
    }
    poll_fn(|cx| io.poll_flush(cx))
        .await
        .map_err(|error| error.to_string())?;
    let (mut input, mut scanner) = (Buf::small(), Scanner::default());
    let mut head = ResponseHead::default();
    loop {
        if let Some(len) = scanner
            .find(input.filled(), false)
            .map_err(|why| why.to_string())?
        {
            let parsed = head.parse(&input.filled()[..len], FIELDS, false);
            parsed.map_err(|why| format!("no valid answer: {why}"))?;
            if head.status() >= 200 {
                return Ok(head.status());
            }
            // An interim answer: the real one follows.
            input.consume(len);
            scanner = Scanner::default();
            continue;
        }
        if input.len() >= HEAD_BYTES {
            return Err("an answer with a head that is too large".to_owned());
        }
        if input.spare().is_empty() {
            input.reserve(HEAD_BYTES);
        }
        let read = poll_fn(|cx| io.poll_read(cx, &mut input)).await;
        match read.map_err(|error| error.to_string())? {
            0 => return Err("closed without an answer".to_owned()),
            _ => continue,
        }
    }
}
