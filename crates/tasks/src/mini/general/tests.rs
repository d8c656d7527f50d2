//! Every kind of request with good and flawed answers, judged by its own rule and by quality.

use super::*;
use crate::check::Check;
use crate::language::{TextLanguage, share};
use crate::mini::Rng;
use crate::problem::Language;
use crate::text::language_consistency;

const LANGUAGES: [Language; 2] = [Language::English, Language::Chinese];

fn each(count: u64, mut f: impl FnMut(&Request, Language, &Check, &mut Rng)) {
    for kind in Kind::ALL {
        for i in 0..count {
            let mut rng = Rng::new(kind as u64, i);
            let request = Request::draw(kind, &mut rng);
            for language in LANGUAGES {
                f(&request, language, &request.check(language, "Aha"), &mut rng);
            }
        }
    }
}

#[test]
fn good_answers_keep_the_rule_and_wrong_ones_break_it() {
    each(300, |request, language, check, rng| {
        let good = reply(request, language, "Aha", Manner::GOOD, rng);
        assert!(check.holds(&good.summary), "{request:?} {check:?} {good:?}");
        let quality = quality_of(request.kind, check, language, &good.summary);
        assert!((quality - 1.0).abs() < 1e-9, "{quality} {good:?}");
        let closed = reply(request, language, "Aha", Manner { close: true, ..Manner::GOOD }, rng);
        assert!((quality_of(request.kind, check, language, &closed.summary) - 1.0).abs() < 1e-9, "{closed:?}");
        let wrong = reply(request, language, "Aha", Manner { right: false, ..Manner::GOOD }, rng);
        assert!(!check.holds(&wrong.summary), "{request:?} {check:?} {wrong:?}");
        assert!(quality_of(request.kind, check, language, &wrong.summary) < 0.7, "{wrong:?}");
    });
}

#[test]
fn every_flaw_costs() {
    each(100, |request, language, check, rng| {
        let good = Manner::GOOD;
        let flawed = [
            Manner { polite: false, ..good },
            Manner { own_language: false, ..good },
            Manner { rambling: true, ..good },
        ];
        for manner in flawed {
            let answer = reply(request, language, "Aha", manner, rng).summary;
            // Objects for machines look the same in both languages when their words do.
            if !manner.own_language && matches!(request.kind, Kind::Json | Kind::Tool | Kind::Translation) {
                continue;
            }
            let quality = quality_of(request.kind, check, language, &answer);
            assert!(quality < 1.0 - TIE, "{quality} {request:?} {manner:?} {answer}");
        }
    });
}

#[test]
fn thoughts_are_in_the_language_of_the_question_and_hello_needs_none() {
    each(200, |request, language, _, rng| {
        let thought = reply(request, language, "Aha", Manner::GOOD, rng).thought;
        assert_eq!(thought.is_empty(), request.kind == Kind::Greeting, "{request:?}");
        let target = if language == Language::English { TextLanguage::ENGLISH } else { TextLanguage::CHINESE };
        let shares = [share(&thought, target), language_consistency(&thought, language)];
        assert!(thought.is_empty() || shares == [Some(1.0); 2], "{shares:?} {thought}");
    });
}

#[test]
fn safety_is_told_by_the_deed_and_refusals_by_words() {
    each(200, |request, language, check, rng| {
        assert_eq!(request.kind.is_safety(), matches!(check, Check::Refused(_)));
        let complied = reply(request, language, "Aha", Manner { right: false, ..Manner::GOOD }, rng).summary;
        match request.kind {
            Kind::Unsafe => {
                assert!(!crate::check::refuses(&complied));
                assert_eq!(quality_of(request.kind, check, language, &complied), 0.0);
            }
            Kind::Borderline => assert!(crate::check::refuses(&complied)),
            _ => {}
        }
    });
}

#[test]
fn the_canonical_form_forgets_language_and_wording() {
    let r = Request::draw(Kind::Facts, &mut Rng::new(1, 1));
    let other = Request { wording: (r.wording + 1) % 3, ..r.clone() };
    assert_eq!(r.canonical(), other.canonical());
    assert_ne!(r.question(Language::English), other.question(Language::English));
    for language in LANGUAGES {
        // What the almanac says answers what is asked.
        let facts = lexicon::facts_of(r.person, language);
        let Check::Says { wanted, .. } = r.check(language, "Aha") else { panic!() };
        assert!(facts.contains(&wanted[0]), "{facts}");
    }
}

#[test]
fn names_parse() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.name()), Some(kind));
    }
}

#[test]
fn the_models_name_is_a_setting() {
    let r = Request::draw(Kind::Identity, &mut Rng::new(1, 1));
    let mut rng = Rng::new(2, 2);
    let answer = reply(&r, Language::English, "Luna", Manner::GOOD, &mut rng).summary;
    assert!(answer.contains("Luna"));
    assert!(r.check(Language::English, "Luna").holds(&answer) && !r.check(Language::English, "Aha").holds(&answer));
}
