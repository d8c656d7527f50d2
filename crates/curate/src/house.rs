//! The house format: reasoning in think tags, then a summary that ends in the answer (DeepSeek-R1, section 2.3.1). R1-Zero's
//! completions are rewritten by rule; a person or a model may do better, and what they write passes the same checks.

use aha_tasks::extract::{ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, tagged_answer, unboxed, well_formed};
use aha_tasks::format::{r1_shape, to_house};
use aha_tasks::{Language, Reference};

use crate::candidate::Candidate;
use crate::filters::Reason;
use crate::settings::Shape;

/// The text of a candidate in the house format, opening tag included.
///
/// # Errors
/// What is wrong with its shape.
pub fn house_text(candidate: &Candidate, settings: &Shape) -> Result<String, Reason> {
    let (text, prefilled) = (candidate.text(), candidate.prefilled_think);
    if well_formed(text, prefilled) {
        if !settings.rewrite {
            return Err(Reason::new("R1-Zero's format", "shape.rewrite is off"));
        }
        let house = to_house(&candidate.problem, text, prefilled).ok_or_else(|| {
            Reason::new("answer of several lines", tagged_answer(text, prefilled).unwrap_or_default())
        })?;
        let house = if prefilled { format!("{THINK_OPEN}{house}") } else { house };
        return Ok(if settings.boxed { boxed(candidate, house) } else { house });
    }
    let tags = [THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE];
    if settings.unthinking && !prefilled && candidate.sampling.is_none() && !tags.iter().any(|tag| text.contains(tag)) {
        return Ok(format!("{THINK_OPEN}{THINK_CLOSE}{}", text.trim()));
    }
    if !r1_shape(text, prefilled) {
        return Err(misshapen(text, prefilled));
    }
    if text.contains(ANSWER_OPEN) || text.contains(ANSWER_CLOSE) {
        return Err(Reason::new("answer tags besides a summary", ""));
    }
    Ok(candidate.whole_text().trim_start().to_owned())
}

/// Mathematics at the end of the summary goes into a box, as R1's summaries end.
fn boxed(candidate: &Candidate, house: String) -> String {
    let answer = tagged_answer(candidate.text(), candidate.prefilled_think).unwrap_or_default();
    if !matches!(candidate.problem.reference, Reference::Math(_)) || answer.contains("\\boxed") {
        return house;
    }
    match house.strip_suffix(answer) {
        Some(before) => format!("{before}\\boxed{{{}}}", unboxed(answer).trim_matches('$').trim()),
        None => house,
    }
}

/// What is wrong with a text that has not R1's shape.
fn misshapen(text: &str, prefilled: bool) -> Reason {
    let (opens, closes) = (text.matches(THINK_OPEN).count(), text.matches(THINK_CLOSE).count());
    let wanted = usize::from(!prefilled);
    let count = || format!("{opens} opening and {closes} closing think tags");
    if closes == 0 {
        return Reason::new("thinking not closed", count());
    }
    if opens < wanted {
        return Reason::new("thinking not opened", count());
    }
    if opens > wanted || closes > 1 {
        return Reason::new("repeated think tags", count());
    }
    if text.split_once(THINK_CLOSE).is_some_and(|(_, after)| after.trim().is_empty()) {
        return Reason::new("nothing after the thinking", "");
    }
    Reason::new("text before the thinking", text.split(THINK_OPEN).next().unwrap_or_default())
}

