"""Runs `aha` and its competitors in turn, prints their ratios and writes results.json and results.md.

The first round runs every variant of a side; later rounds only those that came within a tenth of the fastest in some
row. A row's number is the median over the rounds of its best variant. A row whose other side is missing is skipped and
says why. Runs during which other processes took more than a twentieth of the machine are counted as disturbed.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import report
from rows import experiments

REPOSITORY = Path(__file__).resolve().parent.parent
THREADS = 2
KEEP_WITHIN = 0.9
LIMIT_S = 3600
DISTURBED = 0.05


class Failed(Exception):
    """A side that gave no numbers, with the reason."""


def cpu_seconds() -> tuple[float, float]:
    """Processor time so far of the machine (0 where it does not say) and of our finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    machine = 0.0
    if Path("/proc/stat").exists():
        user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        machine = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    return machine, children.ru_utime + children.ru_stime


def run_watched(command: list[str]) -> tuple[dict, float, float]:
    """`run`, its wall time in seconds, and the share of the machine that others took meanwhile."""
    start, (machine, own) = time.perf_counter(), cpu_seconds()
    result = run(command)
    seconds, (machine_after, own_after) = time.perf_counter() - start, cpu_seconds()
    others = (machine_after - machine) - (own_after - own)
    return result, seconds, max(0.0, others / seconds / (os.cpu_count() or 1))


def run(command: list[str]) -> dict:
    """Runs one side; its last line of stdout is a JSON object."""
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(THREADS) for name in ("OMP", "MKL", "RAYON")}}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"took more than {LIMIT_S} s: {' '.join(command)}") from error
    except OSError as error:
        raise Failed(f"cannot be started: {error}") from error
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        if done.returncode == 0:
            return json.loads(last[0])
        why = f"ended with {done.returncode}"
    except json.JSONDecodeError:
        why = "printed no JSON object on its last line"
    tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-8:])
    raise Failed(f"{why}: {' '.join(command)}\n{tail}")


def value(row: dict, result: dict) -> float:
    """A row's number in the output of a side."""
    for key in row["path"]:
        if not isinstance(result, dict) or key not in result:
            raise Failed(f"the output has no {'.'.join(row['path'])}")
        result = result[key]
    return float(result)


