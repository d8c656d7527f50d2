"""Golden numbers of the distillation divergences, in float64 through torch autograd, for tests/fixtures/divergence.json.

    python tools/divergence_reference.py tests/fixtures/divergence.json

Written from the definitions. Student and teacher are softmaxes of h W^T / T; both are gathered into the teacher's k most
likely tokens and one bucket for the rest; then, with p the student's buckets and q the teacher's,

    forward         sum q ln(q / p)
    reverse         sum p ln(p / q)
    jensen_shannon  beta forward(q, m) + (1 - beta) forward(p, m),   m = beta q + (1 - beta) p

Gradients are those of sum(d_divergence * divergence + d_logp * logp), logp the targets' log-probabilities at T = 1.
"""

import json
import sys

import torch

ROWS, WIDTH, VOCAB, K = 5, 6, 43, 7
KINDS = (("forward", None), ("reverse", None), ("jensen_shannon", 0.5), ("jensen_shannon", 0.1))
TEMPERATURES = (1.0, 2.0)


def kl(a, b):
    return torch.nn.functional.kl_div(b.log(), a, reduction="none").sum(-1)


def divergence(kind, beta, p, q):
    if kind == "forward":
        return kl(q, p)
    if kind == "reverse":
        return kl(p, q)
    m = beta * q + (1 - beta) * p
    return beta * kl(q, m) + (1 - beta) * kl(p, m)


def buckets(probabilities, ids):
    kept = probabilities.gather(-1, ids)
    rest = torch.ones_like(probabilities).scatter(-1, ids, 0.0)
    return torch.cat([kept, (probabilities * rest).sum(-1, keepdim=True)], -1)


def main():
    generator = torch.Generator().manual_seed(5)

    def noise(*shape, scale=1.0):
        # Rounded to what f32 holds, so that both sides begin with the same numbers.
        return (torch.randn(*shape, generator=generator) * scale).double()

    student_h, student_w = noise(ROWS, WIDTH), noise(VOCAB, WIDTH)
    teacher_h, teacher_w = noise(ROWS, WIDTH, scale=1.5), noise(VOCAB, WIDTH)
    targets = torch.randint(0, VOCAB, (ROWS,), generator=generator)
    d_divergence, d_logp = noise(ROWS), noise(ROWS)
    out = {
        "vocab": VOCAB, "width": WIDTH, "k": K, "targets": targets.tolist(),
        "student_h": student_h.tolist(), "student_w": student_w.tolist(),
        "teacher_h": teacher_h.tolist(), "teacher_w": teacher_w.tolist(),
        "d_divergence": d_divergence.tolist(), "d_logp": d_logp.tolist(), "cases": []}
    for temperature in TEMPERATURES:
        q_all = torch.softmax(teacher_h @ teacher_w.T / temperature, -1)
        ids = q_all.topk(K, -1).indices
        q = buckets(q_all, ids)
        for kind, beta in KINDS:
            h, w = student_h.clone().requires_grad_(), student_w.clone().requires_grad_()
            logits = h @ w.T
            value = divergence(kind, beta, buckets(torch.softmax(logits / temperature, -1), ids), q)
            logp = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
            d_h, d_w = torch.autograd.grad((d_divergence * value + d_logp * logp).sum(), (h, w))
            assert (value > 0).all()
            out["cases"].append({
                "kind": kind, "beta": beta, "temperature": temperature, "ids": ids.tolist(),
                "logprobs": q[:, :K].log().tolist(), "tails": q[:, K].log().tolist(),
                "divergence": value.tolist(), "logp": logp.tolist(), "d_h": d_h.tolist(), "d_w": d_w.tolist()})
    with open(sys.argv[1], "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
