//! The miniature tokenizer: round trips, numbers, tags, determinism.
#![allow(clippy::unwrap_used)]

use aha_data::tokenizer::{ANSWER_CLOSE, ANSWER_OPEN, EOS, MIN_VOCAB_SIZE, TAGS, THINK_CLOSE, THINK_OPEN};
use aha_data::train_tokenizer;
use tokenizers::Tokenizer;

fn texts() -> Vec<String> {
    (0..200u32)
        .map(|i| {
            let (a, b) = (i % 20 + 1, i % 13 + 1);
            match i % 3 {
                0 => format!("User: {a}+{b}=?\nAssistant: <think> {a}+{b}={}. </think> <answer> {} </answer>", a + b, a + b),
                1 => format!("User: make {a} from {b} 3 4\nAssistant: wait, that is wrong. Check again: ({b}+3)*4."),
                _ => format!("User: 用{a}和{b}算出{}\nAssistant: <think> 等等，不对，再试一次。 </think> <answer> {a}+{b} </answer>", a + b),
            }
        })
        .collect()
}

fn trained(vocab_size: usize) -> Tokenizer {
    Tokenizer::from_bytes(train_tokenizer(texts().into_iter(), vocab_size).unwrap()).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn decoding_is_exact() {
    let tokenizer = trained(512);
    let mut cases = texts();
    cases.extend(
        [
            "",
            " ",
            "  two  spaces ",
            "\n\n\ttabs\r\n",
            "答案是14。AB答案x",
            "émoji 🤔 ½ １８ ٣",
            "don't <think>stop</think>!",
            "<think",
            "a<b>c",
            "\u{0}\u{7f}",
            "12345678901",
            "3.14159",
            " </answer>",
            "<answer>14</answer>\n",
        ]
        .map(str::to_owned),
    );
    for text in cases {
        assert_eq!(tokenizer.decode(&ids(&tokenizer, &text), false).unwrap(), text);
    }
}

#[test]
fn numbers_below_a_hundred_are_one_token_everywhere() {
    // even a vocabulary with no room for anything else, and texts without such numbers
    let sparse =
        Tokenizer::from_bytes(train_tokenizer(["only words".to_owned()].into_iter(), MIN_VOCAB_SIZE).unwrap()).unwrap();
    for tokenizer in [trained(512), trained(MIN_VOCAB_SIZE), sparse] {
        for number in 0..100u32 {
            let id = tokenizer.token_to_id(&number.to_string()).unwrap();
            for text in
                ["{}", "7+{}=9", "from {} 3", "共{}个", "{}.", "-{}", "<answer>{}</answer>", "={},", "x{}y", " {} "]
            {
                let encoded = ids(&tokenizer, &text.replace("{}", &number.to_string()));
                assert!(encoded.contains(&id), "{number} in {text}: {encoded:?}");
            }
        }
        assert!(ids(&tokenizer, "1234567").len() <= 7);
    }
    // groups of three from the left: 123 | 456 | 7
    let tokenizer = trained(512);
    let joined = [ids(&tokenizer, "123"), ids(&tokenizer, "456"), ids(&tokenizer, "7")].concat();
    assert_eq!(ids(&tokenizer, "1234567"), joined);
}

#[test]
fn marks_stand_alone() {
    let tokenizer = trained(512);
    let pieces = tokenizer.encode("(12+3)*4=60.", false).unwrap().get_tokens().to_vec();
    assert_eq!(pieces, ["(", "12", "+", "3", ")", "*", "4", "=", "60", "."]);
}

#[test]
fn added_tokens() {
    let tokenizer = trained(512);
    for tag in TAGS.into_iter().chain([EOS]) {
        assert_eq!(ids(&tokenizer, tag), [tokenizer.token_to_id(tag).unwrap()]);
    }
    let text = format!("{THINK_OPEN} a {THINK_CLOSE} {ANSWER_OPEN} b {ANSWER_CLOSE}{EOS}");
    let encoded = ids(&tokenizer, &text);
    assert_eq!(tokenizer.decode(&encoded, false).unwrap(), text);
    // only the end of text is special
    assert_eq!(tokenizer.decode(&encoded, true).unwrap(), text.replace(EOS, ""));
}

#[test]
fn vocabulary_has_the_size_asked_for_and_ids_without_gaps() {
    let tokenizer = trained(400);
    assert_eq!(tokenizer.get_vocab_size(true), 400);
    let mut seen: Vec<u32> = tokenizer.get_vocab(true).into_values().collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..400));
    assert_eq!(trained(MIN_VOCAB_SIZE).get_vocab_size(true), MIN_VOCAB_SIZE);
    // more than the texts can fill
    assert!(trained(50_000).get_vocab_size(true) < 2_000);
}

#[test]
fn the_same_texts_give_the_same_bytes() {
    let one = train_tokenizer(texts().into_iter(), 450).unwrap();
    assert_eq!(one, train_tokenizer(texts().into_iter(), 450).unwrap());
    assert_eq!(one, train_tokenizer(texts().into_iter().rev(), 450).unwrap());
}

#[test]
fn wrong_input() {
    let error = train_tokenizer(texts().into_iter(), MIN_VOCAB_SIZE - 1).unwrap_err().to_string();
    assert!(error.contains("350") && error.contains("351"), "{error}");
    assert!(train_tokenizer(std::iter::empty(), 512).is_err());
    assert!(train_tokenizer(["<think>".to_owned()].into_iter(), 512).is_err());
}
