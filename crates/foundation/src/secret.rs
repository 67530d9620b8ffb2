//! What is secret in a text that is shown: passwords that somebody wrote where none belongs.
//!
//! Secrets come from files. Who puts one into a URL all the same is told so, in an error or a log line that others read too. What is shown
//! goes through here, so that no message has to think of it. In doubt too much is masked: a password may hold any character.

use std::borrow::Cow;
use std::ops::Range;

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// Keys whose value is secret, with what comes between.
const KEYS: [&str; 5] = [
    "password=",
    "passwd=",
    "token=",
    "secret=",
    // A field of a request, such as `header=Authorization: Bearer …`; not a registry's words.
    "=authorization:",
];

/// A line in which a URL may have a password (`redis://user:secret@host`), or a key a secret (`;password=secret`).
pub fn masked(text: &str) -> Cow<'_, str> {
    let Cow::Owned(mut shown) = once(text) else {
        return Cow::Borrowed(text);
    };
    // A secret may have hidden what else is one.
    loop {
        let again = once(&shown).into_owned();
        if again == shown {
            return Cow::Owned(shown);
        }
        shown = again;
    }
}

fn once(text: &str) -> Cow<'_, str> {
    let mut spans = urls(text, false);
    spans.extend(keys(text));
    replaced(text, spans)
}

/// The same of a value alone, which may have blanks in it, and may be a URL without its scheme: `user:secret@host`.
pub fn masked_value(text: &str) -> Cow<'_, str> {
    replaced(text, of_value(text))
}

/// Only passwords in URLs: for lines of which there are many.
pub fn masked_urls(text: &str) -> Cow<'_, str> {
    replaced(text, urls(text, false))
}

/// What is said of a value, without its secrets.
pub fn masked_about<'a>(value: &str, said: &'a str) -> Cow<'a, str> {
    let mut said = Cow::Borrowed(said);
    for span in of_value(value) {
        let secret = &value[span];
        // A part of it may be said: what would have been the port.
        let parts = secret.split(|one: char| one.is_ascii_punctuation() || one.is_whitespace());
        // Shorter ones are in many words, and no secrets.
        for part in std::iter::once(secret)
            .chain(parts)
            .filter(|part| part.len() >= 4)
        {
            if said.contains(part) {
                said = said.replace(part, MASK).into();
            }
        }
    }
    said
}

fn of_value(text: &str) -> Vec<Range<usize>> {
    let mut spans = urls(text, true);
    spans.extend(keys(text));
    if !text.contains("://")
        && let (Some(colon), Some(at)) = (text.find(':'), text.rfind('@'))
        && text.find('@') > Some(colon)
        && !text[..colon].contains('/')
        // A digest of an image.
        && !text[at..].starts_with("@sha")
    {
        spans.push(colon + 1..at);
    }
    spans
}

/// Passwords in URLs. `is_one`: the text is one to its end.
fn urls(text: &str, is_one: bool) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    if !text.contains('@') {
        return spans;
    }
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = &text[start..];
        let ends = |one: char| one.is_whitespace() || matches!(one, '"' | '\'' | '`' | '<' | '>');
        let end = match is_one {
            true => rest.len(),
            false => rest.find(ends).unwrap_or(rest.len()),
        };
        let Some(last) = rest[..end].rfind('@') else {
            continue;
        };
        let user = &rest[..last];
        let head = user.split(['/', '?', '#', ';']).next().unwrap_or(user);
        let is_whole = head.len() == user.len();
        let secret = match user.find(':') {
            // The @ is behind the host and its port.
            Some(_) if !is_whole && is_host(head) => continue,
            Some(colon) => colon + 1..last,
            // A token that stands for both.
            None if is_whole && is_http(&text[..at]) => 0..last,
            None => continue,
        };
        spans.push(start + secret.start..start + secret.end);
    }
    spans
}

fn is_http(before: &str) -> bool {
    before.ends_with("http") || before.ends_with("https")
}