def missing(experiment: dict, gguf: Path | None) -> str | None:
    """Why an experiment cannot run here, None when it can."""
    if experiment.get("model") and gguf is None:
        return "no model; give --model with a Qwen2.5-0.5B GGUF file in Q4_K_M"
    absent = [module for module in experiment["needs"] if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def prepare(experiment: dict) -> None:
    """Makes the files an experiment needs and that are not there yet."""
    for path, how in experiment.get("prepare", []):
        if path.exists():
            continue
        print(f"  making {path.name}", flush=True)
        how() if callable(how) else run(how)
        if not path.exists():
            raise Failed(f"{path} was not made by {how}")


def best(row: dict, results: list[dict]) -> float:
    """The median of a variant's results."""
    return statistics.median(value(row, result) for result in results)


def speed(row: dict, measured: float) -> float:
    """Larger is better."""
    return 1.0 / measured if row["lower"] else measured


def worth_keeping(rows: dict, results: dict[str, list[dict]]) -> set[str]:
    """The variants that are near the fastest in some row."""
    kept = set()
    for row in rows.values():
        speeds = {name: speed(row, best(row, found)) for name, found in results.items() if found}
        kept |= {name for name, s in speeds.items() if s >= KEEP_WITHIN * max(speeds.values())}
    return kept


def measure(experiment: dict, rounds: int) -> dict[str, dict[str, list[dict]]]:
    """Both sides in turn; the results of every variant."""
    results = {side: {name: [] for name in experiment[side]} for side in ("ours", "theirs")}
    active = {side: set(experiment[side]) for side in results}
    for number in range(1, rounds + 1):
        for side, variants in results.items():
            for name, command in experiment[side].items():
                if name not in active[side]:
                    continue
                try:
                    result, seconds, others = run_watched(command)
                    shown = {row: report.number(value(r, result)) for row, r in experiment["rows"].items()}
                except Failed as failure:
                    print(f"  {side} ({name}) failed, left out: {failure}", file=sys.stderr, flush=True)
                    active[side].discard(name)
                    variants[name].clear()
                    continue
                result["disturbed"] = others > DISTURBED
                variants[name].append(result)
                busy = f", others took {others:.0%} of the machine" if result["disturbed"] else ""
                numbers = " ".join(shown.values())
                print(f"  round {number} {side} ({name}): {numbers} [{seconds:.0f} s{busy}]", flush=True)
            if not active[side]:
                raise Failed(f"nothing of {side} could be measured")
            if number == 1:
                active[side] &= worth_keeping(experiment["rows"], variants)
                for name in variants.keys() - active[side]:
                    variants[name].clear()
    return results


def summary(name: str, experiment: dict, results: dict, rounds: int, commit: str) -> dict:
    """One row of the results: the best variant of either side."""
    row, sides, notes = experiment["rows"][name], {}, []
    for side, variants in results.items():
        medians = {variant: best(row, found) for variant, found in variants.items() if found}
        variant = max(medians, key=lambda v: speed(row, medians[v]))
        sides[side] = medians[variant]
        found = variants[variant]
        words = [f"{side}: {variant}"]
        for key in experiment.get("extra", []):
            words.append(f"{key.replace('_', ' ')} {statistics.median(r[key] for r in found):.0f}")
        spread = [value(row, r) for r in found]
        words.append(f"±{(max(spread) - min(spread)) / 2 / sides[side]:.0%}")
        if disturbed := sum(r["disturbed"] for r in found):
            words.append(f"{disturbed} of {len(found)} runs disturbed")
        notes.append(", ".join(words))
    ratio = speed(row, sides["ours"]) / speed(row, sides["theirs"])
    if "without" in experiment:
        notes.append(f"theirs without {experiment['without']}")
    note = "; ".join([*notes, f"{rounds} round{'s' * (rounds > 1)} at {commit}"])
    return {"ratio": ratio, "bar": row["bar"], **sides, "unit": row["unit"], "note": note}


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--aha", type=Path, default=REPOSITORY / "target" / "release" / "aha", help="our binary")
    p.add_argument("--model", type=Path, help="Qwen2.5-0.5B GGUF file in Q4_K_M; without it those rows are skipped")
    p.add_argument("--only", help="rows to measure, by comma; a name ending in * stands for all that begin so")
    p.add_argument("--without", help="leave out the others' variants that have this in their name, such as bf16")
    p.add_argument("--rounds", type=int, default=5, help="how often each side runs")
    p.add_argument("--out", type=Path, default=REPOSITORY / "bench", help="where results.json and results.md go")
    p.add_argument("--work", type=Path, default=REPOSITORY / "target" / "bench", help="models and prompts made once")
    args = p.parse_args()
    if args.rounds < 1:
        p.error("--rounds must be at least 1")
    if not args.aha.is_file():
        p.error(f"{args.aha} is missing; build it with `cargo build --release` or give --aha")
    if args.model and not args.model.is_file():
        p.error(f"--model {args.model} is not a file")
    return args


def wanted(only: str | None, names: list[str]) -> set[str]:
    """The rows that --only asks for."""
    if only is None:
        return set(names)
    chosen = set()
    for part in filter(None, only.split(",")):
        found = {n for n in names if n == part or (part.endswith("*") and n.startswith(part[:-1]))}
        if not found:
            sys.exit(f"--only: there is no row {part}; rows: {', '.join(names)}")
        chosen |= found
    return chosen


def leave_out(part: str, listed: list[dict]) -> None:
    """Removes the others' variants with `part` in their name. Where it is in all of them, as in rows that are about it, they stay."""
    found = False
    for experiment in listed:
        left = {name: command for name, command in experiment["theirs"].items() if part not in name}
        if left and len(left) < len(experiment["theirs"]):
            experiment["theirs"], experiment["without"], found = left, part, True
    if not found:
        sys.exit(f"--without: no row has a variant with {part} in its name beside others")


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    gguf = args.model.resolve() if args.model else None
    listed = experiments(args.aha.resolve(), gguf, args.work.resolve())
    if args.without:
        leave_out(args.without, listed)
    order = [name for experiment in listed for name in experiment["rows"]]
    chosen = wanted(args.only, order)
    # Without --only everything is measured anew; with it, other rows keep what they had.
    rows = report.load(args.out / "results.json") if args.only else {}
    about = {"machine": report.machine(THREADS), "versions": report.versions(args.aha)}
    about["commit"] = report.commit(REPOSITORY)
    failures = 0
    for experiment in listed:
        experiment["rows"] = {name: row for name, row in experiment["rows"].items() if name in chosen}
        if not experiment["rows"]:
            continue
        names = ", ".join(experiment["rows"])
        for name in experiment["rows"]:
            rows.pop(name, None)
        if why := missing(experiment, gguf):
            print(f"{names}: skipped, {why}", flush=True)
            continue
        print(names, flush=True)
        try:
            prepare(experiment)
            results = measure(experiment, args.rounds)
        except Failed as failure:
            failures += 1
            print(f"  skipped, {failure}", file=sys.stderr, flush=True)
            continue
        for name in experiment["rows"]:
            r = rows[name] = summary(name, experiment, results, args.rounds, about["commit"])
            verdict = "" if r["ratio"] >= r["bar"] else "  BELOW THE BAR"
            print(
                f"  {name:34} {r['ratio']:7.2f} x  (bar {r['bar']:g})  ours {report.number(r['ours'])}, theirs "
                f"{report.number(r['theirs'])} {r['unit']}{verdict}",
                flush=True,
            )
        report.write(args.out, about, rows, order)
    report.write(args.out, about, rows, order)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
