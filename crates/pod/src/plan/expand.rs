//! `$(VAR)` as Kubernetes expands it (third_party/forked/golang/expansion): `$$` is a `$`, what isn't defined stays as
//! it is written, and everything else with a `$` too. No shell is involved.

/// Replaces `$(NAME)` by `lookup(NAME)` where there is one.
pub(crate) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|s| s.split_once(')'))
        {
            match lookup(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            // A `$` in front of something else, at the end, or of a parenthesis that isn't closed.
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}
