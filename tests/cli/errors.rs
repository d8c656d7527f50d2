//! Bad files: the message names the file (and the line or key), says what to do, and the exit code is 1.

use crate::support::{add_tokenizer, aha, aha_in, copy_of, fixture, text};
use std::path::{Path, PathBuf};

/// A file of twenty good lines of which the seventeenth is replaced.
fn bad_17(dir: &Path, good: &str, bad: &str) -> PathBuf {
    let lines: Vec<&str> = (1..=20).map(|i| if i == 17 { bad } else { good }).collect();
    let path = dir.join("lines.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, "{\"tokens\": [1, 2]}\n").unwrap();
    let model = fixture("llama_untied");
    let model = text(&model);
    aha(&["score", "no/model", "--input", text(&input)]).fails(1, &["no/model"]);
    aha(&["score", model, "--input", "no/file.jsonl"]).fails(1, &["no/file.jsonl", "cannot read"]);
    aha(&["generate", model, "--prompts", "no/file.jsonl"]).fails(1, &["no/file.jsonl", "cannot read"]);
    aha(&["score", model, "--input", text(&input), "--output", "no/folder/out.jsonl"])
        .fails(1, &["no/folder", "does not exist"]);
    aha(&["inspect", "no/thing"]).fails(1, &["no/thing", "no such file"]);
    aha(&["inspect", text(dir.path())]).fails(1, &["neither a model", "nor a run"]);
    aha(&["eval", "no/model", "--task", "mini"]).fails(1, &["no/model"]);
    aha(&["eval", model, "--task", "gsm8k", "--eval-data", "no/data.jsonl"]).fails(1, &["no/data.jsonl"]);
    aha(&["chat", "no/model", "--prompt", "hi"]).fails(1, &["no/model"]);
    let grpo = ["grpo", "--model", "no/model", "--task", "mini"];
    aha_in(dir.path(), &grpo).fails(1, &["no/model"]);
    let grpo = ["grpo", "--model", model, "--task", "gsm8k", "--data", "no/data.jsonl"];
    aha_in(dir.path(), &grpo).fails(1, &["no/data.jsonl"]);
}

#[test]
fn bad_recipes_name_the_line_and_the_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.toml");
    let run = |body: &str| {
        std::fs::write(&path, body).unwrap();
        aha_in(dir.path(), &["run", "./r.toml"])
    };
    run("name = \"r\"\n\n[[stage]]\nname = \"c\"\nkind = \"corpus\"\nvocab_sise = 300\n")
        .fails(1, &["r.toml:6", "vocab_sise", "did you mean `vocab_size`"]);
    run("name = \"r\"\n[[stage]\n").fails(1, &["r.toml:2", "TOML"]);
    run("name = \"r\"\n[[stage]]\nname = \"z\"\nkind = \"grpo\"\nmodel = \"./m\"\ntask = \"mini\"\nnum_generations = 1\n")
        .fails(1, &["r.toml:7", "num_generations", "group of one"]);
    aha_in(dir.path(), &["run", "./none.toml"]).fails(2, &["none.toml"]);
    // The embedded recipe with a folder that is a model, or with a file.
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    aha_in(dir.path(), &["run", "--out", "."]).fails(2, &["--out", "model"]);
    aha_in(dir.path(), &["run", "--out", "config.json"]).fails(2, &["--out", "file"]);
}

#[test]
fn spoilt_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, "{\"tokens\": [1, 2]}\n").unwrap();
    let score = |model: &Path| aha(&["score", text(model), "--input", text(&input)]);
    let model = copy_of("llama_untied", dir.path());
    assert_eq!(score(&model).code, 0);
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 8, 4, 0] {
        std::fs::write(&weights, &bytes[..length]).unwrap();
        score(&model).fails(1, &["model.safetensors"]);
        aha(&["inspect", text(&model)]).fails(1, &["model.safetensors"]);
    }
    std::fs::write(&weights, &bytes).unwrap();
    add_tokenizer(&model, 1000);
    for said in [score(&model), aha(&["inspect", text(&model)]), aha(&["eval", text(&model), "--task", "mini"])] {
        said.fails(1, &["w1000", "1000", "61", "another model"]);
    }
    std::fs::write(model.join("tokenizer.json"), "{").unwrap();
    score(&model).fails(1, &["tokenizer.json"]);
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    std::fs::write(model.join("config.json"), "{\"model_type\": \"mamba\"}").unwrap();
    score(&model).fails(1, &["config.json", "mamba"]);
}

