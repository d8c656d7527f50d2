//! A model's answers to many questions: the traces that a student is trained on.
//!
//! The judge's machinery does the work: its cache, in a file, makes a collection that was stopped go on where it was; its
//! budget bounds requests and tokens; the endpoint tries again after temporary failures.

use crate::chat::{Chat, Reply, Turn};
use crate::judge::{Judge, NotJudged, Reason};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What became of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was answered.
    Reply(Reply),
    /// The budget was spent before its turn.
    Budget,
    /// It was not asked: collecting was stopped.
    Stopped,
}

/// Asks all questions, `concurrency` at a time; answers are in the order of the questions. `done` hears how many there
/// are. Collecting ends early when `stop` is set.
///
/// # Errors
/// The first answer that could not be had for another reason than the budget; what was answered before is in the cache.
pub fn collect(
    asker: &Judge<impl Chat>,
    questions: &[Vec<Turn>],
    concurrency: usize,
    stop: &AtomicBool,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Answer>, NotJudged> {
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failure: Mutex<Option<NotJudged>> = Mutex::new(None);
    let answers: Vec<Mutex<Answer>> = questions.iter().map(|_| Mutex::new(Answer::Stopped)).collect();
    let lock_failure = || failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..concurrency.clamp(1, questions.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && lock_failure().is_none() {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(i) else { return };
                    let answer = match asker.complete(question) {
                        Ok(reply) => Answer::Reply(reply),
                        Err(e) if e.reason == Reason::Budget => Answer::Budget,
                        Err(e) => {
                            lock_failure().get_or_insert(e);
                            return;
                        }
                    };
                    *answers[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = answer;
                    done(finished.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    match lock_failure().take() {
        Some(e) => Err(e),
        None => {
            let value = |a: Mutex<Answer>| a.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            Ok(answers.into_iter().map(value).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::chat::{Chat, ChatError, ChatRequest};
    use crate::judge::JudgeSettings;

    /// Answers with the question, but has no answer to "no".
    struct Echo(AtomicUsize);

    impl Chat for Echo {
        fn name(&self) -> &str {
            "echo"
        }

        fn complete(&self, request: &ChatRequest) -> Result<Reply, ChatError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match request.messages[0].content.as_str() {
                "no" => Err(ChatError::Permanent("refused".into())),
                text => Ok(Reply { text: format!("re: {text}"), tokens: 10, truncated: false }),
            }
        }
    }

    fn questions(texts: &[&str]) -> Vec<Vec<Turn>> {
        texts.iter().map(|t| vec![Turn::new("user", *t)]).collect()
    }

    fn ask(chat: &Echo, cache: Cache, most: Option<u64>, texts: &[&str]) -> Result<Vec<Answer>, NotJudged> {
        let settings = JudgeSettings { max_requests: most, ..JudgeSettings::default() };
        let asker = Judge::new(chat, settings, cache);
        collect(&asker, &questions(texts), 3, &AtomicBool::new(false), &|_| {})
    }

    #[test]
    fn answers_are_in_order_kept_and_within_the_budget() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        let chat = Echo(AtomicUsize::new(0));
        let text = |t: &str| Answer::Reply(Reply { text: format!("re: {t}"), tokens: 10, truncated: false });
        let all = ask(&chat, Cache::open(&path).unwrap(), Some(3), &["a", "b", "c", "d", "e"]).unwrap();
        assert_eq!(all.iter().filter(|a| **a == Answer::Budget).count(), 2);
        // Gone on with: what is known is not asked again.
        let all = ask(&chat, Cache::open(&path).unwrap(), None, &["a", "b", "c", "d", "e"]).unwrap();
        assert_eq!(all, ["a", "b", "c", "d", "e"].map(text));
        assert_eq!(chat.0.load(Ordering::Relaxed), 5);
        let problem = ask(&chat, Cache::open(&path).unwrap(), None, &["a", "no", "b"]).unwrap_err();
        assert!(problem.problem.contains("refused"));
    }

    #[test]
    fn a_stop_leaves_the_rest_unasked() {
        let chat = Echo(AtomicUsize::new(0));
        let asker = Judge::new(&chat, JudgeSettings::default(), Cache::new());
        let stop = AtomicBool::new(false);
        let all = collect(&asker, &questions(&["a"; 50]), 1, &stop, &|n| {
            if n == 2 {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(all.unwrap().iter().filter(|a| **a == Answer::Stopped).count(), 48);
    }
}
