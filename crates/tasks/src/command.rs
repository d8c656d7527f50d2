//! A reward by a program of the user's: JSON lines in, JSON lines out, in TRL's manner.
//!
//! The program is started once and kept. For every completion it reads one line,
//! `{"prompt", "completion", "family", "language", "finished", "tokens", "reference", ...}` with the columns of the data set
//! beside them, and writes one line: a number, or null where the reward does not apply, or `{"reward": ...}`. A program that takes longer than its
//! time, ends, or writes anything else is killed and started anew; what it had been asked is not judged.

use crate::reward::Rewarded;
use crate::scorer::Scorer;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A reward by a program.
pub struct CommandReward {
    command: Vec<String>,
    timeout: Duration,
    /// Programs that wait for work; as many run as threads ask at once.
    idle: Mutex<Vec<Running>>,
    /// What went wrong first.
    problem: Mutex<Option<String>>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl CommandReward {
    /// Starts the program once to see that it can be.
    ///
    /// # Errors
    /// An empty command, a program that cannot be started.
    pub fn new(command: Vec<String>, timeout: Duration) -> Result<Self, String> {
        let reward = CommandReward { command, timeout, idle: Mutex::default(), problem: Mutex::default() };
        let first = reward.start()?;
        reward.give_back(first);
        Ok(reward)
    }

    /// What went wrong first, if anything did.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self) -> Result<Running, String> {
        let (program, arguments) = self.command.split_first().ok_or("the command is empty")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("`{program}` cannot be started: {e}"))?;
        let input = child.stdin.take().expect("it was piped");
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        let (send, lines) = channel();
        // Ends with the program's output.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Running { child, input, lines })
    }

    fn give_back(&self, running: Running) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(running);
    }

    fn ask(&self, running: &mut Running, completion: &Rewarded<'_>) -> Result<Option<f64>, String> {
        let line = request(completion).to_string() + "\n";
        let deadline = Instant::now() + self.timeout;
        let sent = running.input.write_all(line.as_bytes()).and_then(|()| running.input.flush());
        sent.map_err(|e| format!("it does not read: {e}"))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let said = running.lines.recv_timeout(left).map_err(|e| match e {
            std::sync::mpsc::RecvTimeoutError::Timeout => format!("no answer within {:?}", self.timeout),
            std::sync::mpsc::RecvTimeoutError::Disconnected => "it ended".to_owned(),
        })?;
        let value: Value = serde_json::from_str(&said).map_err(|e| format!("it wrote {said:?}: {e}"))?;
        let value = value.get("reward").unwrap_or(&value);
        match value {
            Value::Null => Ok(None),
            Value::Number(n) => Ok(n.as_f64()),
            Value::Bool(right) => Ok(Some(f64::from(u8::from(*right)))),
            other => Err(format!("it wrote {other}, which is neither a number nor null")),
        }
    }
}

impl Scorer for CommandReward {
    fn score(&self, completions: &[Rewarded<'_>]) -> Vec<Option<f64>> {
        let mut running = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scores = Vec::with_capacity(completions.len());
        for completion in completions {
            let asked = match running.take().map_or_else(|| self.start(), Ok) {
                Ok(mut program) => {
                    let said = self.ask(&mut program, completion);
                    if said.is_ok() {
                        running = Some(program);
                    }
                    said
                }
                Err(problem) => Err(problem),
            };
            scores.push(asked.unwrap_or_else(|problem| {
                let mut first = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{}: {problem}", self.command.join(" ")));
                None
            }));
        }
        if let Some(program) = running {
            self.give_back(program);
        }
        scores
    }
}

/// What the program reads of a completion.
fn request(of: &Rewarded<'_>) -> Value {
    let mut row: Map<String, Value> = of.problem.columns.clone();
    row.insert("prompt".into(), of.problem.question.clone().into());
    row.insert("completion".into(), of.completion.into());
    row.insert("family".into(), of.problem.family.clone().into());
    row.insert("language".into(), json!(of.problem.language));
    row.insert("finished".into(), of.finished.into());
    row.insert("tokens".into(), of.tokens.into());
    row.insert("verdict".into(), json!(of.judgement.verdict));
    row.insert("reference".into(), json!(of.problem.reference));
    Value::Object(row)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::problem::{Judgement, Language, Problem, Reference, Verdict};

    fn scores(script: &str, timeout: f64, completions: &[&str]) -> (Vec<Option<f64>>, Option<String>) {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let reward = CommandReward::new(command, Duration::from_secs_f64(timeout)).expect("sh is there");
        let columns = Map::from_iter([("hint".to_owned(), json!("h7"))]);
        let problem = Problem {
            id: "x".into(),
            family: "f".into(),
            language: Language::English,
            question: "q".into(),
            reference: Reference::Integer(1),
            columns,
        };
        let judgement =
            Judgement { verdict: Verdict::Correct, lenient_verdict: Verdict::Correct, answer: None, format: true };
        let of: Vec<Rewarded> = completions
            .iter()
            .map(|completion| Rewarded {
                problem: &problem,
                completion,
                judgement: &judgement,
                prefilled_think: false,
                finished: true,
                tokens: 3,
                max_tokens: 9,
            })
            .collect();
        let scores = reward.score(&of);
        (scores, reward.problem())
    }

    #[test]
    fn numbers_and_nothing() {
        let script = r#"while read -r line; do case "$line" in
            *'"completion":"a"'*) echo 1.5;; *'"completion":"b"'*) echo null;; *h7*) echo '{"reward": -2}';; esac; done"#;
        assert_eq!(scores(script, 5.0, &["a", "b", "c"]), (vec![Some(1.5), None, Some(-2.0)], None));
    }

    #[test]
    fn a_program_that_hangs_ends_or_babbles_is_started_anew() {
        // Hangs at x, and is needed again afterwards.
        let hangs = r#"while read -r line; do case "$line" in *'"completion":"x"'*) sleep 60;; *) echo 1;; esac; done"#;
        let begin = Instant::now();
        let (got, problem) = scores(hangs, 0.3, &["a", "x", "b"]);
        assert_eq!(got, [Some(1.0), None, Some(1.0)]);
        assert!(problem.unwrap().contains("no answer within") && begin.elapsed() < Duration::from_secs(20));
        let (got, problem) = scores("read -r line; echo 1", 5.0, &["a", "b", "c"]);
        assert_eq!((got[0], got[1]), (Some(1.0), None));
        assert!(problem.is_some());
        let (got, problem) = scores("while read -r line; do echo fine; done", 5.0, &["a"]);
        assert_eq!(got, [None]);
        assert!(problem.unwrap().contains("fine"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let missing = CommandReward::new(vec!["/no/such/program".into()], Duration::from_secs(1));
        assert!(missing.err().unwrap().contains("/no/such/program"));
        assert!(CommandReward::new(Vec::new(), Duration::from_secs(1)).is_err());
    }
}
