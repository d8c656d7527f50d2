"""The results on disk, results.json and results.md, with machine and versions. Files are written aside and renamed."""

import datetime
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "llama-cpp-python", "gguf", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")


def machine(threads: int) -> dict:
    """Processor, cores, memory and the instruction sets that matter."""
    fields = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    present = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "family_model": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "cores": os.cpu_count(),
        "threads_used": threads,
        "flags": [flag for flag in FLAGS if flag in present],
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
    }


def output_of(*command: str) -> str:
    """What a short command prints, "" where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions(aha: Path) -> dict:
    """Versions of both sides; a package that is not installed is left out."""
    found = {"aha": output_of(str(aha), "--version").removeprefix("aha ")}
    found["rustc"] = output_of("rustc", "--version").removeprefix("rustc ")
    found["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {name: version for name, version in found.items() if version}


def commit(repository: Path) -> str:
    """The commit that was measured, marked where the working tree differs from it."""
    head = output_of("git", "-C", str(repository), "rev-parse", "--short=12", "HEAD")
    changed = output_of("git", "-C", str(repository), "status", "--porcelain", "--", "crates", "src", "Cargo.lock")
    return (head or "unknown") + (" with changes" if changed else "")


def load(path: Path) -> dict:
    """The rows of earlier results, none where there are none."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (ValueError, KeyError) as error:
        raise SystemExit(f"{path} is not a result of this script ({error}); move it away") from error


def write_whole(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def write(folder: Path, about: dict, rows: dict, order: list[str]) -> None:
    """results.json and results.md, rows in the order of the experiments."""
    ordered = {name: rows[name] for name in order if name in rows}
    results = {**about, "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"), "rows": ordered}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "results.md", page(results))


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def page(results: dict) -> str:
    """results.md."""
    m = results["machine"]
    lines = [
        "# aha against PyTorch, Hugging Face, TRL and llama.cpp",
        "",
        f"Measured {results['date']} at commit {results['commit']}, both sides in turn, median of the rounds.",
        "The ratio is how many times faster (or smaller) `aha` is; the bar is what we hold ourselves to.",
        "",
        f"Machine: {m['cpu']} (family/model {m['family_model']}), {m['cores']} cores, {m['threads_used']} threads "
        f"used, {m['ram_gib']} GiB, {' '.join(m['flags']) or 'no vector extensions we look for'}, {m['system']}.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
        "",
        "| row | ratio | bar | | ours | theirs | unit | note |",
        "|---|---:|---:|---|---:|---:|---|---|",
    ]
    for name, r in results["rows"].items():
        cells = [name, number(r["ratio"]), f"{r['bar']:g}", "yes" if r["ratio"] >= r["bar"] else "no"]
        cells += [number(r["ours"]), number(r["theirs"]), r["unit"], r["note"]]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Repeat it with `bench/run.sh` (see `bench/README.md`). Rows that cannot be measured are not listed."]
    return "\n".join(lines) + "\n"
