"""Muon on three small matrices: torch.optim.Muon (Newton-Schulz in bf16) and the same steps in float64.

    python tools/muon_reference.py tests/fixtures/muon.safetensors

Tensors: `NAME.begin`, `NAME.grad.S` for the steps S, `NAME.torch` and `NAME.exact` after the last one. `tall` is higher
than wide, so that the iteration runs on its transpose; the learning rate is adjusted as in `match_rms_adamw`.
"""

import math
import sys

import torch
from safetensors.torch import save_file

SHAPES = {"wide": (24, 40), "tall": (40, 24), "square": (33, 33)}
STEPS, RATE, DECAY, MOMENTUM = 4, 0.01, 0.1, 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(g):
    """Five Newton-Schulz steps towards the nearest semi-orthogonal matrix."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def main():
    generator = torch.Generator().manual_seed(7)
    begin = {n: torch.randn(s, generator=generator) * 0.1 for n, s in SHAPES.items()}
    grads = {n: [torch.randn(s, generator=generator) for _ in range(STEPS)] for n, s in SHAPES.items()}
    out = {}
    for name, shape in SHAPES.items():
        parameter = torch.nn.Parameter(begin[name].clone())
        settings = dict(lr=RATE, weight_decay=DECAY, momentum=MOMENTUM, nesterov=True)
        muon = torch.optim.Muon([parameter], adjust_lr_fn="match_rms_adamw", **settings)
        exact, momentum = begin[name].double(), torch.zeros(shape, dtype=torch.float64)
        for step, grad in enumerate(grads[name]):
            parameter.grad = grad.clone()
            muon.step()
            momentum = momentum * MOMENTUM + grad.double() * (1 - MOMENTUM)
            nesterov = grad.double() * (1 - MOMENTUM) + momentum * MOMENTUM
            exact = exact * (1 - RATE * DECAY) - RATE * 0.2 * math.sqrt(max(shape)) * orthogonal(nesterov)
            out[f"{name}.grad.{step}"] = grad
        difference = (parameter.detach().double() - exact).abs().max() / (exact - begin[name].double()).abs().max()
        assert difference < 0.05, difference
        out |= {f"{name}.begin": begin[name], f"{name}.torch": parameter.detach(), f"{name}.exact": exact.float()}
        print(name, "largest difference of torch from float64, of the largest change:", float(difference))
    save_file(out, sys.argv[1])


if __name__ == "__main__":
    main()
