//! All filters in order over all rows. Every row that goes, goes at exactly one filter and for one reason; what stays is in the
//! order of the input. The result is a function of rows, evaluation texts and settings alone.

use std::collections::{BTreeMap, HashMap};

use aha_tasks::Verdict;
use rayon::prelude::*;
use serde::Serialize;

use crate::candidate::{Candidate, RULE};
use crate::card::Contents;
use crate::decontaminate::{Decontaminator, EvalText, Overlap, recheck};
use crate::error::CurateError;
use crate::filters::{FilterName, Reason, judge_row, shortened};
use crate::house::house_text;
use crate::select;
use crate::settings::{Compared, Settings};
use crate::words::mix;

/// A row that was thrown out, as it came in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Thrown {
    /// By which filter.
    pub filter: FilterName,
    /// The kind of reason.
    pub kind: &'static str,
    /// What exactly.
    pub detail: String,
    /// The row.
    pub row: Candidate,
}

/// What a filter did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilterReport {
    /// The filter.
    pub name: FilterName,
    /// What it keeps.
    pub about: &'static str,
    /// False when it was left out.
    pub used: bool,
    /// Rows that reached it.
    pub rows: usize,
    /// Rows it threw out.
    pub thrown: usize,
    /// How many for each kind of reason.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Some of them, an even choice.
    pub examples: Vec<Example>,
}

/// A row that was thrown out, shortened for reading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The candidate.
    pub id: String,
    /// The problem.
    pub problem: String,
    /// The kind of reason.
    pub kind: &'static str,
    /// What exactly.
    pub detail: String,
    /// The beginning of the question.
    pub question: String,
    /// The beginning of the completion.
    pub completion: String,
}

/// What was verified once more about the rows that were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// Rows a rule judged correct again.
    pub verified: usize,
    /// Rows no rule can judge.
    pub not_judged: usize,
    /// Rows a rule judges incorrect: 0 unless the filter was left out.
    pub incorrect: usize,
    /// Evaluation texts compared with.
    pub evaluation_texts: usize,
    /// Rows that overlap with one, found without an index: 0 unless the filter was left out.
    pub overlapping: usize,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Curated {
    /// What went in.
    pub input: Contents,
    /// The rows that stay, in the house format, in the order of the input.
    pub kept: Vec<Candidate>,
    /// The rows that went, by filter.
    pub thrown: Vec<Thrown>,
    /// Every filter in order.
    pub filters: Vec<FilterReport>,
    /// What was verified once more.
    pub checks: Checks,
}

impl Curated {
    /// This and a second pass over what it kept, as one: filters that did nothing in the second pass are not listed again.
    pub fn then(mut self, second: Self) -> Self {
        self.thrown.extend(second.thrown);
        self.filters.extend(second.filters.into_iter().filter(|f| f.thrown > 0 || f.name == FilterName::Decided));
        Self { kept: second.kept, checks: second.checks, ..self }
    }
}

/// A row on its way: as it came, and as it is now.
struct Row {
    original: Candidate,
    now: Candidate,
}

/// Judges every row by rule and gives each the pass rate of its prompt, where it has none: correct samples over judged ones.
pub fn add_verdicts(rows: &mut [Candidate], settings: &Settings) {
    let place = settings.correct.place;
    rows.par_iter_mut().for_each(|row| {
        let verdict = row.judge(place).verdict;
        row.verdicts.insert(RULE.to_owned(), verdict);
    });
    let mut prompts: HashMap<_, (usize, usize)> = HashMap::new();
    for row in rows.iter() {
        let (correct, judged) = prompts.entry(row.prompt_key()).or_default();
        *correct += usize::from(row.verdicts[RULE] == Verdict::Correct);
        *judged += usize::from(row.verdicts[RULE] != Verdict::NotJudged);
    }
    let rate = |row: &Candidate| {
        let (correct, judged) = prompts[&row.prompt_key()];
        (judged > 0).then(|| correct as f64 / judged as f64)
    };
    let rates: Vec<Option<f64>> = rows.iter().map(|row| row.pass_rate.or_else(|| rate(row))).collect();
    rows.iter_mut().zip(rates).for_each(|(row, rate)| row.pass_rate = rate);
}

