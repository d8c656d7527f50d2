"""Adapters made and trained by PEFT on two fixture models: logits, gradients of A and B, four AdamW steps.

    python tools/lora_reference.py tests/fixtures

Writes `lora_NAME/` with the adapter as PEFT saves it and `golden.safetensors`: `tokens`, `logits`, `loss`, `grad.P` for
every adapter parameter P (its name without PEFT's prefix), `losses` and `grad_norms` of four steps (before the step, before
clipping), `param.P` after them. lr 1e-2, betas 0.9 / 0.95, eps 1e-8, weight decay 0.1, gradient norm clipped to 1.
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

STEPS = 4
CASES = {
    "llama_untied": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj", "lm_head"]),
    "qwen2_tied": dict(r=3, lora_alpha=6, target_modules="all-linear", use_rslora=True),
}


def loss_of(model, tokens):
    logits = model(input_ids=tokens).logits
    return logits, torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def make(root, name, settings):
    torch.manual_seed(11)
    base = AutoModelForCausalLM.from_pretrained(root / name, dtype=torch.float32, attn_implementation="eager")
    # Without PEFT's first values B is random, so that both factors have gradients.
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", init_lora_weights=False, **settings)
    model = get_peft_model(base, config).eval()
    for n, p in model.named_parameters():
        if "lora_B" in n:
            p.data *= 0.2
    model.peft_config["default"].base_model_name_or_path = name
    target = root / f"lora_{name}"
    model.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)
    tokens = load_file(root / name / "golden.safetensors")["tokens"]
    trained = {
        n.removeprefix("base_model.model.").replace(".default", ""): p
        for n, p in model.named_parameters()
        if p.requires_grad
    }
    logits, loss = loss_of(model, tokens)
    loss.backward()
    out = {"tokens": tokens, "logits": logits.detach(), "loss": loss.detach()}
    out |= {f"grad.{n}": p.grad.clone() for n, p in trained.items()}
    assert all(p.grad.abs().max() > 1e-5 for p in trained.values())
    # The saved folder is the same model.
    again = AutoModelForCausalLM.from_pretrained(root / name, dtype=torch.float32, attn_implementation="eager")
    again = PeftModel.from_pretrained(again, target).eval()
    assert torch.equal(loss_of(again, tokens)[0], logits)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        _, loss = loss_of(model, tokens)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), 1.0))
        losses.append(loss.detach())
        optimizer.step()
    out |= {"losses": torch.stack(losses), "grad_norms": torch.stack(norms)}
    out |= {f"param.{n}": p.detach().clone() for n, p in trained.items()}
    save_file({k: v.contiguous() for k, v in out.items()}, target / "golden.safetensors")
    print(name, len(trained), "adapter tensors, losses", [round(float(v), 4) for v in losses])


if __name__ == "__main__":
    for case, kwargs in CASES.items():
        make(Path(sys.argv[1]), case, kwargs)
