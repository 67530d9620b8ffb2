//! Command lines as they may be shown: what looks like a secret is replaced by `***`.
//!
//! Arguments are visible to everyone who may list processes, but a page that shows them carries them further:
//! into screenshots, tickets and logs. What is masked, always keeping the part that tells what it was:
//!
//! | looks like | shown as |
//! |---|---|
//! | `--password=x`, `-Dapp.token=x`, `API_KEY=x`, `secret:x` | `--password=***`, … |
//! | `--password x`, `-token x` | `--password ***` |
//! | `scheme://user:pass@host`, `user:pass@host` of `-u`/`--user` | `scheme://user:***@host` |
//! | `?token=x&…` inside a URL, `Password=x;` inside a connection string | the value only |
//! | `Authorization: Bearer x`, `X-Api-Key: x` | `Authorization: ***` |
//! | `-pX` of the MySQL family, `-a X` of redis-cli, `-w X` of ldap's, `-p X` of sshpass | `-p***` |
//!
//! A false alarm costs a reader a word; a miss costs a secret. So when in doubt it masks. Words that only name
//! a place where a secret is (`--password-file`, `--secret-name`, `--key-file x.pem`) stay readable.

/// What a masked value is replaced by.
const MASK: &str = "***";

/// Parts of a name that make its value a secret. Compared in lower case without `-`, `_`, `.`.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authkey",
    "encryptionkey",
    "masterkey",
    "signingkey",
    "sharedkey",
    "sessionkey",
    "authorization",
    "bearer",
    "cookie",
    "signature",
    "requirepass",
    "masterauth",
    "pwd",
    "jwt",
];

/// Names that are secret only as a whole.
const SECRET_NAMES: &[&str] = &[
    "pass",
    "auth",
    "key",
    "psk",
    "sig",
    "dsn",
    "accesskeyid",
    "pin",
    "otp",
];

/// Keys that are no secrets.
const HARMLESS_KEYS: &[&str] = &[
    "publickey",
    "sortkey",
    "primarykey",
    "partitionkey",
    "foreignkey",
    "hashkey",
    "cachekey",
    "groupkey",
];

/// Ends of a name that say where a secret is rather than what it is.
const PLACE_ENDS: &[&str] = &[
    "file",
    "path",
    "dir",
    "directory",
    "name",
    "type",
    "env",
    "var",
    "url",
    "uri",
    "endpoint",
    "header",
    "id",
    "ttl",
    "length",
    "policy",
    "count",
    "limit",
    "timeout",
    "algorithm",
    "alg",
    "size",
    "age",
    "prompt",
    "stdin",
    "expiry",
    "expiration",
    "lifetime",
    "issuer",
    "audience",
    "mode",
    "ref",
    "store",
    "method",
    "helper",
];

