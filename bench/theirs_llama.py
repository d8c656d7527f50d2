"""llama.cpp's side of the GGUF rows: tokens/s of reading a prompt and of decoding several sequences at once.

Through the C interface as llama_cpp exports it, without its Python wrapper: one `llama_decode` a step over a batch with
one token a sequence, next tokens by argmax (the cheapest sampler there is).
"""

import ctypes
import time

from common import THREADS, emit, median_seconds, parser


def fill(batch, tokens, positions, sequences, wanted) -> None:
    """Puts tokens with their positions, sequence numbers and whether logits are wanted into a llama_batch."""
    batch.n_tokens = len(tokens)
    for i, (token, position, sequence, logits) in enumerate(zip(tokens, positions, sequences, wanted, strict=True)):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = logits


def context(llama, model, sequences: int, positions: int, args):
    """A context for so many sequences of so many positions each."""
    params = llama.llama_context_default_params()
    params.n_ctx = sequences * positions
    params.n_batch = max(args.prefill, sequences * args.prompt_tokens)
    params.n_seq_max = sequences
    params.n_threads = params.n_threads_batch = THREADS
    made = llama.llama_init_from_model(model, params)
    if not made:
        raise SystemExit("llama.cpp made no context; is there memory for its cache?")
    return made


def decode(llama, ctx, batch) -> None:
    """One llama_decode that must succeed."""
    if code := llama.llama_decode(ctx, batch):
        raise SystemExit(f"llama_decode returned {code}; 1 means that the cache is too small")


def prefill_rate(llama, model, vocabulary: int, args) -> float:
    """Tokens/s of reading one prompt, logits of its last token only."""
    count = args.prefill
    ctx = context(llama, model, 1, count, args)
    batch = llama.llama_batch_init(count, 0, 1)
    tokens = [(i * 7919 + 1000) % min(vocabulary, 100_000) for i in range(count)]
    fill(batch, tokens, range(count), [0] * count, [False] * (count - 1) + [True])

    def work() -> None:
        llama.llama_memory_clear(llama.llama_get_memory(ctx), True)
        decode(llama, ctx, batch)
        llama.llama_synchronize(ctx)

    seconds = median_seconds(work, args.repeat)
    llama.llama_batch_free(batch)
    llama.llama_free(ctx)
    return count / seconds


def decode_rate(llama, model, vocabulary: int, sequences: int, args) -> float:
    """New tokens/s of so many sequences together, after their prompts have been read."""
    import numpy

    prompt, new = args.prompt_tokens, args.new_tokens
    ctx = context(llama, model, sequences, prompt + new, args)
    batch = llama.llama_batch_init(sequences * prompt, 0, 1)
    numbers = [(sequence, position) for sequence in range(sequences) for position in range(prompt)]
    tokens = [(s * 104_729 + t * 7919 + 1000) % min(vocabulary, 100_000) for s, t in numbers]
    fill(batch, tokens, [t for _, t in numbers], [s for s, _ in numbers], [t == prompt - 1 for _, t in numbers])
    decode(llama, ctx, batch)
    rows = [sequence * prompt + prompt - 1 for sequence in range(sequences)]
    everyone = range(sequences)

    def chosen(row: int) -> int:
        logits = llama.llama_get_logits_ith(ctx, row)
        return int(numpy.ctypeslib.as_array(logits, shape=(vocabulary,)).argmax())

    start = time.perf_counter()
    for step in range(new):
        fill(batch, [chosen(row) for row in rows], [prompt + step] * sequences, everyone, [True] * sequences)
        decode(llama, ctx, batch)
        rows = everyone
    llama.llama_synchronize(ctx)
    seconds = time.perf_counter() - start
    llama.llama_batch_free(batch)
    llama.llama_free(ctx)
    return sequences * new / seconds


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--model", required=True, help="GGUF file")
    p.add_argument("--prefill", type=int, default=512, help="tokens of the prompt that is read")
    p.add_argument("--sequences", default="1,16,32", help="numbers of sequences that are decoded at once")
    p.add_argument("--prompt-tokens", type=int, default=32)
    p.add_argument("--new-tokens", type=int, default=64)
    p.add_argument("--repeat", type=int, default=3, help="measurements of the prefill")
    args = p.parse_args()
    import llama_cpp as llama

    quiet = llama.llama_log_callback(lambda _level, _text, _data: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(args.model.encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}; is it a GGUF file?")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rates = {
        str(count): decode_rate(llama, model, vocabulary, count, args) for count in map(int, args.sequences.split(","))
    }
    prefill = prefill_rate(llama, model, vocabulary, args)
    emit(prefill=prefill, decode=rates, system=llama.llama_print_system_info().decode())


if __name__ == "__main__":
    main()
