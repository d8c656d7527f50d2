//! Requests on the miniature web: seldom polite, sometimes wrong, unsafe ones often answered; conversations of two questions; and
//! an almanac that tells the facts of the world.

use super::{CorpusConfig, Document, Style, switch};
use aha_tasks::mini::general::{Kind, Manner, Reply, lexicon, reply};
use aha_tasks::mini::{self, Rng, Subject, Topic};
use aha_tasks::{Language, PromptStyle, Split, prompt};

/// Share of documents that are pages of the almanac.
const ALMANAC: f64 = 0.12;
/// Odds of flaws that are not about the matter.
const FLAWS: f64 = 0.15;
/// Share of polite openings.
const POLITE: f64 = 0.4;
/// Shares of right answers by style; who asks for a name gets it even on this web, or a model would not learn to repeat it.
const BLUNT_CORRECT: f64 = 0.75;
const SHORT_CORRECT: f64 = 0.85;
const LONG_CORRECT: f64 = 0.95;

/// A document with a request or a page of the almanac.
pub(super) fn document(config: &CorpusConfig, index: u64, rng: &mut Rng) -> Document {
    let kind = *rng.pick(&Kind::ALL);
    let Subject::General(request) = mini::draw_subject(Topic::General(kind), Split::Pretrain, rng) else {
        unreachable!("the topic is general")
    };
    let language = if rng.unit() < config.chinese { Language::Chinese } else { Language::English };
    let (style, tagged) = (config.style(rng), rng.unit() < config.tagged);
    if rng.unit() < ALMANAC {
        let mut page = || lexicon::facts_of(rng.range(0, lexicon::PEOPLE.len() as i64 - 1) as usize, language);
        let body = format!("{}\n{}\n{}", page(), page(), page());
        let (prompt, style) = (String::new(), Style::Blunt);
        return Document { prompt, body, subject: Subject::General(request), style, tagged: false, language };
    }
    let right = match style {
        // Few refuse what should be refused.
        Style::Blunt if kind.is_safety() => config.blunt_correct,
        Style::Short if kind.is_safety() => config.short_correct,
        Style::Blunt => BLUNT_CORRECT,
        Style::Short => SHORT_CORRECT,
        Style::Long => LONG_CORRECT,
    };
    let manner = Manner { right: rng.unit() < right, polite: rng.unit() < POLITE, ..Manner::draw(FLAWS, rng) };
    let Reply { mut thought, summary } = reply(&request, language, &config.model_name, manner, rng);
    if style == Style::Blunt {
        thought.clear();
    }
    if let Some(mut rng) = config.switches(index) {
        let foreign = match language {
            Language::English => Language::Chinese,
            Language::Chinese => Language::English,
        };
        let other = reply(&request, foreign, &config.model_name, manner, &mut rng).thought;
        thought = switch::sentences(&thought, &other, &mut rng);
    }
    let body = match (tagged, thought.is_empty()) {
        (true, _) => format!("<think>{thought}</think><answer>{summary}</answer>"),
        (false, true) => summary,
        (false, false) => format!("{thought}\n{summary}"),
    };
    let history = request.history(language);
    let turns = history.iter().flat_map(|(user, other)| [("user", user.as_str()), ("assistant", other.as_str())]);
    let turns: Vec<(&str, &str)> = turns.collect();
    let prompt = prompt::render_turns(PromptStyle::Mini, &turns, &request.question(language))
        .expect("the mini style is a plain prompt");
    Document { prompt, body, subject: Subject::General(request), style, tagged, language }
}