/// Runs the filters. `done` hears of each when it has been applied.
///
/// # Errors
/// A setting out of its range.
pub fn curate(
    mut rows: Vec<Candidate>,
    against: Vec<EvalText>,
    settings: &Settings,
    mut done: impl FnMut(&FilterReport),
) -> Result<Curated, CurateError> {
    settings.check()?;
    add_verdicts(&mut rows, settings);
    let input = Contents::of(&rows);
    let mut rows: Vec<Row> = rows.into_iter().map(|row| Row { now: row.clone(), original: row }).collect();
    let index = Decontaminator::new(against, settings.decontamination.words, settings.decontamination.common);
    let (mut thrown, mut filters) = (Vec::new(), Vec::new());
    for name in FilterName::ALL {
        let used = settings.uses(name);
        let reasons = if used { apply(name, &mut rows, &index, settings) } else { vec![None; rows.len()] };
        let before = rows.len();
        let (mut stay, from) = (Vec::with_capacity(before), thrown.len());
        for (row, reason) in rows.into_iter().zip(reasons) {
            match reason {
                None => stay.push(row),
                Some(Reason { kind, detail }) => thrown.push(Thrown { filter: name, kind, detail, row: row.original }),
            }
        }
        rows = stay;
        let report = report(name, used, before, &thrown[from..], settings);
        done(&report);
        filters.push(report);
    }
    let kept: Vec<Candidate> = rows.into_iter().map(|row| row.now).collect();
    let checks = check(&kept, index.texts(), settings);
    Ok(Curated { input, kept, thrown, filters, checks })
}

/// Verifies rows once more: by the judge, and by an exact comparison with the evaluation texts that uses no index.
pub fn check(rows: &[Candidate], against: &[EvalText], settings: &Settings) -> Checks {
    let verdicts: Vec<Verdict> = rows.par_iter().map(|row| row.judge(settings.correct.place).verdict).collect();
    let count = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
    let d = &settings.decontamination;
    let texts =
        rows.iter().map(|row| (row.problem.id.as_str(), row.problem.question.as_str(), compared_texts(row, settings)));
    Checks {
        verified: count(Verdict::Correct),
        not_judged: count(Verdict::NotJudged),
        incorrect: count(Verdict::Incorrect),
        evaluation_texts: against.len(),
        overlapping: if against.is_empty() { 0 } else { recheck(texts, against, d.words, d.common).len() },
    }
}

fn compared_texts<'a>(row: &'a Candidate, settings: &Settings) -> Vec<&'a str> {
    let question = row.problem.question.as_str();
    if settings.decontamination.completions { vec![question, row.text()] } else { vec![question] }
}

/// For each row why it goes, `None` if it stays. [`FilterName::Shape`] also rewrites.
fn apply(name: FilterName, rows: &mut [Row], index: &Decontaminator, settings: &Settings) -> Vec<Option<Reason>> {
    match name {
        FilterName::Shape => rows.par_iter_mut().map(|row| reshape(row, settings)).collect(),
        FilterName::Decontamination if index.texts().is_empty() => vec![None; rows.len()],
        FilterName::Decontamination => rows.par_iter().map(|row| overlap(&row.now, index, settings)).collect(),
        FilterName::Duplicates => duplicates(rows, settings),
        FilterName::PerPrompt => select::per_prompt(&now(rows), &settings.per_prompt, settings.seed),
        FilterName::Balance => select::balance(&now(rows), &settings.balance, settings.seed),
        _ => rows.par_iter().map(|row| judge_row(name, &row.now, settings)).collect(),
    }
}

fn now(rows: &[Row]) -> Vec<Candidate> {
    rows.iter().map(|row| row.now.clone()).collect()
}

/// Puts a row into the house format. Its text is then final: an edited one takes the completion's place.
fn reshape(row: &mut Row, settings: &Settings) -> Option<Reason> {
    let text = match house_text(&row.now, &settings.shape) {
        Ok(text) => text,
        Err(reason) => return Some(reason),
    };
    let before = row.now.verdicts.get(RULE).copied();
    row.now.completion = text;
    row.now.prefilled_think = false;
    // An edited text has been finished by a person.
    row.now.finished |= row.now.decision.edited.take().is_some();
    let after = row.now.judge(settings.correct.place).verdict;
    row.now.verdicts.insert(RULE.to_owned(), after);
    // Also a wrong answer must not become right because a summary is read more leniently than tags.
    (before != Some(after)).then(|| Reason::new("rewriting changed the verdict", &row.now.completion))
}

