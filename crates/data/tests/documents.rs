//! Documents from files: readers, the store, mixtures, fill-in-the-middle tokens.
#![allow(clippy::unwrap_used)]

use aha_data::corpus::CorpusConfig;
use aha_data::{Mixture, Origin, TextStore, source};
use std::collections::HashMap;
use std::path::Path;

fn read(path: &Path, field: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut each = |t: &str| {
        all.push(t.to_owned());
        Ok(())
    };
    match source::read(path, field, &mut each) {
        Ok(count) => {
            assert_eq!(count as usize, all.len());
            Ok(all)
        }
        Err(e) => Err(e.to_string()),
    }
}

#[test]
fn folders_lines_and_texts_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    put("b.txt", "second");
    put("a.jsonl", "{\"text\": \"first\"}\n\n{\"text\": \"\"}\n");
    put("deep/c.md", "third");
    put("picture.png", "none of ours");
    assert_eq!(read(dir.path(), "text").unwrap(), ["first", "second", "third"]);
    assert!(read(&dir.path().join("picture.png"), "text").unwrap_err().contains(".jsonl"));
    put("a.jsonl", "{\"text\": 5}");
    assert!(read(dir.path(), "text").unwrap_err().contains("a.jsonl:1: \"text\" is not a text"));
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(read(&dir.path().join("empty"), "text").unwrap_err().contains("no documents"));
}

fn store(dir: &Path, name: &str, texts: &[String]) -> TextStore {
    let stem = dir.join(name);
    let fill = |each: &mut dyn FnMut(&str) -> Result<(), aha_data::DataError>| {
        texts.iter().try_for_each(|t| each(t))?;
        Ok(texts.len() as u64)
    };
    assert_eq!(TextStore::write(&stem, fill).unwrap(), texts.len() as u64);
    TextStore::open(&stem).unwrap()
}

#[test]
fn a_store_gives_back_every_document_and_notices_a_foreign_index() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..100).map(|i| format!("文 {}", "y".repeat(i * 7 % 31))).collect();
    let all = store(dir.path(), "s", &texts);
    assert!((0..100).rev().all(|i| all.get(i as u64).unwrap() == texts[i]));
    std::fs::write(dir.path().join("s.text"), "shorter").unwrap();
    assert!(TextStore::open(&dir.path().join("s")).unwrap_err().to_string().contains("does not match its index"));
}

#[test]
fn a_mixture_keeps_its_shares_passes_over_everything_and_holds_out_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let short: Vec<String> = (0..60).map(|i| format!("short {i:02}")).collect();
    let long: Vec<String> = (0..200).map(|i| format!("long {i:03} {}", "z".repeat(80))).collect();
    let open = || {
        let sources = vec![
            (Origin::Store(store(dir.path(), "short", &short)), 1.0),
            (Origin::Store(store(dir.path(), "long", &long)), 3.0),
            (Origin::Generated(Box::default()), 1.0),
        ];
        Mixture::new(9, sources, 40)
    };
    let mixture = open();
    let documents = mixture.documents(0..6000).unwrap();
    let mut bytes = [0usize; 3];
    documents.iter().for_each(|(s, text)| bytes[*s] += text.len());
    let total: usize = bytes.iter().sum();
    for (found, wanted) in bytes.iter().zip([0.2, 0.6, 0.2]) {
        let share = *found as f64 / total as f64;
        assert!((share - wanted).abs() < 0.03, "{bytes:?}");
    }
    // Within a pass nothing twice, what is held out never.
    let held_out = mixture.held_out().unwrap();
    assert!(held_out.iter().filter(|t| t.starts_with("short")).count() == 6, "a tenth at most");
    for s in [0, 1] {
        let own: Vec<&String> = documents.iter().filter(|d| d.0 == s).map(|d| &d.1).collect();
        let rest = [&short, &long][s].len() - held_out.iter().filter(|t| [&short, &long][s].contains(t)).count();
        let mut seen: HashMap<&String, usize> = HashMap::new();
        own.iter().take(rest).for_each(|t| *seen.entry(t).or_default() += 1);
        assert!(seen.len() == rest && seen.values().all(|n| *n == 1), "source {s}: {} of {rest}", seen.len());
        assert!(own.iter().all(|t| !held_out.contains(t)));
        assert_ne!(own[..rest], own[rest..2 * rest], "another order in the next pass");
    }
    // A document is a function of its number: from the middle, backwards, in another process.
    assert_eq!(open().documents(4321..4330).unwrap(), documents[4321..4330]);
    assert_eq!(mixture.documents(10..20).unwrap(), documents[10..20]);
    let plain = CorpusConfig::default();
    let first = documents.iter().find(|d| d.0 == 2).unwrap();
    let d = aha_data::corpus::document(&plain, 0);
    assert_eq!(first.1, d.prompt + &d.body);
}

#[test]
fn tokens_of_fill_in_the_middle_are_part_of_the_vocabulary() {
    let texts = || (0..300).map(|i| format!("some words and the number {i}"));
    let json = aha_data::train_tokenizer_with(texts(), 400, &aha_data::fim::TOKENS).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
    assert!(tokenizer.get_vocab_size(true) <= 400);
    for token in aha_data::fim::TOKENS {
        let id = tokenizer.token_to_id(token).unwrap();
        assert_eq!(tokenizer.encode(token, false).unwrap().get_ids(), [id]);
    }
    assert_eq!(
        aha_data::train_tokenizer(texts(), 400).unwrap(),
        aha_data::train_tokenizer_with(texts(), 400, &[]).unwrap()
    );
    assert!(aha_data::train_tokenizer_with(texts(), 353, &aha_data::fim::TOKENS).is_err());
}