/// The command line as one text: arguments joined by spaces, secrets masked, control characters as spaces,
/// at most `limit` bytes (cut with an ellipsis).
///
/// `raw` is `/proc/PID/cmdline`: arguments that end with NUL; a process may have overwritten it with a title.
pub(crate) fn shown_command(raw: &[u8], limit: usize) -> String {
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    // A title set by the process is one text, often padded with NULs.
    let arguments: Vec<String> = raw
        .split(|&b| b == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let end = arguments
        .iter()
        .rposition(|argument| !argument.is_empty())
        .map_or(0, |last| last + 1);
    let arguments = &arguments[..end];
    let mut masked = match arguments {
        // One argument with spaces: a title, or `sh -c`'s text in another form; its words are arguments too.
        [title] if title.contains(' ') => mask_words(title),
        _ => mask_arguments(arguments).join(" "),
    };
    if masked.contains(char::is_control) {
        masked = masked.replace(char::is_control, " ");
    }
    cut(masked, limit)
}

/// Shortens to `limit` bytes at a character's border.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Masks each argument, knowing the ones before it.
fn mask_arguments(arguments: &[String]) -> Vec<String> {
    let program = arguments
        .first()
        .map_or("", |path| path.rsplit('/').next().unwrap_or(path));
    // The name of the option before, when its value is a secret and comes as an argument of its own.
    let mut secret_next: Option<&str> = None;
    let mut shown = Vec::with_capacity(arguments.len());
    for (at, argument) in arguments.iter().enumerate() {
        if at == 0 {
            shown.push(mask_urls(argument));
            continue;
        }
        if let Some(name) = secret_next.take()
            && !argument.starts_with('-')
            && is_secret(name, argument)
        {
            shown.push(MASK.to_owned());
            continue;
        }
        if let Some(short) = mask_short(program, argument, &mut secret_next) {
            shown.push(short);
            continue;
        }
        if matches!(argument.as_str(), "-u" | "--user" | "-U" | "--proxy-user") {
            // curl and its like take user:password here.
            shown.push(argument.clone());
            if arguments
                .get(at + 1)
                .is_some_and(|value| value.contains(':'))
            {
                secret_next = Some("password");
            }
            continue;
        }
        if argument.starts_with('-') && !argument.contains(['=', ':', ' ']) {
            let name = argument.trim_start_matches('-');
            secret_next = is_secret_name(name).then_some(name);
        }
        shown.push(mask_argument(argument));
    }
    shown
}

/// The short options that a family of programs takes a secret by. None: not one of them.
fn mask_short(program: &str, argument: &str, secret_next: &mut Option<&str>) -> Option<String> {
    let starts = |names: &[&str]| names.iter().any(|name| program.starts_with(name));
    if starts(&["mysql", "mariadb", "mytop", "innotop", "sshpass", "mongo"])
        && argument.starts_with("-p")
        && !argument.starts_with("-p=")
    {
        let glued = argument.len() > 2;
        // mysql takes -pSECRET only (its -p alone asks); sshpass and mongo take both.
        *secret_next = (!glued && starts(&["sshpass", "mongo"])).then_some("password");
        return Some(if glued {
            format!("-p{MASK}")
        } else {
            argument.to_owned()
        });
    }
    let next = starts(&["redis", "valkey", "keydb"]) && argument == "-a"
        || starts(&["ldap"]) && argument == "-w"
        || starts(&["htpasswd", "openssl"])
            && matches!(argument, "-K" | "-pass" | "-passin" | "-passout");
    if next {
        *secret_next = Some("password");
    }
    next.then(|| argument.to_owned())
}

/// One argument on its own: `name=value`, `name: value`, URLs, words of a script.
fn mask_argument(argument: &str) -> String {
    if argument.contains([' ', '\n', '\t']) {
        return mask_words(argument);
    }
    mask_urls(&mask_pairs(argument))
}

/// A text of several words, such as a script or a header: each is treated as an argument.
fn mask_words(text: &str) -> String {
    if let Some((name, _)) = text.split_once(": ")
        && !name.contains(' ')
        && is_secret_name(name)
    {
        return format!("{name}: {MASK}");
    }
    let words: Vec<&str> = text.split([' ', '\n', '\t']).collect();
    let mut shown: Vec<String> = Vec::with_capacity(words.len());
    let mut secret_next: Option<&str> = None;
    for word in words {
        let bare = word.trim_matches(['"', '\'']);
        if let Some(name) = secret_next
            && !bare.is_empty()
        {
            // `Authorization: Bearer x`: the scheme's name stays, what follows goes.
            if matches!(bare, "Bearer" | "Basic" | "Token" | "=" | ":") {
                shown.push(word.to_owned());
                continue;
            }
            secret_next = None;
            if !bare.starts_with('-') && is_secret(name, bare) {
                shown.push(MASK.to_owned());
                continue;
            }
        }
        let flag = bare
            .strip_suffix(':')
            .or_else(|| bare.starts_with('-').then_some(bare));
        if let Some(name) = flag.map(|flag| flag.trim_start_matches('-'))
            && !name.contains('=')
            && is_secret_name(name)
        {
            secret_next = Some(name);
        }
        shown.push(mask_urls(&mask_pairs(word)));
    }
    shown.join(" ")
}

/// Masks the value of every `name=value` (or `name:value`) whose name is a secret's; parts are separated by
/// `&`, `;`, `,` and `?` as in queries, connection strings and option lists.
fn mask_pairs(text: &str) -> String {
    if !text.contains(['=', ':']) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['&', ';', ',', '?']).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        let at = part
            .find('=')
            .or_else(|| part.find(':').filter(|&at| !part[at..].starts_with("://")));
        match at {
            Some(at)
                if at + 1 < part.len()
                    && is_secret(
                        part[..at].trim_start_matches(['-', '"', '\'', '{']),
                        &part[at + 1..],
                    ) =>
            {
                shown.push_str(&part[..=at]);
                shown.push_str(MASK);
                // A value may itself hold a separator; a secret is masked to its end where nothing follows that
                // looks like another pair.
                let pair_follows = tail.get(1..).is_some_and(|tail| tail.contains('='));
                if !pair_follows {
                    return shown;
                }
            }
            _ => shown.push_str(part),
        }
        let separator = tail.chars().next().map_or(0, char::len_utf8);
        shown.push_str(&tail[..separator]);
        rest = &tail[separator..];
    }
    shown
}

