"""PyTorch's side of `decode_5m`: new tokens/s of batched sampling at temperature 1 from random weights, in two ways.

`--how generate` is transformers' `generate`. `--how loop` is what a careful person writes instead: weights fused, a
cache of fixed size, one call a step, no framework between. Shapes: B sequences, T tokens, K key/value heads, G query
heads a key/value head, H head width, V vocabulary.
"""

from common import DTYPES, add_shape, emit, llama_config, median_seconds, parser, torch_dtype, torch_ready


def generate(torch, args, dtype):
    """A round of transformers' `generate`."""
    from transformers import GenerationConfig, LlamaForCausalLM

    model = LlamaForCausalLM(llama_config(args, args.prompt_tokens + args.new_tokens)).eval().to(dtype)
    prompt_bt = torch.randint(0, args.vocab_size, (args.sequences, args.prompt_tokens))
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=args.new_tokens,
        min_new_tokens=args.new_tokens,
        pad_token_id=0,
        cache_implementation=args.cache,
    )

    def work() -> None:
        out_bt = model.generate(prompt_bt, attention_mask=torch.ones_like(prompt_bt), generation_config=settings)
        assert out_bt.shape[1] == args.prompt_tokens + args.new_tokens, "generate stopped early"

    return work


def loop(torch, args, dtype):
    """A round of the loop written by hand."""
    functional = torch.nn.functional
    width, kv_heads, head = args.hidden_size, args.kv_heads, args.hidden_size // args.heads
    group, positions = args.heads // args.kv_heads, args.prompt_tokens + args.new_tokens

    def weight(rows, columns):
        return (torch.randn(rows, columns) * 0.02).to(dtype)

    embedding, output = weight(args.vocab_size, width), weight(args.vocab_size, width)
    ones = torch.ones(width, dtype=dtype)
    layers = [
        {
            "qkv": weight((args.heads + 2 * kv_heads) * head, width),
            "o": weight(width, width),
            "gate_up": weight(2 * args.intermediate_size, width),
            "down": weight(width, args.intermediate_size),
            "keys": torch.zeros(args.sequences, kv_heads, positions, head, dtype=dtype),
            "values": torch.zeros(args.sequences, kv_heads, positions, head, dtype=dtype),
        }
        for _ in range(args.layers)
    ]
    angles_th = torch.outer(torch.arange(positions), 10000.0 ** (-torch.arange(0, head, 2) / head)).repeat(1, 2)
    cos_th, sin_th = angles_th.cos().to(dtype), angles_th.sin().to(dtype)

    def rotate(x, cos, sin):
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def attend(layer, q, start, end):
        """Attention of the new positions start..end over the cache, whose rows up to end are filled."""
        keys, values = layer["keys"][:, :, :end], layer["values"][:, :, :end]
        if end - start > 1:
            return functional.scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=True)
        q_bkgh = q.view(args.sequences, kv_heads, group, head)
        return functional.scaled_dot_product_attention(q_bkgh, keys, values).view(args.sequences, args.heads, 1, head)

    def forward(tokens_bt, start, end):
        x = functional.embedding(tokens_bt, embedding)
        cos, sin = cos_th[start:end], sin_th[start:end]
        for layer in layers:
            qkv = functional.linear(functional.rms_norm(x, (width,), ones, 1e-6), layer["qkv"])
            qkv = qkv.view(args.sequences, end - start, -1, head).transpose(1, 2)
            q, k, v = qkv.split((args.heads, kv_heads, kv_heads), dim=1)
            layer["keys"][:, :, start:end] = rotate(k, cos, sin)
            layer["values"][:, :, start:end] = v
            mixed = attend(layer, rotate(q, cos, sin), start, end).transpose(1, 2).flatten(2)
            x = x + functional.linear(mixed, layer["o"])
            both = functional.linear(functional.rms_norm(x, (width,), ones, 1e-6), layer["gate_up"])
            gate, up = both.chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, layer["down"])
        logits_bv = functional.linear(functional.rms_norm(x[:, -1], (width,), ones, 1e-6), output).float()
        # The largest of logit plus Gumbel noise is a sample of the softmax, in one pass.
        noise_bv = torch.empty_like(logits_bv).exponential_().log_()
        return (logits_bv - noise_bv).argmax(-1, keepdim=True)

    one_step = torch.compile(forward, dynamic=True) if args.compile else forward
    prompt_bt = torch.randint(0, args.vocab_size, (args.sequences, args.prompt_tokens))

    def work() -> None:
        tokens_b1 = forward(prompt_bt, 0, args.prompt_tokens)
        for position in range(args.prompt_tokens, positions - 1):
            tokens_b1 = one_step(tokens_b1, position, position + 1)

    return work


def main() -> None:
    p = parser(__doc__)
    add_shape(p)
    p.add_argument("--how", choices=("generate", "loop"), default="loop")
    p.add_argument("--dtype", choices=DTYPES, default="bf16")
    p.add_argument("--compile", action="store_true", help="the loop's step through torch.compile")
    p.add_argument("--cache", choices=("dynamic", "static"), default="dynamic", help="cache of generate")
    p.add_argument("--sequences", type=int, default=64)
    p.add_argument("--prompt-tokens", type=int, default=32)
    p.add_argument("--new-tokens", type=int, default=128)
    p.add_argument("--repeat", type=int, default=3)
    args = p.parse_args()
    torch = torch_ready()
    with torch.inference_mode():
        work = (generate if args.how == "generate" else loop)(torch, args, torch_dtype(torch, args.dtype))
        seconds = median_seconds(work, args.repeat)
    emit(tokens_per_second=args.sequences * args.new_tokens / seconds)


if __name__ == "__main__":
    main()
