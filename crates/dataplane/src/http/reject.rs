//! Why a message is not taken, and what its sender is told.

use std::fmt;

/// A message that is not forwarded or answered as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Not HTTP, or ambiguous; the text says what is wrong.
    Bad(&'static str),
    /// The head did not come in time.
    HeadTimeout,
    /// The body did not come in time.
    BodyTimeout,
    /// The body is longer than `--max-body-bytes`.
    BodyTooLarge,
    /// The request line is longer than `--max-head-bytes`.
    UriTooLong,
    /// More bytes than `--max-head-bytes` or more fields than `--max-headers`.
    HeadTooLarge,
    /// CONNECT, or a transfer coding other than chunked.
    NotImplemented(&'static str),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl Reject {
    /// The status code that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::HeadTooLarge => 431,
            Self::NotImplemented(_) => 501,
            Self::Version => 505,
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bad(why) | Self::NotImplemented(why) => why,
            Self::HeadTimeout => "the request did not come in time",
            Self::BodyTimeout => "the body did not come in time",
            Self::BodyTooLarge => "the body is too large",
            Self::UriTooLong => "the request line is too long",
            Self::HeadTooLarge => "the header fields are too large",
            Self::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
        })
    }
}

impl std::error::Error for Reject {}

/// The reason phrase of a status code that podkit sends itself.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => match status / 100 {
            1 => "Informational",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}
