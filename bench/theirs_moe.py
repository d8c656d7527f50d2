"""PyTorch's side of the moe row: forward and backward of a layer of routed experts, in tokens/s.

Sigmoid scores, the best k, weights normalised, SwiGLU experts, no token dropped. Three ways: tokens sorted by expert and a
loop over the experts; the same with one grouped product for all experts where this PyTorch has one for the processor; every
expert for every token and a mask.
"""

from common import DTYPES, emit, median_seconds, parser, torch_dtype, torch_ready


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--tokens", type=int, default=4096)
    p.add_argument("--hidden-size", type=int, default=256)
    p.add_argument("--experts", type=int, default=16)
    p.add_argument("--experts-per-tok", type=int, default=4)
    p.add_argument("--moe-intermediate-size", type=int, default=256)
    p.add_argument("--repeat", type=int, default=15)
    p.add_argument("--how", choices=("loop", "grouped", "dense"), default="loop")
    p.add_argument("--dtype", choices=DTYPES, default="bf16")
    args = p.parse_args()
    torch = torch_ready()
    functional = torch.nn.functional
    tokens, d, f = args.tokens, args.hidden_size, args.moe_intermediate_size
    dtype = torch_dtype(torch, args.dtype)

    def parameter(*shape):
        return (torch.randn(*shape) * 0.02).to(dtype).requires_grad_()

    gate = (torch.randn(args.experts, d) * 0.02).requires_grad_()
    w_gate, w_up = parameter(args.experts, f, d), parameter(args.experts, f, d)
    w_down = parameter(args.experts, d, f)
    x = torch.randn(tokens, d).to(dtype).requires_grad_()
    d_out = torch.randn(tokens, d).to(dtype)

    def choose():
        scores = torch.sigmoid(functional.linear(x.float(), gate))
        weights, chosen = scores.topk(args.experts_per_tok, dim=-1)
        return (weights / weights.sum(-1, keepdim=True)).to(dtype), chosen

    def slots(chosen):
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        return order, torch.bincount(flat, minlength=args.experts)

    def summed(weights, order, y):
        y = y * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(x).index_add(0, order // args.experts_per_tok, y)

    def loop():
        weights, chosen = choose()
        order, counts = slots(chosen)
        rows = x[order // args.experts_per_tok].split(counts.tolist())
        parts = [
            functional.linear(functional.silu(functional.linear(r, w_gate[e])) * functional.linear(r, w_up[e]), w_down[e])
            for e, r in enumerate(rows)
        ]
        return summed(weights, order, torch.cat(parts))

    def grouped():
        weights, chosen = choose()
        order, counts = slots(chosen)
        rows, ends = x[order // args.experts_per_tok], counts.cumsum(0).to(torch.int32)

        def product(a, w):
            return torch._grouped_mm(a, w.transpose(1, 2), offs=ends)

        return summed(weights, order, product(functional.silu(product(rows, w_gate)) * product(rows, w_up), w_down))

    def dense():
        weights, chosen = choose()
        every = torch.zeros(tokens, args.experts, dtype=dtype).scatter(1, chosen, weights)
        inner = functional.silu(torch.einsum("td,efd->tef", x, w_gate)) * torch.einsum("td,efd->tef", x, w_up)
        return torch.einsum("tef,edf->td", inner * every.unsqueeze(-1), w_down)

    forward = {"loop": loop, "grouped": grouped, "dense": dense}[args.how]

    def step():
        for leaf in (gate, w_gate, w_up, w_down, x):
            leaf.grad = None
        forward().backward(d_out)

    emit(tokens_per_second=tokens / median_seconds(step, args.repeat, warmup=2))


if __name__ == "__main__":
    main()
