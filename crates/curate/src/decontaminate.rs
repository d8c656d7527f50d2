//! Decontamination: training rows that quote an evaluation set (DeepSeek-R1, long version, D.1, removes rows with any run of
//! ten words in common; others use 8 or 13). A row is contaminated when it shares a run of `words` words with an evaluation
//! text, when its question is an evaluation question in other spacing, or when it has the id of one.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use crate::words::{Signs, compact, ngram_hashes, word_hashes, words};

/// A text of an evaluation set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalText {
    /// The set, e.g. its file.
    pub set: String,
    /// The row within the set.
    pub id: String,
    /// Whether ids of this set name problems beyond the set, as generated ones do.
    pub global_id: bool,
    /// Whether it is a question, which counts also when it is shorter than a run.
    pub question: bool,
    /// The text.
    pub text: String,
}

/// Why a row is contaminated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// It has the id of an evaluation problem.
    SameId,
    /// Its question is an evaluation question.
    SameQuestion,
    /// This run of words is in both.
    Run(String),
}

/// The evaluation texts, indexed.
pub struct Decontaminator {
    n: usize,
    texts: Vec<EvalText>,
    ids: HashMap<String, u32>,
    questions: HashMap<String, u32>,
    /// From the hash of a run to a text and the place of its first word there.
    runs: HashMap<u64, (u32, u32)>,
}

/// How often runs occur: those in more than `common` evaluation texts are wording of the set itself, not of a problem.
fn is_common(texts: u32, common: u32) -> bool {
    common > 0 && texts > common
}

impl Decontaminator {
    /// Indexes evaluation texts by runs of `n` words. Runs that occur in more than `common` of them do not count (0: all do).
    pub fn new(texts: Vec<EvalText>, n: usize, common: u32) -> Self {
        let (mut ids, mut questions) = (HashMap::new(), HashMap::new());
        let mut runs: HashMap<u64, (u32, u32)> = HashMap::new();
        let mut seen: HashMap<u64, (u32, u32)> = HashMap::new(); // how many texts hold a run, and the last of them
        for (i, text) in texts.iter().enumerate() {
            let number = i as u32;
            if text.global_id {
                ids.entry(text.id.clone()).or_insert(number);
            }
            if text.question {
                questions.entry(compact(&text.text)).or_insert(number);
            }
            for (at, hash) in ngram_hashes(&word_hashes(&text.text, Signs::Separate), n).enumerate() {
                runs.entry(hash).or_insert((number, at as u32));
                let count = seen.entry(hash).or_insert((0, u32::MAX));
                if count.1 != number {
                    *count = (count.0 + 1, number);
                }
            }
        }
        runs.retain(|hash, _| !is_common(seen[hash].0, common));
        questions.remove("");
        Self { n, texts, ids, questions, runs }
    }

    /// The evaluation texts.
    pub fn texts(&self) -> &[EvalText] {
        &self.texts
    }

    /// The first overlap of a row with an evaluation text: of its id, its question, or a run of words in any of `texts`.
    pub fn find(&self, id: &str, question: &str, texts: &[&str]) -> Option<(&EvalText, Overlap)> {
        let text = |number: &u32| &self.texts[*number as usize];
        if let Some(number) = self.ids.get(id) {
            return Some((text(number), Overlap::SameId));
        }
        if let Some(number) = self.questions.get(&compact(question)) {
            return Some((text(number), Overlap::SameQuestion));
        }
        if self.runs.is_empty() {
            return None;
        }
        texts.iter().find_map(|row| {
            ngram_hashes(&word_hashes(row, Signs::Separate), self.n).enumerate().find_map(|(at, hash)| {
                let (number, place) = self.runs.get(&hash)?;
                let here = words(row, Signs::Separate)[at..at + self.n].join(" ");
                let there =
                    words(&text(number).text, Signs::Separate)[*place as usize..*place as usize + self.n].join(" ");
                (here == there).then_some((text(number), Overlap::Run(here)))
            })
        })
    }
}

