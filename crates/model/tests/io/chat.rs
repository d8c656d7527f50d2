//! Chat templates: small ones of the shapes that Qwen2.5, Llama 3 and R1 use.

use aha_model::{ChatTemplate, Message, SpecialTokens};
use serde_json::json;

fn special() -> SpecialTokens {
    SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() }
}

fn talk(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

fn render(source: &str, turns: &[(&str, &str)], generate: bool) -> String {
    ChatTemplate::new(source, special()).and_then(|t| t.render(&talk(turns), generate)).unwrap()
}

/// Qwen2.5's shape: a default system turn, tools absent, one line per turn.
const QWEN: &str = r#"{%- if tools %}
    {{- "TOOLS " + (tools | tojson) }}
{%- elif messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\nDefault.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

#[test]
fn qwen_shape() {
    assert_eq!(
        render(QWEN, &[("user", "Hi {{ x }}")], true),
        "<|im_start|>system\nDefault.<|im_end|>\n<|im_start|>user\nHi {{ x }}<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(QWEN, &[("system", "S"), ("user", "1 < 2 & \"3\""), ("assistant", "ok\n")], false),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1 < 2 & \"3\"<|im_end|>\n<|im_start|>assistant\nok\n<|im_end|>\n"
    );
    let with_tools = ChatTemplate::new(QWEN, special())
        .unwrap()
        .render_with(&talk(&[]), false, json!({"tools": [{"name": "f<1>", "n": [1, 2.5, null]}]}).as_object().unwrap())
        .unwrap();
    assert_eq!(with_tools, r#"TOOLS [{"name": "f<1>", "n": [1, 2.5, null]}]"#);
}

/// Llama 3's shape: bos, headers, `trim`, a date, slicing off the system turn.
const LLAMA: &str = r#"{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|h|>system<|/h|>\n\n" }}
{%- if tools is not none %}
    {{- "tools" }}
{%- endif %}
{{- "Today: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|h|>' + message['role'] + '<|/h|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|h|>assistant<|/h|>\n\n' }}
{%- endif %}
"#;

#[test]
fn llama_shape_with_a_fixed_clock() {
    let template = ChatTemplate::new(LLAMA, special()).unwrap().with_clock(Some(1_721_999_999));
    assert_eq!(
        template.render(&talk(&[("system", " S \n"), ("user", " u ")]), true).unwrap(),
        "<s><|h|>system<|/h|>\n\nToday: 26 Jul 2024\n\nS<|eot|><|h|>user<|/h|>\n\nu<|eot|><|h|>assistant<|/h|>\n\n"
    );
}

/// R1's shape: a namespace, `split` on the closing tag so that history holds no reasoning, a prefilled tag.
const R1: &str = r#"{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(system='', first=true) %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {%- set ns.system = ns.system + ('' if ns.first else '\n\n') + message['content'].strip() %}
        {%- set ns.first = false %}
    {%- endif %}
{%- endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<U>' + message['content'] }}
    {%- elif message['role'] == 'assistant' %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<A>' + content + eos_token }}
    {%- elif message['role'] != 'system' %}
        {{- raise_exception('unknown role ' + message['role']) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<A><think>\n' }}{% endif %}"#;

#[test]
fn r1_shape_drops_earlier_reasoning() {
    assert_eq!(
        render(
            R1,
            &[
                ("system", " one "),
                ("system", "two"),
                ("user", "q"),
                ("assistant", "<think>\nlong\n</think>\n\nshort"),
                ("user", "r"),
            ],
            true
        ),
        "<s>one\n\ntwo<U>q<A>short</s><U>r<A><think>\n"
    );
}

#[test]
fn a_raised_exception_is_the_error() {
    let template = ChatTemplate::new(R1, special()).unwrap();
    let message = template.render(&talk(&[("judge", "x")]), false).unwrap_err().to_string();
    assert!(message.contains("unknown role judge"), "{message}");
    let message = ChatTemplate::new("a\n{% for %}", special()).unwrap_err().to_string();
    assert!(message.contains(":2"), "{message}");
}

#[test]
fn blocks_and_newlines_are_trimmed_as_in_transformers() {
    let source = "{% for m in messages %}\n    {% if loop.last %}\n  {{ m.content }}\n    {% endif %}\n{% endfor %}\n";
    assert_eq!(render(source, &[("user", "a"), ("user", "b")], false), "  b\n");
}

#[test]
fn python_idioms_of_real_templates() {
    let turns = [("user", "a,b"), ("assistant", "xay")];
    for (source, wanted) in [
        ("{{ messages[::-1][0].content }}", "xay"),
        ("{{ messages[-1]['content'].replace('a', 'b').upper() }}", "XBY"),
        ("{{ messages[0].content.split(',')[1] }}", "b"),
        ("{{ messages[0].content.startswith('a') }}", "True"),
        ("{% if messages[0].content is string %}s{% endif %}", "s"),
        ("{{ messages[0].get('name', 'none') }}", "none"),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=a,b;"),
        ("{{ messages[0].nothing }}|{{ undefined_name }}", "|"),
        ("{{ (messages|length) - loop_start|default(1) }}", "1"),
        ("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0].role) }}", "[user]"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{% endfor %}", "0"),
        ("{{ '%s-%s' | format('a', 1) }}", "a-1"),
        ("{{ {'a': 'ü<'} | tojson }}", "{\"a\": \"ü<\"}"),
        ("{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "user"),
        ("{{ add_generation_prompt }}", "False"),
    ] {
        assert_eq!(render(source, &turns, false), wanted, "{source}");
    }
}

#[test]
fn found_in_tokenizer_configs() {
    let text = json!({"chat_template": "{{ bos_token }}!", "bos_token": {"content": "<b>"}}).to_string();
    let template = ChatTemplate::from_config_json(&text).unwrap().unwrap();
    assert_eq!(template.render(&[], false).unwrap(), "<b>!");
    let named = json!({"chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]});
    let template = ChatTemplate::from_config_json(&named.to_string()).unwrap().unwrap();
    assert_eq!(template.source(), "yes");
    assert!(ChatTemplate::from_config_json("{}").unwrap().is_none());
    assert!(ChatTemplate::from_config_json("{\"chat_template\": 3}").is_err());
    assert!(ChatTemplate::from_config_json("{\"chat_template\": []}").is_err());

    let dir = tempfile::tempdir().unwrap();
    assert!(ChatTemplate::from_dir(dir.path()).unwrap().is_none());
    std::fs::write(dir.path().join("tokenizer_config.json"), &text).unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), "{{ bos_token }}?").unwrap();
    let template = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!(template.render(&[], false).unwrap(), "<b>?");
}
