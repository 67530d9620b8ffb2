//! The fields after a chunked body.

use super::fields::{self, Known, refusal};
use crate::http::reject::Reject;

/// Checks the trailer section that is the whole of `bytes` (its empty line included) and appends to `out` the fields
/// that may be forwarded, without the empty line. Fields that frame, route or identify are left out (RFC 9110 section
/// 6.5.1): whoever merges trailers into the head must not be told by them.
pub fn parse_trailers(bytes: &[u8], max_fields: usize, out: &mut Vec<u8>) -> Result<(), Reject> {
    let mut room = [httparse::EMPTY_HEADER; super::MAX_FIELDS];
    let room = &mut room[..max_fields.min(super::MAX_FIELDS)];
    let parsed = match httparse::parse_headers(bytes, room) {
        Ok(httparse::Status::Complete((len, parsed))) if len == bytes.len() => parsed,
        Ok(_) => return Err(Reject::Bad("the trailers are not complete")),
        Err(error) => return Err(refusal(error)),
    };
    let mut found = Vec::with_capacity(parsed.len());
    fields::collect(&mut found, parsed, bytes)?;
    for field in found
        .iter()
        .filter(|field| matches!(field.known, Known::Other | Known::Date))
    {
        let name = field.name.bytes(bytes);
        const NEVER: [&[u8]; 6] = [
            b"authorization",
            b"cookie",
            b"set-cookie",
            b"trailer",
            b"content-type",
            b"content-encoding",
        ];
        if NEVER.iter().any(|never| name.eq_ignore_ascii_case(never)) {
            continue;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value.bytes(bytes));
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}
