//! Chat templates against transformers' `apply_chat_template` (`tools/chat_template_reference.py`).

use aha_model::{ChatTemplate, Message, SpecialTokens};
use serde_json::{Map, Value};

#[test]
fn rendered_conversations_equal_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/chat_template.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for t in golden["templates"].as_array().unwrap() {
        let token = |key: &str| t.get(key).or_else(|| golden.get(key)).and_then(Value::as_str).map(String::from);
        let special = SpecialTokens { bos: token("bos_token"), eos: token("eos_token"), ..SpecialTokens::default() };
        let template = ChatTemplate::new(t["template"].as_str().unwrap(), special).unwrap();
        for case in t["cases"].as_array().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let mut variables = Map::new();
            for (key, value) in case.as_object().unwrap() {
                if !["messages", "rendered", "error", "add_generation_prompt", "name"].contains(&key.as_str()) {
                    variables.insert(key.clone(), value.clone());
                }
            }
            let prompt = case["add_generation_prompt"].as_bool().unwrap_or(false);
            let ours = template.render_with(&messages, prompt, &variables);
            match case.get("error").and_then(Value::as_str) {
                Some(message) => assert!(ours.unwrap_err().to_string().contains(message), "{case}"),
                None => assert_eq!(ours.unwrap(), case["rendered"].as_str().unwrap(), "{case}"),
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 12);
}
