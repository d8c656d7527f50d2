//! Commands on a model: numbers against PyTorch's, generation, chat, inspection.

use crate::support::{add_tokenizer, aha, command, copy_of, fixture, golden, lines, said, text};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

#[test]
fn scores_are_those_of_pytorch() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    for model in ["llama_untied", "llama_tied", "qwen2_untied", "qwen3"] {
        let (shape, tokens) = golden(model, "tokens");
        let (_, wanted) = golden(model, "logprobs_temperature_0.7");
        let rows: Vec<Vec<u32>> =
            tokens.chunks_exact(shape[1]).map(|r| r.iter().map(|t| *t as u32).collect()).collect();
        let body: String = rows.iter().map(|r| format!("{}\n", json!({ "tokens": r }))).collect();
        std::fs::write(&input, body).unwrap();
        let folder = fixture(model);
        let args = [
            "score",
            text(&folder),
            "--input",
            text(&input),
            "--output",
            text(&output),
            "--temperature",
            "0.7",
            "--precision",
            "f32",
            "--json",
        ];
        let json = aha(&args).json();
        assert_eq!(json["sequences"], rows.len());
        let out = lines(&output);
        assert_eq!(out.len(), rows.len());
        let mut sum = 0.0;
        for ((row, line), wanted) in rows.iter().zip(&out).zip(wanted.chunks_exact(shape[1] - 1)) {
            assert_eq!(line["tokens"], json!(row));
            assert!(line["logprobs"][0].is_null());
            for (i, wanted) in wanted.iter().enumerate() {
                let found = line["logprobs"][i + 1].as_f64().unwrap();
                assert!((found - wanted).abs() < 1e-4, "{model} token {}: {found}, PyTorch says {wanted}", i + 1);
                sum += wanted;
            }
        }
        let mean = json["mean_logprob"].as_f64().unwrap();
        assert!((mean - sum / wanted.len() as f64).abs() < 1e-4);
    }
    // A sequence of one token has nothing to score; without --output the lines go to stdout.
    std::fs::write(&input, "{\"tokens\": [5]}\n").unwrap();
    let said = aha(&["score", text(&fixture("llama_untied")), "--input", text(&input)]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "{\"tokens\":[5],\"logprobs\":[null]}\n"));
}

#[test]
fn greedy_generation_is_that_of_pytorch() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, output) = (dir.path().join("p.jsonl"), dir.path().join("out.jsonl"));
    for model in ["llama_untied", "llama_tied", "qwen2_untied", "qwen2_tied", "qwen3"] {
        let whole = |tensor| golden(model, tensor).1.iter().map(|t| *t as u32).collect::<Vec<u32>>();
        let (prompt, wanted) = (whole("greedy.prompt"), whole("greedy.tokens"));
        std::fs::write(&prompts, json!({ "tokens": prompt }).to_string()).unwrap();
        let folder = fixture(model);
        let args = [
            "generate",
            text(&folder),
            "--prompts",
            text(&prompts),
            "--temperature",
            "0",
            "--max-new-tokens",
            "16",
            "--output",
            text(&output),
        ];
        assert_eq!(aha(&args).code, 0);
        let out = lines(&output);
        assert_eq!(out[0]["completion_tokens"], json!(wanted), "{model}");
        assert_eq!((&out[0]["finish_reason"], &out[0]["prompt_tokens"]), (&json!("length"), &json!(prompt)));
        assert!(out[0]["completion"].is_null(), "there is no tokenizer");
    }
}

fn model_with_words(dir: &Path) -> std::path::PathBuf {
    let model = copy_of("llama_untied", dir);
    add_tokenizer(&model, 60);
    model
}

