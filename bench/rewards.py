"""The rewards of the miniature task in Python: the rules of `aha`'s judge, for the trainer that we compare with.

A reward function gets TRL's lists and returns one number a completion. Run as a program it is `vowel_reward` for `aha`: a
JSON object a line, a number a line.
"""

import ast
import json
import re
import sys

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
SHAPE = re.compile(r"\s*<think>.*</think>\s*<answer>\s*\S.*</answer>\s*", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)
INTEGER = re.compile(r"-?\d{1,9}")
CHAIN = re.compile(r"([\d+-]+)(?:=\?|等于\?)")
COUNTDOWN = (re.compile(r"make (\d+) from ([\d,]+)"), re.compile(r"用(?P<numbers>[\d,]+)得到(?P<target>\d+)"))
REMAINDER = re.compile(r"(\d+)(?: mod |除以)(\d+)(?:余数\?)?")
MISSING = re.compile(r"x\*(\d+)\+(\d+)=(\d+)(?:, x\?|,求x)")


def well_formed(text: str) -> bool:
    """Whether a completion is one think pair, then one answer pair with something in it, and nothing else."""
    return SHAPE.fullmatch(text) is not None and all(text.count(tag) == 1 for tag in TAGS)


def answer_of(text: str) -> str | None:
    """What stands in the only pair of answer tags, None where that is missing, empty or inside the thinking."""
    found = ANSWER.search(text)
    if found is None or text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    before, after = text[: found.start()], text[found.start() :]
    if before.rfind("<think>") > before.rfind("</think>") or "</think>" in after:
        return None
    return found[1].strip() or None


def arithmetic(text: str) -> tuple[int, list[int]] | None:
    """Value and numbers of an expression of whole numbers with + - *, None for anything else."""

    def walk(node) -> tuple[int, list[int]]:
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() as operation, right):
                (a, used_a), (b, used_b) = walk(left), walk(right)
                value = a + b if isinstance(operation, ast.Add) else a - b if isinstance(operation, ast.Sub) else a * b
                return value, used_a + used_b
            case ast.Constant(int() as value):
                return value, [value]
        raise ValueError("not arithmetic")

    try:
        return walk(ast.parse(text[:100].strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return None


def is_correct(question: str, answer: str) -> bool:
    """Whether the answer solves a question of the miniature task."""
    if (found := COUNTDOWN[0].fullmatch(question)) or (found := COUNTDOWN[1].fullmatch(question)):
        target, numbers = (found["target"], found["numbers"]) if found.groupdict() else found.groups()
        result = arithmetic(answer)
        wanted = sorted(int(n) for n in numbers.split(","))
        return result is not None and result[0] == int(target) and sorted(result[1]) == wanted
    if not INTEGER.fullmatch(answer):
        return False
    if found := CHAIN.fullmatch(question):
        return (result := arithmetic(found[1])) is not None and result[0] == int(answer)
    if found := REMAINDER.fullmatch(question):
        return int(found[1]) % int(found[2]) == int(answer)
    if found := MISSING.fullmatch(question):
        factor, summand, total = map(int, found.groups())
        return int(answer) * factor + summand == total
    return False


def text_of(completion: str | list[dict]) -> str:
    """A completion as text; after a conversation TRL hands over a list with one message."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def format_reward(completions: list, **_columns) -> list[float]:
    """1 for the exact shape, else 0."""
    return [float(well_formed(text_of(completion))) for completion in completions]


def vowel_reward(completions: list, **_columns) -> list[float]:
    """The share of vowels: hardly two completions have the same, so that there is a gradient."""
    texts = [text_of(completion).lower() for completion in completions]
    return [sum(text.count(vowel) for vowel in "aeiou") / max(len(text), 1) for text in texts]


def accuracy_reward(completions: list, question: list[str], **columns) -> list[float]:
    """1 for the right answer, else 0; a column `answer` is compared as it stands, else the question is worked out."""
    references = columns.get("answer", [None] * len(completions))
    rewards = []
    for completion, asked, reference in zip(completions, question, references, strict=True):
        answer = answer_of(text_of(completion))
        right = answer is not None and (is_correct(asked, answer) if reference is None else answer == str(reference))
        rewards.append(float(right))
    return rewards


if __name__ == "__main__":
    for line in sys.stdin:
        print(vowel_reward([json.loads(line)["completion"]])[0], flush=True)
