//! What of a request decides where it goes: the key that is hashed, the session's cookie (no I/O).

use podkit_foundation::params::ParamType;

use super::rewrite::Client;
use crate::http::head::{Field, Known, RequestHead, Target};
use crate::net::Buf;
use crate::upstream::pick::fnv;

/// `--hash-key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The value of a cookie.
    Cookie(String),
    /// The value of a field.
    Header(String),
    /// The value of a query parameter, as it is written.
    Query(String),
    /// The client's address.
    Ip,
    /// The path, without the query.
    Path,
}

impl ParamType for KeySource {
    const TYPE_NAME: &'static str = "key";
    const EXPECTED: &'static str = "cookie:NAME, header:NAME, query:NAME, ip or path";

    fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let named = || match name {
            "" => Err("the name is missing".to_owned()),
            _ if !name.bytes().all(token) => Err(format!("\"{name}\" is not a name")),
            _ => Ok(name.to_owned()),
        };
        match kind {
            "cookie" => named().map(Self::Cookie),
            "header" => named().map(Self::Header),
            "query" => named().map(Self::Query),
            "ip" if text == kind => Ok(Self::Ip),
            "path" if text == kind => Ok(Self::Path),
            _ => Err(String::new()),
        }
    }
}

impl KeySource {
    /// The hash of the request's key; None when it has none.
    pub(super) fn hash(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        (client, trusted): (&Client, bool),
    ) -> Option<u64> {
        match self {
            Self::Cookie(name) => cookie(head, bytes, name).map(fnv),
            Self::Header(name) => head.value(name, bytes).map(fnv),
            Self::Query(name) => query(target(head, bytes), name).map(fnv),
            Self::Ip => address(head, bytes, client, trusted).map(fnv),
            Self::Path => {
                let target = target(head, bytes);
                Some(fnv(target.split(|byte| *byte == b'?').next()?))
            }
        }
    }
}

/// Path and query.
pub(super) fn target<'b>(head: &RequestHead, bytes: &'b [u8]) -> &'b [u8] {
    match head.target() {
        Target::Origin(span) | Target::Asterisk(span) => span.bytes(bytes),
        Target::Absolute { path, .. } => path.bytes(bytes),
    }
}

/// The value of the first cookie of that name (RFC 6265 section 4.2.1).
pub(super) fn cookie<'b>(head: &RequestHead, bytes: &'b [u8], name: &str) -> Option<&'b [u8]> {
    let fields = head.fields.iter().filter(|field| is_cookie(field, bytes));
    fields
        .flat_map(|field| pairs(field.value.bytes(bytes)))
        .find_map(|pair| value_of(pair, name))
}

/// Writes the cookies without those of that name, and marks the fields that they came in; does nothing when there is none of that
/// name.
pub(super) fn put_cookies_without(out: &mut Buf, head: &mut RequestHead, bytes: &[u8], name: &str) {
    if cookie(head, bytes, name).is_none() {
        return;
    }
    let fields = head.fields.iter_mut();
    for field in fields.filter(|field| !field.dropped && is_cookie(field, bytes)) {
        field.dropped = true;
        let mut before: &[u8] = b"Cookie: ";
        for pair in pairs(field.value.bytes(bytes)) {
            if !pair.is_empty() && value_of(pair, name).is_none() {
                out.put(before);
                out.put(pair);
                before = b"; ";
            }
        }
        if before == b"; " {
            out.put(b"\r\n");
        }
    }
}

fn is_cookie(field: &Field, bytes: &[u8]) -> bool {
    field.name.bytes(bytes).eq_ignore_ascii_case(b"cookie")
}

fn pairs(cookies: &[u8]) -> impl Iterator<Item = &[u8]> {
    cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

fn value_of<'b>(pair: &'b [u8], name: &str) -> Option<&'b [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The value of the first parameter of that name, not decoded.
fn query<'b>(target: &'b [u8], name: &str) -> Option<&'b [u8]> {
    let at = target.iter().position(|byte| *byte == b'?')?;
    target[at + 1..]
        .split(|byte| *byte == b'&')
        .find_map(|pair| {
            let rest = pair.strip_prefix(name.as_bytes())?;
            rest.strip_prefix(b"=")
        })
}

