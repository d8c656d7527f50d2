//! The exact words of every error message.

use aha_pipeline::recipe::{RawRecipe, Recipe};

use crate::{SMALL, overridden, parse, small};

/// The message for SMALL with `old` replaced by `new`.
#[track_caller]
fn edited(old: &str, new: &str) -> String {
    assert_eq!(SMALL.matches(old).count(), 1, "{old:?} must occur once");
    parse(&SMALL.replace(old, new)).expect_err("must be refused").to_string()
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(
        edited("learning_rate = 1e-3", "learning_rat = 1e-3"),
        "small.toml:16: unknown key `base.learning_rat`; did you mean `learning_rate`?"
    );
    assert_eq!(
        edited("hidden_size", "hiden_size"),
        "small.toml:20: unknown key `base.model.hiden_size`; did you mean `hidden_size`?"
    );
    assert_eq!(edited("seed", "sede"), "small.toml:2: unknown key `sede`; did you mean `seed`?");
    assert_eq!(
        edited("weight = 0.1", "wieght = 0.1"),
        "small.toml:33: unknown key `zero.rewards.format.wieght`; did you mean `weight`?"
    );
    assert_eq!(
        edited("blunt = 0.5", "blnt = 0.5"),
        "small.toml:7: unknown key `corpus.corpus.blnt`; did you mean `blunt`?"
    );
    assert_eq!(
        overridden(&["zero.max_steps=5"]),
        "--set zero.max_steps=5: unknown key `zero.max_steps`; did you mean `steps`?"
    );
    assert_eq!(
        overridden(&["zero.overlong_penalty.qqq=5"]),
        "--set zero.overlong_penalty.qqq=5: unknown key `zero.overlong_penalty.qqq`; the keys here: `cache_length`, `weight`"
    );
    // A typo of a needed key is called a typo, not a missing key; a key of another kind is unknown here.
    assert_eq!(
        edited("corpus = \"corpus\"", "corpsu = \"corpus\""),
        "small.toml:12: unknown key `base.corpsu`; did you mean `corpus`?"
    );
    assert!(
        edited("warmup_steps = 2", "beta = 0.1")
            .starts_with("small.toml:17: unknown key `base.beta`; the keys here: `name`, `kind`, `corpus`")
    );
}

#[test]
fn wrong_types_name_key_found_and_wanted() {
    for (old, new, message) in [
        (
            "learning_rate = 1e-3",
            "learning_rate = \"fast\"",
            "small.toml:16: `base.learning_rate` is the string \"fast\", but it must be a number above 0",
        ),
        (
            "learning_rate = 1e-3",
            "learning_rate = 0",
            "small.toml:16: `base.learning_rate` is 0, but it must be a number above 0",
        ),
        (
            "learning_rate = 1e-3",
            "learning_rate = nan",
            "small.toml:16: `base.learning_rate` is NaN, but it must be a number above 0",
        ),
        (
            "learning_rate = 1e-3",
            "learning_rate = [1]",
            "small.toml:16: `base.learning_rate` is a list, but it must be a number above 0",
        ),
        (
            "steps = 10\n",
            "steps = 1.5\n",
            "small.toml:31: `zero.steps` is 1.5, but it must be a whole number of at least 1",
        ),
        (
            "steps = 10\n",
            "steps = -1\n",
            "small.toml:31: `zero.steps` is -1, but it must be a whole number of at least 1",
        ),
        (
            "steps = 10\n",
            "steps = 0\n",
            "small.toml:31: `zero.steps` is 0, but it must be a whole number of at least 1",
        ),
        (
            "steps = 10\n",
            "steps = 2026-01-01\n",
            "small.toml:31: `zero.steps` is the date 2026-01-01, but it must be a whole number of at least 1",
        ),
        (
            "model = \"base\"",
            "model = true",
            "small.toml:29: `zero.model` is true, but it must be the name of an earlier stage, or the path of a model",
        ),
        (
            "model = \"base\"",
            "model = \"\"",
            "small.toml:29: `zero.model` is the string \"\", but it must be the name of an earlier stage, or the path of a model",
        ),
        ("corpus = { blunt = 0.5 }", "corpus = 1", "small.toml:7: `corpus.corpus` is 1, but it must be a table"),
        (
            "rewards = [{ name = \"accuracy\" }, { name = \"format\", weight = 0.1 }]",
            "rewards = [\"accuracy\"]",
            "small.toml:33: `zero.rewards` is a list, but it must be a list such as [{ name = \"accuracy\", weight = 1.0 }], at least one",
        ),
        (
            "model = [\"base\", \"zero\"]",
            "model = [\"base\", 3]",
            "small.toml:38: `measure.model` is a list, but it must be the name of an earlier stage, the path of a model, or a list of these",
        ),
        (
            "name = \"zero\"",
            "name = \"Zero!\"",
            "small.toml:27: `Zero!.name` is the string \"Zero!\", but it must be a name of lower-case letters, digits, `-` and `_`",
        ),
        (
            "kind = \"grpo\"",
            "kind = \"gropo\"",
            "small.toml:28: `zero.kind` is the string \"gropo\", but it must be one of `corpus`, `pretrain`, `extend`, `sft`, `reward_model`, `distill`, `grpo`, `cold_start`, `reject`, `eval`, `table`",
        ),
    ] {
        assert_eq!(edited(old, new), message);
    }
}

