#!/usr/bin/env python3
"""Writes every golden file under tests/fixtures/ with PyTorch and Hugging Face transformers.

    python tools/make_fixtures.py [--out tests/fixtures] [--only models|deepseek|ten_steps|grpo|chat_template]

Tiny random decoders (Llama, Qwen2, Qwen3, DeepSeek-V3) with weights large enough that logits are of order 1 to 5 and every
parameter has a visible gradient. Everything is a function of the seeds below, runs on one CPU thread in f32 with
eager attention, and is checked here before it is written. Shapes: B batch, T tokens, V vocabulary, S steps.
tests/fixtures/README.md says what each tensor is.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import (
    LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

import chat_template_reference
import deepseek_models
import grpo_reference

EOS = 2
GREEDY_TOKENS = 16
TEMPERATURE = 0.7
# One key: safetensors writes several in a random order.
PROVENANCE = {"made_with": f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"}

SMALL = dict(
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32,
    max_position_embeddings=256, bos_token_id=1, eos_token_id=EOS, attention_dropout=0.0,
    attn_implementation="eager",
)


def rope(theta, **scaling):
    """RoPE settings as transformers 5 names them."""
    return {"rope_theta": theta, **(scaling or {"rope_type": "default"})}


# `classic` writes config.json as the published checkpoints have it (rope_theta, rope_scaling, torch_dtype at the top
# level); the others keep the form transformers 5 writes (rope_parameters, dtype). A loader has to read both.
# The norm eps and RoPE bases are unusual on purpose: a loader that ignores them misses the tolerance.
MODELS = {
    "llama_untied": dict(
        cls=LlamaForCausalLM, seed=11, tokens=(2, 13), packed=(7, 11), classic=True,
        config=LlamaConfig(
            **SMALL, vocab_size=61, intermediate_size=48, head_dim=8, rms_norm_eps=1e-5,
            rope_parameters=rope(10000.0), tie_word_embeddings=False)),
    "llama_tied": dict(
        cls=LlamaForCausalLM, seed=12, tokens=(2, 19), packed=(5, 14), classic=True,
        config=LlamaConfig(
            **SMALL, vocab_size=67, intermediate_size=40, head_dim=8, rms_norm_eps=1e-2,
            attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
            # Wavelengths 6.3, 63, 628, 6283 against the bounds 32 and 128: one kept, one blended, two divided.
            rope_parameters=rope(
                10000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=128))),
    "qwen2_untied": dict(
        cls=Qwen2ForCausalLM, seed=13, tokens=(3, 11), packed=(4, 9), shards=2,
        config=Qwen2Config(
            **SMALL, vocab_size=63, intermediate_size=44, rms_norm_eps=1e-6,
            rope_parameters=rope(1000000.0), tie_word_embeddings=False)),
    "qwen2_tied": dict(
        cls=Qwen2ForCausalLM, seed=14, tokens=(2, 17), packed=(13, 6), classic=True,
        config=Qwen2Config(
            **SMALL, vocab_size=65, intermediate_size=40, rms_norm_eps=1e-3,
            rope_parameters=rope(100.0), tie_word_embeddings=True)),
    "qwen3": dict(
        cls=Qwen3ForCausalLM, seed=15, tokens=(2, 15), packed=(10, 3),
        config=Qwen3Config(
            **{**SMALL, "hidden_size": 24}, vocab_size=62, intermediate_size=41, head_dim=16, rms_norm_eps=3e-3,
            rope_parameters=rope(5000.0), tie_word_embeddings=False)),
}


SPECS = MODELS | deepseek_models.MODELS


def random_tokens(generator, *shape, vocab):
    """Token ids of the given shape, avoiding 0 (pad), 1 (bos) and 2 (eos)."""
    return torch.randint(3, vocab, shape, generator=generator)


def build(name):
    """The model `name` with seeded weights: matrices 0.3 * normal, biases 0.3 * normal, norms 1 + 0.2 * normal."""
    spec = SPECS[name]
    model = spec["cls"](spec["config"]).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(spec["seed"])
    with torch.no_grad():
        for parameter_name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in parameter_name
            parameter.copy_(1.0 + 0.2 * noise if is_norm else 0.3 * noise)
        if "bias" in spec:
            deepseek_models.set_biases(model, spec, generator)
    return model


def cross_entropy(logits_btv, tokens_bt):
    """Mean next-token cross-entropy over all B * (T - 1) targets."""
    return F.cross_entropy(logits_btv[:, :-1].flatten(0, 1), tokens_bt[:, 1:].flatten())


def greedy_continuation(model, prompt):
    """Greedy tokens after `prompt` without a cache, and the smallest gap between best and second-best logit."""
    tokens, smallest_gap = prompt.tolist(), float("inf")
    for _ in range(GREEDY_TOKENS):
        best, runner_up = model(torch.tensor([tokens])).logits[0, -1].topk(2).values.tolist()
        smallest_gap = min(smallest_gap, best - runner_up)
        tokens.append(model(torch.tensor([tokens])).logits[0, -1].argmax().item())
    return tokens[len(prompt):], smallest_gap


def robust_greedy(model, generator, vocab):
    """A prompt whose continuation has no eos, no near tie and some variety, so that rounding cannot change it."""
    for _ in range(200):
        prompt = random_tokens(generator, 5, vocab=vocab)
        tokens, gap = greedy_continuation(model, prompt)
        if gap > 0.05 and EOS not in tokens and len(set(tokens)) >= 6:
            generated = model.generate(prompt[None], max_new_tokens=GREEDY_TOKENS, do_sample=False)
            assert generated[0, len(prompt):].tolist() == tokens, "generate() disagrees with the plain loop"
            return prompt, torch.tensor(tokens)
    raise AssertionError("no robust greedy prompt found: change the seed")


def golden_tensors(model, name):
    """Everything the Rust tests compare for one model."""
    spec, vocab = SPECS[name], model.config.vocab_size
    generator = torch.Generator().manual_seed(spec["seed"] + 1000)
    tokens_bt = random_tokens(generator, *spec["tokens"], vocab=vocab)
    model.zero_grad()
    logits_btv = model(tokens_bt).logits
    loss = cross_entropy(logits_btv, tokens_bt)
    loss.backward()
    out = {"tokens": tokens_bt, "logits": logits_btv.detach(), "loss": loss.detach()}
    for parameter_name, parameter in model.named_parameters():
        for released_name, grad in deepseek_models.by_expert(parameter_name, parameter.grad):
            assert grad.abs().max() > 1e-3, f"{name}: gradient of {released_name} is tiny"
            out[f"grad.{released_name}"] = grad.clone()

    with torch.no_grad():
        logprobs_btv = F.log_softmax(logits_btv[:, :-1] / TEMPERATURE, dim=-1)
        out["logprobs_temperature_0.7"] = logprobs_btv.gather(-1, tokens_bt[:, 1:, None]).squeeze(-1)
        out["entropy_temperature_0.7"] = -(logprobs_btv.exp() * logprobs_btv).sum(-1)
        summed, targets = 0.0, 0
        for index, length in enumerate(spec["packed"]):
            sequence = random_tokens(generator, length, vocab=vocab)
            logits_tv = model(sequence[None]).logits[0]
            out[f"packed.tokens_{index}"], out[f"packed.logits_{index}"] = sequence, logits_tv
            summed = summed + F.cross_entropy(logits_tv[:-1], sequence[1:], reduction="sum")
            targets += length - 1
        out["packed.loss"] = summed / targets
        out["greedy.prompt"], out["greedy.tokens"] = robust_greedy(model, generator, vocab)

    spread = logits_btv.std().item()
    assert 0.8 < spread < 5.0, f"{name}: logits have standard deviation {spread}"
    return out


def write_classic_config(directory):
    """Rewrites config.json to the field names of checkpoints published before transformers 5."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    if config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        del config["head_dim"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_model(model, directory, shards=1, classic=False, fused=False):
    """Writes the directory and proves that transformers reads the same weights back from it."""
    shutil.rmtree(directory, ignore_errors=True)
    total_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    shard_size = "1GB" if shards == 1 else int(total_bytes * 0.6)
    model.save_pretrained(directory, max_shard_size=shard_size)
    if fused:
        save_file(model.state_dict(), directory / "model.safetensors", metadata={"format": "pt"})
    if classic:
        write_classic_config(directory)
    files = list(directory.glob("*.safetensors"))
    assert len(files) == shards, f"{directory}: {len(files)} shards instead of {shards}"
    again = type(model).from_pretrained(directory, dtype="auto", attn_implementation="eager")
    for (name, ours), (_, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), f"{directory}: {name} changed on reload"
    probe = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(probe).logits, again(probe).logits), f"{directory}: config.json changed the model"


