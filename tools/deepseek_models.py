"""Tiny random DeepSeek-V3 models for make_fixtures.py: latent attention with and without compressed queries, groups of
experts, biases of both signs, YaRN on and off, both rotary pairings, and both layouts of expert tensors on disk."""

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

# Widths that are no multiples of each other, so that a mixed-up one shows.
SMALL = dict(
    num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, hidden_size=24, intermediate_size=28,
    kv_lora_rank=18, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14, moe_intermediate_size=12,
    first_k_dense_replace=1, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, attention_dropout=0.0,
    tie_word_embeddings=False, attn_implementation="eager", num_nextn_predict_layers=0)


def yarn(**more):
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 4.0, "beta_slow": 1.0,
            "original_max_position_embeddings": 32, **more}


DEFAULT_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}

# `bias` is (mean, spread) of the routers' correction biases; the mean must not matter.
MODELS = {
    "deepseek_plain": dict(
        cls=DeepseekV3ForCausalLM, seed=21, tokens=(2, 19), packed=(7, 11), bias=(2.0, 0.1),
        config=DeepseekV3Config(
            **SMALL, vocab_size=61, q_lora_rank=None, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1,
            n_group=1, topk_group=1, routed_scaling_factor=1.5, rope_parameters=DEFAULT_ROPE)),
    "deepseek_groups": dict(
        cls=DeepseekV3ForCausalLM, seed=22, tokens=(2, 23), packed=(5, 14), bias=(0.0, 0.3),
        config=DeepseekV3Config(
            **SMALL, vocab_size=63, q_lora_rank=20, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2,
            n_group=4, topk_group=2, routed_scaling_factor=2.5, rope_parameters=DEFAULT_ROPE)),
    "deepseek_yarn": dict(
        cls=DeepseekV3ForCausalLM, seed=23, tokens=(2, 40), packed=(13, 6), bias=(-3.0, 0.2), classic=True,
        config=DeepseekV3Config(
            **SMALL, vocab_size=62, q_lora_rank=16, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1,
            n_group=2, topk_group=1, routed_scaling_factor=2.5,
            rope_parameters=yarn(mscale=0.7, mscale_all_dim=1.0))),
    "deepseek_fused": dict(
        cls=DeepseekV3ForCausalLM, seed=24, tokens=(2, 21), packed=(10, 3), bias=(0.0, 0.2), fused=True,
        config=DeepseekV3Config(
            **SMALL, vocab_size=65, q_lora_rank=None, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1,
            n_group=1, topk_group=1, routed_scaling_factor=1.0, norm_topk_prob=False, rope_interleave=False,
            rope_parameters=yarn())),
}


def set_biases(model, spec, generator):
    """Gives every router its correction bias."""
    mean, spread = spec["bias"]
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(mean + spread * torch.randn(buffer.shape, generator=generator))


def by_expert(name, values):
    """The released names of a tensor that transformers holds for all experts together, with their values."""
    layer, _, tensor = name.partition(".mlp.experts.")
    if tensor == "gate_up_proj":
        for e, both in enumerate(values):
            gate, up = both.chunk(2)
            yield f"{layer}.mlp.experts.{e}.gate_proj.weight", gate.clone()
            yield f"{layer}.mlp.experts.{e}.up_proj.weight", up.clone()
    elif tensor == "down_proj":
        for e, down in enumerate(values):
            yield f"{layer}.mlp.experts.{e}.down_proj.weight", down.clone()
    else:
        yield name, values
