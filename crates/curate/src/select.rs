//! The filters that look at all rows: at most k answers per prompt, and balance by task and difficulty (DeepSeek-R1, section
//! 2.3.3, mixes its tasks by hand; the long version gives counts per domain). What is chosen is a function of the rows and the
//! seed, not of the order of threads.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::candidate::Candidate;
use crate::filters::Reason;
use crate::minhash::{jaccard, shingles};
use crate::settings::{Balance, Choose, PerPrompt};
use crate::words::mix;

/// Words of a shingle by which answers to one prompt are compared.
const DIVERSE_NGRAM: usize = 3;

/// A rank of a row that depends on its id and the seed alone.
fn lot(row: &Candidate, seed: u64) -> u64 {
    row.id.bytes().fold(mix(seed ^ 0x5e1e_c7ed), |hash, byte| mix(hash ^ u64::from(byte)))
}

/// Length by which answers are short: in tokens where they are known for all, else in characters.
fn length(row: &Candidate, by_tokens: bool) -> usize {
    row.tokens.filter(|_| by_tokens).unwrap_or_else(|| row.text().chars().count())
}

/// Why rows go beyond the allowed number of answers per prompt; `None` for those that stay.
pub(crate) fn per_prompt(rows: &[Candidate], settings: &PerPrompt, seed: u64) -> Vec<Option<Reason>> {
    let mut reasons = vec![None; rows.len()];
    if settings.max == 0 {
        return reasons;
    }
    let mut prompts: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, row) in rows.iter().enumerate() {
        prompts.entry(row.prompt_key()).or_default().push(i);
    }
    let crowded: Vec<Vec<usize>> = prompts.into_values().filter(|of| of.len() > settings.max).collect();
    let thrown: Vec<Vec<usize>> = crowded.into_par_iter().map(|of| surplus(rows, of, settings, seed)).collect();
    for i in thrown.into_iter().flatten() {
        let detail = format!("more than {} answers of {}", settings.max, rows[i].problem.id);
        reasons[i] = Some(Reason::new("more than enough of a prompt", detail));
    }
    reasons
}

/// The rows of one prompt that are not chosen.
fn surplus(rows: &[Candidate], mut of: Vec<usize>, settings: &PerPrompt, seed: u64) -> Vec<usize> {
    let by_tokens = of.iter().all(|i| rows[*i].tokens.is_some());
    match settings.choose {
        Choose::Random => of.sort_by_key(|i| (lot(&rows[*i], seed), *i)),
        Choose::Shortest | Choose::Diverse => {
            of.sort_by_key(|i| (length(&rows[*i], by_tokens), lot(&rows[*i], seed), *i))
        }
    }
    if settings.choose == Choose::Diverse {
        let sets: Vec<Vec<u64>> = of.iter().map(|i| shingles(rows[*i].text(), DIVERSE_NGRAM)).collect();
        let mut chosen = vec![0];
        // Similarity of each row to the most similar of the chosen ones.
        let mut nearest: Vec<f64> = sets.iter().map(|set| jaccard(set, &sets[0])).collect();
        while chosen.len() < settings.max {
            let next = (0..of.len())
                .filter(|i| !chosen.contains(i))
                .min_by(|a, b| nearest[*a].total_cmp(&nearest[*b]))
                .expect("there are more rows than may be chosen");
            for (near, set) in nearest.iter_mut().zip(&sets) {
                *near = near.max(jaccard(set, &sets[next]));
            }
            chosen.push(next);
        }
        return (0..of.len()).filter(|i| !chosen.contains(i)).map(|i| of[i]).collect();
    }
    of.split_off(settings.max)
}

/// Shares `total` out in proportion to `weights`, nobody more than is available; what one cannot take the others get. The sum
/// is `total`, or all that those of positive weight have. Remainders go to the largest fractions, then to the first.
fn share_out(total: usize, weights: &[f64], available: &[usize]) -> Vec<usize> {
    let mut given = vec![0; weights.len()];
    let most: usize = (0..weights.len()).filter(|i| weights[*i] > 0.0).map(|i| available[i]).sum();
    let total = total.min(most);
    let mut open: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0.0 && available[*i] > 0).collect();
    loop {
        let left = total - given.iter().sum::<usize>();
        let weight: f64 = open.iter().map(|i| weights[*i]).sum();
        let due = |i: usize| left as f64 * weights[i] / weight;
        // Who is due more than there is gets all of it; then the rest is shared out anew.
        let (full, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|i| due(**i) >= available[**i] as f64);
        if full.is_empty() {
            let mut order = open.clone();
            order.iter().for_each(|i| given[*i] = due(*i).floor() as usize);
            order.sort_by(|a, b| due(*b).fract().total_cmp(&due(*a).fract()).then(a.cmp(b)));
            let missing = total - given.iter().sum::<usize>();
            order.into_iter().take(missing).for_each(|i| given[i] += 1);
            return given;
        }
        full.into_iter().for_each(|i| given[i] = available[i]);
        open = rest;
        if open.is_empty() {
            return given;
        }
    }
}

