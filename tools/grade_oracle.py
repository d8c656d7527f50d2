"""Pairs of references and answers with known verdicts, and Math-Verify's opinion of them, to check `aha grade`.

    python tools/grade_oracle.py pairs ../shared/data --out pairs.jsonl     # rewritings and wrong neighbours of real answers
    cargo run -p aha-tasks --release --example grade_speed -- pairs.jsonl 3 > ours.jsonl
    python tools/grade_oracle.py oracle pairs.jsonl --out oracle.jsonl      # needs the package math-verify
    python tools/grade_oracle.py report pairs.jsonl ours.jsonl [oracle.jsonl]

The expected verdict of a pair follows from how it was made, not from any grader: a rewriting keeps the value, a wrong
neighbour changes it. `report` fails (exit 1) when agreement is below 98 percent or a wrong neighbour counts as right.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import sys
import time
from fractions import Fraction

FOLDERS = ["math", "math-competition"]
FIELDS = ["answer", "expected_answer", "final_answer", "Answer"]


def answers(root):
    """Every distinct reference answer of the data sets, in the order of the files."""
    found = []
    for folder in FOLDERS:
        path = pathlib.Path(root) / folder
        if not path.is_dir():
            print(f"skipped {path}: no such folder", file=sys.stderr)
            continue
        for file in sorted([*path.glob("*.jsonl"), *path.glob("*.json")]):
            text = file.read_text()
            try:
                rows = json.loads(text)
            except ValueError:
                rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            for row in rows if isinstance(rows, list) else []:
                for field in FIELDS:
                    answer = row.get(field)
                    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
                    if isinstance(answer, (int, float)):
                        answer = f"{answer:g}" if answer == int(answer) and abs(answer) < 1e5 else repr(answer)
                    if isinstance(answer, str) and 0 < len(answer) < 200:
                        found.append(answer.strip().strip("$").strip())
    return list(dict.fromkeys(a for a in found if a))


INTEGER = re.compile(r"-?\d+")
FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
PAIR = re.compile(r"([\(\[])([^,()\[\]{}]+),([^,()\[\]{}]+)([\)\]])")
LIST = re.compile(r"-?\d+(\s*,\s*-?\d+)+")


def rewritings(answer):
    """Ways to write the same answer, each with its name."""
    yield "same", answer
    yield "spaced", re.sub(r"([+=<>])", r" \1 ", answer) if "\\text" not in answer else answer
    yield "dfrac", answer.replace("\\frac", "\\dfrac")
    if "(" in answer and "\\left" not in answer:
        yield "left right", answer.replace("(", "\\left(").replace(")", "\\right)") if answer.count("(") == answer.count(")") else answer
    yield "braces", re.sub(r"\^(\d)(?!\d)", r"^{\1}", answer)
    yield "cdot", answer.replace("\\cdot", "\\times") if "\\cdot" in answer else answer
    if INTEGER.fullmatch(answer):
        n = int(answer)
        yield "separators", f"{n:,}"
        yield "decimal", f"{n}.0"
        yield "sum", f"{n - 3}+3"
        yield "fraction", f"\\frac{{{2 * n}}}{{2}}"
        yield "product", f"\\frac{{1}}{{3}}\\cdot {3 * n}" if n >= 0 else f"-{-n}"
        yield "assigned", f"x = {n}"
        yield "power", f"{n}^1" if n >= 0 else f"({n})^1"
        yield "unit", f"{n}\\text{{ cm}}"
        if n > 9999 and n % 100 == 0:
            yield "scientific", f"{n // 100} \\times 10^{{2}}"
    if m := FRACTION.fullmatch(answer):
        sign, a, b = m[1], int(m[2]), int(m[3])
        yield "slash", f"{sign}{a}/{b}"
        yield "expanded", f"{sign}\\frac{{{3 * a}}}{{{3 * b}}}"
        yield "sign inside", f"\\frac{{{sign}{a}}}{{{b}}}"
        value = Fraction(a, b)
        if 10**6 % value.denominator == 0:
            yield "decimal", f"{sign}{float(value)}"
        if a > b > 1 and a % b:
            yield "mixed", f"{sign}{a // b}\\frac{{{a % b}}}{{{b}}}"
        yield "inverse", f"{sign}{a} \\cdot {b}^{{-1}}"
    if m := re.fullmatch(r"(\d*)\\sqrt\{(\d+)\}", answer):
        k, n = int(m[1] or 1), int(m[2])
        yield "under the root", f"\\sqrt{{{k * k * n}}}"
        yield "half power", f"{k} \\cdot {n}^{{1/2}}"
        yield "plain text", f"{k}*sqrt({n})"
    if m := re.fullmatch(r"(\d*)\\pi", answer):
        k = m[1] or "1"
        yield "pi first", f"\\pi \\cdot {k}"
        yield "plain pi", f"{k}*pi"
    if LIST.fullmatch(answer):
        items = [i.strip() for i in answer.split(",")]
        if all(len(i.lstrip("-")) != 3 for i in items[1:]):
            yield "other order", ", ".join(reversed(items))
            yield "set", "\\{" + ",".join(items) + "\\}"
            yield "or", " \\text{ or } ".join(items)
    if m := re.fullmatch(r"-?\d*[a-z](\^\{?\d\}?)?([+-]\d*[a-z]?(\^\{?\d\}?)?)+", answer):
        terms = re.findall(r"[+-]?[^+-]+", answer)
        turned = "".join(t if t[0] in "+-" else "+" + t for t in reversed(terms)).lstrip("+")
        yield "terms turned", turned
        yield "in brackets", f"({answer})"
        yield "doubled and halved", f"\\frac{{2({answer})}}{{2}}"
    if m := re.fullmatch(r"\(([^,()\[\]]+),\s*([^,()\[\]]+)\)", answer):
        yield "wide", f"({m[1]} ,\\; {m[2]})"
    if m := re.fullmatch(r"\\text\{\s*\(?([A-Za-z ]+)\)?\s*\}", answer):
        yield "plain words", m[1]
    if m := re.fullmatch(r"(\d+)\\%", answer):
        yield "plain percent", f"{m[1]}%"


def nearby(number, rng):
    return str(int(number) + rng.choice([-2, -1, 1, 2, 10]))


def neighbours(answer, rng):
    """Answers that look like this one and are wrong, each with its name."""
    digits = [m for m in re.finditer(r"\d", answer)]
    text = "\\text" in answer or "\\mbox" in answer
    if digits and not text:
        m = rng.choice(digits)
        new = rng.choice([d for d in "123456789" if d != m[0]])
        yield "digit", answer[: m.start()] + new + answer[m.end() :]
    numbers = list(re.finditer(r"(?<![\d.,])\d+(?![\d.,])", answer))
    if numbers and not text:
        m = rng.choice(numbers)
        yield "off by", answer[: m.start()] + nearby(m[0], rng) + answer[m.end() :]
    if answer not in ("0",) and not text and not re.search(r"[,=<>]|\\le|\\ge|\\pm|infty|cup|matrix|\\in", answer):
        yield "sign", f"-({answer})"
        yield "plus one", f"({answer})+1"
    if INTEGER.fullmatch(answer) and len(answer) > 2 and answer[::-1] != answer and "-" not in answer:
        yield "reversed", answer[::-1].lstrip("0")
        yield "tenfold", answer + "0"
        yield "tenth", f"{answer}/10"
        yield "dropped digit", answer[:-1]
    if m := FRACTION.fullmatch(answer):
        if m[2] != m[3]:
            yield "inverted", f"{m[1]}\\frac{{{m[3]}}}{{{m[2]}}}"
        yield "numerator alone", m[1] + m[2] if m[3] != "1" else m[1] + m[2] + "1"
        yield "rounded", f"{m[1]}{round(int(m[2]) / int(m[3]), 2)}" if 100 * int(m[2]) % int(m[3]) else f"{m[1]}{m[2]}/{int(m[3]) + 1}"
    if m := PAIR.fullmatch(answer):
        if m[2].strip() != m[3].strip():
            yield "swapped", f"{m[1]}{m[3]},{m[2]}{m[4]}"
        if "infty" not in answer:
            yield "bracket", ("[" if m[1] == "(" else "(") + f"{m[2]},{m[3]}{m[4]}"
        yield "longer", f"{m[1]}{m[2]},{m[3]},1{m[4]}"
        yield "one part", m[2]
    elif re.match(r"[\(\[].*,.*[\)\]]$", answer) and "infty" in answer:
        yield "bracket", ({"(": "[", "[": "("}[answer[0]] if "infty" not in answer.split(",")[0] else answer[0]) + answer[1:-1] + (
            {")": "]", "]": ")"}[answer[-1]] if "infty" in answer.split(",")[0] else answer[-1]
        )
    if LIST.fullmatch(answer):
        items = answer.split(",")
        if len(set(i.strip() for i in items)) == len(items):
            yield "one missing", ",".join(items[:-1])
            yield "one more", answer + ", 7919"
    if "\\sqrt" in answer:
        yield "no root", answer.replace("\\sqrt", "")
        yield "cube root", answer.replace("\\sqrt{", "\\sqrt[3]{") if "\\sqrt{" in answer else answer + "+1"
    if "\\pi" in answer and "\\frac{\\pi" not in answer:
        yield "no pi", answer.replace("\\pi", "") if re.fullmatch(r"\d+\s*\\pi", answer) else answer.replace("\\pi", "e")
    if "\\le" in answer and "\\left" not in answer:
        yield "strict", re.sub(r"\\leq?\b", "<", answer)
    if re.fullmatch(r"\\text\{\(([A-E])\)\}", answer):
        yield "choice", "(" + {"A": "B", "B": "C", "C": "D", "D": "E", "E": "A"}[answer[7]] + ")"


def frames(text, rng):
    return rng.choice(
        [
            f"\\boxed{{{text}}}",
            f"We conclude that the answer is $\\boxed{{{text}}}$.",
            f"First it seems to be $\\boxed{{12345}}$. No, it is wrong.\n\nTherefore \\[\\boxed{{{text}}}.\\]",
            f"The final answer is ${text}$.",
            f"Hence the answer is ${text}$.",
        ]
    )


def make_pairs(args):
    rng = random.Random(args.seed)
    pool = answers(args.data)
    if not pool:
        print(f"skipped: no data sets below {args.data}", file=sys.stderr)
        return 0
    rng.shuffle(pool)
    equal, wrong = [], []
    for answer in pool:
        seen = set()
        for name, text in rewritings(answer):
            if text not in seen:
                seen.add(text)
                equal.append((answer, text, True, name))
        for name, text in neighbours(answer, rng):
            if text != answer and text not in seen:
                wrong.append((answer, text, False, name))
    rows = rng.sample(equal, min(args.equal, len(equal))) + rng.sample(wrong, min(args.wrong, len(wrong)))
    with open(args.out, "w") as out:
        for i, (reference, text, expected, kind) in enumerate(rows):
            row = {"id": i, "reference": reference, "response": frames(text, rng), "answer": text, "expected": expected, "kind": kind}
            out.write(json.dumps(row) + "\n")
    print(f"{len(pool)} answers; {len(rows)} pairs, of them {sum(r[2] for r in rows)} equal")
    return 0


def read(path):
    return [json.loads(line) for line in open(path)]


def oracle(args):
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    rows = read(args.pairs)[: args.limit]
    verdicts = []
    begin = time.perf_counter()
    for row in rows:
        try:
            verdict = bool(verify(parse(f"${row['reference']}$"), parse(row["response"])))
        except Exception:
            verdict = False
        verdicts.append({"id": row["id"], "verdict": "correct" if verdict else "incorrect"})
    seconds = time.perf_counter() - begin
    with open(args.out, "w") as out:
        out.writelines(json.dumps(v) + "\n" for v in verdicts)
    print(f"Math-Verify: {len(rows)} responses, {len(rows) / seconds:.0f} a second")
    return 0


def report(args):
    rows = {r["id"]: r for r in read(args.pairs)}
    ours = {r["id"]: r for r in read(args.ours)}
    theirs = {r["id"]: r["verdict"] for r in read(args.oracle)} if args.oracle else {}
    agree, false_positives, both = 0, [], 0
    kinds = collections.defaultdict(lambda: [0, 0])
    for i, row in rows.items():
        right = ours[i]["verdict"] == ("correct" if row["expected"] else "incorrect")
        agree += right
        kinds[row["kind"], row["expected"]][0] += right
        kinds[row["kind"], row["expected"]][1] += 1
        both += theirs.get(i) == ("correct" if row["expected"] else "incorrect")
        if not right:
            if not row["expected"] and ours[i]["verdict"] == "correct":
                false_positives.append(row)
            oracle_says = theirs.get(i, "-")
            print(f"{row['kind']}: {row['reference']} @@ {row['answer']}  expected {row['expected']}, ours {ours[i]['verdict']}, Math-Verify {oracle_says}")
    for (kind, expected), (right, count) in sorted(kinds.items()):
        if right != count:
            print(f"  {kind} ({'equal' if expected else 'wrong'}): {right} of {count}")
    wrong = sum(not r["expected"] for r in rows.values())
    print(f"agreement with the expected verdict: {agree / len(rows):.2%} of {len(rows)}; false positives: {len(false_positives)} of {wrong}")
    if theirs:
        print(f"Math-Verify's agreement: {both / len(theirs):.2%} of {len(theirs)}")
    return int(agree < 0.98 * len(rows) or bool(false_positives))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pairs")
    command.add_argument("data")
    command.add_argument("--out", required=True)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--equal", type=int, default=4000)
    command.add_argument("--wrong", type=int, default=2000)
    command.set_defaults(run=make_pairs)
    command = commands.add_parser("oracle")
    command.add_argument("pairs")
    command.add_argument("--out", required=True)
    command.add_argument("--limit", type=int, default=10**9)
    command.set_defaults(run=oracle)
    command = commands.add_parser("report")
    command.add_argument("pairs")
    command.add_argument("ours")
    command.add_argument("oracle", nargs="?")
    command.set_defaults(run=report)
    args = parser.parse_args()
    sys.exit(args.run(args))


if __name__ == "__main__":
    main()