/// Masks the password in every `scheme://user:password@host`, and in a bare `user:password@host`.
fn mask_urls(text: &str) -> String {
    if !text.contains("://")
        && let Some(at) = text.rfind('@')
        && let Some(colon) = text[..at].find(':')
        && !text[at + 1..].starts_with("sha")
    {
        return format!("{}{MASK}{}", &text[..=colon], &text[at..]);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        shown.push_str(head);
        let authority = tail
            .find(['/', '?', '#', ' ', '"', '\''])
            .unwrap_or(tail.len());
        // A password may hold a slash where it wasn't encoded: the last @ before the next blank decides.
        let blank = tail.find([' ', '"', '\'']).unwrap_or(tail.len());
        let credentials = tail[..authority].rfind('@').or_else(|| {
            let colon = tail[..authority].find(':')?;
            let port = tail[colon + 1..authority]
                .bytes()
                .all(|b| b.is_ascii_digit());
            if port { None } else { tail[..blank].rfind('@') }
        });
        rest = match credentials {
            Some(end) => {
                match tail[..end].split_once(':') {
                    Some((user, _)) => {
                        shown.push_str(user);
                        shown.push(':');
                        shown.push_str(MASK);
                    }
                    // A token alone (`https://ghp_…@github.com`): long ones are secrets, short ones user names.
                    None if end > 20 => shown.push_str(MASK),
                    None => shown.push_str(&tail[..end]),
                }
                &tail[end..]
            }
            None => tail,
        };
    }
    shown.push_str(rest);
    shown
}

/// Whether this value, under this name, is a secret: a key that is a path is only the way to one.
fn is_secret(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let by_path = (lower.ends_with("key") || lower.ends_with("pwd")) && !lower.contains("api");
    let is_path = value.starts_with(['/', '.'])
        || [".pem", ".key", ".crt", ".der", ".p12"]
            .iter()
            .any(|end| value.ends_with(end));
    is_secret_name(name) && !(by_path && is_path)
}

/// Whether what goes by this name is a secret.
fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let switch = [
        "no-", "disable-", "enable-", "skip-", "use-", "allow-", "require-", "with-",
    ];
    if name.len() > 80 || switch.iter().any(|start| lower.starts_with(start)) {
        return false;
    }
    let plain: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    if PLACE_ENDS.iter().any(|end| plain.ends_with(end)) && !plain.ends_with("accesskeyid") {
        return false;
    }
    // `DB_PASS`, `tls.key`: the last part of a name says what it is.
    let last = lower.rsplit(['-', '_', '.']).next().unwrap_or_default();
    let compound = last.len() < lower.len();
    SECRET_WORDS.iter().any(|word| plain.contains(word))
        || SECRET_NAMES.contains(&plain.as_str())
        || compound && matches!(last, "pass" | "pw" | "psk" | "dsn" | "auth")
        || compound && last == "key" && !HARMLESS_KEYS.contains(&plain.as_str())
}