def write_specs(out, specs):
    for name, spec in specs.items():
        model = build(name)
        save_model(model, out / name, spec.get("shards", 1), spec.get("classic", False), spec.get("fused", False))
        save_file(golden_tensors(model, name), out / name / "golden.safetensors", metadata=PROVENANCE)
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters")


def write_models(out):
    write_specs(out, MODELS)
    # Half-precision files of the first Llama; their logits are f32 arithmetic on the rounded weights.
    for suffix, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        model = build("llama_untied")
        for parameter in model.parameters():  # not model.to(): that would round the RoPE frequencies as well
            parameter.data = parameter.data.to(dtype)
        directory = out / f"llama_{suffix}"
        save_model(model, directory)
        model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
        generator = torch.Generator().manual_seed(MODELS["llama_untied"]["seed"] + 1000)
        tokens_bt = random_tokens(generator, *MODELS["llama_untied"]["tokens"], vocab=model.config.vocab_size)
        with torch.no_grad():
            golden = {"tokens": tokens_bt, "logits": model(tokens_bt).logits}
        save_file(golden, directory / "golden.safetensors", metadata=PROVENANCE)


def ten_steps(dtype):
    """Ten AdamW steps of `llama_untied`; weight decay on matrices only, gradient norm clipped to 1."""
    model = build("llama_untied").to(dtype)
    # Adam's first step is lr * sign(gradient), so a seed with near-zero gradient entries amplifies rounding. With this
    # one, noise of 1e-6 on every gradient entry moves losses by 2e-5, norms by 2e-4 and parameters by 1e-4 at most.
    generator = torch.Generator().manual_seed(2395)
    batches_sbt = random_tokens(generator, 10, 2, 12, vocab=model.config.vocab_size)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
         {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
        lr=1e-2, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    losses, grad_norms = [], []
    for tokens_bt in batches_sbt:
        optimizer.zero_grad()
        loss = cross_entropy(model(tokens_bt).logits, tokens_bt)
        loss.backward()
        grad_norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0).detach())
        optimizer.step()
        losses.append(loss.detach())
    out = {"tokens": batches_sbt, "losses": torch.stack(losses), "grad_norms": torch.stack(grad_norms)}
    out.update({f"param.{name}": p.detach().clone() for name, p in model.named_parameters()})
    return out


def write_ten_steps(out):
    golden, finer = ten_steps(torch.float32), ten_steps(torch.float64)
    assert (golden["grad_norms"] > 1.0).all(), "the clip has to act on every step"
    # f64 matmuls show how much rounding moves each number: the tolerance a test can ask for.
    for kind in ("losses", "grad_norms", "param."):
        noise = max((golden[k].double() - finer[k]).abs().max().item() for k in golden if k.startswith(kind))
        print(f"ten_steps: rounding moves {kind.rstrip('.')} by up to {noise:.1e}")
    save_file(golden, out / "ten_steps.safetensors", metadata=PROVENANCE)


WRITERS = {
    "models": write_models,
    "deepseek": lambda out: write_specs(out, deepseek_models.MODELS),
    "ten_steps": write_ten_steps,
    "grpo": lambda out: grpo_reference.write(out / "grpo.json"),
    "chat_template": lambda out: chat_template_reference.write(out / "chat_template.json"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default_out = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
    parser.add_argument("--out", type=Path, default=default_out)
    parser.add_argument("--only", choices=WRITERS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, write in WRITERS.items():
        if arguments.only in (None, name):
            write(arguments.out)


if __name__ == "__main__":
    main()
