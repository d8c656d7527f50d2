//! The conversation about candidates: shows one, reads a command, writes the decision, shows the next.

use super::editor;
use crate::output::{Output, note};
use aha_curate::{Candidate, CandidateStore, Decision, Settings, State, house_text, language_name};
use aha_runs::unix_now;
use aha_tasks::{Reference, Verdict};
use std::io::{BufRead, Write};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was shown.
    Done,
    /// The person left, or the input ended.
    Quit,
}

const HELP: &str = "\
a [NOTE]   accept as it is
e          edit in $VISUAL or $EDITOR; the edited text is judged again
r REASON   reject, with a reason
s          skip: it stays new and comes again next time
u          undo the last decision
q          quit; everything decided so far is saved";

/// A session over the new candidates of a store.
pub struct Session<'a, R> {
    store: &'a mut CandidateStore,
    who: &'a str,
    output: Output,
    input: R,
    /// Ids of what was new at the beginning.
    queue: Vec<String>,
    /// Place in the queue and decision before, newest last.
    undo: Vec<(usize, Decision)>,
    settings: Settings,
}

impl<'a, R: BufRead> Session<'a, R> {
    /// `who` decides, by the commands of `input`.
    pub fn new(store: &'a mut CandidateStore, who: &'a str, output: Output, input: R) -> Self {
        let new = |row: &&Candidate| row.decision.state == State::New;
        let queue = store.candidates().iter().filter(new).map(|row| row.id.clone()).collect();
        Session { store, who, output, input, queue, undo: Vec::new(), settings: Settings::default() }
    }

    /// Until everything was shown, the person quits or the input ends.
    ///
    /// # Errors
    /// A decision that cannot be written.
    pub fn run(&mut self) -> anyhow::Result<End> {
        let mut at = 0;
        let mut shown = None;
        while at < self.queue.len() {
            let Some(row) = self.store.get(&self.queue[at]) else { break };
            let row = row.clone();
            if shown != Some(at) {
                self.output.text(self.page(&row, at));
                shown = Some(at);
            }
            let Some(line) = self.ask("accept, edit, reject REASON, skip, undo, quit (a e r s u q, ? for help)? ")?
            else {
                return Ok(End::Quit);
            };
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
            let rest = rest.trim();
            match word {
                "a" | "accept" => at = self.decide(at, State::Accepted, rest, None)?,
                "r" | "reject" => match self.reason(rest)? {
                    Some(reason) => at = self.decide(at, State::Rejected, &reason, None)?,
                    None => note("not rejected: a reason is needed, for example: r skips a step"),
                },
                "e" | "edit" => {
                    if let Some(text) = self.edit(&row)? {
                        at = self.decide(at, State::Edited, rest, Some(text))?;
                    }
                }
                "s" | "skip" => at += 1,
                "u" | "undo" => match self.undo.pop() {
                    Some((place, before)) => {
                        self.store.decide(&self.queue[place], before)?;
                        (at, shown) = (place, None);
                    }
                    None => note("there is nothing to undo in this session"),
                },
                "q" | "quit" => return Ok(End::Quit),
                "?" | "h" | "help" => self.output.text(HELP),
                "" => {}
                other => note(format!("unknown command {other:?}; ? shows all")),
            }
        }
        Ok(End::Done)
    }

