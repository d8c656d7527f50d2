"""What is compared: every experiment with its rows, their bars, and the commands of both sides.

An experiment is one run of either side that gives the numbers of one or more rows. A side may have variants (f32, bf16,
compiled); each row takes the fastest. A command ends with one JSON object on the last line of stdout, in which a row
finds its number by `path`.
"""

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SMALL = "--hidden-size 256 --layers 6 --heads 8 --kv-heads 4 --intermediate-size 768 --vocab-size 512"
LARGE = "--hidden-size 768 --layers 12 --heads 12 --kv-heads 12 --intermediate-size 2048 --vocab-size 32000"
MATMULS = ((512, 256, 1024), (4096, 256, 1024), (2048, 1024, 4096), (1024, 4096, 1024))
MINI_GENERATIONS = 16
GRPO_STEP = "--num-prompts {prompts} --num-generations {generations} --max-completion-length {length}"
MINI_STEP = GRPO_STEP.format(prompts=32, generations=MINI_GENERATIONS, length=256) + " --beta 0.001 --learning-rate 1e-5"
QWEN_STEP = GRPO_STEP.format(prompts=8, generations=8, length=128) + " --beta 0 --learning-rate 1e-6"
QUIET = "--set log_rollouts={rollouts} --set save_steps=0"
# What a user sets where memory is short.
LEAN = "--set gradient_checkpointing=true --set moments=8bit --set gradients=bf16 --set master_weights=bf16"
LEAN += " --set micro_batch_tokens=512"
MINI_STEPS, QWEN_STEPS = 4, 2
VOWELS = f"rewards=[{{name='accuracy'}},{{name='format'}},{{name='vowels',command=['{sys.executable}','{HERE / 'rewards.py'}']}}]"
# Completions that TRL puts through one forward and backward: the fastest (mini), and about our 1024 tokens (Qwen).
MINI_MICRO_BATCH, QWEN_MICRO_BATCH = 64, 4


@dataclass(frozen=True)
class Literal:
    """An argument with spaces in it."""

    text: str

    def __str__(self) -> str:
        return self.text


def theirs(script: str, *arguments: object) -> list[str]:
    """The command of a script of this folder."""
    return [sys.executable, str(HERE / script), *split(arguments)]


def split(arguments) -> list[str]:
    """Flags written together in one string, as separate arguments; paths and other objects are taken whole."""
    return [part for a in arguments for part in (a.split() if isinstance(a, str) else [str(a)])]


def row(bar: float, unit: str, *path: str, lower: bool = False) -> dict:
    """A row; `lower` where less is better."""
    return {"bar": bar, "unit": unit, "path": path, "lower": lower}


def matmul(aha: Path, m: int, k: int, n: int) -> dict:
    """The three products of one linear layer."""
    shape = f"--m {m} --k {k} --n {n} --repeat {50 if m * k * n < 10**10 else 15}"
    return {
        "rows": {f"matmul_{m}_{k}_{n}_{p}": row(1.0, "GFLOP/s", p) for p in ("forward", "input", "weight")},
        "needs": ["torch"],
        "ours": {"auto": [str(aha), *split(["bench matmul", shape, "--precision auto --json"])]},
        "theirs": {f"torch {t}": theirs("theirs_matmul.py", shape, f"--dtype {t}") for t in ("bf16", "f32")},
    }


def train(aha: Path, name: str, bar: float, shape: str, batch: str, steps: int) -> dict:
    """One training step of a decoder."""
    flags = f"{shape} {batch} --steps {steps}"
    return {
        "rows": {name: row(bar, "tokens/s", "tokens_per_second")},
        "needs": ["torch", "transformers"],
        "ours": {"auto": [str(aha), *split(["bench train", flags, "--precision auto --json"])]},
        "theirs": {
            "eager f32": theirs("theirs_train.py", flags, "--precision f32"),
            "eager bf16": theirs("theirs_train.py", flags, "--precision bf16"),
            "compiled f32": theirs("theirs_train.py", flags, "--precision f32 --compile"),
            "compiled bf16": theirs("theirs_train.py", flags, "--precision bf16 --compile"),
        },
    }


