"""Golden numbers of the GRPO family of losses, in float64 through torch autograd, for tests/fixtures/grpo.json.

Written from the definitions, not from any trainer's code: r = exp(logp - old) per token, A one number per sequence,
m the completion mask, k3 = exp(ref - logp) - (ref - logp) - 1 added as beta * k3 to each token before averaging.

    grpo     mean over sequences of ( sum_t m l / sum_t m )            l = -min(r A, clip(r, 1 - eps, 1 + eps_high) A)
    dapo     sum m l / sum m
    dr_grpo  sum m l / (B * max_completion_length)
    gspo     as grpo, with one ratio per sequence: exp( sum_t m (logp - old) / sum_t m )
    cispo    as dapo, with l = -stop_gradient(min(r, 1 + eps_high)) A logp
"""

import json
import math

import torch

EPSILON, EPSILON_HIGH, MAX_COMPLETION_LENGTH = 0.2, 0.28, 8
LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "cispo", "gspo")
BETAS = (0.0, 0.04)

# Differences logp - old that put ratios below, inside and above the clip range (0.8 .. 1.28 is -0.223 .. 0.247) for
# positive and negative advantages. The sequence means (gspo) are 0.257, -0.228, 0.15 and 0.096: the first is clipped
# above, the second below, the others not at all.
POLICY_MINUS_OLD = [
    [0.05, 0.40, -0.35, 0.24, 1.10, 0.10],
    [-0.30, -0.60, 0.20, -0.21, 0.00, 0.00],
    [0.60, -0.40, 0.26, 0.00, 0.31, -0.02],
    [0.00, 0.03, -0.07, 0.02, 0.50, 0.00],
]
OLD = [
    [-1.20, -0.35, -2.75, -0.90, -4.10, -0.60],
    [-0.15, -1.80, -3.20, -0.70, -9.00, -9.00],
    [-2.10, -0.55, -0.95, -1.40, -0.25, -5.00],
    [-0.80, -1.10, -0.45, -2.30, -1.65, -9.00],
]
REFERENCE = [
    [-1.00, -0.50, -2.90, -1.60, -3.00, -0.55],
    [-0.45, -2.10, -2.60, -0.95, -9.00, -9.00],
    [-1.70, -0.80, -0.70, -1.25, -0.40, -4.10],
    [-0.90, -1.00, -0.60, -2.20, -1.50, -9.00],
]
# Sequence 2 has a hole, as tool output leaves one.
MASK = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
ADVANTAGES = [1.25, -0.75, -1.5, 0.5]


def sequence_means(values_bt, mask_bt, exclude_empty):
    """Mean over sequences of token means; an empty sequence is a zero term, or not counted at all."""
    lengths = mask_bt.sum(1)
    means = (values_bt * mask_bt).sum(1) / lengths.clamp(min=1)
    return means.sum() / ((lengths > 0).sum() if exclude_empty else len(lengths))


def token_loss(loss_type, policy, old, mask, advantages):
    """Per-token policy loss [B,T] and the ratio that was used [B,T], before KL and averaging."""
    log_ratio, a = policy - old, advantages[:, None]
    if loss_type == "gspo":
        log_ratio = ((log_ratio * mask).sum(1) / mask.sum(1).clamp(min=1))[:, None].expand_as(policy)
    ratio = torch.exp(log_ratio)
    if loss_type == "cispo":
        return -ratio.clamp(max=1 + EPSILON_HIGH).detach() * a * policy, ratio
    return -torch.minimum(ratio * a, ratio.clamp(1 - EPSILON, 1 + EPSILON_HIGH) * a), ratio


def loss(loss_type, beta, policy, old, reference, mask, advantages, exclude_empty=False):
    per_token, _ = token_loss(loss_type, policy, old, mask, advantages)
    difference = reference - policy
    per_token = per_token + beta * (torch.exp(difference) - difference - 1)
    if loss_type in ("grpo", "gspo"):
        return sequence_means(per_token, mask, exclude_empty)
    total = (per_token * mask).sum()
    if loss_type == "dr_grpo":
        return total / (mask.shape[0] * MAX_COMPLETION_LENGTH)
    return total / mask.sum().clamp(min=1)


