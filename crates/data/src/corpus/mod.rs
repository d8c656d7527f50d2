//! A generated miniature web: documents in which people answer small problems, in several styles.
//!
//! Blunt answers without a thought, often wrong, are the larger part; some documents work a little; some work everything
//! out, try, check and try again. A minority uses the think/answer format. This is the world a base model is pretrained on,
//! so that the long way of thinking is something it can do well but seldom chooses.

mod working;

use aha_tasks::mini::{self, Family, Puzzle, Rng};
use aha_tasks::{Language, Reference, Split};
use serde::{Deserialize, Serialize};

/// Shares and habits of the miniature web.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorpusConfig {
    /// Seed of all documents.
    pub seed: u64,
    /// Share of documents that answer without working.
    pub blunt: f64,
    /// Share of documents that work a little, then jump to an answer.
    pub short: f64,
    /// Share of documents that work everything out.
    pub long: f64,
    /// Share of documents in the think/answer format.
    pub tagged: f64,
    /// Share of questions asked in Chinese.
    pub chinese: f64,
    /// Share of Chinese questions worked out in English.
    pub mixed: f64,
    /// Share of blunt answers that are right.
    pub blunt_correct: f64,
    /// Share of short workings whose answer is right.
    pub short_correct: f64,
    /// Share of chain steps in long workings that go wrong first and are then corrected.
    pub slip: f64,
    /// Share of searches whose target is misread and which are given up when nothing is left to try.
    pub misread: f64,
    /// Share of long countdown workings that go through the tries in order; the others try at random.
    pub orderly: f64,
    /// Mean number of wrong tries before the right one in long countdown workings.
    pub mean_wrong_tries: f64,
    /// Most wrong tries in one document.
    pub max_wrong_tries: usize,
    /// Families by name; all when empty.
    pub families: Vec<String>,
}

impl Default for CorpusConfig {
    fn default() -> Self {
        CorpusConfig {
            seed: 1,
            blunt: 0.6,
            short: 0.1,
            long: 0.3,
            tagged: 0.4,
            chinese: 0.25,
            mixed: 0.1,
            blunt_correct: 0.3,
            short_correct: 0.5,
            slip: 0.1,
            misread: 0.0,
            orderly: 0.0,
            mean_wrong_tries: 3.0,
            max_wrong_tries: 9,
            families: Vec::new(),
        }
    }
}

/// How a document answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// At once.
    Blunt,
    /// After a step or two.
    Short,
    /// After working everything out.
    Long,
}

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The question in its template.
    pub prompt: String,
    /// What follows, without the end-of-text token.
    pub body: String,
    /// The puzzle asked.
    pub puzzle: Puzzle,
    /// Style of the answer.
    pub style: Style,
    /// Whether the body has the think/answer format.
    pub tagged: bool,
    /// Language of the question.
    pub language: Language,
}

/// Document `index` of the corpus: a pure function of both arguments.
pub fn document(config: &CorpusConfig, index: u64) -> Document {
    let mut rng = Rng::new(config.seed ^ 0x0c0_1b05, index);
    let families = config.families();
    let family = *rng.pick(&families);
    let puzzle = mini::draw(family, Split::Pretrain, &mut rng);
    let language = if rng.unit() < config.chinese { Language::Chinese } else { Language::English };
    let style = match rng.unit() * (config.blunt + config.short + config.long) {
        u if u < config.blunt => Style::Blunt,
        u if u < config.blunt + config.short => Style::Short,
        _ => Style::Long,
    };
    let tagged = rng.unit() < config.tagged;
    let spoken = if rng.unit() < config.mixed { Language::English } else { language };
    let (work, answer) = match style {
        Style::Blunt => working::blunt(&puzzle, config, spoken, &mut rng),
        Style::Short => working::short(&puzzle, config, spoken, &mut rng),
        Style::Long => working::long(&puzzle, config, spoken, &mut rng),
    };
    let body = match (tagged, spoken) {
        (true, _) => format!("<think>{work}</think><answer>{answer}</answer>"),
        (false, Language::English) => format!("{work}the answer is {answer}"),
        (false, Language::Chinese) => format!("{work}答案是{answer}"),
    };
    let prompt = aha_tasks::prompt::render_base(aha_tasks::PromptStyle::Mini, &puzzle.question(language))
        .expect("the mini style is a plain prompt");
    Document { prompt, body, puzzle, style, tagged, language }
}

impl CorpusConfig {
    /// The families documents are drawn from; names that are no family are left out.
    pub fn families(&self) -> Vec<Family> {
        let named: Vec<Family> = self.families.iter().filter_map(|n| Family::parse(n)).collect();
        if named.is_empty() { Family::ALL.to_vec() } else { named }
    }

    /// Checks shares and names.
    ///
    /// # Errors
    /// A message naming the key that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("tagged", self.tagged),
            ("chinese", self.chinese),
            ("mixed", self.mixed),
            ("blunt_correct", self.blunt_correct),
            ("short_correct", self.short_correct),
            ("slip", self.slip),
            ("misread", self.misread),
            ("orderly", self.orderly),
        ];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{key} is {value}; a share must be 0 to 1"));
            }
        }
        if !(self.blunt >= 0.0 && self.short >= 0.0 && self.long >= 0.0 && self.blunt + self.short + self.long > 0.0) {
            return Err("blunt, short and long must be 0 or more and not all 0".into());
        }
        if !(self.mean_wrong_tries >= 0.0 && self.mean_wrong_tries.is_finite()) {
            return Err(format!("mean_wrong_tries is {}; it must be 0 or more", self.mean_wrong_tries));
        }
        match self.families.iter().find(|n| Family::parse(n).is_none()) {
            Some(name) => Err(format!("family \"{name}\" is unknown; known: chain, countdown, remainder, missing")),
            None => Ok(()),
        }
    }
}

/// The right answer of a puzzle whose answer is a number.
fn number(puzzle: &Puzzle) -> i64 {
    match puzzle.reference() {
        Reference::Integer(n) => n,
        _ => unreachable!("countdown answers are expressions"),
    }
}

#[cfg(test)]
mod tests;