/// Why rows go for the sake of balance; `None` for those that stay.
pub(crate) fn balance(rows: &[Candidate], settings: &Balance, seed: u64) -> Vec<Option<Reason>> {
    let mut reasons = vec![None; rows.len()];
    if settings.total == 0 && settings.tasks.is_empty() && settings.difficulty.is_empty() {
        return reasons;
    }
    let mut tasks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        tasks.entry(&row.problem.family).or_default().push(i);
    }
    let weight = |task: &str, count: usize| match settings.tasks.is_empty() {
        true => count as f64,
        false => settings.tasks.get(task).copied().unwrap_or(0.0),
    };
    let weights: Vec<f64> = tasks.iter().map(|(task, of)| weight(task, of.len())).collect();
    let available: Vec<usize> = tasks.values().map(Vec::len).collect();
    let all: f64 = weights.iter().sum();
    let total = match (settings.total, settings.tasks.is_empty()) {
        (0, true) => rows.len(),
        // The scarcest task decides, so that the shares are exact.
        (0, false) => weights
            .iter()
            .zip(&available)
            .filter(|(weight, _)| **weight > 0.0)
            .map(|(weight, count)| (*count as f64 * all / weight) as usize)
            .min()
            .unwrap_or(0),
        (total, _) => total,
    };
    let quotas = share_out(total, &weights, &available);
    for ((task, of), (quota, weight)) in tasks.into_iter().zip(quotas.into_iter().zip(weights)) {
        for (class, of) in over_quota(rows, of, quota, settings, seed) {
            for i in of {
                reasons[i] = Some(if weight > 0.0 {
                    Reason::new("more than its share", format!("{task}{class}"))
                } else {
                    Reason::new("task without a share", task)
                });
            }
        }
    }
    reasons
}