def moe(aha: Path) -> dict:
    """Forward and backward of one layer of routed experts."""
    flags = "--tokens 4096 --hidden-size 256 --experts 16 --experts-per-tok 4 --moe-intermediate-size 256 --repeat 15"
    ways = [(way, dtype) for way in ("loop", "grouped", "dense") for dtype in ("f32", "bf16")]
    return {
        "rows": {"moe": row(1.5, "tokens/s", "tokens_per_second")},
        "needs": ["torch"],
        "ours": {"auto": [str(aha), *split(["bench moe", flags, "--precision auto --json"])]},
        "theirs": {f"{w} {d}": theirs("theirs_moe.py", flags, f"--how {w} --dtype {d}") for w, d in ways},
    }


def decode(aha: Path) -> dict:
    """Batched sampling from a small decoder."""
    flags = f"{SMALL} --sequences 64 --prompt-tokens 32 --new-tokens 128"
    ways = {"generate f32": "--how generate --dtype f32", "generate bf16": "--how generate --dtype bf16"}
    ways |= {"loop f32": "--how loop --dtype f32", "loop bf16": "--how loop --dtype bf16"}
    ways |= {f"compiled loop {t}": f"--how loop --dtype {t} --compile" for t in ("f32", "bf16")}
    return {
        "rows": {"decode_5m": row(5.0, "tokens/s", "tokens_per_second")},
        "needs": ["torch", "transformers"],
        "ours": {"auto": [str(aha), *split(["bench decode", flags, "--precision auto --json"])]},
        "theirs": {name: theirs("theirs_decode.py", flags, way) for name, way in ways.items()},
    }


def grpo_mini(aha: Path, work: Path) -> dict:
    """A whole GRPO step of the miniature recipe's model."""
    run, rollouts, prompts = work / "mini", work / "mini-rollouts.jsonl", work / "mini-prompts.jsonl"
    model = run / "base" / "model"
    once = ["--model", model, "--task mini --prompt-style mini --max-steps", MINI_STEPS, MINI_STEP]
    once += ["--set micro_batch_tokens=2048"]
    common = ["--model", model, "--prompts", prompts, "--steps", MINI_STEPS, MINI_STEP]
    common += ["--micro-batch", MINI_MICRO_BATCH]

    def ours(kept: int, *more: object) -> list[str]:
        return theirs("ours_grpo.py", "--aha", aha, *more, "--", *once, QUIET.format(rollouts=kept))

    return {
        "rows": {"grpo_mini": row(10.0, "s/step", "seconds_per_step", lower=True)},
        "needs": ["torch", "transformers", "trl", "datasets", "accelerate"],
        "prepare": [
            (model, [str(aha), *split(["run mini-zero-dense --out", run, "--until base --set base.tokens=1000000 --json"])]),
            (rollouts, ours(512, "--rollouts", rollouts)),
            (prompts, lambda: mini_prompts(rollouts, prompts)),
        ],
        "ours": {"auto": ours(0)},
        "theirs": {
            "TRL f32": theirs("theirs_grpo.py", *common),
            "TRL autocast": theirs("theirs_grpo.py", *common, "--autocast"),
            "TRL bf16": theirs("theirs_grpo.py", *common, "--weights bf16"),
        },
        "extra": ["mean_length"],
    }


def qwen_decode(aha: Path, gguf: Path) -> dict:
    """Reading and decoding with a quantised model."""
    flags = "--prefill 512 --sequences 1,16,32 --new-tokens 64"
    bars = {"1": 1.0, "16": 3.0, "32": 3.0}
    rows = {f"qwen_decode_{count}": row(bar, "tokens/s", "decode", count) for count, bar in bars.items()}
    ours = [str(aha), "bench", "model", "--model", str(gguf), *flags.split(), "--json", "--precision"]
    return {
        "rows": {"qwen_prefill": row(3.0, "tokens/s", "prefill"), **rows},
        "needs": ["llama_cpp", "numpy"],
        "model": True,
        "ours": {"auto": [*ours, "auto"], "quantized": [*ours, "quantized"]},
        "theirs": {"llama.cpp": theirs("theirs_llama.py", "--model", gguf, flags)},
    }


