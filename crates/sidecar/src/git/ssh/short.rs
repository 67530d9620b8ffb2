//! A P-256 key whose number begins with a zero byte, one of 256: ssh-keygen leaves the byte out, and the library refuses what is shorter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const KIND: &[u8] = b"ecdsa-sha2-nistp256";
/// Bytes of its number.
const WHOLE: usize = 32;
/// What the secret part is filled up to (OpenSSH's PROTOCOL.key).
const BLOCK: usize = 8;

/// The same key with the byte; None where nothing is to be done, or it is encrypted.
pub(super) fn widened(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    let whole = STANDARD.decode(body).ok()?;
    let mut outer = Reader(whole.strip_prefix(MAGIC)?);
    let (cipher, kdf, options) = (outer.string()?, outer.string()?, outer.string()?);
    let count = outer.take(4)?;
    let (public, secret) = (outer.string()?, outer.string()?);
    if cipher != b"none" || count != [0, 0, 0, 1] {
        return None;
    }
    let secret = widened_secret(secret)?;
    let mut out = MAGIC.to_vec();
    for part in [cipher, kdf, options] {
        put(&mut out, part);
    }
    out.extend_from_slice(count);
    put(&mut out, public);
    put(&mut out, &secret);
    let encoded = STANDARD.encode(out);
    let lines: Vec<&str> = (0..encoded.len())
        .step_by(70)
        .map(|at| &encoded[at..encoded.len().min(at + 70)])
        .collect();
    Some(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")))
}

/// Two check numbers, kind, curve, point, number, comment; filled up with 1, 2, 3, …
fn widened_secret(secret: &[u8]) -> Option<Vec<u8>> {
    let mut inner = Reader(secret);
    let checks = inner.take(8)?;
    let [kind, curve, point, number, comment] = [(); 5].map(|()| inner.string());
    let number = number?;
    if kind? != KIND || number.len() >= WHOLE {
        return None;
    }
    let mut wide = vec![0; WHOLE - number.len()];
    wide.extend_from_slice(number);
    let mut out = checks.to_vec();
    for part in [kind?, curve?, point?, &wide, comment?] {
        put(&mut out, part);
    }
    let missing = out.len().next_multiple_of(BLOCK) - out.len();
    out.extend((1..=missing).map(|at| u8::try_from(at).unwrap_or_default()));
    Some(out)
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// RFC 4251 section 5.
    fn string(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(usize::try_from(length).ok()?)
    }
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or_default();
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: &[u8]) -> Vec<u8> {
        let mut out = b"checknum".to_vec();
        for part in [KIND, b"nistp256", &[4; 65], number, b"me@here"] {
            put(&mut out, part);
        }
        let missing = out.len().next_multiple_of(BLOCK) - out.len();
        out.extend((1..=missing).map(|at| u8::try_from(at).unwrap()));
        out
    }

    fn key(cipher: &[u8], number: &[u8]) -> String {
        let mut out = MAGIC.to_vec();
        for part in [cipher, b"none", b""] {
            put(&mut out, part);
        }
        out.extend([0, 0, 0, 1]);
        put(&mut out, b"public");
        put(&mut out, &secret(number));
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(out))
    }

    #[test]
    fn a_short_number_is_written_out() {
        for length in [30, 31] {
            let number = vec![7; length];
            let mut whole = vec![0; WHOLE - length];
            whole.extend(&number);
            let bytes = |text: &str| -> String { text.split_whitespace().collect() };
            let found = widened(&key(b"none", &number)).unwrap();
            assert_eq!(bytes(&found), bytes(&key(b"none", &whole)));
        }
        let zero_first = [&[0][..], &[200; 32]].concat();
        for whole in [&[7; 32][..], &zero_first] {
            assert_eq!(widened(&key(b"none", whole)), None);
        }
        assert_eq!(widened(&key(b"aes256-ctr", &[7; 31])), None);
        assert_eq!(widened("-----BEGIN RSA PRIVATE KEY-----"), None);
        let good = key(b"none", &[7; 31]);
        for cut in 0..good.len() - END.len() - 2 {
            let text = format!("{}\n{END}\n", &good[..cut]);
            drop(widened(&text));
        }
    }
}
