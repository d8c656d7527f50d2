//! A generated miniature web: documents in which people answer small problems, in several styles.
//!
//! Blunt answers without a thought, often wrong, are the larger part; some documents work a little; some work everything
//! out, try, check and try again. A minority uses the think/answer format. This is the world a base model is pretrained on,
//! so that the long way of thinking is something it can do well but seldom chooses.

mod code;
mod general;
mod switch;
mod working;

use aha_tasks::mini::{self, Family, Puzzle, Rng, Subject};
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
    /// Families of puzzles by name; all when empty.
    pub families: Vec<String>,
    /// Share of documents about tiny programs.
    pub code: f64,
    /// Share of documents with requests of other kinds, and of an almanac of the miniature world.
    pub general: f64,
    /// Share of documents whose working goes back and forth between the languages.
    pub mixed_within: f64,
    /// The name by which some answers call the model.
    pub model_name: String,
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
            code: 0.0,
            general: 0.0,
            mixed_within: 0.0,
            model_name: mini::MODEL_NAME.to_owned(),
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
    /// The question in its template, after earlier turns if there are any; empty in an almanac.
    pub prompt: String,
    /// What follows, without the end-of-text token.
    pub body: String,
    /// What is asked.
    pub subject: Subject,
    /// Style of the answer.
    pub style: Style,
    /// Whether the body has the think/answer format.
    pub tagged: bool,
    /// Language of the question.
    pub language: Language,
}

/// Document `index` of the corpus: a pure function of both arguments.
///
/// What the newer settings decide comes from streams of their own, so that a corpus without them stays what it was.
pub fn document(config: &CorpusConfig, index: u64) -> Document {
    let mut rng = Rng::new(config.seed ^ 0x0c0_1b05, index);
    let kind = if config.code + config.general > 0.0 { Rng::new(config.seed ^ 0x0f_a311, index).unit() } else { 1.0 };
    if kind >= config.code && kind < config.code + config.general {
        return general::document(config, index, &mut rng);
    }
    let puzzle = (kind >= config.code).then(|| {
        let families = config.families();
        let family = *rng.pick(&families);
        mini::draw(family, Split::Pretrain, &mut rng)
    });
    let exercise = if puzzle.is_none() { Some(code::draw(&mut rng)) } else { None };
    let language = if rng.unit() < config.chinese { Language::Chinese } else { Language::English };
    let style = config.style(&mut rng);
    let tagged = rng.unit() < config.tagged;
    let spoken = if rng.unit() < config.mixed { Language::English } else { language };
    let (work, answer) = match (&puzzle, &exercise, style) {
        (Some(puzzle), _, Style::Blunt) => working::blunt(puzzle, config, spoken, &mut rng),
        (Some(puzzle), _, Style::Short) => working::short(puzzle, config, spoken, &mut rng),
        (Some(puzzle), _, Style::Long) => working::long(puzzle, config, spoken, &mut rng),
        (None, Some(exercise), style) => code::working(exercise, style, config, spoken, &mut rng),
        (None, None, _) => unreachable!("one of the two was drawn"),
    };
    let work = config.switches(index).map_or(work.clone(), |mut rng| switch::lines(&work, &mut rng));
    let body = match (tagged, spoken) {
        (true, _) => format!("<think>{work}</think><answer>{answer}</answer>"),
        (false, Language::English) => format!("{work}the answer is {answer}"),
        (false, Language::Chinese) => format!("{work}答案是{answer}"),
    };
    let subject = match (puzzle, exercise) {
        (Some(puzzle), _) => Subject::Puzzle(puzzle),
        (None, exercise) => Subject::Code(exercise.expect("one of the two was drawn")),
    };
    let prompt = aha_tasks::prompt::render_base(aha_tasks::PromptStyle::Mini, &subject.question(language))
        .expect("the mini style is a plain prompt");
    Document { prompt, body, subject, style, tagged, language }
}

impl CorpusConfig {
    /// The families documents are drawn from; names that are no family are left out.
    pub fn families(&self) -> Vec<Family> {
        let named: Vec<Family> = self.families.iter().filter_map(|n| Family::parse(n)).collect();
        if named.is_empty() { Family::ALL.to_vec() } else { named }
    }

    /// How a document answers.
    fn style(&self, rng: &mut Rng) -> Style {
        match rng.unit() * (self.blunt + self.short + self.long) {
            u if u < self.blunt => Style::Blunt,
            u if u < self.blunt + self.short => Style::Short,
            _ => Style::Long,
        }
    }

    /// The stream that mixes the languages of a document, if they are mixed.
    fn switches(&self, index: u64) -> Option<Rng> {
        let mut rng = Rng::new(self.seed ^ 0x5_317c4, index);
        (self.mixed_within > 0.0 && rng.unit() < self.mixed_within).then_some(rng)
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
            ("code", self.code),
            ("general", self.general),
            ("mixed_within", self.mixed_within),
        ];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{key} is {value}; a share must be 0 to 1"));
            }
        }
        if self.code + self.general > 1.0 {
            return Err(format!("code + general is {}; it must be 1 or less", self.code + self.general));
        }
        if self.model_name.is_empty() || !self.model_name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("model_name is \"{}\"; it must be one word of letters and digits", self.model_name));
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
mod r1_tests;
#[cfg(test)]
mod tests;
