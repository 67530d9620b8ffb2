//! What `echo` answers, as a function of the request: its own text, or filler of a given size.

use std::fmt::Write as _;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use podkit_dataplane::http::local::{Request, Response, Source};
use podkit_foundation::params::{ParamType as _, Size};
use serde_json::{Map, Value, json};

/// How one request is answered: the parameters, with what its query says in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) delay: Duration,
    pub(super) status: u16,
    pub(super) size: Option<Size>,
}

impl Manner {
    /// This manner with `?delay=`, `?status=` and `?size=`; other keys are the application's own. One line when a value
    /// is wrong.
    pub(super) fn with_query(mut self, query: &str) -> Result<Self, String> {
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let wrong =
                |expected| format!("?{key}=: \"{value}\" is not right; expected {expected}\n");
            match key {
                "delay" => {
                    let delay = Duration::parse(value)
                        .ok()
                        .filter(|delay| delay.as_secs() <= 3_600);
                    self.delay =
                        delay.ok_or_else(|| wrong("a duration such as 250ms, at most 1h"))?;
                }
                "status" => {
                    let status = value
                        .parse()
                        .ok()
                        .filter(|status| (200..=599).contains(status));
                    self.status = status.ok_or_else(|| wrong("a number from 200 to 599"))?;
                }
                "size" => {
                    self.size = Some(Size::parse(value).map_err(|_| wrong("a size such as 64Ki"))?);
                }
                _ => {}
            }
        }
        Ok(self)
    }
}

/// The answer, once the delay is over. `host` is this machine's name.
pub(super) fn answer(request: &Request<'_>, manner: Manner, host: &str) -> Response {
    if let Some(Size(length)) = manner.size {
        let source = Box::new(Filler { left: length });
        return Response::stream(
            manner.status,
            "application/octet-stream",
            Some(length),
            source,
        );
    }
    let accept = request.header("accept").unwrap_or_default();
    match accept
        .split(',')
        .any(|kind| kind.trim().starts_with("application/json"))
    {
        true => Response::bytes(manner.status, "application/json", json(request, host)),
        false => Response::text(manner.status, text(request, host)),
    }
}

fn text(request: &Request<'_>, host: &str) -> String {
    let (method, target, minor) = (request.method(), request.target(), request.minor_version());
    let mut out = format!("{method} {target} HTTP/1.{minor}\n");
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value);
        writeln!(out, "{name}: {value}").expect("writing to a String can't fail");
    }
    let (peer, bytes) = (request.peer(), request.body_bytes());
    writeln!(
        out,
        "\nfrom {peer}, answered by {host}, {bytes} bytes of body"
    )
    .expect("writing to a String can't fail");
    out
}

fn json(request: &Request<'_>, host: &str) -> Vec<u8> {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let values = headers
            .entry(name.to_ascii_lowercase())
            .or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(String::from_utf8_lossy(value).into());
        }
    }
    let shown = json!({
        "method": request.method(),
        "path": request.path(),
        "query": request.query(),
        "version": format!("HTTP/1.{}", request.minor_version()),
        "headers": headers,
        "body_bytes": request.body_bytes(),
        "peer": request.peer().to_string(),
        "host": host,
    });
    shown.to_string().into_bytes()
}

/// So many bytes of filler.
struct Filler {
    left: u64,
}

/// One piece of filler; a line of it is 64 bytes, so that people can look at it.
const LINE: &[u8; 64] = b"podkit echo podkit echo podkit echo podkit echo podkit echo pod\n";
const PIECE_BYTES: usize = 64 * 1024;

impl Source for Filler {
    fn poll_more(&mut self, _: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<bool>> {
        let count = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(PIECE_BYTES);
        // Pieces are whole lines but for the last, so each begins where a line does.
        out.reserve(count);
        for start in (0..count).step_by(LINE.len()) {
            out.extend_from_slice(&LINE[..LINE.len().min(count - start)]);
        }
        self.left -= count as u64;
        Poll::Ready(Ok(count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Manner = Manner {
        delay: Duration::ZERO,
        status: 200,
        size: None,
    };

    #[test]
    fn the_query_beats_the_parameters_and_foreign_keys_are_left_alone() {
        let manner = PLAIN
            .with_query("a=b&delay=250ms&status=503&size=64Ki&c")
            .unwrap();
        let expected = Manner {
            delay: Duration::from_millis(250),
            status: 503,
            size: Some(Size(65_536)),
        };
        assert_eq!(manner, expected);
        assert_eq!(PLAIN.with_query(""), Ok(PLAIN));
    }

    #[test]
    fn a_wrong_value_is_named() {
        for query in ["delay=5", "delay=2h", "status=99", "status=600", "size=1K"] {
            let why = PLAIN.with_query(query).unwrap_err();
            assert!(why.contains("is not right; expected"), "{query}: {why}");
        }
    }

    #[test]
    fn filler_has_just_the_length_asked_for() {
        for length in [0, 1, 63, 64, 65, 65_536, 65_537, 200_000] {
            let mut source = Filler { left: length };
            let mut out = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while matches!(source.poll_more(&mut cx, &mut out), Poll::Ready(Ok(true))) {}
            assert_eq!(out.len() as u64, length);
            assert!(
                out.iter()
                    .zip(LINE.iter().cycle())
                    .all(|(made, line)| made == line)
            );
        }
    }
}
