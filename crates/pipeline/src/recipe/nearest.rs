//! The nearest valid name for one that is not valid.

/// A hint for a message: the name that was probably meant, otherwise all that are possible.
///
/// `what` names the candidates in the plural ("the keys here").
pub(crate) fn hint(name: &str, candidates: &[&str], what: &str) -> String {
    if let Some(nearest) = nearest(name, candidates) {
        return format!("did you mean `{nearest}`?");
    }
    if candidates.is_empty() {
        return format!("{what}: none");
    }
    let quoted: Vec<String> = candidates.iter().map(|c| format!("`{c}`")).collect();
    format!("{what}: {}", quoted.join(", "))
}

/// The candidate that was probably meant: one with at most two edits (one in a name of two or three letters); one that is
/// the name with a word more or less (`max_steps`, `steps`); one in which at most a third of the letters differ.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let folded = name.to_lowercase().replace('-', "_");
    let distance = |candidate: &str| strsim::damerau_levenshtein(&folded, &candidate.replace('-', "_"));
    let best = candidates.iter().copied().min_by_key(|candidate| distance(candidate))?;
    let longest = folded.chars().count().max(best.chars().count());
    if distance(best) <= longest.min(4) / 2 {
        return Some(best);
    }
    let extends = |long: &str, short: &str| {
        long.strip_suffix(short).is_some_and(|rest| rest.ends_with('_'))
            || long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
    };
    let by_word = candidates.iter().copied().find(|c| extends(&folded, c) || extends(c, &folded));
    by_word.or((distance(best) <= longest / 3).then_some(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = ["learning_rate", "save_steps", "steps", "beta", "epsilon", "epsilon_high"];

    #[test]
    fn near_names() {
        for (name, wanted) in [
            ("learning_rat", "learning_rate"),
            ("learning-rate", "learning_rate"),
            ("LearningRate", "learning_rate"),
            ("step", "steps"),
            ("max_steps", "steps"),
            ("bate", "beta"),
            ("epsilon_hgih", "epsilon_high"),
            ("learning", "learning_rate"),
            ("lerning_rates_", "learning_rate"),
        ] {
            assert_eq!(nearest(name, &KEYS), Some(wanted), "{name}");
        }
    }

    #[test]
    fn far_names_get_the_list() {
        assert_eq!(nearest("gamma_ray", &KEYS), None);
        assert_eq!(nearest("", &KEYS), None);
        assert_eq!(nearest("x", &["y"]), None);
        assert_eq!(hint("gamma_ray", &["beta", "steps"], "the keys here"), "the keys here: `beta`, `steps`");
        assert_eq!(hint("a", &[], "the stages"), "the stages: none");
    }
}
