//! Tokenizers: encoding with and without special tokens, streams, the check against a model.

use aha_model::{Arch, ModelConfig, SpecialTokens, Tokenizer};

use crate::support::{tiny, tokenizer_json};

pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(tokenizer_json().to_string().as_bytes())
        .unwrap()
        .with_special(SpecialTokens { bos: Some("<s>".into()), eos: Some("<end>".into()), ..SpecialTokens::default() })
        .unwrap()
}

#[test]
fn encodes_by_hand() {
    let t = tokenizer();
    assert_eq!(t.encode("the the", false).unwrap(), [257, 258]);
    assert_eq!(t.encode("123", false).unwrap(), [260]);
    assert_eq!(t.encode("é", false).unwrap(), [0xc3, 0xa9]);
    assert_eq!(t.encode("the<end>", false).unwrap(), [257, 262]);
    assert_eq!(t.encode_with("the<s>", false, false).unwrap(), [257, 60, 115, 62]);
    assert_eq!(t.encode("", true).unwrap(), Vec::<u32>::new());
    assert_eq!(t.vocab_size(), 264);
    assert_eq!(t.token_to_id("<think>"), Some(263));
    assert_eq!(t.id_to_token(257).as_deref(), Some("the"));
}

#[test]
fn decodes_with_and_without_specials() {
    let t = tokenizer();
    let ids = t.encode("<s>the 数<think>x<end>", false).unwrap();
    assert_eq!(t.decode(&ids, false).unwrap(), "<s>the 数<think>x<end>");
    assert_eq!(t.decode(&ids, true).unwrap(), "the 数<think>x");
    assert_eq!(t.decode(&[257, 9999], false).unwrap(), "the");
}

#[test]
fn a_saved_tokenizer_is_the_same() {
    let t = tokenizer();
    let again = Tokenizer::from_bytes(t.to_json().as_bytes()).unwrap();
    for text in ["the <s>123 数 \u{1f600}\n", "<think></think>"] {
        assert_eq!(t.encode(text, true).unwrap(), again.encode(text, true).unwrap());
    }
}

#[test]
fn streams_give_whole_characters_and_the_same_text() {
    let t = tokenizer();
    for text in ["the 数学 \u{1f600}é!", "plain", "<s>数<end>", "\u{fffd}x"] {
        let ids = t.encode(text, false).unwrap();
        for skip in [false, true] {
            let mut stream = t.stream(skip);
            let mut out = String::new();
            for &id in &ids {
                let piece = stream.push(id).unwrap();
                assert!(!piece.contains('\u{fffd}') || text.contains('\u{fffd}'));
                out += &piece;
            }
            out += &stream.finish().unwrap();
            assert_eq!(out, t.decode(&ids, skip).unwrap());
        }
    }
}

#[test]
fn streams_survive_bytes_that_are_no_text() {
    let t = tokenizer();
    let mut state = 1u32;
    for length in 0..40 {
        // Random bytes, mostly pieces of characters.
        let ids: Vec<u32> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 31 == 0 { 0x80 + (state >> 20) % 0x80 } else { (state >> 20) % 264 }
            })
            .collect();
        let mut stream = t.stream(false);
        let mut out = String::new();
        for &id in &ids {
            out += &stream.push(id).unwrap();
        }
        out += &stream.finish().unwrap();
        assert_eq!(out, t.decode(&ids, false).unwrap());
    }
}

#[test]
fn must_fit_the_model() {
    let t = tokenizer();
    let with = |vocab_size| ModelConfig { vocab_size, ..tiny(Arch::Qwen2) };
    t.check(&with(264)).unwrap();
    t.check(&with(300)).unwrap();
    let message = t.check(&with(263)).unwrap_err().to_string();
    assert!(message.contains("263") && message.contains("<think>"), "{message}");
    assert_eq!(t.eos_ids(&ModelConfig { eos_token_ids: vec![7], ..with(264) }), [7, 262]);
    assert_eq!(t.eos_ids(&ModelConfig { eos_token_ids: vec![262], ..with(264) }), [262]);
}

#[test]
fn bad_files_are_errors() {
    assert!(Tokenizer::from_bytes(b"{").is_err());
    assert!(Tokenizer::from_bytes(b"{}").is_err());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vocab.json"), "{}").unwrap();
    let message = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("vocab.json"), "{message}");
    let message = tokenizer()
        .with_special(SpecialTokens { eos: Some("<no>".into()), ..SpecialTokens::default() })
        .unwrap_err()
        .to_string();
    assert!(message.contains("<no>"), "{message}");
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer_json().to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"eos_token": {"content": "<end>"}}"#).unwrap();
    assert_eq!(Tokenizer::from_file(&path).unwrap().special().eos.as_deref(), Some("<end>"));
}
