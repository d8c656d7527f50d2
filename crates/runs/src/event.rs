//! What happens during a run, told to whoever listens: progress bars, a page, a test. Calls are direct, in the thread
//! that does the work, so a listener must be quick.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::StageStatus;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A stage begins or goes on.
    StageStarted {
        /// The stage's name.
        stage: String,
        /// What it does, e.g. `pretrain`, `grpo`.
        method: String,
        /// The step it goes on from; `None` for a fresh start.
        resumed_at: Option<u64>,
        /// Steps it will have in the end, where known.
        total_steps: Option<u64>,
    },
    /// A step is finished and recorded.
    Step {
        /// The stage's name.
        stage: String,
        /// The step, counted from 1.
        step: u64,
        /// Its metrics, in order.
        metrics: Vec<(String, f64)>,
    },
    /// Work inside a step or outside of steps went on, e.g. sequences sampled in an evaluation.
    Progress {
        /// The stage's name.
        stage: String,
        /// What is being done, e.g. `sampling`.
        activity: String,
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// A checkpoint is in place.
    CheckpointSaved {
        /// The stage's name.
        stage: String,
        /// The step it holds.
        step: u64,
        /// Its folder.
        path: PathBuf,
    },
    /// A checkpoint was evaluated.
    Evaluated {
        /// The checkpoint's name, e.g. `base`.
        checkpoint: String,
        /// The summary as JSON.
        summary: serde_json::Value,
    },
    /// A stage ended, one way or another.
    StageEnded {
        /// The stage's name.
        stage: String,
        /// How it ended.
        status: StageStatus,
        /// Seconds it took in this sitting.
        wall_s: f64,
    },
    /// Something worth telling the user that fits none of the above.
    Note {
        /// The stage's name; empty outside of stages.
        stage: String,
        /// The text.
        text: String,
    },
}

impl Event {
    /// The stage it belongs to, if it belongs to one.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::StageStarted { stage, .. }
            | Self::Step { stage, .. }
            | Self::Progress { stage, .. }
            | Self::CheckpointSaved { stage, .. }
            | Self::StageEnded { stage, .. } => Some(stage),
            Self::Note { stage, .. } => Some(stage).filter(|stage| !stage.is_empty()).map(String::as_str),
            Self::Evaluated { .. } => None,
        }
    }
}

/// Hears every event of a run.
pub trait Listener: Send + Sync {
    /// Called once per event, in order.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Listener for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// Passes events to any number of listeners. Cloning is cheap; a clone has the listeners there were at that time.
#[derive(Clone, Default)]
pub struct Broadcast {
    listeners: Vec<Arc<dyn Listener>>,
}

impl Broadcast {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a listener.
    pub fn add(&mut self, listener: Arc<dyn Listener>) {
        self.listeners.push(listener);
    }
}

impl Listener for Broadcast {
    fn event(&self, event: &Event) {
        for listener in &self.listeners {
            listener.event(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_listener_hears_everything_in_order() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut broadcast = Broadcast::new();
        for name in ["bar", "page"] {
            let heard = heard.clone();
            broadcast.add(Arc::new(move |event: &Event| {
                heard.lock().unwrap().push(format!("{name} {:?}", event.stage()));
            }));
        }
        broadcast.event(&Event::Note { stage: "rl".into(), text: "hello".into() });
        broadcast.clone().event(&Event::Note { stage: String::new(), text: "bye".into() });
        let heard = heard.lock().unwrap();
        assert_eq!(*heard, ["bar Some(\"rl\")", "page Some(\"rl\")", "bar None", "page None"]);
    }

    #[test]
    fn events_are_tagged_objects() {
        let event = Event::Step { stage: "rl".into(), step: 3, metrics: vec![("kl".into(), 0.5)] };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"kind":"step","stage":"rl","step":3,"metrics":[["kl",0.5]]}"#);
    }
}
