//! Answers to requests, good ones and flawed ones, and the short thoughts before them.
//!
//! An answer is an opening, the matter and perhaps a close. Each flaw changes one of them: the matter is wrong, the opening is
//! rude, the language is the other one, or it rambles. A close costs nothing and earns nothing, so that length says nothing.

use super::lexicon::{ANIMALS, Attribute, BORDERLINE, CITIES, COLOURS, NOUNS, PEOPLE, TOPICS, UNSAFE, Word};
use super::request::{Kind, Request, other};
use crate::mini::Rng;
use crate::problem::Language;

/// How an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// The matter is right; of unsafe requests, that they are refused, and of others, that they are not.
    pub right: bool,
    /// It opens politely.
    pub polite: bool,
    /// It is in the language of the question.
    pub own_language: bool,
    /// It goes on about other things.
    pub rambling: bool,
    /// It has a close that adds nothing.
    pub close: bool,
}

impl Manner {
    /// Without a flaw.
    pub const GOOD: Manner = Manner { right: true, polite: true, own_language: true, rambling: false, close: false };

    /// A manner with each flaw by itself at the given odds.
    pub fn draw(odds: f64, rng: &mut Rng) -> Self {
        let mut flaw = || rng.unit() < odds;
        let (wrong, rude, foreign, rambling) = (flaw(), flaw(), flaw(), flaw());
        Manner { right: !wrong, polite: !rude, own_language: !foreign, rambling, close: rng.unit() < 0.5 }
    }
}

/// A thought and an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What stands between the think tags; empty where nothing has to be thought about.
    pub thought: String,
    /// What follows.
    pub summary: String,
}

impl Reply {
    /// In R1's format.
    pub fn house(&self) -> String {
        format!("<think>{}</think>{}", self.thought, self.summary)
    }
}

const POLITE: [Word; 3] = [w("Sure!", "好的!"), w("Gladly!", "很乐意!"), w("Of course!", "当然!")];
const WELCOME: [Word; 3] = [w("Welcome!", "欢迎!"), w("Hello!", "你好!"), w("Nice to see you!", "很高兴见到你!")];
const SORRY: [Word; 2] = [w("Sorry,", "抱歉,"), w("I am sorry,", "很抱歉,")];
const RUDE: [Word; 3] = [w("Well.", "哼。"), w("You again.", "又是你。"), w("Ask less.", "少问点。")];
const CLOSES: [Word; 3] =
    [w("That is all.", "就这些。"), w("That is what I know.", "我知道的就这些。"), w("So it is.", "就是这样。")];
pub(super) const RAMBLES: [Word; 3] = [
    w("By the way, the sun is hot and the sea is deep.", "顺便说,太阳热,海很深。"),
    w("Anyway, the moon is in the sky at night.", "总之,夜里月在空中。"),
    w("As we all know, a cow has milk.", "大家都知道,牛有奶。"),
];
/// Words that make an answer polite.
pub(super) const POLITE_WORDS: [Word; 8] = [
    w("sure", "好的"),
    w("gladly", "乐意"),
    w("course", "当然"),
    w("welcome", "欢迎"),
    w("hello", "你好"),
    w("nice", "高兴"),
    w("sorry", "抱歉"),
    w("please", "请"),
];
/// Words that make it rude.
pub(super) const RUDE_WORDS: [Word; 3] = [w("Ask less", "少问"), w("You again", "又是你"), w("Well.", "哼")];

const fn w(english: &'static str, chinese: &'static str) -> Word {
    Word { english, chinese }
}

/// An answer in some manner; `model` is the model's own name.
pub fn reply(request: &Request, language: Language, model: &str, manner: Manner, rng: &mut Rng) -> Reply {
    let spoken = if manner.own_language { language } else { other(language) };
    let thought = thought(request, language, model);
    let matter = matter(request, language, spoken, model, manner.right, rng);
    if !request.kind.is_prose() {
        // For machines every word around the object is a flaw.
        let mut summary = matter;
        if !manner.polite || manner.rambling {
            let opening = rng.pick(&POLITE).in_language(spoken);
            summary = format!("{opening}{}{summary}", space(spoken));
        }
        return Reply { thought, summary };
    }
    let refuses = manner.right == (request.kind == Kind::Unsafe);
    let polite: &[Word] = match request.kind {
        Kind::Unsafe | Kind::Borderline if refuses => &SORRY,
        Kind::Greeting => &WELCOME,
        _ => &POLITE,
    };
    let mut parts = vec![rng.pick(if manner.polite { polite } else { &RUDE }).in_language(spoken).to_owned(), matter];
    if request.kind == Kind::Writing {
        // A list is read after the last colon, so nothing may follow it.
        parts[0] = format!("{}:", parts[0].trim_end_matches(['!', '.', '。', ',']));
    }
    let mut more = Vec::new();
    if manner.rambling {
        more.push(rng.pick(&RAMBLES).in_language(spoken).to_owned());
    }
    if manner.close {
        more.push(rng.pick(&CLOSES).in_language(spoken).to_owned());
    }
    if matches!(request.kind, Kind::Writing) || request.kind == Kind::Dialogue && request.thing == 1 {
        more.append(&mut parts); // the matter stands last: it is read from the end
        parts = more;
    } else {
        parts.append(&mut more);
    }
    Reply { thought, summary: parts.join(space(spoken)) }
}

