//! A reply as a value, for who asks for itself; what passes through is not read.

/// Lists in lists at most; Redis' own replies have 5.
const MAX_DEPTH: usize = 32;

/// A value of RESP2 or RESP3, within the bytes of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// The null of either protocol.
    Nothing,
    /// What went wrong, without the `-`.
    Error(&'a [u8]),
    /// A simple, bulk or verbatim string, a double or a big number.
    Text(&'a [u8]),
    /// A number, or a boolean as 1 or 0.
    Integer(i64),
    /// A list, a set, or the keys and values of a map in turn.
    List(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    /// The value of a whole reply (see [`Replies`](super::scan::Replies)). None when it is none, or too deep.
    pub fn read(reply: &'a [u8]) -> Option<Self> {
        let (value, end) = read(reply, MAX_DEPTH)?;
        (end == reply.len()).then_some(value)
    }

    /// Of a text.
    pub fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Of an integer.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Of an integer, or of a text that is a number.
    #[expect(clippy::cast_precision_loss, reason = "so are numbers elsewhere")]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// What is in a list; nothing when it is none.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// The value behind a key, in a list of keys and values in turn.
    pub fn field(&self, key: &str) -> Option<&Self> {
        let mut pairs = self.list().chunks_exact(2);
        pairs
            .find(|pair| pair[0].text() == Some(key.as_bytes()))
            .map(|pair| &pair[1])
    }
}

/// The value that `bytes` begin with, and where it ends.
fn read(bytes: &[u8], depth: usize) -> Option<(Value<'_>, usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = bytes.get(1..end)?.strip_suffix(b"\r")?;
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    let start = end + 1;
    let value = match bytes[0] {
        b'+' | b',' | b'(' => Value::Text(line),
        b'-' => Value::Error(line),
        b':' => Value::Integer(number()?),
        b'#' => Value::Integer((line == b"t").into()),
        b'_' => Value::Nothing,
        kind @ (b'$' | b'=' | b'!') => {
            let Ok(length) = usize::try_from(number()?) else {
                return Some((Value::Nothing, start));
            };
            let end = start.checked_add(length)?;
            let text = bytes.get(start..end)?;
            let value = match kind {
                b'!' => Value::Error(text),
                // What kind of text it is stands before it: `txt:`.
                b'=' => Value::Text(text.get(4..)?),
                _ => Value::Text(text),
            };
            return Some((value, end.checked_add(2)?));
        }
        kind @ (b'*' | b'~' | b'%' | b'>' | b'|') => {
            let Ok(count) = usize::try_from(number()?) else {
                return Some((Value::Nothing, start));
            };
            let pairs = matches!(kind, b'%' | b'|');
            let count = if pairs { count.checked_mul(2)? } else { count };
            let (depth, mut at) = (depth.checked_sub(1)?, start);
            // What is said of their number is not believed.
            let mut list = Vec::with_capacity(count.min(64));
            for _ in 0..count {
                let (value, length) = read(bytes.get(at..)?, depth)?;
                at += length;
                list.push(value);
            }
            if kind == b'|' {
                // Attributes of the value that comes: who asked did not ask for them.
                let (value, length) = read(bytes.get(at..)?, depth)?;
                return Some((value, at + length));
            }
            return Some((Value::List(list), at));
        }
        _ => return None,
    };
    Some((value, start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_both_protocols_are_read() {
        let text = |text: &'static str| Value::Text(text.as_bytes());
        let check = |reply: &str, value: &Value<'_>| {
            assert_eq!(
                Value::read(reply.as_bytes()).as_ref(),
                Some(value),
                "{reply}"
            );
        };
        check("+OK\r\n", &text("OK"));
        check("-ERR no\r\n", &Value::Error(b"ERR no"));
        check("!6\r\nERR no\r\n", &Value::Error(b"ERR no"));
        check(":-7\r\n", &Value::Integer(-7));
        check("#t\r\n", &Value::Integer(1));
        check(",1.5\r\n", &text("1.5"));
        check("$4\r\na\r\nb\r\n", &text("a\r\nb"));
        check("=5\r\ntxt:a\r\n", &text("a"));
        for nothing in ["$-1\r\n", "*-1\r\n", "_\r\n"] {
            check(nothing, &Value::Nothing);
        }
        let nested = Value::List(vec![Value::Integer(1), Value::List(vec![text("a")])]);
        check("*2\r\n:1\r\n*1\r\n$1\r\na\r\n", &nested);
        check("|1\r\n+k\r\n+v\r\n:1\r\n", &Value::Integer(1));
        let map = Value::read(b"%2\r\n+a\r\n:1\r\n+b\r\n$1\r\n2\r\n").unwrap();
        assert_eq!(map.field("b").and_then(Value::number), Some(2.0));
        assert_eq!(map.field("c"), None);
    }

    #[test]
    fn what_is_none_is_none() {
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1) + ":1\r\n";
        for none in ["", ":x\r\n", "?\r\n", "$5\r\nab\r\n", "*2\r\n:1\r\n", &deep] {
            assert_eq!(Value::read(none.as_bytes()), None, "{none}");
        }
        assert_eq!(Value::read(b":1\r\n:2\r\n"), None);
        assert_eq!(Value::read(b"*9223372036854775807\r\n"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(Value::read(&bytes));
        }

        #[test]
        fn what_is_found_as_a_reply_is_a_value(numbers in proptest::collection::vec(any::<i64>(), 0..8)) {
            let mut reply = format!("*{}\r\n", numbers.len());
            for number in &numbers {
                reply += &format!(":{number}\r\n");
            }
            let mut scan = crate::resp::scan::Replies::default();
            let found = scan.next(reply.as_bytes()).unwrap();
            prop_assert_eq!(found.map(|(length, _)| length), Some(reply.len()));
            let value = Value::read(reply.as_bytes()).unwrap();
            let read: Vec<i64> = value.list().iter().filter_map(Value::integer).collect();
            prop_assert_eq!(read, numbers);
        }
    }
}
