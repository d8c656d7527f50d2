#!/usr/bin/env python3
"""Compares numbers of ours with Hugging Face transformers on a saved model directory, in f32 with eager attention.

    python tools/check_saved_model.py MODEL_DIR --ours scores.jsonl [--greedy greedy.jsonl] [--temperature 1.0]

scores.jsonl   what `aha score` writes: {"tokens": [...], "logprobs": [null, ...]} per line; logprobs[t] is the
               log-probability of tokens[t] given the tokens before it.
greedy.jsonl   {"prompt_tokens": [...], "completion_tokens": [...]} per line, decoded greedily. Each completion token has
               to be the argmax after everything before it; a lead of the argmax below the tolerance counts as a tie.

Exit code: 0 everything agrees, 1 something differs by more than the tolerance (or the directory does not load whole),
2 wrong usage or unreadable input.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
import transformers


class BadInput(Exception):
    """Input that cannot be compared; the message names file and line."""


def read_jsonl(path, *keys):
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records.append((f"{path}:{number}", *(record[key] for key in keys)))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BadInput(f"{path}:{number}: needs an object with {' and '.join(keys)}: {error!r}") from error
    if not records:
        raise BadInput(f"{path}: nothing to compare")
    return records


def load(directory):
    """The model in f32, and the names of tensors that the directory lacks, adds or has in another shape."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", local_files_only=True, output_loading_info=True)
    return model.eval(), [f"{kind}: {name}" for kind, names in report.items() for name in names]


def logits_of(model, tokens, where):
    vocab = model.get_input_embeddings().num_embeddings
    if not tokens or not all(isinstance(token, int) and 0 <= token < vocab for token in tokens):
        raise BadInput(f"{where}: tokens must be a non-empty list of ids below {vocab}")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float()


def compare_logprobs(model, records, temperature, tolerance):
    """Prints the largest difference; true if it is within the tolerance. Not-a-number counts as infinite."""
    worst, worst_where, compared, failed = 0.0, "-", 0, False
    for where, tokens, ours in records:
        if len(ours) != len(tokens) or ours[:1] != [None] or None in ours[1:]:
            raise BadInput(f"{where}: logprobs needs one number per token, and null for the first")
        scaled = logits_of(model, tokens, where)[:-1] / temperature
        targets = torch.tensor(tokens[1:], dtype=torch.long)
        theirs = scaled.gather(1, targets[:, None])[:, 0] - scaled.logsumexp(1)
        for position, (a, b) in enumerate(zip(ours[1:], theirs.tolist(), strict=True), 1):
            difference = abs(a - b) if math.isfinite(a - b) else math.inf
            compared += 1
            failed |= difference > tolerance
            if difference > worst:
                worst, worst_where = difference, f"{where}, position {position}: ours {a}, transformers {b}"
    if compared == 0:
        raise BadInput("no log-probability to compare: every sequence has a single token")
    print(f"log-probs: {compared} compared, max |difference| {worst:.3e} ({worst_where})")
    return not failed


def compare_greedy(model, records, tolerance):
    """Prints every completion token that is not the argmax; true if there is none."""
    tokens_seen, ties, wrong = 0, 0, 0
    for where, prompt, completion in records:
        if not prompt or not completion:
            raise BadInput(f"{where}: prompt_tokens and completion_tokens must not be empty")
        logits = logits_of(model, prompt + completion, where)[len(prompt) - 1:-1]
        tokens_seen += len(completion)
        for position, (row, ours) in enumerate(zip(logits, completion, strict=True)):
            best = row.argmax().item()
            lead = (row[best] - row[ours]).item()
            if best == ours:
                continue
            if lead <= tolerance:
                ties += 1
                continue
            wrong += 1
            print(f"greedy: {where}, completion token {position}: ours {ours}, transformers {best}, ahead by {lead:.3e}")
    print(f"greedy: {tokens_seen} tokens compared, {wrong} differ, {ties} ties within the tolerance")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--ours", "--tokens-file", type=Path, metavar="JSONL", help="tokens with our log-probs")
    parser.add_argument("--greedy", type=Path, metavar="JSONL", help="prompts with our greedy completions")
    parser.add_argument("--temperature", type=float, default=1.0, help="divides the logits before the log-probs")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    arguments = parser.parse_args()
    if arguments.ours is None and arguments.greedy is None:
        parser.error("give --ours, --greedy or both")
    if not (arguments.model / "config.json").is_file():
        parser.error(f"{arguments.model} has no config.json")
    transformers.utils.logging.disable_progress_bar()
    try:
        scores = arguments.ours and read_jsonl(arguments.ours, "tokens", "logprobs")
        completions = arguments.greedy and read_jsonl(arguments.greedy, "prompt_tokens", "completion_tokens")
        model, problems = load(arguments.model)
        for problem in problems:
            print(f"load: {problem}")
        good = not problems
        if scores:
            good &= compare_logprobs(model, scores, arguments.temperature, arguments.tolerance)
        if completions:
            good &= compare_greedy(model, completions, arguments.tolerance)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("agrees" if good else "DIFFERS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
