//! Words of the notations: LaTeX commands, plain function names, Unicode signs, units.

use super::node::Relation;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Digits, at most one point, no separators.
    Digits(String),
    /// A variable of one letter (any script with letters).
    Letter(char),
    /// A LaTeX command or a plain word that means one, without backslash.
    Command(String),
    /// Words: units, connectives, names.
    Text(String),
    /// `=`, `<` and the like.
    Relation(Relation),
    /// `\{`.
    SetOpen,
    /// `\}`.
    SetClose,
    /// `\begin{NAME}`.
    Begin(String),
    /// `\end{NAME}`.
    End,
    /// `\\`.
    NewRow,
    /// Another sign, Unicode forms folded.
    Sign(char),
}

/// Functions known by name, in LaTeX with a backslash and in plain text without.
pub const FUNCTIONS: [&str; 37] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "coth", "sech", "csch", "arcsinh", "arccosh", "arctanh", "log", "ln", "lg",
    "exp", "gcd", "lcm", "max", "min", "det", "abs", "floor", "ceil", "arg",
];

/// Plain words that are commands in LaTeX.
pub fn word_command(word: &str) -> Option<&'static str> {
    Some(match word {
        "sqrt" => "sqrt",
        "cbrt" => "cbrt",
        "pi" | "Pi" | "PI" => "pi",
        "inf" | "infinity" | "Infinity" | "infty" | "oo" => "infty",
        "percent" | "percentage" | "pct" => "percent",
        "pm" => "pm",
        "cup" | "union" => "cup",
        "theta" => "theta",
        "alpha" => "alpha",
        "beta" => "beta",
        "gamma" => "gamma",
        "lambda" => "lambda",
        "omega" => "omega",
        "frac" => "frac",
        _ => return FUNCTIONS.into_iter().find(|known| *known == word),
    })
}

/// Commands without meaning for the value.
pub const IGNORED: [&str; 38] = [
    "left",
    "right",
    "mleft",
    "mright",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "biggl",
    "biggr",
    "Biggl",
    "Biggr",
    "displaystyle",
    "textstyle",
    "scriptstyle",
    "limits",
    "nolimits",
    "quad",
    "qquad",
    "mathstrut",
    "hfill",
    "boxed",
    "fbox",
    "rm",
    "bf",
    "it",
    "tt",
    "middle",
    "thinspace",
    "medspace",
    "thickspace",
    "negthinspace",
    "space",
    "enspace",
];

/// Commands around words.
pub const TEXT_COMMANDS: [&str; 12] = [
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "texttt",
    "textnormal",
    "mbox",
    "hbox",
    "textup",
    "mathbin",
    "emph",
];

/// Commands around letters of mathematics.
pub const FONT_COMMANDS: [&str; 9] =
    ["mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathcal", "operatorname", "boldsymbol", "bm"];

/// Greek letters by command.
pub fn greek(command: &str) -> Option<char> {
    Some(match command {
        "alpha" => 'α',
        "beta" => 'β',
        "gamma" => 'γ',
        "Gamma" => 'Γ',
        "delta" => 'δ',
        "Delta" | "triangle" => 'Δ',
        "epsilon" => 'ε',
        "varepsilon" => 'ϵ',
        "zeta" => 'ζ',
        "eta" => 'η',
        "theta" => 'θ',
        "Theta" => 'Θ',
        "vartheta" => 'ϑ',
        "iota" => 'ι',
        "kappa" => 'κ',
        "lambda" => 'λ',
        "Lambda" => 'Λ',
        "mu" => 'μ',
        "nu" => 'ν',
        "xi" => 'ξ',
        "Xi" => 'Ξ',
        "rho" => 'ρ',
        "sigma" => 'σ',
        "Sigma" => 'Σ',
        "tau" => 'τ',
        "upsilon" => 'υ',
        "phi" => 'φ',
        "varphi" => 'ϕ',
        "Phi" => 'Φ',
        "chi" => 'χ',
        "psi" => 'ψ',
        "Psi" => 'Ψ',
        "omega" => 'ω',
        "Omega" => 'Ω',
        "ell" => 'ℓ',
        "hbar" => 'ℏ',
        _ => return None,
    })
}

/// Relations by command.
pub fn relation(command: &str) -> Option<Relation> {
    Some(match command {
        "le" | "leq" | "leqslant" | "leqq" => Relation::LessEqual,
        "ge" | "geq" | "geqslant" | "geqq" => Relation::GreaterEqual,
        "lt" => Relation::Less,
        "gt" => Relation::Greater,
        "ne" | "neq" => Relation::NotEqual,
        "approx" | "simeq" | "approxeq" | "doteq" => Relation::Approx,
        "equiv" | "coloneqq" => Relation::Equal,
        _ => return None,
    })
}