#[test]
fn values_out_of_range_say_what_is_wanted() {
    for (assignment, message) in [
        (
            "zero.num_generations=1",
            "`zero.num_generations` is 1, but it must be a whole number of at least 2: the baseline is the mean of the group, so a group of one has advantage 0 and learns nothing",
        ),
        ("zero.temperature=0", "`zero.temperature` is 0, but it must be a number above 0"),
        ("zero.top_p=1.1", "`zero.top_p` is 1.1, but it must be a number above 0 and at most 1"),
        ("zero.beta=-0.1", "`zero.beta` is -0.1, but it must be a number of at least 0"),
        ("zero.beta=abc", "`zero.beta` is the string \"abc\", but it must be a number of at least 0"),
        ("zero.dual_clip=1", "`zero.dual_clip` is 1, but it must be a number above 1"),
        ("zero.adam_beta2=1", "`zero.adam_beta2` is 1, but it must be a number of at least 0 and below 1"),
        ("zero.min_lr_ratio=2", "`zero.min_lr_ratio` is 2, but it must be a number between 0 and 1"),
        (
            "zero.loss_type=ppo",
            "`zero.loss_type` is the string \"ppo\", but it must be one of `grpo`, `dr_grpo`, `dapo`, `gspo`, `cispo`",
        ),
        ("zero.scale_rewards=true", "`zero.scale_rewards` is true, but it must be one of `group`, `batch`, `none`"),
        (
            "zero.std_kind=robust",
            "`zero.std_kind` is the string \"robust\", but it must be one of `population`, `sample`",
        ),
        (
            "zero.mask_truncated_completions=yes",
            "`zero.mask_truncated_completions` is the string \"yes\", but it must be true or false",
        ),
        (
            "zero.prompt_style=poem",
            "`zero.prompt_style` is the string \"poem\", but it must be one of `auto`, `mini`, `r1_zero`, `chat`",
        ),
        (
            "base.schedule=cosin",
            "`base.schedule` is the string \"cosin\", but it must be one of `constant`, `linear`, `cosine`, `wsd`, `v3`",
        ),
        (
            "corpus.vocab_size=100",
            "`corpus.vocab_size` is 100, but it must be a whole number of at least 351: the 256 bytes, the 90 two-digit numbers, the end token and four tags",
        ),
        ("seed=-1", "`seed` is -1, but it must be a whole number of at least 0"),
        (
            "zero.rewards=[]",
            "`zero.rewards` is a list, but it must be a list such as [{ name = \"accuracy\", weight = 1.0 }], at least one",
        ),
        (
            "name=Small",
            "`name` is the string \"Small\", but it must be a name of lower-case letters, digits, `-` and `_`",
        ),
    ] {
        assert_eq!(overridden(&[assignment]), format!("--set {assignment}: {message}"));
    }
}

#[test]
fn missing_keys_say_what_they_must_be() {
    assert_eq!(
        edited("task = \"mini\"\nsteps = 10\n", "steps = 10\n"),
        "small.toml:26: `zero.task` is missing; it must be the name of a task"
    );
    assert_eq!(
        edited("learning_rate = 1e-3\n", ""),
        "small.toml:9: `base.learning_rate` is missing; it must be a number above 0"
    );
    assert_eq!(
        edited("tokens = 10_000\n", ""),
        "small.toml:9: `base.tokens` is missing; it must be the length of the training in tokens (or `steps`)"
    );
    assert_eq!(
        edited("hidden_size = 16\n", ""),
        "small.toml:19: `base.model.hidden_size` is missing; it must be a whole number of at least 1"
    );
    assert_eq!(
        edited("name = \"zero\"\n", ""),
        "small.toml:26: `stage 3.name` is missing; it must be a name of lower-case letters, digits, `-` and `_`"
    );
    assert_eq!(
        edited("kind = \"grpo\"\n", ""),
        "small.toml:26: `zero.kind` is missing; it must be one of `corpus`, `pretrain`, `extend`, `sft`, `reward_model`, `distill`, `grpo`, `cold_start`, `reject`, `eval`, `table`"
    );
    assert_eq!(
        edited("name = \"small\"\n", ""),
        "small.toml:1: `name` is missing; it must be a name of lower-case letters, digits, `-` and `_`"
    );
    assert_eq!(
        parse("name = 'x'").unwrap_err().to_string(),
        "small.toml:1: `stage` is missing; it must be a list of stages, each under `[[stage]]`"
    );
    assert_eq!(
        parse("name = 'x'\nstage = []").unwrap_err().to_string(),
        "small.toml:2: `stage` is a list, but it must be a list of stages, each under `[[stage]]`, at least one"
    );
    assert_eq!(
        edited("{ name = \"accuracy\" }", "{ weight = 1.0 }"),
        "small.toml:33: `zero.rewards.0.name` is missing; it must be the name of a reward"
    );
}