def qwen_grpo(aha: Path, gguf: Path, work: Path) -> dict:
    """A GRPO step of a real model, time and memory of the same run. Texts cut off at the limit are neither right nor well
    formed, and equal rewards would leave nothing to compute: a third one, a program on our side, tells them apart."""
    folder, problems, prompts = work / "qwen-bf16", work / "qwen-problems.jsonl", work / "qwen-prompts.jsonl"
    ours = ["--model", gguf, "--task jsonl --data", problems, "--prompt-style chat --max-steps", QWEN_STEPS, QWEN_STEP]
    ours += ["--precision bf16", QUIET.format(rollouts=0), "--set", Literal(VOWELS)]
    common = ["--model", folder, "--prompts", prompts, "--steps", QWEN_STEPS, QWEN_STEP, "--weights bf16 --vowels"]
    return {
        "rows": {
            "qwen_grpo": row(2.0, "s/step", "seconds_per_step", lower=True),
            "qwen_grpo_memory": row(1.667, "MiB", "peak_mib", lower=True),
        },
        "needs": ["torch", "transformers", "trl", "datasets", "accelerate", "gguf"],
        "model": True,
        "prepare": [
            (folder, theirs("theirs_convert.py", "--gguf", gguf, "--out", folder)),
            (prompts, lambda: qwen_problems(problems, prompts)),
        ],
        "ours": {
            "bf16": theirs("ours_grpo.py", "--aha", aha, "--", *ours),
            "bf16, little memory": theirs("ours_grpo.py", "--aha", aha, "--", *ours, LEAN),
        },
        "theirs": {
            "TRL bf16": theirs("theirs_grpo.py", *common, "--micro-batch", QWEN_MICRO_BATCH),
            "TRL bf16, checkpointing, one by one": theirs("theirs_grpo.py", *common, "--checkpointing --micro-batch 1"),
        },
        "extra": ["mean_length"],
    }


def experiments(aha: Path, gguf: Path, work: Path) -> list[dict]:
    """All of them, in the order in which they run."""
    return [
        *(matmul(aha, *shape) for shape in MATMULS),
        train(aha, "train_5m", 2.0, SMALL, "--batch 32 --sequence 256", 5),
        train(aha, "train_110m", 1.2, LARGE, "--batch 8 --sequence 512", 3),
        moe(aha),
        decode(aha),
        grpo_mini(aha, work),
        qwen_decode(aha, gguf),
        qwen_grpo(aha, gguf, work),
    ]


def write_lines(path: Path, rows: list[dict]) -> None:
    """A JSON Lines file, whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    unfinished.replace(path)


def mini_prompts(rollouts: Path, prompts: Path) -> None:
    """The questions of our rollouts, one of each group, in our order, as prompts for TRL."""
    asked = [json.loads(line)["prompt"] for line in rollouts.read_text(encoding="utf-8").splitlines()]
    questions = asked[::MINI_GENERATIONS]
    write_lines(prompts, [{"prompt": f"User: {q}\nAssistant:", "question": q} for q in questions])


def qwen_problems(problems: Path, prompts: Path) -> None:
    """Word problems whose solutions the model writes past the length limit, so that both sides make as many tokens."""
    rng, rows = random.Random(1), []
    for _ in range(64):
        boxes, pens, more = rng.randint(12, 48), rng.randint(11, 30), rng.randint(3, 90)
        question = (
            f"A shop has {boxes} boxes with {pens} pens each and {more} single pens, and sells a third of them. "
            "How many are left? Write a long, detailed solution: explain every step, then check it in two other ways."
        )
        rows.append({"question": question, "answer": str((boxes * pens + more) * 2 // 3)})
    write_lines(problems, rows)
    turns = [{**r, "prompt": [{"role": "user", "content": r["question"]}]} for r in rows]
    write_lines(prompts, turns)