/// The client's address: of a trusted proxy's client the one that it appended, so the last.
fn address<'b>(
    head: &RequestHead,
    bytes: &'b [u8],
    client: &'b Client,
    trusted: bool,
) -> Option<&'b [u8]> {
    let mut lists = head.fields.iter().rev();
    let told = lists
        .find(|field| trusted && field.known == Known::XForwardedFor)
        .and_then(|field| field.value.bytes(bytes).rsplit(|byte| *byte == b',').next())
        .map(<[u8]>::trim_ascii)
        .filter(|addr| !addr.is_empty());
    told.or_else(|| client.addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Peer;

    const HEAD: &str = "GET /a/b?x=1&session=s%201&xsession=2 HTTP/1.1\r\nHost: h\r\nCookie: xid=0; id=7\r\ncookie: id=8;t\r\n\
                        X-User: u\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n\r\n";

    fn hashed(source: &str, trusted: bool) -> Option<u64> {
        let mut head = RequestHead::default();
        head.parse(HEAD.as_bytes(), 100).unwrap();
        let peer = Peer::from(std::net::SocketAddr::from(([10, 0, 0, 7], 1234)));
        let client = Client::new(peer, "http", None, b"");
        let source = KeySource::parse(source).unwrap();
        source.hash(&head, HEAD.as_bytes(), (&client, trusted))
    }

    #[test]
    fn keys_are_found() {
        let check = |source: &str, trusted, expected: Option<&str>| {
            let expected = expected.map(|text| fnv(text.as_bytes()));
            assert_eq!(hashed(source, trusted), expected, "{source}");
        };
        check("cookie:id", false, Some("7"));
        check("cookie:t", false, None);
        check("header:x-user", false, Some("u"));
        check("header:nothing", false, None);
        check("query:session", false, Some("s%201"));
        check("query:y", false, None);
        check("path", false, Some("/a/b"));
        check("ip", false, Some("10.0.0.7"));
        check("ip", true, Some("2.2.2.2"));
    }

    #[test]
    fn one_cookie_is_left_out_and_no_other() {
        let check = |cookies: &[&str], expected: &str| {
            let fields: String = cookies
                .iter()
                .map(|value| format!("cookie: {value}\r\n"))
                .collect();
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}X: y\r\n\r\n");
            let mut head = RequestHead::default();
            head.parse(text.as_bytes(), 100).unwrap();
            let mut out = Buf::small();
            put_cookies_without(&mut out, &mut head, text.as_bytes(), "s");
            assert_eq!(
                String::from_utf8_lossy(out.filled()),
                expected,
                "{cookies:?}"
            );
            let dropped = head.fields.iter().filter(|field| field.dropped).count();
            let touched = text.contains("s=");
            assert_eq!(
                dropped,
                if touched { cookies.len() } else { 0 },
                "{cookies:?}"
            );
        };
        check(&["s=1"], "");
        check(&["a=1; s=2; b=3"], "Cookie: a=1; b=3\r\n");
        check(&["a=1;s=2;ss=4; s=5; t"], "Cookie: a=1; ss=4; t\r\n");
        // A client of HTTP/2 sends each by itself (RFC 9113 section 8.2.3).
        check(&["a=1", "s=2", "b=3"], "Cookie: a=1\r\nCookie: b=3\r\n");
        // As it came, when there is nothing to leave out.
        check(&["a=1;  b=2"], "");
    }

    #[test]
    fn forms_of_keys() {
        for wrong in ["cookie", "cookie:", "ip:1", "header:a b", "body"] {
            assert!(KeySource::parse(wrong).is_err(), "{wrong}");
        }
    }
}