/// The rows that overlap with an evaluation text, found another way: runs are compared as text, nothing is hashed or indexed
/// by hash. Slower and simpler than [`Decontaminator`], so that a mistake there is found.
pub fn recheck<'a>(
    rows: impl IntoIterator<Item = (&'a str, &'a str, Vec<&'a str>)>,
    texts: &[EvalText],
    n: usize,
    common: u32,
) -> Vec<usize> {
    fn runs(text: &str, n: usize) -> HashSet<String> {
        words(text, Signs::Separate).windows(n.max(1)).map(|run| run.join(" ")).collect()
    }
    let ids: HashSet<&str> = texts.iter().filter(|t| t.global_id).map(|t| t.id.as_str()).collect();
    let questions: HashSet<String> = texts.iter().filter(|t| t.question).map(|t| compact(&t.text)).collect();
    let mut counts: HashMap<String, u32> = HashMap::new();
    for text in texts {
        for run in runs(&text.text, n) {
            *counts.entry(run).or_default() += 1;
        }
    }
    counts.retain(|_, texts| !is_common(*texts, common));
    let overlaps = |(id, question, texts): &(&str, &str, Vec<&str>)| {
        let question = compact(question);
        ids.contains(id)
            || (!question.is_empty() && questions.contains(&question))
            || texts.iter().any(|text| runs(text, n).iter().any(|run| counts.contains_key(run)))
    };
    let rows: Vec<_> = rows.into_iter().collect();
    let found: Vec<bool> = rows.par_iter().map(overlaps).collect();
    (0..rows.len()).filter(|i| found[*i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aha_tasks::mini::Rng;

    fn eval(id: &str, question: bool, text: &str) -> EvalText {
        EvalText { set: "gsm".into(), id: id.into(), global_id: true, question, text: text.into() }
    }

    fn sets() -> Vec<EvalText> {
        vec![
            eval("a", true, "Ann's ducks lay 16 eggs per day; she eats three for breakfast, and sells the rest."),
            eval("b", true, "3 + 4 = ?"),
            eval("c", false, "so 7"),
        ]
    }

    #[test]
    fn quotations_whole_questions_and_ids() {
        let index = Decontaminator::new(sets(), 8, 0);
        let find = |id: &str, question: &str, text: &str| {
            index.find(id, question, &[question, text]).map(|(t, overlap)| (t.id.clone(), overlap))
        };
        let run = "16 eggs per day she eats three for";
        let quoted = "Let me see: 16 EGGS per day - she eats\nthree for her daughter";
        assert_eq!(find("x", "", quoted), Some(("a".into(), Overlap::Run(run.into()))));
        assert_eq!(find("x", "", "16 eggs per day she eats three"), None);
        assert_eq!(find("x", "3+4=", "so 7"), Some(("b".into(), Overlap::SameQuestion)));
        assert_eq!(find("x", "3-4=?", "3+4=?"), None);
        assert_eq!(find("b", "other", ""), Some(("b".into(), Overlap::SameId)));
        assert_eq!(find("x", "so 7", "so 7"), None);
    }

    #[test]
    fn wording_of_the_whole_set_does_not_count_when_asked() {
        let ask = |i: usize| format!("use each of the numbers {i} {i}7 {i}9 exactly once to make the number {i}{i}");
        let texts: Vec<EvalText> = (1..20).map(|i| eval(&format!("e{i}"), true, &ask(i))).collect();
        let other = ask(44);
        let row: &[&str] = &[&other];
        let found = |common| Decontaminator::new(texts.clone(), 5, common).find("x", &other, row).is_some();
        assert!(found(0) && !found(10));
        let same = ask(7);
        assert!(Decontaminator::new(texts.clone(), 5, 10).find("x", &same, &[&same]).is_some());
    }

    /// Index and re-check agree on random texts of few words, where overlaps of all kinds are frequent.
    #[test]
    fn agrees_with_the_recheck() {
        let mut rng = Rng::new(2, 9);
        let mut overlapping = 0;
        for n in [1, 2, 3, 4] {
            for common in [0, 2] {
                let text = |rng: &mut Rng| {
                    let words: Vec<String> = (0..rng.range(0, 7)).map(|_| format!("{}", rng.range(0, 6))).collect();
                    words.join(["+", " ", ", "][rng.range(0, 2) as usize])
                };
                let texts: Vec<EvalText> =
                    (0..6).map(|i| eval(&format!("{i}"), rng.unit() < 0.5, &text(&mut rng))).collect();
                let rows: Vec<(String, String, String)> =
                    (0..200).map(|i| (format!("{}", i % 40), text(&mut rng), text(&mut rng))).collect();
                let index = Decontaminator::new(texts.clone(), n, common);
                let fast: Vec<usize> = (0..rows.len())
                    .filter(|i| index.find(&rows[*i].0, &rows[*i].1, &[&rows[*i].1, &rows[*i].2]).is_some())
                    .collect();
                let borrowed = rows.iter().map(|r| (r.0.as_str(), r.1.as_str(), vec![r.1.as_str(), r.2.as_str()]));
                assert_eq!(fast, recheck(borrowed, &texts, n, common), "n {n}, common {common}");
                overlapping += fast.len();
            }
        }
        assert!(overlapping > 100 && overlapping < 1500, "{overlapping}");
    }
}
