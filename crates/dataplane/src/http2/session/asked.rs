//! A request's fields as the HTTP/1.1 that the rest of the data plane reads (no I/O).
//!
//! What is written here is parsed again by [`crate::http::head`], with all its checks: the bounds, Host, Content-Length, the
//! target. Here is what only HTTP/2 can get wrong (RFC 9113 section 8): a field that would end a line, one that is about a
//! connection, a Host that names another server than `:authority`, white space that one reader trims and another keeps, pseudo-fields
//! that are missing, twice or late. Such a request is malformed, and its stream is reset.

use std::ops::Range;

use aws_lc_rs::rand;
use base64::Engine as _;

use crate::http2::request::{Malformed, Shape, check_value};
use crate::net::Buf;

/// What a field counts more than its bytes (RFC 9113 section 6.5.2).
const FIELD_BYTES: usize = 32;

/// How many times what we take ends the connection.
const BOMB: usize = 8;

/// Fields that are about one connection of HTTP/1.1 (RFC 9113 section 8.2.2).
pub(super) fn is_about_connection(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive" | b"proxy-connection"
    )
}

/// A pseudo-field's place in the text.
type Place = Option<Range<usize>>;

/// The fields of a header block, as they come.
#[derive(Debug, Default)]
pub(in crate::http2) struct Asked {
    /// The pseudo-fields' values.
    text: Vec<u8>,
    method: Place,
    scheme: Place,
    authority: Place,
    path: Place,
    protocol: Place,
    /// The head as it is written; None before the first field that is not a pseudo-field.
    head: Option<Buf>,
    cookies: Vec<u8>,
    length: Option<u64>,
    wrong: Option<Malformed>,
    bytes: usize,
    most: usize,
    /// The fields follow a body.
    trailers: Option<Vec<u8>>,
}

/// A request that can be served.
#[derive(Debug)]
pub(in crate::http2) struct Request {
    pub(in crate::http2) head: Buf,
    pub(in crate::http2) shape: Shape,
    pub(in crate::http2) to_head: bool,
    /// Content-Length.
    pub(in crate::http2) length: Option<u64>,
}

impl Asked {
    /// Begins a block of `most` bytes at most.
    pub(in crate::http2) fn begin(&mut self, most: usize, trailers: bool) {
        let (mut text, mut cookies) = (
            std::mem::take(&mut self.text),
            std::mem::take(&mut self.cookies),
        );
        text.clear();
        cookies.clear();
        *self = Self {
            text,
            cookies,
            most,
            trailers: trailers.then(Vec::new),
            ..Self::default()
        };
    }

    /// There are more fields than we take.
    pub(in crate::http2) fn is_over(&self) -> bool {
        self.bytes > self.most
    }

    /// So many more that they can only be meant to cost work: a few bytes may stand for a long field.
    pub(in crate::http2) fn is_bomb(&self) -> bool {
        self.bytes / BOMB > self.most
    }

    /// Takes a field. False when no more are to come.
    pub(in crate::http2) fn field(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.bytes += name.len() + value.len() + FIELD_BYTES;
        if self.wrong.is_none() && !self.is_over() {
            self.wrong = self.checked(name, value).err();
        }
        !self.is_bomb()
    }

