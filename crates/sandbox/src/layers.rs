//! The layers of confinement: what each is, which are active on this machine, and which a caller insists on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Limits of the kernel and of the watcher: time, memory, output, processes. Always active.
    Rlimits,
    /// A list of allowed system calls; everything else is refused.
    Seccomp,
    /// Landlock: rules for files that need no privilege.
    Landlock,
    /// A user namespace: the program's user exists nowhere else, and it has no capability anywhere.
    User,
    /// A mount namespace with its own root: only system folders and the interpreter exist, read-only.
    Mount,
    /// A process namespace per run: no other process is visible, and all of its processes end with it.
    Pid,
    /// A network namespace without any interface that is up.
    Net,
    /// A namespace for System V and POSIX messages and shared memory.
    Ipc,
    /// A user id of its own when the host runs as root.
    DropUser,
}

impl Layer {
    /// Every layer.
    pub const ALL: [Self; 9] = [
        Self::Rlimits,
        Self::Seccomp,
        Self::Landlock,
        Self::User,
        Self::Mount,
        Self::Pid,
        Self::Net,
        Self::Ipc,
        Self::DropUser,
    ];

    /// Name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rlimits => "rlimits",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::User => "user",
            Self::Mount => "mount",
            Self::Pid => "pid",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::DropUser => "drop_user",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("unknown layer {name:?}; known: {}", known.join(", "))
        })
    }
}

/// A layer that this machine does not give, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The layer.
    pub layer: Layer,
    /// The system's words.
    pub reason: String,
}

/// What a machine gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Active ones.
    pub active: Vec<Layer>,
    /// The others.
    pub missing: Vec<Missing>,
}

impl Layers {
    /// Whether a layer is active.
    pub fn has(&self, layer: Layer) -> bool {
        self.active.contains(&layer)
    }

    /// What is missing of `required`, in words; none when nothing is.
    pub fn lacks(&self, required: &Required) -> Option<String> {
        let reason = |layer: Layer| {
            let known = self.missing.iter().find(|m| m.layer == layer);
            known.map_or_else(|| format!("{layer} is not active"), |m| format!("{layer}: {}", m.reason))
        };
        let list = match required {
            Required::Nothing => return None,
            Required::Default => {
                let mut lacking: Vec<String> =
                    [Layer::Rlimits, Layer::Seccomp].into_iter().filter(|l| !self.has(*l)).map(reason).collect();
                if !self.has(Layer::Mount) && !self.has(Layer::Landlock) {
                    lacking.push(format!("neither {} nor {}", reason(Layer::Mount), reason(Layer::Landlock)));
                }
                if self.missing.iter().any(|m| m.layer == Layer::DropUser) {
                    lacking.push(reason(Layer::DropUser));
                }
                lacking
            }
            Required::These(layers) => layers.iter().copied().filter(|l| !self.has(*l)).map(reason).collect(),
        };
        (!list.is_empty()).then(|| list.join("; "))
    }
}

/// Which layers must be active for anything to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Required {
    /// Limits and seccomp, one of mount namespace and Landlock, and never as root.
    #[default]
    Default,
    /// Exactly these, at least.
    These(Vec<Layer>),
    /// Whatever there is: for programs that are trusted anyway.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
        let mut layers = Layers { active: vec![Layer::Rlimits, Layer::Seccomp, Layer::Landlock], missing: vec![] };
        assert_eq!(layers.lacks(&Required::Default), None);
        layers.active.pop();
        layers.missing.push(Missing { layer: Layer::Landlock, reason: "not in this kernel".into() });
        let words = layers.lacks(&Required::Default).unwrap();
        assert!(words.contains("not in this kernel") && words.contains("mount"), "{words}");
        assert!(layers.lacks(&Required::These(vec![Layer::Net])).is_some());
        assert_eq!(layers.lacks(&Required::Nothing), None);
        assert!("nett".parse::<Layer>().unwrap_err().contains("known: rlimits"));
    }
}
