//! A structured parameter: `key=value` pairs separated by spaces.

/// The pairs of `text`, in order. A value can't hold a space. An error says which word is not a pair, or what
/// [`check_pair`] says.
pub fn pairs<'t>(text: &'t str, keys: &[&str]) -> Result<Vec<(&'t str, &'t str)>, String> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let Some(pair) = word.split_once('=') else {
            return Err(format!("\"{word}\" is not key=value"));
        };
        check_pair(pair, &found, keys)?;
        found.push(pair);
    }
    Ok(found)
}

/// Says that none of `known` is `word`, and names the nearest one, or all.
pub fn unknown<'k>(what: &str, word: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, near)) => format!("there is no {what} \"{word}\"; did you mean {near}?"),
        None => format!(
            "there is no {what} \"{word}\"; there are {}",
            known.join(", ")
        ),
    }
}

/// A pair that comes behind `before`: its key is one of `keys` (else the nearest one is named) and has not come before.
pub fn check_pair(
    (key, value): (&str, &str),
    before: &[(&str, &str)],
    keys: &[&str],
) -> Result<(), String> {
    if !keys.contains(&key) {
        return Err(unknown("key", key, keys.iter().copied()));
    }
    if value.is_empty() {
        return Err(format!("{key} has no value"));
    }
    match before.iter().any(|(known, _)| *known == key) {
        true => Err(format!("{key} is given twice")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn pairs_are_read_and_what_is_none_is_named() {
        let check = |text, expected: Result<Vec<(&str, &str)>, &str>| {
            let expected = expected.map_err(str::to_owned);
            assert_eq!(pairs(text, &["rate", "burst"]), expected, "{text}");
        };
        check("", Ok(vec![]));
        check(
            "  burst=a=b \t rate=1/s ",
            Ok(vec![("burst", "a=b"), ("rate", "1/s")]),
        );
        check("rate", Err("\"rate\" is not key=value"));
        check("rate=", Err("rate has no value"));
        check("rat=1", Err("there is no key \"rat\"; did you mean rate?"));
        check("x=1", Err("there is no key \"x\"; there are rate, burst"));
        check("rate=1 rate=2", Err("rate is given twice"));
    }
}