def finite_difference(f, x, step=1e-6):
    gradient = torch.zeros_like(x)
    for index in range(x.numel()):
        nudge = torch.zeros_like(x).flatten()
        nudge[index] = step
        nudge = nudge.view_as(x)
        gradient.view(-1)[index] = (f(x + nudge) - f(x - nudge)) / (2 * step)
    return gradient


def expected(loss_type, beta, inputs, exclude_empty=False):
    """Loss, gradient with respect to the policy log-probs and the masked token means a trainer logs."""
    policy = inputs["policy"].clone().requires_grad_()
    rest = [inputs[k] for k in ("old", "reference", "mask", "advantages")]
    value = loss(loss_type, beta, policy, *rest, exclude_empty)
    (gradient,) = torch.autograd.grad(value, policy)
    if loss_type != "cispo":  # its stopped gradient is not the slope of its value
        numeric = finite_difference(lambda p: loss(loss_type, beta, p, *rest, exclude_empty), inputs["policy"])
        assert (gradient - numeric).abs().max() < 1e-8, f"{loss_type}: autograd and finite differences disagree"
    assert (gradient[inputs["mask"] == 0] == 0).all(), "masked tokens must get no gradient"
    return {"loss_type": loss_type, "beta": beta, "loss": value.item(), "gradient": gradient.tolist()}


def metrics(loss_type, inputs):
    """Share of unmasked tokens whose clip was active (low: A < 0, high: A > 0) and the mean k3."""
    mask, a = inputs["mask"], inputs["advantages"][:, None]
    _, ratio = token_loss(loss_type, inputs["policy"], inputs["old"], mask, inputs["advantages"])
    tokens = mask.sum()
    low = ((ratio < 1 - EPSILON) & (a < 0)) * mask
    high = ((ratio > 1 + EPSILON_HIGH) & (a > 0)) * mask
    difference = inputs["reference"] - inputs["policy"]
    k3 = torch.exp(difference) - difference - 1
    return {"clip_ratio_low": (low.sum() / tokens).item(), "clip_ratio_high": (high.sum() / tokens).item(),
            "kl": ((k3 * mask).sum() / tokens).item()}


def case(mask):
    old, reference, delta, mask, advantages = (
        torch.tensor(x, dtype=torch.float64) for x in (OLD, REFERENCE, POLICY_MINUS_OLD, mask, ADVANTAGES))
    return {"policy": old + delta, "old": old, "reference": reference, "mask": mask, "advantages": advantages}


def write(path):
    everything = {
        "epsilon": EPSILON, "epsilon_high": EPSILON_HIGH, "max_completion_length": MAX_COMPLETION_LENGTH,
        "cispo_ratio_max": 1 + EPSILON_HIGH, "cases": []}
    empty_second = [row if i != 1 else [0] * 6 for i, row in enumerate(MASK)]
    for name, mask in (("all_sequences", MASK), ("second_sequence_fully_masked", empty_second)):
        inputs = case(mask)
        entry = {"name": name, **{k: v.tolist() for k, v in inputs.items()}, "expected": []}
        for loss_type in LOSS_TYPES:
            for beta in BETAS:
                result = expected(loss_type, beta, inputs)
                if loss_type != "cispo":
                    shares = metrics(loss_type, inputs)
                    assert mask is not MASK or shares["clip_ratio_low"] * shares["clip_ratio_high"] > 0
                    result |= shares
                if mask is not MASK and loss_type in ("grpo", "gspo"):
                    other = expected(loss_type, beta, inputs, exclude_empty=True)
                    result |= {"loss_excluding_empty": other["loss"], "gradient_excluding_empty": other["gradient"]}
                assert math.isfinite(result["loss"])
                entry["expected"].append(result)
        everything["cases"].append(entry)
    path.write_text(json.dumps(everything, indent=1) + "\n")
