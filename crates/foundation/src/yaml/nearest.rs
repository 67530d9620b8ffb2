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
            // Each letter more, less or other is a mistake already: most candidates need no more of a look.
            if candidate_lower.chars().count().abs_diff(length) > most
                || other_letters(&lower, &candidate_lower) > most
            {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&lower, &candidate_lower);
            (distance <= most && distance < letters).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters of `word` are not among those of `candidate`, wherever they stand: no more than the distance. Letters
/// beyond ASCII count as alike.
fn other_letters(word: &str, candidate: &str) -> usize {
    let mut left = [0_u32; 128];
    for byte in candidate.bytes().filter(u8::is_ascii) {
        left[usize::from(byte)] += 1;
    }
    let other = word.bytes().filter(u8::is_ascii).filter(|byte| {
        let left = &mut left[usize::from(*byte)];
        let none = *left == 0;
        *left = left.saturating_sub(1);
        none
    });
    other.count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn letters_never_say_more_than_the_distance(word in "[a-dé]{0,8}", candidate in "[a-dé]{0,8}") {
            let distance = strsim::damerau_levenshtein(&word, &candidate);
            prop_assert!(other_letters(&word, &candidate) <= distance);
        }
    }
}