    fn checked(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match name {
            [b':', ..] => self.pseudo(name, value),
            _ => self.plain(name, value),
        }
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if self.trailers.is_some() {
            return Err(Malformed("trailers hold a pseudo-field"));
        }
        if self.head.is_some() {
            return Err(Malformed("a pseudo-field behind other fields"));
        }
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(Malformed("a pseudo-field that requests don't have")),
        };
        let start = self.text.len();
        self.text.extend_from_slice(value);
        match place.replace(start..self.text.len()) {
            None => Ok(()),
            Some(_) => Err(Malformed("a pseudo-field comes twice")),
        }
    }

    fn plain(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if name.is_empty() || !name.iter().all(|byte| NAME_BYTES[usize::from(*byte)]) {
            return Err(Malformed("a field's name is not valid"));
        }
        check_value(value)?;
        if is_about_connection(name) {
            return Err(Malformed("a field that is about a connection of HTTP/1.1"));
        }
        if name == b"te" && value != b"trailers" {
            return Err(Malformed("TE other than trailers"));
        }
        if let Some(lines) = &mut self.trailers {
            for piece in [name, b": ", value, b"\r\n"] {
                lines.extend_from_slice(piece);
            }
            return Ok(());
        }
        if self.head.is_none() {
            self.head = Some(self.line()?);
        }
        let head = self.head.as_mut().expect("it was begun");
        match name {
            b"host" => {
                if let Some(authority) = &self.authority {
                    let authority = &self.text[authority.clone()];
                    return match value.eq_ignore_ascii_case(authority) {
                        true => Ok(()),
                        false => Err(Malformed("Host names another server than :authority")),
                    };
                }
            }
            // One Cookie field out of the crumbs that HTTP/2 allows (RFC 9113 section 8.2.3).
            b"cookie" => {
                let begin: &[u8] = match self.cookies.is_empty() {
                    true => b"cookie: ",
                    false => b"; ",
                };
                self.cookies.extend_from_slice(begin);
                self.cookies.extend_from_slice(value);
                return Ok(());
            }
            b"sec-websocket-key" => return Ok(()),
            b"content-length" if self.length.is_none() => {
                let digits = std::str::from_utf8(value).ok();
                let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let length = digits.and_then(|digits| digits.parse().ok());
                self.length = Some(length.ok_or(Malformed("Content-Length is not a number"))?);
            }
            _ => {}
        }
        head.reserve(name.len() + value.len() + 4);
        head.put(name);
        head.put(b": ");
        head.put(value);
        head.put(b"\r\n");
        Ok(())
    }

    fn get(&self, place: &Place) -> Option<&[u8]> {
        place.clone().map(|place| &self.text[place])
    }

    /// It asks for a WebSocket (RFC 8441).
    fn is_websocket(&self) -> bool {
        self.get(&self.method) == Some(b"CONNECT") && self.get(&self.protocol) == Some(b"websocket")
    }

    /// The request line, and the Host that `:authority` says.
    fn line(&self) -> Result<Buf, Malformed> {
        let method = self
            .get(&self.method)
            .ok_or(Malformed(":method is missing"))?;
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(Malformed(":method is not valid"));
        }
        let authority = self.get(&self.authority);
        if authority.is_some_and(|authority| !is_authority(authority)) {
            return Err(Malformed(":authority is not valid"));
        }
        let mut out = Buf::small();
        let connects = method == b"CONNECT";
        // It is refused where heads are read.
        if connects && !self.is_websocket() {
            out.put(b"CONNECT ");
            out.put(authority.unwrap_or(b"-"));
            out.put(b" HTTP/1.1\r\nhost: ");
            out.put(authority.unwrap_or(b""));
            out.put(b"\r\n");
            return Ok(out);
        }
        if !connects && self.protocol.is_some() {
            return Err(Malformed(":protocol without CONNECT"));
        }
        let scheme = self
            .get(&self.scheme)
            .ok_or(Malformed(":scheme is missing"))?;
        if ![&b"http"[..], b"https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return Err(Malformed(":scheme is neither http nor https"));
        }
        let target = self.get(&self.path).ok_or(Malformed(":path is missing"))?;
        if target.is_empty() || !target.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
            return Err(Malformed(":path is not valid"));
        }
        // What is neither a path nor an asterisk could be read as a target of another form.
        if target[0] != b'/' && target != b"*" {
            return Err(Malformed(":path does not start with a slash"));
        }
        out.reserve(method.len() + target.len() + authority.map_or(0, <[u8]>::len) + 32);
        out.put(if connects { b"GET" } else { method });
        out.put(b" ");
        out.put(target);
        out.put(b" HTTP/1.1\r\n");
        if let Some(authority) = authority {
            out.put(b"host: ");
            out.put(authority);
            out.put(b"\r\n");
        }
        Ok(out)
    }

    /// All fields came. `ends`: no body and no trailers follow them.
    pub(in crate::http2) fn request(&mut self, ends: bool) -> Result<Request, Malformed> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut head = match self.head.take() {
            Some(head) => head,
            None => self.line()?,
        };
        let method = self.get(&self.method).unwrap_or_default();
        let websocket = self.is_websocket();
        let to_head = method == b"HEAD";
        let shape = match (self.length, ends) {
            _ if method == b"CONNECT" => Shape::Raw,
            (_, true) => Shape::None,
            (Some(_), false) => Shape::Length,
            (None, false) => Shape::Chunked,
        };
        if shape == Shape::Raw && !websocket {
            // Nothing but the line and the host.
            head = self.line()?;
        }
        if shape == Shape::None && self.length.is_some_and(|length| length > 0) {
            return Err(Malformed("the body is shorter than Content-Length says"));
        }
        if !self.cookies.is_empty() && (shape != Shape::Raw || websocket) {
            head.put(&self.cookies);
            head.put(b"\r\n");
        }
        if shape == Shape::Chunked {
            head.put(b"transfer-encoding: chunked\r\n");
        }
        if websocket {
            put_websocket(&mut head)?;
        }
        head.put(b"\r\n");
        Ok(Request {
            head,
            shape,
            to_head,
            length: self.length.filter(|_| shape != Shape::Raw),
        })
    }

    /// All trailers came.
    pub(in crate::http2) fn trailers(&mut self) -> Result<Vec<u8>, Malformed> {
        match self.wrong {
            Some(wrong) => Err(wrong),
            None if self.is_over() => Err(Malformed("trailers are too large")),
            None => Ok(self.trailers.take().unwrap_or_default()),
        }
    }
}

/// The GET that asks an HTTP/1.1 server for what CONNECT with `:protocol` asks (RFC 8441).
fn put_websocket(head: &mut Buf) -> Result<(), Malformed> {
    let mut key = [0; 16];
    rand::fill(&mut key).map_err(|_| Malformed("no random bytes for a WebSocket's key"))?;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    head.put(b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ");
    head.put(key.as_bytes());
    head.put(b"\r\n");
    Ok(())
}

/// Bytes of a field's name in HTTP/2: those of a token, in lower case.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is = byte as u8;
        table[byte] = is_token(is) && !is.is_ascii_uppercase();
        byte += 1;
    }
    table
};

/// RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// What can stand between `//` and the path; who reads the Host looks closer.
fn is_authority(text: &[u8]) -> bool {
    let fits =
        |byte: &u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'/' | b'?' | b'#' | b'\\');
    !text.is_empty() && text.iter().all(fits)
}

#[cfg(test)]
mod tests;