/// The language as the card and the terminal name it.
pub fn language_name(language: Language) -> &'static str {
    match language {
        Language::English => "english",
        Language::Chinese => "chinese",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::tests::sum;
    use crate::filters::FilterName;
    use crate::settings::Settings;
    use aha_tasks::mini::{Family, MiniTask};
    use aha_tasks::{AnswerPlace, JudgeOptions, Split, Task, Verdict};

    fn house(text: &str) -> Result<String, Reason> {
        house_text(&sum(3, 4, text), &Shape::default())
    }

    #[test]
    fn both_shapes_end_in_one() {
        assert_eq!(house("<think>3+4=7</think> <answer>7</answer>").unwrap(), "<think>3+4=7</think>The answer is 7");
        assert_eq!(house(" <think>3+4=7</think>\nSo 7.").unwrap(), "<think>3+4=7</think>\nSo 7.");
        let mut row = sum(3, 4, "3+4=7</think>7");
        row.prefilled_think = true;
        assert_eq!(house_text(&row, &Shape::default()).unwrap(), "<think>3+4=7</think>7");
        row.completion = "3+4=7</think><answer>7</answer>".into();
        assert_eq!(house_text(&row, &Shape::default()).unwrap(), "<think>3+4=7</think>The answer is 7");
        let off = Shape { rewrite: false, ..Shape::default() };
        assert_eq!(house_text(&row, &off).unwrap_err().kind, "R1-Zero's format");
    }

    #[test]
    fn answers_of_files_may_need_no_thinking() {
        let settings = Shape { unthinking: true, ..Shape::default() };
        let mut row = sum(3, 4, "It is 7.\n");
        assert_eq!(house_text(&row, &settings).unwrap(), "<think></think>It is 7.");
        assert_eq!(house_text(&row, &Shape::default()).unwrap_err().kind, "thinking not closed");
        // Half a thought is a fault, and so is a sample without one.
        row.completion = "<think>It is 7.".into();
        assert!(house_text(&row, &settings).is_err());
        row.completion = "It is 7.".into();
        row.sampling = Some(crate::Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 9 });
        assert!(house_text(&row, &settings).is_err());
    }

    #[test]
    fn mathematics_is_boxed() {
        let mut row = sum(1, 2, "<think>so</think><answer>$\\frac{1}{2}$</answer>");
        row.problem.reference = Reference::Math("0.5".into());
        let text = house_text(&row, &Shape::default()).unwrap();
        assert_eq!(text, "<think>so</think>The answer is \\boxed{\\frac{1}{2}}");
        row.completion = text;
        assert_eq!(row.judge(AnswerPlace::Summary).verdict, Verdict::Correct);
        row.completion = "<think>so</think><answer>\\boxed{2}</answer>".into();
        assert!(house_text(&row, &Shape::default()).unwrap().ends_with("is \\boxed{2}"));
    }

    #[test]
    fn every_fault_has_its_name() {
        for (text, kind) in [
            ("7", "thinking not closed"),
            ("<think>7", "thinking not closed"),
            ("a</think>7", "thinking not opened"),
            ("<think>a<think>b</think>7", "repeated think tags"),
            ("<think>a</think>7</think>", "repeated think tags"),
            ("<think>a</think> ", "nothing after the thinking"),
            ("well <think>a</think>7", "text before the thinking"),
            ("<think>a</think>so <answer>7</answer>", "answer tags besides a summary"),
            ("<think>a</think><answer>7\n8</answer>", "answer of several lines"),
        ] {
            assert_eq!(house(text).unwrap_err().kind, kind, "{text}");
        }
    }

    /// What was right in R1-Zero's format is right in the house format, and nothing else is kept, for every family and
    /// language of the puzzles.
    #[test]
    fn only_what_was_right_before_is_kept() {
        let options = JudgeOptions { place: AnswerPlace::Tags, prefilled_think: false };
        let task = MiniTask::new("mini", 3, Family::ALL.to_vec(), 0.5, options);
        let (mut rows, mut right) = (Vec::new(), Vec::new());
        for i in 0..400 {
            let problem = task.problem(Split::Train, i).unwrap();
            for answer in
                ["0", "7", "12+3", "x", "好"].map(str::to_owned).into_iter().chain(answer_of(&problem.reference))
            {
                let completion = format!("<think>{i}</think> <answer>{answer}</answer>");
                let row = Candidate::new(problem.clone(), completion, "zero", None, rows.len());
                if task.judge(&problem, &row.completion, true).verdict == Verdict::Correct {
                    right.push(row.id.clone());
                }
                rows.push(row);
            }
        }
        let settings = Settings { skip: vec![FilterName::Duplicates], ..Settings::default() };
        let curated = crate::curate(rows, Vec::new(), &settings, |_| ()).unwrap();
        let kept: Vec<String> = curated.kept.iter().map(|row| row.id.clone()).collect();
        assert_eq!(kept, right);
        assert!(kept.len() > 200 && curated.checks.verified == kept.len(), "{}", kept.len());
        let lenient = curated.thrown.iter().filter(|t| t.kind == "rewriting changed the verdict").count();
        assert!(lenient > 0, "12+3 is read as 12 in a summary");
    }

    fn answer_of(reference: &Reference) -> Option<String> {
        match reference {
            Reference::Integer(n) => Some(n.to_string()),
            Reference::Number(text) | Reference::Text(text) | Reference::Math(text) => Some(text.clone()),
            _ => None,
        }
    }
}
