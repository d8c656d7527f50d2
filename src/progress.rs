//! Progress of a run on stderr: a bar per stage on a terminal, otherwise a line every twentieth of a stage.

use crate::output::note;
use crate::table::{duration, number, with_error};
use aha_engine::Control;
use aha_eval::EvalSummary;
use aha_runs::{Event, Listener, StageStatus};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines per stage when there is no terminal.
const LINES: u64 = 20;
/// How often a bar without steps moves.
const TICK: Duration = Duration::from_millis(200);

/// Metrics worth a place on one line: name in the log, short name, digits.
const SHOWN: [(&str, &str, usize); 7] = [
    ("eval_loss", "validation", 3),
    ("reward", "reward", 3),
    ("accuracy", "accuracy", 3),
    ("rewards/format/mean", "format", 3),
    ("completions/mean_length", "length", 0),
    ("kl", "kl", 4),
    ("tokens_per_second", "tokens/s", 0),
];

/// The listener that draws.
pub struct Progress {
    terminal: bool,
    stage: Mutex<Option<Stage>>,
}

/// The stage at work.
struct Stage {
    bar: Option<ProgressBar>,
    name: String,
    total: Option<u64>,
    first: u64,
    begin: Instant,
}

impl Progress {
    /// Bars where stderr is a terminal.
    pub fn new() -> Self {
        Progress { terminal: std::io::stderr().is_terminal(), stage: Mutex::new(None) }
    }

    /// Takes a bar that an error or a stop left away.
    pub fn close(&self) {
        if let Some(Stage { bar: Some(bar), .. }) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stage>> {
        // A poisoned lock only means that a thread died; what is drawn is still whole.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, stage: Option<&Stage>, text: &str) {
        match stage.and_then(|s| s.bar.as_ref()) {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    fn start(&self, name: &str, method: &str, resumed_at: Option<u64>, total: Option<u64>) {
        let first = resumed_at.unwrap_or(0);
        let bar = self.terminal.then(|| {
            let (bar, template) = match total {
                Some(total) if method != "eval" => {
                    (ProgressBar::new(total), "{prefix} [{bar:24}] {pos}/{len} {msg}  {eta} left")
                }
                _ => (ProgressBar::new_spinner(), "{prefix} {spinner} {elapsed} {msg}"),
            };
            bar.with_style(style(template)).with_prefix(name.to_owned()).with_position(first)
        });
        if let Some(bar) = &bar {
            // The time left is to be told from the steps of this sitting.
            bar.reset_eta();
            bar.enable_steady_tick(TICK);
        } else {
            let steps = total.filter(|_| method != "eval").map_or(String::new(), |n| format!(", {n} steps"));
            let from = resumed_at.map_or(String::new(), |s| format!(", resumed after step {s}"));
            note(format!("{name}: {method}{steps}{from}"));
        }
        *self.lock() = Some(Stage { bar, name: name.to_owned(), total, first, begin: Instant::now() });
    }

    fn step(&self, step: u64, metrics: &[(String, f64)]) {
        let guard = self.lock();
        let Some(stage) = guard.as_ref() else { return };
        let text = describe(metrics);
        if let Some(bar) = &stage.bar {
            bar.set_position(step);
            bar.set_message(text);
            return;
        }
        let total = stage.total.unwrap_or(step).max(1);
        let every = total.div_ceil(LINES);
        if step.is_multiple_of(every) || step == total {
            let done = step.saturating_sub(stage.first).max(1);
            let left = stage.begin.elapsed().as_secs_f64() / done as f64 * total.saturating_sub(step) as f64;
            note(format!("{} {step}/{total}  {text}  {} left", stage.name, duration(left)));
        }
    }
}

impl Listener for Progress {
    fn event(&self, event: &Event) {
        match event {
            Event::StageStarted { stage, method, resumed_at, total_steps } => {
                self.start(stage, method, *resumed_at, *total_steps);
            }
            Event::Step { step, metrics, .. } => self.step(*step, metrics),
            Event::Progress { activity, done, total, .. } => {
                if let Some(Stage { bar: Some(bar), .. }) = self.lock().as_ref() {
                    bar.set_message(format!("{activity} {done}/{total}"));
                }
            }
            Event::Evaluated { checkpoint, summary } => {
                let Ok(e) = serde_json::from_value::<EvalSummary>(summary.clone()) else { return };
                self.line(self.lock().as_ref(), &evaluation(checkpoint, &e));
            }
            Event::StageEnded { stage, status, wall_s } => {
                self.close();
                match status {
                    StageStatus::Finished => note(format!("{stage}: finished in {}", duration(*wall_s))),
                    other => note(format!("{stage}: {} after {}", other.as_str(), duration(*wall_s))),
                }
            }
            Event::Note { stage, text } if stage.is_empty() => self.line(self.lock().as_ref(), text),
            Event::Note { stage, text } => self.line(self.lock().as_ref(), &format!("{stage}: {text}")),
            Event::CheckpointSaved { .. } => {}
        }
    }
}

/// An evaluation in one line.
pub fn evaluation(name: &str, e: &EvalSummary) -> String {
    let m = &e.overall;
    format!(
        "{name}: pass@1 {}  greedy {}  cons@16 {}  format {}  tokens {}  reflective words {}",
        with_error(m.pass_at_1, m.pass_at_1_se),
        number(m.greedy_pass_at_1),
        number(m.cons_at_16),
        number(m.format_rate),
        m.mean_response_tokens.map_or("-".into(), |v| format!("{v:.1}")),
        number(m.reflective_words),
    )
}

/// The numbers of a step in one line. The loss of reinforcement learning says nothing, so only a loss that comes without
/// rewards is shown.
fn describe(metrics: &[(String, f64)]) -> String {
    let find = |name: &str| metrics.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let mut text = String::new();
    if let (Some(loss), None) = (find("loss"), find("reward")) {
        text = format!("loss {loss:.3} ");
    }
    for (name, short, digits) in SHOWN {
        if let Some(v) = find(name) {
            let _ = write!(text, " {short} {v:.digits$} ");
        }
    }
    text.trim().to_owned()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates here are well-formed").progress_chars("=> ")
}

/// A line that counts the engine's tokens while it works; nothing where stderr is no terminal.
pub struct Counter {
    bar: Option<ProgressBar>,
}

impl Counter {
    /// Starts to count.
    pub fn start(what: &str, control: &Arc<Control>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let control = control.clone();
            let rate = move |state: &ProgressState, out: &mut dyn Write| {
                let tokens = control.tokens.load(Ordering::Relaxed);
                let _ = write!(
                    out,
                    "{tokens} tokens, {:.0} tokens/s",
                    tokens as f64 / state.elapsed().as_secs_f64().max(1e-3)
                );
            };
            let bar = ProgressBar::new_spinner();
            bar.set_style(style("{prefix} {spinner} {elapsed} {tokens}").with_key("tokens", rate));
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        Counter { bar }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_one_line() {
        let step =
            |pairs: &[(&str, f64)]| describe(&pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<Vec<_>>());
        assert_eq!(step(&[("loss", 2.5), ("tokens_per_second", 1234.4)]), "loss 2.500  tokens/s 1234");
        assert_eq!(step(&[("loss", 0.1), ("reward", 0.5), ("kl", 0.002)]), "reward 0.500  kl 0.0020");
    }
}
