"""PyTorch's side of the training rows: tokens/s of a whole step of transformers' LlamaForCausalLM.

A step is forward, cross-entropy, backward, clipping to norm 1 and AdamW (fused, which is the fastest that PyTorch has).
"""

from common import add_shape, emit, llama_config, median_seconds, parser, torch_ready


def main() -> None:
    p = parser(__doc__)
    add_shape(p)
    p.add_argument("--batch", type=int, default=32, help="sequences a step")
    p.add_argument("--sequence", type=int, default=256, help="tokens a sequence")
    p.add_argument("--steps", type=int, default=5, help="steps that are measured")
    p.add_argument("--warmup", type=int, default=2, help="steps before them")
    p.add_argument("--precision", choices=("f32", "bf16"), default="bf16", help="bf16 is autocast over f32 weights")
    p.add_argument("--compile", action="store_true", help="model and loss through torch.compile")
    args = p.parse_args()
    torch = torch_ready()
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(llama_config(args, args.sequence)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    tokens_bt = torch.randint(0, args.vocab_size, (args.batch, args.sequence + 1))
    inputs_bt, targets = tokens_bt[:, :-1].contiguous(), tokens_bt[:, 1:].flatten()

    def loss_of(inputs_bt, targets):
        logits_btv = model(input_ids=inputs_bt, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits_btv.flatten(0, 1), targets)

    if args.compile:
        loss_of = torch.compile(loss_of)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = loss_of(inputs_bt, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = median_seconds(step, args.steps, args.warmup)
    emit(tokens_per_second=args.batch * args.sequence / seconds)


if __name__ == "__main__":
    main()
