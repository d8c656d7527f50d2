//! Splits what a reasoning model writes, as it comes, into the reasoning between `<think>` and `</think>`
//! and the answer after it (R1's output format). Tags may arrive in pieces. The opening tag counts only at
//! the beginning; where the prompt already ends with it (`prefilled`), the text begins inside the reasoning.
//! White space around the reasoning, and before the answer that follows it, is dropped. Without a closing
//! tag everything is reasoning; the same text gives the same parts however it is cut into chunks.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThinkEvent {
    /// More of the reasoning.
    Reasoning(String),
    /// The closing tag: the reasoning is complete.
    Closed,
    /// More of the answer.
    Answer(String),
}

/// How the reasoning ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThinkStatus {
    /// There was none: all text is answer.
    Absent,
    /// It was closed.
    Closed,
    /// The output ended inside it (cut off): there is no answer.
    Unclosed,
}

/// Reasoning and answer of a whole output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thought {
    /// The reasoning; empty where there is none.
    pub reasoning: String,
    /// The answer; empty where the output ended before it.
    pub answer: String,
    /// How the reasoning ended.
    pub status: ThinkStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space or a piece of the opening tag so far.
    Start,
    /// Inside; `true` once some reasoning has been given out.
    Reasoning(bool),
    /// After the closing tag, white space only so far.
    Gap,
    Answer,
}

/// The streaming parser: [`push`](ThinkParser::push) chunks, then [`finish`](ThinkParser::finish).
#[derive(Debug, Clone)]
pub struct ThinkParser {
    state: State,
    prefilled: bool,
    closed: bool,
    /// Text that cannot be judged yet.
    held: String,
}

impl ThinkParser {
    /// A parser; `prefilled` says that the prompt ended inside the reasoning (see [`prefills_think`]).
    pub fn new(prefilled: bool) -> Self {
        ThinkParser { state: State::Start, prefilled, closed: false, held: String::new() }
    }

    /// Takes a chunk and returns what became certain.
    pub fn push(&mut self, chunk: &str) -> Vec<ThinkEvent> {
        self.held.push_str(chunk);
        let mut events = vec![];
        while self.step(&mut events) {}
        events
    }

    /// Ends the output: what was held back, and how the reasoning ended.
    pub fn finish(mut self) -> (Vec<ThinkEvent>, ThinkStatus) {
        let mut events = vec![];
        if self.state == State::Start {
            self.leave_start();
        }
        let status = match self.state {
            State::Reasoning(begun) => {
                let text = self.held.trim_end();
                let text = if begun { text } else { text.trim_start() };
                give(&mut events, ThinkEvent::Reasoning, text);
                ThinkStatus::Unclosed
            }
            State::Answer => {
                give(&mut events, ThinkEvent::Answer, &self.held);
                if self.closed { ThinkStatus::Closed } else { ThinkStatus::Absent }
            }
            State::Start | State::Gap => ThinkStatus::Closed,
        };
        (events, status)
    }

    /// Without an opening tag, the prompt decides where the text begins.
    fn leave_start(&mut self) {
        self.state = if self.prefilled { State::Reasoning(false) } else { State::Answer };
    }

    /// Consumes what can be judged; true if the state changed and there may be more.
    fn step(&mut self, events: &mut Vec<ThinkEvent>) -> bool {
        match self.state {
            State::Start => {
                let text = self.held.trim_start();
                if let Some(rest) = text.strip_prefix(OPEN) {
                    self.held = rest.to_owned();
                    self.state = State::Reasoning(false);
                    true
                } else if OPEN.starts_with(text) {
                    false
                } else {
                    self.leave_start();
                    true
                }
            }
            State::Reasoning(begun) => {
                if !begun {
                    self.held = self.held.trim_start().to_owned();
                }
                if let Some(at) = self.held.find(CLOSE) {
                    give(events, ThinkEvent::Reasoning, self.held[..at].trim_end());
                    events.push(ThinkEvent::Closed);
                    self.held.drain(..at + CLOSE.len());
                    self.closed = true;
                    self.state = State::Gap;
                    return true;
                }
                // White space before a tag is dropped, so both wait until it is known not to be one.
                let partial = (1..CLOSE.len()).rev().find(|&n| self.held.ends_with(&CLOSE[..n])).unwrap_or(0);
                let sure = self.held[..self.held.len() - partial].trim_end().len();
                if sure > 0 {
                    give(events, ThinkEvent::Reasoning, &self.held[..sure]);
                    self.held.drain(..sure);
                    self.state = State::Reasoning(true);
                }
                false
            }
            State::Gap => {
                self.held = self.held.trim_start().to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Answer;
                true
            }
            State::Answer => {
                give(events, ThinkEvent::Answer, &self.held);
                self.held.clear();
                false
            }
        }
    }
}

fn give(events: &mut Vec<ThinkEvent>, event: fn(String) -> ThinkEvent, text: &str) {
    if !text.is_empty() {
        events.push(event(text.to_owned()));
    }
}

/// Splits a whole output; see [`ThinkParser`].
pub fn split_thought(text: &str, prefilled: bool) -> Thought {
    let mut parser = ThinkParser::new(prefilled);
    let mut events = parser.push(text);
    let (rest, status) = parser.finish();
    events.extend(rest);
    let mut thought = Thought { reasoning: String::new(), answer: String::new(), status };
    for event in events {
        match event {
            ThinkEvent::Reasoning(text) => thought.reasoning += &text,
            ThinkEvent::Answer(text) => thought.answer += &text,
            ThinkEvent::Closed => {}
        }
    }
    thought
}

/// Whether a prompt ends inside the reasoning, because its template writes the opening tag itself.
pub fn prefills_think(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}