#[test]
fn stages_must_exist_and_come_earlier() {
    assert_eq!(
        edited("model = \"base\"", "model = \"bsae\""),
        "small.toml:29: `zero.model` is `bsae`, but there is no such stage before `zero`; did you mean `base`? (for a folder, write `./NAME`)"
    );
    assert_eq!(
        edited("corpus = \"corpus\"", "corpus = \"web\""),
        "small.toml:12: `base.corpus` is `web`, but there is no such stage before `base`; the stages before it: `corpus`"
    );
    assert_eq!(
        edited("model = \"base\"", "model = \"measure\""),
        "small.toml:29: `zero.model` is `measure`, but there is no such stage before `zero`; `measure` comes later: move it up"
    );
    assert_eq!(
        overridden(&["zero.reference=zero"]),
        "--set zero.reference=zero: `zero.reference` is `zero`, but there is no such stage before `zero`; a stage cannot use its own result"
    );
    assert_eq!(
        edited("model = \"base\"", "model = \"corpus\""),
        "small.toml:29: `zero.model` is `corpus`, a corpus stage, which makes no model; models come from pretrain, extend, sft, distill and grpo stages"
    );
    assert_eq!(
        edited("name = \"zero\"", "name = \"base\""),
        "small.toml:27: there are two stages called `base`; give one of them another name"
    );
    assert_eq!(
        edited("name = \"zero\"", "name = \"seed\""),
        "small.toml:27: a stage cannot be called `seed`, which is a key of the recipe; choose another name"
    );
    let pretrain_on_pretrain =
        SMALL.replace("name = \"zero\"\nkind = \"grpo\"", "name = \"zero\"\nkind = \"pretrain\"\ncorpus = \"base\"");
    assert!(parse(&pretrain_on_pretrain).is_err());
}

#[test]
fn settings_that_do_not_fit_together() {
    for (assignments, message) in [
        (
            &["base.context=200"][..],
            "--set base.context=200: `base.context` is 200, more than the model's max_position_embeddings of 128; lower the one or raise the other",
        ),
        (
            &["base.batch_tokens=500"],
            "--set base.batch_tokens=500: `base.batch_tokens` is 500, which is not a whole number of rows of 64 tokens (`base.context`); take 512",
        ),
        (&["base.steps=3"], "small.toml:13: `base.steps` and `base.tokens` say the same thing twice; keep one"),
        (
            &["base.warmup_steps=21"],
            "--set base.warmup_steps=21: `base.warmup_steps` is 21, but the stage has only 20 steps",
        ),
        (
            &["base.decay_steps=19"],
            "--set base.decay_steps=19: `base.decay_steps` is 19, but only 18 of the 20 steps are left after the warm-up",
        ),
        (
            &["base.model.num_attention_heads=3"],
            "small.toml:20: `base.model.hidden_size` is 16, which 3 attention heads do not divide; give a `head_dim`",
        ),
        (
            &["base.model.num_key_value_heads=4"],
            "--set base.model.num_key_value_heads=4: `base.model.num_key_value_heads` is 4, which does not divide the 2 attention heads",
        ),
        (
            &["base.model.head_dim=7"],
            "--set base.model.head_dim=7: the width of a head (`base.model.head_dim`) is 7; RoPE needs an even one",
        ),
        (
            &["zero.max_completion_length=128"],
            "--set zero.max_completion_length=128: `zero.max_completion_length` is 128, but the model of `base` has max_position_embeddings of 128, prompt included; lower the one or raise the other",
        ),
        (
            &["measure.model=zero", "measure.max_completion_length=500"],
            "--set measure.max_completion_length=500: `measure.max_completion_length` is 500, but the model of `base` has max_position_embeddings of 128, prompt included; lower the one or raise the other",
        ),
        (
            &["zero.overlong_penalty.cache_length=65"],
            "--set zero.overlong_penalty.cache_length=65: `zero.overlong_penalty.cache_length` is 65, more than the max_completion_length of 64: every completion would be punished",
        ),
        (
            &["zero.rewards.format.name=accuracy"],
            "--set zero.rewards.format.name=accuracy: the reward `accuracy` is in `zero.rewards` twice",
        ),
        (
            &["zero.rewards=[{ name = \"accuracy\", weight = 0 }]"],
            "--set zero.rewards=[{ name = \"accuracy\", weight = 0 }]: all weights in `zero.rewards` are 0, so there is nothing to learn",
        ),
        (
            &["measure.label=both"],
            "--set measure.label=both: `measure.label` has 1 labels for 2 models; give one label per model",
        ),
        (
            &["measure.model=[\"base\", \"base\"]"],
            "small.toml:35: the label `base` is already used by the stage `measure`; give another `measure.label`",
        ),
    ] {
        assert_eq!(overridden(assignments), message);
    }
    let twice = format!(
        "{SMALL}\n[[stage]]\nname = \"again\"\nkind = \"eval\"\nmodel = \"zero\"\ntask = \"mini\"\nmax_completion_length = 64\n"
    );
    assert_eq!(
        parse(&twice).unwrap_err().to_string(),
        "small.toml:42: the label `zero` is already used by the stage `measure`; give another `again.label`"
    );
}