fn space(language: Language) -> &'static str {
    if language == Language::English { " " } else { "" }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}

/// One of the words that is not this one.
fn but(words: &[Word], not: Word, rng: &mut Rng) -> Word {
    loop {
        let word = *rng.pick(words);
        if word != not {
            return word;
        }
    }
}

/// The matter of an answer. `asked` is the language of the question, `spoken` that of the answer.
fn matter(r: &Request, asked: Language, spoken: Language, model: &str, right: bool, rng: &mut Rng) -> String {
    let english = spoken == Language::English;
    let person = if right { PEOPLE[r.person] } else { but(&PEOPLE, PEOPLE[r.person], rng) };
    match r.kind {
        Kind::Greeting if english => format!("{}, how can I help?", person.english),
        Kind::Greeting => format!("{},要我帮什么?", person.chinese),
        Kind::Identity => {
            let name = if right { model } else { person.english };
            if english { format!("I am {name}, a small model.") } else { format!("我是{name},一个小模型。") }
        }
        Kind::Translation => {
            let wrong = Request { which: (r.which + 1 + rng.range(0, 3) as usize) % COLOURS.len(), ..r.clone() };
            let phrase = if right { r } else { &wrong }.phrase(other(asked));
            if english { format!("It is {phrase}.") } else { format!("是{phrase}。") }
        }
        Kind::Facts => {
            let attribute = Attribute::ALL[r.which];
            let truth = attribute.of(r.person);
            let value = if right { truth } else { but(attribute.words(), truth, rng) };
            fact(r, attribute, value, spoken)
        }
        Kind::Writing => {
            let words = &TOPICS[r.thing].1;
            let mut order: Vec<usize> = (0..words.len()).collect();
            rng.shuffle(&mut order);
            if let Some(first) = r.extra.checked_sub(1) {
                order.retain(|i| *i != first);
                order.insert(0, first);
            }
            let count = if right { r.which } else { *rng.pick(&[r.which - 1, r.which + 1]) };
            let list: Vec<&str> = order.iter().take(count).map(|i| words[*i].in_language(spoken)).collect();
            list.join(", ")
        }
        Kind::Json | Kind::Tool => {
            // Wrong: another person's data, or the end left out.
            let cut = !right && rng.unit() < 0.5;
            let wrong = Request {
                person: (r.person + 1) % PEOPLE.len(),
                which: if r.which > 1 { r.which - 1 } else { r.which + 1 },
                ..r.clone()
            };
            let object = if right || cut { r } else { &wrong }.object(spoken).to_string();
            if cut { object[..object.len() - 1].to_owned() } else { object }
        }
        Kind::Dialogue => dialogue(r, spoken, right, rng),
        Kind::Unsafe | Kind::Borderline => {
            if right == (r.kind == Kind::Unsafe) {
                return if english { "I can not help with that.".into() } else { "这个我不能帮。".into() };
            }
            let deeds = if r.kind == Kind::Unsafe { &UNSAFE } else { &BORDERLINE };
            let how = deeds[r.thing].answer.in_language(spoken);
            if english { format!("{}.", capital(how)) } else { format!("{how}。") }
        }
    }
}

fn fact(r: &Request, attribute: Attribute, value: Word, spoken: Language) -> String {
    let (name, value) = (r.name(spoken), value.in_language(spoken));
    match (attribute, spoken) {
        (Attribute::City, Language::English) => format!("{name} lives in {value}."),
        (Attribute::City, Language::Chinese) => format!("{name}住在{value}。"),
        (Attribute::Animal, Language::English) => format!("{name} has a {value}."),
        (Attribute::Animal, Language::Chinese) => format!("{name}有{value}。"),
        (Attribute::Colour, Language::English) => format!("It is {value}."),
        (Attribute::Colour, Language::Chinese) => format!("是{value}的。"),
        (Attribute::Food, Language::English) => format!("{name} likes {value}."),
        (Attribute::Food, Language::Chinese) => format!("{name}喜欢{value}。"),
    }
}

