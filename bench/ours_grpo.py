"""Our side of the GRPO rows: runs `aha grpo` in a fresh folder; seconds a step, mean completion length, peak memory.

Everything after `--` goes to `aha grpo` as it stands. With `--rollouts FILE` the rollouts are kept there as well.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import emit, parser


def json_lines(path: Path) -> list[dict]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--aha", required=True, help="the binary")
    p.add_argument("--rollouts", help="where to keep the rollouts [default: nowhere]")
    p.add_argument("arguments", nargs="+", help="arguments of aha grpo, after --")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as out:
        command = [args.aha, "grpo", *args.arguments, "--out", out]
        process = subprocess.Popen(command, stdout=sys.stderr)
        _, status, usage = os.wait4(process.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"`{' '.join(command)}` ended with {code}; its messages are above")
        stage = Path(out, "grpo")
        steps = [row["step_time"] for row in json_lines(stage / "timing.jsonl")][1:]
        lengths = [row["completions/mean_length"] for row in json_lines(stage / "metrics.jsonl")][1:]
        if args.rollouts:
            shutil.copyfile(stage / "rollouts.jsonl", args.rollouts)
    emit(
        seconds_per_step=statistics.median(steps),
        mean_length=statistics.mean(lengths),
        peak_mib=usage.ru_maxrss / 1024,
    )


if __name__ == "__main__":
    main()