/// A host, perhaps with a port; `unix:` begins a path.
fn is_host(head: &str) -> bool {
    match head.rsplit_once(':') {
        None => true,
        Some((name, port)) => {
            let is_ipv6 = name.starts_with('[') && name.ends_with(']');
            head == "unix:"
                || head.starts_with('[') && head.ends_with(']')
                || (is_ipv6 || !name.contains(':'))
                    && !port.is_empty()
                    && port.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}

/// Values of keys that are secret.
fn keys(text: &str) -> Vec<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let mut spans = Vec::new();
    for key in KEYS {
        for (at, _) in lower.match_indices(key) {
            let rest = &text[at + key.len()..];
            let blanks = rest.len() - rest.trim_start_matches(' ').len();
            let is_field = key.ends_with(':');
            let start = if is_field { blanks } else { 0 };
            let ends = |one: char| {
                matches!(one, ';' | '&' | '"' | '\'')
                    || one.is_whitespace() && !(is_field && one == ' ')
            };
            let end = rest[start..]
                .find(ends)
                .map_or(rest.len(), |end| start + end);
            let from = at + key.len();
            spans.push(from + start..from + end);
        }
    }
    spans
}

fn replaced(text: &str, mut spans: Vec<Range<usize>>) -> Cow<'_, str> {
    spans.retain(|span| !span.is_empty());
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for span in spans {
        if span.start >= at {
            shown.push_str(&text[at..span.start]);
            shown.push_str(MASK);
        }
        at = at.max(span.end);
    }
    shown.push_str(&text[at..]);
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_are_masked_in_lines() {
        let check = |text: &str, expected: &str| assert_eq!(masked(text), expected, "{text}");
        check(
            "a \"redis://user:secret@host:1/2\" b",
            "a \"redis://user:***@host:1/2\" b",
        );
        check("redis://:se/cr@et@h", "redis://:***@h");
        check("redis://u:se/cr;et@h", "redis://u:***@h");
        check("redis://u:/secret@h", "redis://u:***@h");
        check("redis://u:secret:0;@h", "redis://u:***@h");
        check("https://ghp_token@github.com/a", "https://***@github.com/a");
        check(
            "mysql://h;password=secret;x=y",
            "mysql://h;password=***;x=y",
        );
        check("/?Token=secret&a=b", "/?Token=***&a=b");
        check(
            "http://h;header=Authorization: Bearer abc;x=y",
            "http://h;header=Authorization: ***;x=y",
        );
        check("a://u:p1@h and b://v:p2@i", "a://u:***@h and b://v:***@i");
        for same in [
            "ssh://git@host/path",
            "https://host/a@b",
            "https://host:8080/a@b?c=d:e@f",
            "https://[::1]/a@b",
            "https://[::1]:443/a@b",
            "redis://unix:/run/a@b.sock",
            "text+file:/x@y/*.prom",
            "git@host:path, a@b://c",
            "redis://h;password-file=/run/p",
            "redis://u:***@h",
            "pull access denied, may require authorization: authentication required",
            ";header=authorization:",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn a_value_may_be_anything() {
        let check = |text: &str, expected: &str| assert_eq!(masked_value(text), expected, "{text}");
        check("redis://u:a \"b\" c@h", "redis://u:***@h");
        check("root:secret@db:3306", "root:***@db:3306");
        check("git@host:path", "git@host:path");
        check("repo:tag@sha256:abc", "repo:tag@sha256:abc");
        let said = |said| masked_about("redis://u:se cret@h", said).into_owned();
        assert_eq!(said("\"se cret@h\" is no port"), "\"***@h\" is no port");
        assert_eq!(
            masked_about("a://u:x:secret@h", "\"secret@h\" is no port"),
            "\"***@h\" is no port"
        );
    }

    proptest! {
        #[test]
        fn no_password_is_shown(password in "[a-z][^@]{3,20}", host in "[a-z]{1,9}(:[0-9]{1,4})?") {
            let url = format!("redis://user:{password}@{host}");
            prop_assert_eq!(masked_value(&url), format!("redis://user:***@{host}"));
        }

        #[test]
        fn no_text_upsets_it(text in ".{0,40}(://)?.{0,20}[:@;]*(password=)?.{0,20}") {
            let once = masked(&text).into_owned();
            prop_assert_eq!(masked(&once), &*once);
            masked_value(&text);
        }
    }
}
