"""Makes a folder that TRL can train from a GGUF file: weights in bf16, configuration and tokenizer, once."""

import sys
from pathlib import Path

from common import emit, parser, torch_ready


def is_stored_twice(state: dict) -> bool:
    """Whether embedding and output are one matrix, quantised in two ways; apart they would make the model larger."""
    embedding, output = state["model.embed_tokens.weight"].float(), state["lm_head.weight"].float()
    return bool((embedding - output).norm() < 0.1 * output.norm())


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--gguf", required=True, type=Path)
    p.add_argument("--out", required=True, type=Path, help="folder that is made; one that is there is kept")
    args = p.parse_args()
    if (args.out / "config.json").exists():
        emit(out=str(args.out), made=False)
        return
    torch = torch_ready()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(args.gguf.parent), "gguf_file": args.gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    except ImportError as error:
        sys.exit(f"transformers cannot read GGUF files here: {error}\ninstall it: pip install gguf")
    # The loaded model calls itself quantised and refuses to be saved; its numbers in a model of its own do not.
    config, state = loaded.config, loaded.state_dict()
    del config.quantization_config
    config.tie_word_embeddings = is_stored_twice(state)
    if config.tie_word_embeddings:
        state["model.embed_tokens.weight"] = state["lm_head.weight"]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(state)
    unfinished = args.out.with_name(args.out.name + ".unfinished")
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(args.out)
    emit(out=str(args.out), made=True)


if __name__ == "__main__":
    main()