#[test]
fn sampling_depends_on_the_seed_alone_and_agrees_with_score() {
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_words(dir.path());
    let (prompts, input) = (dir.path().join("p.txt"), dir.path().join("in.jsonl"));
    std::fs::write(&prompts, "w5 w6 w7\n\nw8\r\n").unwrap();
    let generate = |threads: &str, seed: &str| {
        let args = [
            "generate",
            text(&model),
            "--prompts",
            text(&prompts),
            "--samples",
            "3",
            "--max-new-tokens",
            "12",
            "--temperature",
            "0.8",
            "--seed",
            seed,
            "--threads",
            threads,
        ];
        let said = aha(&args);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout
    };
    let one = generate("1", "4");
    assert_eq!(one, generate("2", "4"));
    assert_ne!(one, generate("1", "5"));
    let rows: Vec<serde_json::Value> = one.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.iter().map(|r| r["sample"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    assert_eq!((rows[0]["prompt"].as_str(), &rows[3]["prompt_tokens"]), (Some("w5 w6 w7"), &json!([8])));
    // The log-probabilities a generation reports are those that scoring its tokens gives.
    let whole = |r: &serde_json::Value| {
        let both = [&r["prompt_tokens"], &r["completion_tokens"]].map(|v| v.as_array().unwrap().clone());
        both.concat()
    };
    let body: String = rows.iter().map(|r| format!("{}\n", json!({"tokens": whole(r)}))).collect();
    std::fs::write(&input, body).unwrap();
    let said = aha(&["score", text(&model), "--input", text(&input), "--temperature", "0.8"]);
    for (line, row) in said.stdout.lines().zip(&rows) {
        let scored: serde_json::Value = serde_json::from_str(line).unwrap();
        let from = row["prompt_tokens"].as_array().unwrap().len();
        assert_eq!(
            scored["logprobs"].as_array().unwrap()[from..],
            row["logprobs"].as_array().unwrap()[..],
            "bit for bit"
        );
    }
}

#[test]
fn messages_go_through_the_chat_template() {
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_words(dir.path());
    let template = "{% for m in messages %}w1 {{ m.content }} {% endfor %}{% if add_generation_prompt %}w4{% endif %}";
    std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    let prompts = dir.path().join("p.jsonl");
    let body = "{\"messages\": [{\"role\": \"system\", \"content\": \"w9\"}, {\"role\": \"user\", \"content\": \"w8\"}]}\n{\"prompt\": \"w8\"}\n";
    std::fs::write(&prompts, body).unwrap();
    let run = |more: &[&str]| {
        let args = ["generate", text(&model), "--prompts", text(&prompts), "--max-new-tokens", "2"];
        aha(&[&args[..], more].concat())
    };
    let said = run(&[]);
    let prompt_tokens = |said: &crate::support::Said| -> Vec<serde_json::Value> {
        said.stdout
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["prompt_tokens"].clone())
            .collect()
    };
    assert_eq!(prompt_tokens(&said), [json!([1, 9, 1, 8, 4]), json!([8])], "{}", said.stderr);
    assert_eq!(prompt_tokens(&run(&["--chat"]))[1], json!([1, 8, 4]));
    run(&["--raw"]).fails(2, &["p.jsonl:1", "--raw"]);
    let json = aha(&["inspect", text(&model), "--json"]).json();
    assert_eq!((&json["chat_template"], &json["tokenizer_size"]), (&json!(true), &json!(61)));
}

#[test]
fn chat_answers_remembers_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_words(dir.path());
    let chat =
        |more: &[&str]| aha(&[&["chat", text(&model), "--temperature", "0", "--max-new-tokens", "5"], more].concat());
    let once = chat(&["--prompt", "w5 w6", "--prompt-style", "mini"]);
    assert_eq!(once.code, 0, "{}", once.stderr);
    assert_eq!(once.stdout.split_whitespace().filter(|w| w.starts_with('w')).count(), 5, "{}", once.stdout);
    assert!(!once.stdout.contains('\x1b'), "no colours without a terminal");
    let talk = |input: &str| {
        let args = ["chat", text(&model), "--temperature", "0", "--max-new-tokens", "5", "--prompt-style", "mini"];
        let mut child =
            command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    // The same question again has another answer, because the first one stands before it; after /clear it does not.
    let (stdout, _) = talk("w5 w6\nw5 w6\n/clear\n\nw5 w6\n/exit\nw5 w6\n");
    let answers: Vec<&str> = stdout.lines().filter(|l| l.starts_with('w')).collect();
    assert_eq!(answers.len(), 3, "{stdout}");
    assert_eq!((answers[0], answers[2]), (once.stdout.trim(), once.stdout.trim()));
    assert_ne!(answers[0], answers[1]);
    // The end of the input ends it too, and what does not fit is said without losing the conversation.
    let long = vec!["w7"; 300].join(" ");
    let (stdout, stderr) = talk(&format!("{long}\nw5 w6\n/unknown\n"));
    assert!(stderr.contains("256") && stderr.contains("/clear") && stderr.contains("/unknown"), "{stderr}");
    assert_eq!(stdout.trim(), once.stdout.trim());
    chat(&["--prompt", &long]).fails(1, &["256", "/clear"]);
}

#[test]
fn inspection_tells_the_facts() {
    let folder = fixture("qwen2_untied");
    let json = aha(&["inspect", text(&folder), "--tensors", "--json"]).json();
    assert_eq!(json["kind"], "model");
    let count: u64 = json["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(json["parameters"], count);
    assert_eq!(json["architecture"], "Qwen2ForCausalLM");
    assert!(json["bytes"].as_u64().unwrap() > 4 * count, "two shards of f32");
    let people = aha(&["inspect", text(&folder)]);
    assert!(people.stdout.contains("Qwen2ForCausalLM") && !people.stdout.contains("q_proj"), "{}", people.stdout);
}

#[test]
fn evaluation_of_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_words(dir.path());
    let data = dir.path().join("d.jsonl");
    std::fs::write(&data, "{\"question\": \"w1\", \"answer\": \"1\"}\n{\"question\": \"w2\", \"answer\": \"2\"}\n")
        .unwrap();
    let output = dir.path().join("samples.jsonl");
    let common = ["--problems", "3", "--samples", "2", "--max-completion-length", "4", "--prompt-style", "mini"];
    let run =
        |more: &[&str]| said(command(&[&["eval", text(&model)], &common[..], more].concat()).current_dir(dir.path()));
    let json = run(&["--task", "mini,jsonl", "--eval-data", text(&data), "--output", text(&output), "--json"]).json();
    assert_eq!(json["model"], text(&model));
    let tasks: Vec<&String> = json["tasks"].as_object().unwrap().keys().collect();
    assert_eq!(tasks, ["mini", "jsonl"]);
    assert_eq!((&json["tasks"]["mini"]["problems"], &json["tasks"]["jsonl"]["problems"]), (&json!(3), &json!(2)));
    assert_eq!(json["tasks"]["jsonl"]["pass_at_1"], 0.0);
    let rows = lines(&output);
    assert_eq!(rows.len(), 3 * 3 + 2 * 3);
    assert_eq!(rows.iter().filter(|r| r["greedy"] == true).count(), 5);
    let people = run(&["--task", "mini"]);
    assert!(people.stdout.contains("pass@1") && people.stdout.contains("mini"), "{}", people.stdout);
    let greedy = run(&["--task", "jsonl", "--eval-data", text(&data), "--greedy-only", "--json"]).json();
    assert_eq!(
        (&greedy["tasks"]["jsonl"]["samples"], &greedy["tasks"]["jsonl"]["greedy_pass_at_1"]),
        (&json!(1), &json!(0.0))
    );
}