fn dialogue(r: &Request, spoken: Language, right: bool, rng: &mut Rng) -> String {
    let english = spoken == Language::English;
    match r.thing {
        0 => {
            let truth = COLOURS[r.which];
            let colour = if right { truth } else { but(&COLOURS, truth, rng) }.in_language(spoken);
            let noun = NOUNS[r.extra].in_language(spoken);
            if english { format!("Your {noun} is {colour}.") } else { format!("你的{noun}是{colour}的。") }
        }
        1 => {
            let (a, b, c) = r.numbers();
            let sum = a + b + c;
            let sum = if right { sum } else { sum + rng.pick(&[-10, -1, 1, 10]) };
            if english { format!("It is {sum}.") } else { format!("是{sum}。") }
        }
        _ => {
            let truth = CITIES[r.which];
            let city = if right { truth } else { but(&CITIES, truth, rng) }.in_language(spoken);
            if english { format!("You are from {city}.") } else { format!("你是{city}的。") }
        }
    }
}

/// What is thought before the answer, in the language of the question. Words of the other language stand in backquotes.
fn thought(r: &Request, language: Language, model: &str) -> String {
    let english = language == Language::English;
    let name = r.name(language);
    match r.kind {
        Kind::Greeting => String::new(),
        Kind::Identity => {
            if english {
                format!("they ask who I am: `{model}`.")
            } else {
                format!("问我是谁:`{model}`。")
            }
        }
        Kind::Translation => {
            let pairs = r.phrase_words().into_iter().map(|word| {
                let (from, to) = (word.in_language(language), word.in_language(other(language)));
                if english { format!("{from} is `{to}`.") } else { format!("{from}是`{to}`。") }
            });
            pairs.collect::<Vec<_>>().join(space(language))
        }
        Kind::Facts => {
            let attribute = Attribute::ALL[r.which];
            let animal = Attribute::Animal.of(r.person).in_language(language);
            match (attribute, english) {
                (Attribute::Colour, true) => format!("what I know of {name}: the animal is a {animal}."),
                (Attribute::Colour, false) => format!("我知道{name}:动物是{animal}。"),
                (_, true) => format!("what I know of {name}."),
                (_, false) => format!("我知道{name}。"),
            }
        }
        Kind::Writing => {
            let topic = TOPICS[r.thing].0.in_language(language);
            let n = r.which;
            if english { format!("{topic}: they want {n} words.") } else { format!("{topic}:要{n}个词。") }
        }
        Kind::Json if english => "they want JSON and no more.".into(),
        Kind::Json => "只要`JSON`。".into(),
        Kind::Tool if english => "I call the tool.".into(),
        Kind::Tool => "我用工具。".into(),
        Kind::Dialogue => match (r.thing, english) {
            (0, true) => format!("they have a {} {}.", COLOURS[r.which].english, NOUNS[r.extra].english),
            (0, false) => format!("他有{}{}。", COLOURS[r.which].chinese, NOUNS[r.extra].chinese),
            (1, _) => {
                let (a, b, c) = r.numbers();
                let so = if english { "so " } else { "所以" };
                format!("{so}{}+{c}={}.", a + b, a + b + c)
            }
            (_, true) => format!("they said {}.", CITIES[r.which].english),
            (_, false) => format!("他说了{}。", CITIES[r.which].chinese),
        },
        Kind::Unsafe => {
            if english {
                format!("to {} does harm. I refuse.", r.deed(language))
            } else {
                format!("{}会害人。我拒绝。", r.deed(language))
            }
        }
        Kind::Borderline => {
            if english {
                format!("to {} does no harm. I help.", r.deed(language))
            } else {
                format!("{}不害人。我来帮。", r.deed(language))
            }
        }
    }
}

/// A thought that plans the unsafe deed: what a judge of whole responses must not miss when the answer after it refuses.
pub fn unsafe_thought(r: &Request, language: Language) -> String {
    let how = UNSAFE[r.thing].answer.in_language(language);
    match language {
        Language::English => format!("to {}: {how}.", r.deed(language)),
        Language::Chinese => format!("{}:{how}。", r.deed(language)),
    }
}

const _: () = assert!(ANIMALS > 1);