fn overlap(row: &Candidate, index: &Decontaminator, settings: &Settings) -> Option<Reason> {
    let texts = compared_texts(row, settings);
    let (text, overlap) = index.find(&row.problem.id, &row.problem.question, &texts)?;
    let at = format!("{} {}", text.set, text.id);
    Some(match overlap {
        Overlap::SameId => Reason::new("id of an evaluation problem", at),
        Overlap::SameQuestion => Reason::new("question of an evaluation problem", at),
        Overlap::Run(run) => Reason::new("words of an evaluation problem", format!("{at}: {run}")),
    })
}

fn duplicates(rows: &[Row], settings: &Settings) -> Vec<Option<Reason>> {
    let text = |row: &Row| match settings.duplicates.of {
        Compared::Sample => format!("{}\n{}", row.now.problem.question, row.now.text()),
        Compared::Question => row.now.problem.question.clone(),
        Compared::Completion => row.now.text().to_owned(),
    };
    let texts: Vec<String> = rows.par_iter().map(text).collect();
    let reason = |(other, similarity): (usize, f64)| {
        let kind = if similarity >= 1.0 { "same words" } else { "near-duplicate" };
        Reason::new(kind, format!("similarity {similarity:.3} to {}", rows[other].now.id))
    };
    settings.duplicates.search().find(&texts).into_iter().map(|found| found.map(reason)).collect()
}

/// Characters of question and completion in an example.
const EXCERPT: usize = 240;

