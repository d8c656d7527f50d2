//! The program in an answer: its last fenced block of the language, else all of it.

use super::{CodeLanguage, CodeReference};

/// A fenced block: the word after the opening fence, and the lines inside.
struct Block<'a> {
    info: &'a str,
    text: String,
}

/// The program that an answer gives; none when there is no text.
///
/// Where tests call a function, blocks that define it go before the last block, since models like to show a call after it.
/// A block without a name counts as one of the language, and an answer that is nothing else may leave the last fence open.
pub fn program(answer: &str, reference: &CodeReference) -> Option<String> {
    let blocks = blocks(answer);
    let named = |b: &&Block| names(reference.language).contains(&b.info.to_ascii_lowercase().as_str());
    let of_language: Vec<&Block> = match blocks.iter().any(|b| named(&b)) {
        true => blocks.iter().filter(named).collect(),
        false => blocks.iter().filter(|b| b.info.is_empty()).collect(),
    };
    let defining = reference.entry_point.as_deref().and_then(|f| of_language.iter().rfind(|b| defines(&b.text, f)));
    let code = defining.or(of_language.last()).map_or(answer, |b| b.text.as_str());
    let code = code.trim_end().trim_start_matches(['\n', '\r']);
    (!code.trim().is_empty()).then(|| whole(code, reference))
}

/// What a fence may be marked with.
fn names(language: CodeLanguage) -> &'static [&'static str] {
    match language {
        CodeLanguage::Python => &["python", "python3", "py"],
        CodeLanguage::Cpp => &["cpp", "c++", "cxx", "cc"],
        CodeLanguage::Rust => &["rust", "rs"],
    }
}

fn blocks(answer: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Block)> = None;
    for line in answer.lines() {
        let trimmed = line.trim();
        let fence = ["```", "~~~"].into_iter().find(|f| trimmed.starts_with(f));
        match (&mut open, fence) {
            (None, Some(fence)) => {
                let info = trimmed.trim_start_matches(['`', '~']).trim();
                let info = info.split([' ', ',', '{', ':']).next().unwrap_or_default();
                open = Some((fence, Block { info, text: String::new() }));
            }
            (Some((with, _)), Some(fence)) if *with == fence && trimmed.trim_matches(['`', '~']).is_empty() => {
                blocks.extend(open.take().map(|(_, block)| block));
            }
            (Some((_, block)), _) => {
                block.text += line;
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks.extend(open.map(|(_, block)| block));
    blocks
}

/// Whether Python text defines a name at its top level, or as a method.
fn defines(code: &str, name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    code.lines().any(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        let rest = line.strip_prefix("def ").or_else(|| line.strip_prefix("class ")).unwrap_or(line).trim_start();
        rest.strip_prefix(name).is_some_and(|after| {
            let after = after.trim_start();
            after.starts_with(['(', ':']) && rest.len() < line.len()
                || after.starts_with('=') && !after.starts_with("==")
        })
    })
}

/// With what the question gave: before a whole function, what stands there before it (imports, functions it uses); before
/// the rest of one, all of it.
fn whole(code: &str, reference: &CodeReference) -> String {
    let (Some(opening), Some(name)) = (&reference.opening, &reference.entry_point) else { return code.to_owned() };
    if defines(code, name) {
        let mut before = String::new();
        let mut kept = 0;
        for line in opening.split_inclusive('\n') {
            if line.starts_with(&format!("def {name}(")) {
                kept = before.len();
            }
            before += line;
        }
        return format!("{}\n{code}\n", before[..kept].trim_end());
    }
    let first = code.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    let indent = if first.starts_with([' ', '\t']) { "" } else { "    " };
    let body: String =
        code.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("{indent}{l}\n") }).collect();
    format!("{}\n{body}", opening.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(entry_point: Option<&str>, opening: Option<&str>) -> CodeReference {
        CodeReference {
            language: CodeLanguage::Python,
            entry_point: entry_point.map(str::to_owned),
            opening: opening.map(str::to_owned),
            tests: "{}".into(),
        }
    }

    #[test]
    fn the_last_block_of_the_language_counts() {
        let got = |text: &str| program(text, &reference(None, None));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            got("So:\n```python\nx = 1\n```\nthen\n```python\nx = 2\n```\nand\n```bash\nls\n```"),
            some("x = 2")
        );
        assert_eq!(got("```\nx = 1\n```\n```text\nout\n```"), some("x = 1"));
        assert_eq!(got("```py\nif x:\n    y\n```"), some("if x:\n    y"));
        assert_eq!(got("~~~python\ns = '```'\n~~~"), some("s = '```'"));
        assert_eq!(got("```python\nx = 1"), some("x = 1"));
        assert_eq!(got("\nprint(1)\n"), some("print(1)"));
        assert_eq!(got("```python\n```"), None);
        assert_eq!(got("  \n"), None);
        let cpp = CodeReference { language: CodeLanguage::Cpp, ..reference(None, None) };
        assert_eq!(program("```python\n1\n```\n```C++\nint main() {}\n```", &cpp), some("int main() {}"));
    }

    #[test]
    fn a_block_that_defines_the_function_goes_first() {
        let f = reference(Some("f"), None);
        let text = "```python\ndef f(x):\n    return x\n```\nFor example:\n```python\nprint(f(1))\n```";
        assert_eq!(program(text, &f).as_deref(), Some("def f(x):\n    return x"));
        for (code, expected) in [
            ("def f (x): return x", true),
            ("class Solution:\n    def f(self): pass", true),
            ("f = lambda x: x", true),
            ("class f: pass", true),
            ("print(f(1))", false),
            ("f(1)", false),
            ("f == 1", false),
            ("def fg(x): pass", false),
        ] {
            assert_eq!(defines(code, "f"), expected, "{code}");
        }
        assert!(defines("class A:\n  def go(self): pass", "A.go"));
    }

    #[test]
    fn functions_are_completed() {
        let opening = "from typing import List\n\ndef helper(x):\n    return x\n\ndef f(x: List[int]) -> int:\n    \"\"\" doc \"\"\"\n";
        let f = reference(Some("f"), Some(opening));
        let whole = program("```python\ndef f(x):\n    return helper(x)\n```", &f).unwrap();
        let before = "from typing import List\n\ndef helper(x):\n    return x";
        assert_eq!(whole, format!("{before}\ndef f(x):\n    return helper(x)\n"));
        let body = program("    y = x\n    return y", &f).unwrap();
        assert_eq!(body, format!("{}\n    y = x\n    return y\n", opening.trim_end()));
        assert_eq!(
            program("y = x\n\nreturn y", &f).unwrap(),
            format!("{}\n    y = x\n\n    return y\n", opening.trim_end())
        );
    }
}
