"""What the measuring scripts share: threads, timing, and the one JSON line that each of them ends with."""

import argparse
import json
import os
import resource
import statistics
import time

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
DTYPES = ("f32", "bf16")


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that shows every default."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)


def torch_ready():
    """torch, held to the threads of the comparison and with fixed random numbers."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    return torch


def torch_dtype(torch, name: str):
    """The torch type behind a name in DTYPES."""
    return {"f32": torch.float32, "bf16": torch.bfloat16}[name]


def median_seconds(work, repeat: int, warmup: int = 1) -> float:
    """Median wall time of `work()` in seconds."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def add_shape(p: argparse.ArgumentParser) -> None:
    """The flags of a model's shape, spelled as in `aha bench`; the defaults are the 5 M-parameter decoder."""
    p.add_argument("--hidden-size", type=int, default=256)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--kv-heads", type=int, default=4)
    p.add_argument("--intermediate-size", type=int, default=768)
    p.add_argument("--vocab-size", type=int, default=512)


def llama_config(args, positions: int):
    """The transformers configuration of that shape, output layer of its own."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        intermediate_size=args.intermediate_size,
        vocab_size=args.vocab_size,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def emit(**numbers) -> None:
    """Prints the result; the caller reads the last line of stdout."""
    print(json.dumps(numbers), flush=True)