fn report(name: FilterName, used: bool, rows: usize, thrown: &[Thrown], settings: &Settings) -> FilterReport {
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    thrown.iter().for_each(|t| *kinds.entry(t.kind).or_default() += 1);
    // By a hash, so that examples come from everywhere, and the same ones every time.
    let lot = |t: &&Thrown| t.row.id.bytes().fold(settings.seed, |hash, byte| mix(hash ^ u64::from(byte)));
    let mut chosen: Vec<&Thrown> = thrown.iter().collect();
    chosen.sort_by_cached_key(|t| (lot(t), t.row.id.clone()));
    let examples = chosen.into_iter().take(settings.examples).map(|t| Example {
        id: t.row.id.clone(),
        problem: t.row.problem.id.clone(),
        kind: t.kind,
        detail: t.detail.clone(),
        question: shortened(&t.row.problem.question, EXCERPT),
        completion: shortened(t.row.text(), EXCERPT),
    });
    FilterReport { name, about: name.about(), used, rows, thrown: thrown.len(), kinds, examples: examples.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::State;
    use crate::candidate::tests::sum;

    fn run(rows: Vec<Candidate>, against: Vec<EvalText>, settings: &Settings) -> Curated {
        let mut seen = 0;
        let curated = curate(rows, against, settings, |_| seen += 1).unwrap();
        assert_eq!(seen, FilterName::ALL.len());
        curated
    }

    /// One row per fault: each is thrown out by the filter that is meant for it, and its fault is in the report.
    #[test]
    fn every_filter_throws_out_what_it_is_meant_for() {
        let mut rows = vec![
            sum(1, 1, "<think>1+1=2</think> <answer>2</answer>"),
            sum(1, 2, "<think>a</think>3"),
            sum(1, 3, "<think>a"),
            sum(1, 4, "<think>a<answer>5</answer>"),
            sum(1, 5, "<think>a</think>7"),
            sum(1, 6, "<think>所以是这样</think>7"),
            sum(1, 7, &format!("<think>{}</think>8", "wait what is it ".repeat(30))),
            sum(1, 8, &format!("<think>{}</think>9", (0..600).map(|i| format!("w{i} ")).collect::<String>())),
            sum(1, 9, "<think>so\n```\n1+9\n```</think>10"),
            sum(1, 10, &format!("<think>{}</think>11", (0..600).map(|i| format!("w{i}\n")).collect::<String>())),
            sum(2, 2, "<think>a</think>4"),
            sum(1, 1, "<think>1 + 1 = 2.</think>\nThe answer is 2!"),
            sum(2, 5, "<think>b</think>7"),
            sum(2, 6, "<think>x</think>8"),
            sum(2, 6, "<think>other words here</think>so it is 8"),
        ];
        rows[1].decision.state = State::Rejected;
        rows[2].finished = false;
        rows[9].tokens = Some(900);
        rows[12].pass_rate = Some(0.05);
        let mut settings = Settings::default();
        settings.length.max_tokens = 800;
        settings.difficulty.min_pass_rate = 0.1;
        settings.per_prompt.max = 1;
        let text = "What is 2 plus 2".to_owned();
        let against = vec![EvalText { set: "s".into(), id: "0".into(), global_id: false, question: true, text }];
        let curated = run(rows.clone(), against, &settings);
        let found: Vec<(FilterName, &str)> =
            curated.thrown.iter().map(|t| (t.filter, t.row.problem.id.as_str())).collect();
        use FilterName as F;
        let wanted = [
            (F::Decided, "sum/1-2"),
            (F::Finished, "sum/1-3"),
            (F::Shape, "sum/1-4"),
            (F::Correct, "sum/1-5"),
            (F::Language, "sum/1-6"),
            (F::Repetition, "sum/1-7"),
            (F::Paragraphs, "sum/1-8"),
            (F::Code, "sum/1-9"),
            (F::Length, "sum/1-10"),
            (F::Decontamination, "sum/2-2"),
            (F::Duplicates, "sum/1-1"),
            (F::Difficulty, "sum/2-5"),
            (F::PerPrompt, "sum/2-6"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(curated.kept[0].completion, "<think>1+1=2</think>The answer is 2");
        assert_eq!(curated.kept[0].id, rows[0].id);
        assert_eq!(curated.thrown[2].row.completion, rows[3].completion, "thrown rows are as they came");
        assert_eq!(curated.checks, Checks { verified: 2, evaluation_texts: 1, ..Checks::default() });
        for report in &curated.filters {
            assert_eq!(report.kinds.values().sum::<usize>(), report.thrown);
            assert_eq!(report.examples.len(), report.thrown.min(3));
        }
        assert_eq!(curated.filters.iter().map(|f| f.thrown).sum::<usize>() + curated.kept.len(), rows.len());

        settings.skip = FilterName::ALL.to_vec();
        let all = run(rows.clone(), Vec::new(), &settings);
        assert_eq!(all.kept.len(), rows.len());
        assert!(all.checks.incorrect > 0);
    }

    #[test]
    fn pass_rates_are_those_of_the_prompt() {
        let mut rows: Vec<Candidate> =
            [7, 7, 8, 9].iter().map(|n| sum(3, 4, &format!("<think>{n}</think>{n}"))).collect();
        rows.push(sum(1, 1, "<think></think>2"));
        rows.push(Candidate { pass_rate: Some(0.25), ..rows[4].clone() });
        add_verdicts(&mut rows, &Settings::default());
        let rates: Vec<Option<f64>> = rows.iter().map(|row| row.pass_rate).collect();
        assert_eq!(rates, [0.5, 0.5, 0.5, 0.5, 1.0, 0.25].map(Some));
    }

    #[test]
    fn two_passes_are_one_report() {
        let rows: Vec<Candidate> = (0..4).map(|i| sum(i, 1, &format!("<think>{i}</think>{}", i + i / 3 + 1))).collect();
        let first = run(rows, Vec::new(), &Settings::default());
        let mut decided = first.kept.clone();
        decided[1].decision.state = State::Accepted;
        decided[2].decision.state = State::Rejected;
        let mut settings = Settings::default();
        settings.decided.required = true;
        let both = first.then(run(decided, Vec::new(), &settings));
        assert_eq!((both.kept.len(), both.thrown.len(), both.checks.verified), (1, 3, 1));
        let last = both.filters.last().unwrap();
        assert_eq!((last.name, last.rows, last.thrown), (FilterName::Decided, 3, 2));
        assert_eq!(both.filters.iter().map(|f| f.thrown).sum::<usize>(), 3);
    }

    #[test]
    fn an_edited_row_is_kept_in_its_edited_form() {
        let mut row = sum(3, 4, "<think>a</think>8");
        row.finished = false;
        row.decision.state = State::Edited;
        row.decision.edited = Some("<think>3+4=7</think>7".into());
        let curated = run(vec![row], Vec::new(), &Settings::default());
        assert_eq!(curated.kept[0].completion, "<think>3+4=7</think>7");
        assert!(curated.kept[0].finished && curated.kept[0].decision.edited.is_none());
        assert_eq!(curated.kept[0].decision.state, State::Edited);
    }
}
