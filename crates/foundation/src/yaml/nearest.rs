//! "Did you mean …?"

/// The candidate that is most likely meant: the same but for case, or a typing mistake or two away.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters = candidate.chars().count();
            // A third of the letters may be wrong, and at least one.
            let most = (letters / 3).max(1).min(letters.saturating_sub(1));
            let candidate_lower = candidate.to_lowercase();
            // Each letter more or less is a mistake already: most candidates need no more of a look.
            if candidate_lower.chars().count().abs_diff(length) > most {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&lower, &candidate_lower);
            (distance <= most && distance < letters).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
