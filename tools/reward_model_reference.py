#!/usr/bin/env python3
"""Writes tests/fixtures/qwen2_score and deepseek_score: tiny reward models, the scores that transformers gives sequences of
different lengths, and the Bradley-Terry loss of two pairs with every gradient.

    python tools/reward_model_reference.py [--out tests/fixtures]

One CPU thread, f32, eager attention, seeds below; as tools/make_fixtures.py otherwise.
"""

import argparse
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import DeepseekV3Config, Qwen2Config, Qwen2ForSequenceClassification

try:
    from transformers import DeepseekV3ForSequenceClassification
except ImportError:  # older than 4.57
    DeepseekV3ForSequenceClassification = None

PROVENANCE = {"made_with": f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"}
LENGTHS = (9, 5, 12, 7)  # chosen, rejected, chosen, rejected

MODELS = {
    "qwen2_score": (Qwen2ForSequenceClassification, 31, Qwen2Config(
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32, intermediate_size=44,
        vocab_size=63, max_position_embeddings=64, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        attention_dropout=0.0, tie_word_embeddings=True, num_labels=1, attn_implementation="eager",
        rope_parameters={"rope_theta": 1000.0, "rope_type": "default"})),
    "deepseek_score": (DeepseekV3ForSequenceClassification, 32, DeepseekV3Config(
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, hidden_size=32, intermediate_size=40,
        moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1,
        first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
        vocab_size=61, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=2, attention_dropout=0.0,
        tie_word_embeddings=False, num_labels=1, attn_implementation="eager", routed_scaling_factor=1.5,
        num_nextn_predict_layers=0, rope_parameters={"rope_theta": 1000.0, "rope_type": "default"})),
}


def make(name, cls, seed, config, out):
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(1 + 0.2 * torch.randn_like(p) if p.dim() == 1 else torch.randn_like(p) * p.shape[-1] ** -0.5)
    # No token is the padding, so the last one of a row is where transformers reads the score.
    rows = [torch.randint(3, config.vocab_size, (n,)) for n in LENGTHS]
    scores = torch.stack([model(row[None]).logits[0, 0] for row in rows])
    loss = -F.logsigmoid(scores[0::2] - scores[1::2]).mean()
    loss.backward()
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    golden = {"scores": scores.detach(), "loss": loss.detach()[None]}
    golden |= {f"tokens.{i}": row for i, row in enumerate(rows)}
    golden |= {f"grad.{n}": p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}
    save_file(golden, folder / "golden.safetensors", metadata=PROVENANCE)
    print(name, scores.tolist(), loss.item())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for name, (cls, seed, config) in MODELS.items():
        if cls is None:
            print(f"{name}: this transformers has no such class")
            continue
        make(name, cls, seed, config, out)


if __name__ == "__main__":
    main()