#[test]
fn text_needs_a_tokenizer_and_chat_a_template() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, "{\"text\": \"w1 w2\"}\n").unwrap();
    let bare = fixture("llama_untied");
    aha(&["score", text(&bare), "--input", text(&input)]).fails(1, &["tokenizer.json", "tokens"]);
    aha(&["chat", text(&bare), "--prompt", "w1"]).fails(1, &["tokenizer.json"]);
    let model = copy_of("llama_untied", dir.path());
    add_tokenizer(&model, 60);
    let prompts = dir.path().join("p.jsonl");
    std::fs::write(&prompts, "{\"messages\": [{\"role\": \"user\", \"content\": \"w1\"}]}\n").unwrap();
    aha(&["generate", text(&model), "--prompts", text(&prompts)]).fails(2, &["chat template"]);
    aha(&["chat", text(&model), "--prompt", "w1", "--prompt-style", "chat"]).fails(2, &["chat template"]);
    aha(&["eval", text(&model), "--task", "mini", "--prompt-style", "chat"]).fails(1, &["chat template"]);
}

#[test]
fn a_bad_line_17_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_of("llama_untied", dir.path());
    add_tokenizer(&model, 60);
    let model = text(&model);
    let cases = [
        ("{\"tokens\": [1, 2", "not JSON"),
        ("{\"tokens\": [1, \"x\"]}", "invalid type"),
        ("{\"tokens\": [1, 61]}", "61"),
        ("{\"tokens\": []}", "empty"),
        ("{\"words\": 3}", "\"tokens\""),
        ("[1, 2]", "invalid"),
    ];
    for (bad, word) in cases {
        let path = bad_17(dir.path(), "{\"tokens\": [1, 2]}", bad);
        aha(&["score", model, "--input", text(&path)]).fails(1, &["lines.jsonl:17", word]);
        aha(&["generate", model, "--prompts", text(&path), "--max-new-tokens", "2"])
            .fails(1, &["lines.jsonl:17", word]);
    }
    let good = "{\"question\": \"w1 w2\", \"answer\": \"5\"}";
    for (bad, word) in [("{\"question\": \"w1\"", "JSON"), ("{\"question\": \"w1\"}", "answer")] {
        let path = bad_17(dir.path(), good, bad);
        let path = text(&path);
        aha(&["eval", model, "--task", "jsonl", "--eval-data", path]).fails(1, &["lines.jsonl:17", word]);
        let out = dir.path().join("run");
        let grpo = ["grpo", "--model", model, "--task", "jsonl", "--data", path, "--out", text(&out)];
        aha(&grpo).fails(1, &["lines.jsonl:17", word]);
    }
    let latin = dir.path().join("latin.txt");
    std::fs::write(&latin, b"w1\nw2\n\xe4\n").unwrap();
    aha(&["generate", model, "--prompts", text(&latin)]).fails(1, &["latin.txt:3", "UTF-8"]);
    std::fs::write(&latin, "\n\n").unwrap();
    aha(&["generate", model, "--prompts", text(&latin)]).fails(1, &["latin.txt", "nothing"]);
}

#[test]
fn what_does_not_fit_the_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("llama_untied");
    let long = dir.path().join("long.jsonl");
    let tokens = vec!["1"; 257].join(", ");
    std::fs::write(&long, format!("{{\"tokens\": [1]}}\n\n{{\"tokens\": [{tokens}]}}\n")).unwrap();
    aha(&["score", text(&model), "--input", text(&long)]).fails(1, &["long.jsonl:3", "256"]);
    std::fs::write(&long, "{\"tokens\": [1]}\n").unwrap();
    let generate = ["generate", text(&model), "--prompts", text(&long), "--max-new-tokens", "256"];
    aha(&generate).fails(1, &["long.jsonl:1", "256"]);
}