    /// Asks for a line; `None` at the end of the input.
    fn ask(&mut self, question: &str) -> anyhow::Result<Option<String>> {
        // On stderr, so that stdout holds what was shown and nothing else.
        let mut err = std::io::stderr();
        let _ = write!(err, "{question}").and_then(|()| err.flush());
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            note("");
            return Ok(None);
        }
        Ok(Some(line.trim().to_owned()))
    }

    fn reason(&mut self, given: &str) -> anyhow::Result<Option<String>> {
        let reason = if given.is_empty() { self.ask("reason? ")?.unwrap_or_default() } else { given.to_owned() };
        Ok(Some(reason).filter(|reason| !reason.is_empty()))
    }

    /// Writes a decision; gives the next place.
    fn decide(&mut self, at: usize, state: State, reason: &str, edited: Option<String>) -> anyhow::Result<usize> {
        let id = self.queue[at].clone();
        let before = self.store.get(&id).map(|row| row.decision.clone()).unwrap_or_default();
        let (reason, who, when) = (reason.to_owned(), self.who.to_owned(), Some(unix_now()));
        self.store.decide(&id, Decision { state, reason, edited, who, when })?;
        self.undo.push((at, before));
        Ok(at + 1)
    }

    /// The text as the person leaves it; `None` when it is to stay as it was.
    fn edit(&mut self, row: &Candidate) -> anyhow::Result<Option<String>> {
        let mut text = row.text().to_owned();
        loop {
            match editor::edit(&text, &row.id) {
                Ok(edited) => text = edited,
                Err(error) => {
                    note(format!("{error:#}"));
                    return Ok(None);
                }
            }
            if text == row.text() {
                note("nothing was changed; the candidate is still new");
                return Ok(None);
            }
            let mut edited = row.clone();
            edited.decision.edited = Some(text.clone());
            let Some(problem) = self.problem(&edited) else { return Ok(Some(text)) };
            note(format!("the edited text {problem}; `aha curate` will throw it out"));
            match self.ask("keep it so, edit again or drop the changes (k e d)? ")?.as_deref() {
                Some("k" | "keep") => return Ok(Some(text)),
                Some("e" | "edit") => {}
                _ => {
                    note("the changes were dropped; the candidate is still new");
                    return Ok(None);
                }
            }
        }
    }

    /// What is wrong with a text, if a rule can tell.
    fn problem(&self, row: &Candidate) -> Option<String> {
        if let Err(fault) = house_text(row, &self.settings.shape) {
            return Some(format!("has not R1's shape ({})", fault.kind));
        }
        let wrong = row.judge(self.settings.correct.place).verdict == Verdict::Incorrect;
        wrong.then(|| "is judged incorrect".to_owned())
    }

    /// One candidate as it is shown.
    fn page(&self, row: &Candidate, at: usize) -> String {
        let mut about = vec![row.id.clone(), row.problem.id.clone(), language_name(row.problem.language).to_owned()];
        about.extend((!row.source.is_empty()).then(|| format!("from {}", row.source)));
        about.extend(row.tokens.map(|tokens| format!("{tokens} tokens")));
        about.extend((!row.finished).then(|| "cut off".to_owned()));
        about.extend(row.pass_rate.map(|rate| format!("pass rate {rate:.2}")));
        let mut page = format!("\n[{}/{}] {}\n\nprompt\n", at + 1, self.queue.len(), about.join("  "));
        for (role, text) in aha_tasks::mini::history(&row.problem) {
            page += &indented(&format!("{role}: {text}"));
        }
        page += &indented(&row.problem.question);
        match row.thought() {
            Some(thought) => {
                page += &format!("\nreasoning\n{}\nanswer\n{}", indented(thought), indented(row.answer()));
            }
            None => page += &format!("\ncompletion, without think tags\n{}", indented(row.text())),
        }
        let verdict = match row.judge(self.settings.correct.place).verdict {
            Verdict::Correct => "correct",
            Verdict::Incorrect => "incorrect",
            Verdict::NotJudged => "no rule can judge it",
        };
        page += &format!("\nverdict  {verdict}{}", wanted(&row.problem.reference));
        let others = row.verdicts.iter().filter(|(judge, _)| *judge != aha_curate::RULE);
        for (judge, verdict) in others {
            page += &format!("; {judge}: {}", serde_json::to_string(verdict).unwrap_or_default().trim_matches('"'));
        }
        if let Err(fault) = house_text(row, &self.settings.shape) {
            page += &format!("\nshape    {}", fault.kind);
        }
        page
    }
}

/// The reference as people read it.
fn wanted(reference: &Reference) -> String {
    reference.in_words().map_or(String::new(), |words| format!(" (reference {words})"))
}

fn indented(text: &str) -> String {
    text.trim().lines().map(|line| format!("  {line}\n")).collect()
}
