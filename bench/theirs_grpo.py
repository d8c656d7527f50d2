"""TRL's side of the GRPO rows: seconds a step of GRPOTrainer on the CPU, mean completion length and peak memory.

Prompts are JSON Lines of {"prompt": TEXT or MESSAGES, "question": TEXT} and optionally "answer", read in their order,
`--num-prompts` a step. Everything that costs time without teaching is off (saving, logging of completions, evaluation).
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

from common import DTYPES, emit, parser, peak_mib, torch_dtype, torch_ready
from rewards import accuracy_reward, format_reward, vowel_reward


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--model", required=True, help="folder with weights and tokenizer")
    p.add_argument("--prompts", required=True, help="JSON Lines of prompts")
    p.add_argument("--steps", type=int, default=4, help="steps; the first is not counted")
    p.add_argument("--num-prompts", type=int, default=32)
    p.add_argument("--num-generations", type=int, default=16)
    p.add_argument("--max-completion-length", type=int, default=256)
    p.add_argument("--micro-batch", type=int, default=64, help="completions in one forward and backward")
    p.add_argument("--beta", type=float, default=0.001)
    p.add_argument("--learning-rate", type=float, default=1e-5)
    p.add_argument("--weights", choices=DTYPES, default="f32", help="type of weights and optimizer state")
    p.add_argument("--autocast", action="store_true", help="multiply in bf16 over f32 weights")
    p.add_argument("--checkpointing", action="store_true", help="recompute activations instead of keeping them")
    p.add_argument("--vowels", action="store_true", help="also reward vowels, so that hardly two completions are equal")
    args = p.parse_args()
    completions = args.num_prompts * args.num_generations
    if args.steps < 2 or completions % args.micro_batch:
        p.error(f"--steps must be at least 2 and --micro-batch must divide {completions} (prompts x generations)")
    torch = torch_ready()
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    ends, lengths = [], []

    class Clock(TrainerCallback):
        """Notes when steps end and how long completions were."""

        def on_train_begin(self, *_args, **_more):
            ends.append(time.perf_counter())

        def on_step_end(self, *_args, **_more):
            ends.append(time.perf_counter())

        def on_log(self, _arguments, _state, _control, logs=None, **_more):
            if logs and "completions/mean_length" in logs:
                lengths.append(logs["completions/mean_length"])

    with tempfile.TemporaryDirectory() as scratch:
        rows = load_dataset("json", data_files=args.prompts, split="train", cache_dir=str(Path(scratch, "data")))
        config = GRPOConfig(
            output_dir=str(Path(scratch, "out")),
            use_cpu=True,
            model_init_kwargs={"dtype": torch_dtype(torch, args.weights), "attn_implementation": "sdpa"},
            bf16=args.autocast,
            gradient_checkpointing=args.checkpointing,
            per_device_train_batch_size=args.micro_batch,
            gradient_accumulation_steps=completions // args.micro_batch,
            num_generations=args.num_generations,
            max_completion_length=args.max_completion_length,
            max_steps=args.steps,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=args.beta,
            loss_type="grpo",
            scale_rewards="group",
            learning_rate=args.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            shuffle_dataset=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=1,
        )
        trainer = GRPOTrainer(
            model=args.model,
            reward_funcs=[accuracy_reward, format_reward, *([vowel_reward] if args.vowels else [])],
            args=config,
            train_dataset=rows,
            callbacks=[Clock()],
        )
        trainer.train()
    steps = [after - before for before, after in itertools.pairwise(ends[1:])]
    emit(
        seconds_per_step=statistics.median(steps),
        mean_length=statistics.mean(lengths[1:]),
        peak_mib=peak_mib(),
    )


if __name__ == "__main__":
    main()
