//! Prompts for base models. The R1-Zero preamble says what table 1 of the DeepSeek-R1 paper says, in our own words; it asks
//! for no reflection and no strategy, on purpose.

use serde::{Deserialize, Serialize};

/// How a question becomes a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptStyle {
    /// The two-line form of the miniature corpus, which has learned the tags.
    Mini,
    /// R1-Zero's: a preamble that explains the think and answer tags.
    R1Zero,
    /// The chat template of the model.
    Chat,
}

/// R1-Zero's preamble.
pub const R1_ZERO_PREAMBLE: &str = "What follows is a conversation between a User and an Assistant. The User poses a question, and the \
Assistant solves it. Before replying, the Assistant works through the reasoning in its mind, and only then tells the User the \
answer. The reasoning stands inside <think> </think> and the answer inside <answer> </answer>, like this: \
<think> the reasoning </think> <answer> the answer </answer>.";

/// The prompt text for a base model, or `None` for [`PromptStyle::Chat`], where the chat template of the model makes it.
pub fn render_base(style: PromptStyle, question: &str) -> Option<String> {
    match style {
        PromptStyle::Mini => Some(format!("User: {question}\nAssistant:")),
        PromptStyle::R1Zero => Some(format!("{R1_ZERO_PREAMBLE}\nUser: {question}\nAssistant:")),
        PromptStyle::Chat => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(render_base(PromptStyle::Mini, "7+12=?").as_deref(), Some("User: 7+12=?\nAssistant:"));
        assert_eq!(render_base(PromptStyle::Chat, "7+12=?"), None);
        let zero = render_base(PromptStyle::R1Zero, "7+12=?").unwrap();
        assert!(zero.ends_with("\nUser: 7+12=?\nAssistant:"));
        for tag in ["<think>", "</think>", "<answer>", "</answer>"] {
            assert!(zero.contains(tag), "{tag}");
        }
    }

    #[test]
    fn names_in_recipes() {
        for (style, name) in
            [(PromptStyle::Mini, "\"mini\""), (PromptStyle::R1Zero, "\"r1_zero\""), (PromptStyle::Chat, "\"chat\"")]
        {
            assert_eq!(serde_json::to_string(&style).unwrap(), name);
            assert_eq!(serde_json::from_str::<PromptStyle>(name).unwrap(), style);
        }
    }
}