#[test]
fn malformed_overrides() {
    for (assignment, message) in [
        ("seed", "--set seed: write KEY=VALUE, for example `seed=3` or `STAGE.learning_rate=1e-4`"),
        ("=3", "--set =3: the key `` has an empty part"),
        ("zero..beta=3", "--set zero..beta=3: the key `zero..beta` has an empty part"),
        ("zreo.beta=0.1", "--set zreo.beta=0.1: there is no stage `zreo`; did you mean `zero`?"),
        ("sede=1", "--set sede=1: there is no stage `sede`; did you mean `seed`?"),
        (
            "everything=1",
            "--set everything=1: there is no stage `everything`; a key begins with one of: `corpus`, `base`, `zero`, `measure`, `name`, `description`, `seed`",
        ),
        ("zero=1", "--set zero=1: `zero` is a stage, not a setting; write `zero.KEY=VALUE`"),
        ("zero.task.x=1", "--set zero.task.x=1: `task` is the string \"mini\", not a table"),
        ("zero.rewards.fomat.weight=1", "--set zero.rewards.fomat.weight=1: the list `rewards` has no element `fomat`"),
        ("zero.rewards.2.weight=1", "--set zero.rewards.2.weight=1: the list `rewards` has no element `2`"),
        ("seed.x=1", "--set seed.x=1: `seed` is 7, not a table"),
        ("seed=", "--set seed=: `seed` is the string \"\", but it must be a whole number of at least 0"),
    ] {
        assert_eq!(overridden(&[assignment]), message);
    }
    assert!(overridden(&["zero.rewards=[{"]).starts_with("--set zero.rewards=[{: this is not valid TOML: "));
}

#[test]
fn text_that_is_not_toml() {
    let message = |text| RawRecipe::parse(text, "bad.toml").unwrap_err().to_string();
    assert!(message("name = \"x\"\nseed = \n").starts_with("bad.toml:2: this is not valid TOML: "));
    assert!(message("a = 1\na = 2").starts_with("bad.toml:2: this is not valid TOML: "));
    assert!(message("seed = 99999999999999999999").starts_with("bad.toml:1: this is not valid TOML: "));
    assert!(message("\u{0}").starts_with("bad.toml:1: this is not valid TOML: "));
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(message(&deep).contains("not valid TOML"));
    // A table where the list of stages should be.
    assert_eq!(
        parse("name = 'x'\n[stage]\nname = 'zero'").unwrap_err().to_string(),
        "small.toml:2: `stage` is a table, but it must be a list of stages, each under `[[stage]]`"
    );
}

#[test]
fn recipes_that_are_not_there() {
    assert_eq!(
        RawRecipe::open("mini-zeor").unwrap_err().to_string(),
        "there is no recipe `mini-zeor`: no file of that name, and no embedded one; did you mean `mini-zero`?"
    );
    assert_eq!(
        RawRecipe::open("no/such/file.toml").unwrap_err().to_string(),
        "there is no recipe `no/such/file.toml`: no file of that name, and no embedded one; the embedded recipes: `mini-zero`, `mini-zero-dense`, `mini-r1`, `r1`, `mini-long`"
    );
    assert!(Recipe::embedded("zero").is_err());
    let folder = env!("CARGO_MANIFEST_DIR");
    assert!(
        RawRecipe::open(folder).unwrap_err().to_string().starts_with(&format!("cannot read the recipe {folder}: "))
    );
    assert_eq!(RawRecipe::open("mini-zero").unwrap().resolve().unwrap(), Recipe::embedded("mini-zero").unwrap());
    assert_eq!(small().stage("zeor").unwrap_err().to_string(), "the recipe has no stage `zeor`; did you mean `zero`?");
}