/// Unicode signs as ASCII text or LaTeX commands.
pub fn fold_char(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{2212}' | '–' | '—' | '－' | '‐' | '‑' => "-",
        '＋' => "+",
        '×' | '·' | '⋅' | '∙' | '•' | '＊' | '∗' => "*",
        '÷' | '／' | '∕' | '⁄' => "/",
        '＝' => "=",
        '≤' | '≦' | '⩽' => "\\le ",
        '≥' | '≧' | '⩾' => "\\ge ",
        '＜' => "<",
        '＞' => ">",
        '≠' => "\\ne ",
        '≈' | '≃' | '≅' => "\\approx ",
        '≡' => "=",
        'π' | '𝜋' => "\\pi ",
        '∞' => "\\infty ",
        '√' => "\\sqrt ",
        '∛' => "\\cbrt ",
        '∪' | '⋃' => "\\cup ",
        '∩' | '⋂' => "\\cap ",
        '∖' => "\\setminus ",
        '∈' => "\\in ",
        '∅' | 'Ø' | '⌀' => "\\emptyset ",
        '°' | 'º' | '˚' => "\\degree ",
        '±' => "\\pm ",
        '∓' => "\\mp ",
        'ℝ' => "\\reals ",
        'ℤ' => "\\integers ",
        'ℕ' => "\\naturals ",
        'ℚ' => "\\rationals ",
        'ℂ' => "\\complexes ",
        '½' => "\\frac{1}{2}",
        '⅓' => "\\frac{1}{3}",
        '⅔' => "\\frac{2}{3}",
        '¼' => "\\frac{1}{4}",
        '¾' => "\\frac{3}{4}",
        '⁰' => "^0",
        '¹' => "^1",
        '²' => "^2",
        '³' => "^3",
        '⁴' => "^4",
        '⁵' => "^5",
        '⁶' => "^6",
        '⁷' => "^7",
        '⁸' => "^8",
        '⁹' => "^9",
        '⁻' => "^-",
        'ⁿ' => "^n",
        '₀' => "_0",
        '₁' => "_1",
        '₂' => "_2",
        '₃' => "_3",
        '₄' => "_4",
        '₅' => "_5",
        '₆' => "_6",
        '₇' => "_7",
        '₈' => "_8",
        '₉' => "_9",
        '（' => "(",
        '）' => ")",
        '【' | '［' => "[",
        '】' | '］' => "]",
        '｛' => "\\{",
        '｝' => "\\}",
        '，' | '、' | '､' => ",",
        '；' => ";",
        '：' | '∶' => ":",
        '％' | '﹪' => "%",
        '｜' | '∣' => "|",
        '⟨' | '〈' => "\\langle ",
        '⟩' | '〉' => "\\rangle ",
        '⌊' => "\\lfloor ",
        '⌋' => "\\rfloor ",
        '⌈' => "\\lceil ",
        '⌉' => "\\rceil ",
        '′' | '’' | '‘' => "'",
        '…' | '⋯' => "\\ldots ",
        '∠' => "\\angle ",
        '。' => ".",
        '\u{a0}' | '\u{2009}' | '\u{202f}' | '\u{3000}' | '\u{2002}' | '\u{2003}' | '\t' | '\n' | '\r' => " ",
        '\u{200b}' | '\u{2061}' | '\u{2062}' | '\u{feff}' => "",
        _ => return None,
    })
}

/// Units that plain text writes right after a number; a unit in `\text{}` needs no list. One-letter units are not here: they
/// cannot be told from variables.
const UNITS: [&str; 100] = [
    "cm", "mm", "km", "dm", "nm", "kg", "mg", "gm", "lb", "lbs", "oz", "ft", "yd", "mi", "mph", "kmh", "kph", "kmph",
    "ml", "mL", "hr", "hrs", "min", "mins", "sec", "secs", "ms", "inch", "inches", "foot", "feet", "yard", "yards",
    "mile", "miles", "meter", "meters", "metre", "metres", "liter", "liters", "litre", "litres", "gram", "grams",
    "pound", "pounds", "ounce", "ounces", "hour", "hours", "minute", "minutes", "second", "seconds", "day", "days",
    "week", "weeks", "month", "months", "year", "years", "dollar", "dollars", "cent", "cents", "euro", "euros", "yuan",
    "rupee", "rupees", "USD", "EUR", "GBP", "RMB", "Rs", "degree", "degrees", "deg", "unit", "units", "sq", "square",
    "cubic", "st", "nd", "rd", "th", "point", "points", "ways", "people", "students", "cc", "rad", "radian", "radians",
    "mol", "Hz",
];

/// The power of ten that a word behind a number means.
pub fn magnitude(word: &str) -> Option<u32> {
    Some(match word.to_lowercase().as_str() {
        "hundred" => 2,
        "thousand" | "千" => 3,
        "万" => 4,
        "million" | "百万" => 6,
        "亿" => 8,
        "billion" => 9,
        "trillion" | "万亿" => 12,
        _ => return None,
    })
}

/// Whole numbers in words.
const NUMBER_WORDS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// The number that a single word is.
pub fn number_word(word: &str) -> Option<usize> {
    let word = word.to_lowercase();
    NUMBER_WORDS.iter().position(|known| *known == word)
}

/// Whether a plain word is a unit.
pub fn is_unit(word: &str) -> bool {
    UNITS.contains(&word)
}