/// The rows of a task beyond its quota, by class of difficulty.
fn over_quota(
    rows: &[Candidate],
    of: Vec<usize>,
    quota: usize,
    settings: &Balance,
    seed: u64,
) -> Vec<(String, Vec<usize>)> {
    let edges = &settings.difficulty;
    let class = |i: &usize| match rows[*i].pass_rate {
        Some(rate) if !edges.is_empty() => edges.iter().filter(|edge| rate >= **edge).count(),
        // Unknown difficulty is a class of its own, after all others.
        None if !edges.is_empty() => edges.len() + 1,
        _ => 0,
    };
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    of.into_iter().for_each(|i| classes.entry(class(&i)).or_default().push(i));
    let available: Vec<usize> = classes.values().map(Vec::len).collect();
    // Without a number for all, the smallest class of known difficulty decides.
    let even = settings.total == 0 && settings.tasks.is_empty();
    let quota = if even { available.iter().min().map_or(0, |least| least * available.len()) } else { quota };
    let quotas = share_out(quota, &vec![1.0; classes.len()], &available);
    let surplus = |(class, mut of): (usize, Vec<usize>), quota: usize| {
        of.sort_by_key(|i| (lot(&rows[*i], seed), *i));
        let name = if edges.is_empty() { String::new() } else { format!(", class {class} of difficulty") };
        (name, of.split_off(quota))
    };
    classes.into_iter().zip(quotas).map(|(class, quota)| surplus(class, quota)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::tests::sum;
    use aha_tasks::mini::Rng;

    fn kept(rows: &[Candidate], reasons: &[Option<Reason>]) -> Vec<usize> {
        (0..rows.len()).filter(|i| reasons[*i].is_none()).collect()
    }

    fn answers(texts: &[&str]) -> Vec<Candidate> {
        let row = |(i, text): (usize, &&str)| {
            let mut row = sum(3, 4, &format!("<think>{text}</think>7"));
            row.sample = i;
            row.id = row.new_id();
            row
        };
        texts.iter().enumerate().map(row).collect()
    }

    #[test]
    fn answers_of_a_prompt() {
        let rows = answers(&[
            "one two three four five six seven",
            "one two three four five",
            "one two three four five six",
            "entirely different words in this one here",
        ]);
        let by = |max, choose| kept(&rows, &per_prompt(&rows, &PerPrompt { max, choose }, 1));
        assert_eq!(by(0, Choose::Shortest), [0, 1, 2, 3]);
        assert_eq!(by(4, Choose::Random), [0, 1, 2, 3]);
        assert_eq!(by(2, Choose::Shortest), [1, 2]);
        assert_eq!(by(2, Choose::Diverse), [1, 3]);
        assert_eq!(by(3, Choose::Random).len(), 3);
        let mut chinese = rows.clone();
        chinese[0].problem.language = aha_tasks::Language::Chinese;
        assert!(kept(&chinese, &per_prompt(&chinese, &PerPrompt { max: 1, choose: Choose::Shortest }, 1)) == [0, 1]);
    }

    /// Who is chosen does not depend on the order of rows.
    #[test]
    fn order_does_not_matter() {
        let texts: Vec<String> = (0..30).map(|i| format!("w{} w{} w{} w{i}", i % 3, i % 5, i % 7)).collect();
        let rows = answers(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut reversed = rows.clone();
        reversed.reverse();
        for choose in [Choose::Shortest, Choose::Diverse, Choose::Random] {
            let ids = |rows: &[Candidate]| {
                let mut ids: Vec<String> = kept(rows, &per_prompt(rows, &PerPrompt { max: 7, choose }, 5))
                    .into_iter()
                    .map(|i| rows[i].id.clone())
                    .collect();
                ids.sort();
                ids
            };
            assert_eq!(ids(&rows), ids(&reversed), "{choose:?}");
        }
    }

    #[test]
    fn shares_add_up() {
        assert_eq!(share_out(10, &[1.0, 1.0], &[2, 100]), [2, 8]);
        assert_eq!(share_out(10, &[3.0, 1.0], &[100, 100]), [8, 2]);
        assert_eq!(share_out(10, &[0.0, 1.0], &[100, 4]), [0, 4]);
        assert_eq!(share_out(0, &[1.0], &[4]), [0]);
        let mut rng = Rng::new(1, 1);
        for _ in 0..2000 {
            let n = rng.range(1, 6) as usize;
            let weights: Vec<f64> = (0..n).map(|_| if rng.unit() < 0.2 { 0.0 } else { rng.unit() }).collect();
            let available: Vec<usize> = (0..n).map(|_| rng.range(0, 30) as usize).collect();
            let total = rng.range(0, 100) as usize;
            let given = share_out(total, &weights, &available);
            let most: usize = (0..n).filter(|i| weights[*i] > 0.0).map(|i| available[i]).sum();
            assert_eq!(given.iter().sum::<usize>(), total.min(most), "{total} {weights:?} {available:?}");
            for i in 0..n {
                assert!(given[i] <= available[i] && (weights[i] > 0.0 || given[i] == 0));
                // Nobody who could take more has less than one below their share of the whole.
                let due = total.min(most) as f64 * weights[i] / weights.iter().sum::<f64>().max(1e-9);
                assert!(given[i] == available[i] || given[i] as f64 > due - 1.0 - 1e-9, "{given:?} {due}");
            }
        }
    }

    fn tasks(counts: &[(&str, usize)]) -> Vec<Candidate> {
        let mut rows = Vec::new();
        for (task, count) in counts {
            for i in 0..*count {
                let mut row = sum(i as i64, 1, &format!("<think>{task}</think>7"));
                row.problem.family = (*task).to_owned();
                row.pass_rate = Some([0.1, 0.5, 0.5, 0.9][i % 4]);
                row.id = format!("{task}{i}");
                rows.push(row);
            }
        }
        rows
    }

    fn counts(rows: &[Candidate], settings: &Balance) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for i in kept(rows, &balance(rows, settings, 3)) {
            let rate = rows[i].pass_rate.unwrap();
            *counts.entry((rows[i].problem.family.clone(), format!("{rate}"))).or_default() += 1;
        }
        counts
    }

    #[test]
    fn balance_by_task_and_difficulty() {
        let rows = tasks(&[("sum", 80), ("code", 40), ("other", 8)]);
        let shares = |of: &[(&str, f64)]| of.iter().map(|(task, share)| ((*task).to_owned(), *share)).collect();
        let by_task = |settings: &Balance| {
            let mut by: BTreeMap<String, usize> = BTreeMap::new();
            counts(&rows, settings).into_iter().for_each(|((task, _), n)| *by.entry(task).or_default() += n);
            by
        };
        assert_eq!(by_task(&Balance::default()).values().sum::<usize>(), 128);
        let exact = Balance { tasks: shares(&[("sum", 1.0), ("code", 3.0)]), ..Balance::default() };
        assert_eq!(by_task(&exact), [("code".into(), 40), ("sum".into(), 13)].into());
        let total = Balance { total: 64, ..Balance::default() };
        assert_eq!(by_task(&total), [("code".into(), 20), ("other".into(), 4), ("sum".into(), 40)].into());
        let filled = Balance { total: 100, tasks: shares(&[("sum", 1.0), ("other", 1.0)]), ..Balance::default() };
        assert_eq!(by_task(&filled), [("other".into(), 8), ("sum".into(), 80)].into());
        let even = Balance { difficulty: vec![0.25, 0.75], ..Balance::default() };
        let found = counts(&rows, &even);
        assert_eq!(found[&("sum".to_owned(), "0.5".to_owned())], 20);
        assert_eq!(found.values().sum::<usize>(), 60 + 30 + 6);
        let both = Balance { total: 64, difficulty: vec![0.25, 0.75], tasks: shares(&[("sum", 1.0), ("code", 1.0)]) };
        let found = counts(&rows, &both);
        assert_eq!(found[&("code".to_owned(), "0.1".to_owned())], 10);
        assert_eq!(found.values().sum::<usize>(), 64);
    }
}
