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
    render_turns(style, &[], question)
}

/// As [`render_base`], after earlier turns: role ("user", else the assistant) and text.
pub fn render_turns(style: PromptStyle, history: &[(&str, &str)], question: &str) -> Option<String> {
    let mut prompt = match style {
        PromptStyle::Mini => String::new(),
        PromptStyle::R1Zero => format!("{R1_ZERO_PREAMBLE}\n"),
        PromptStyle::Chat => return None,
    };
    for (role, text) in history {
        prompt += &if *role == "user" { format!("User: {text}\n") } else { format!("Assistant:{text}\n") };
    }
    Some(prompt + &format!("User: {question}\nAssistant:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(render_base(PromptStyle::Mini, "7+12=?").as_deref(), Some("User: 7+12=?\nAssistant:"));
        assert_eq!(render_base(PromptStyle::Chat, "7+12=?"), None);
        let turns = [("user", "3+4=?"), ("assistant", "7")];
        let text = render_turns(PromptStyle::Mini, &turns, "add 5 to it").unwrap();
        assert_eq!(text, "User: 3+4=?\nAssistant:7\nUser: add 5 to it\nAssistant:");
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
