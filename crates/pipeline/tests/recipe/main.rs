//! Recipes: defaults, round trips, overrides, hashes, plans; [`errors`] has the exact words of every message.

mod errors;

use std::collections::{BTreeMap, HashMap};

use aha_kernels::{GradientType, MasterWeights, MomentType, Precision};
use aha_pipeline::recipe::{
    CORPUS_KEYS, GrpoStage, ModelRef, RawRecipe, Recipe, RecipeError, Stage, StageAction, StageKind, StageSettings,
    list_embedded, plan, plan_with_files, stage_hash, stage_hashes,
};
use aha_train::policy_loss::LossType;
use aha_train::schedule::ScheduleKind;

/// Ends at line 41; the stages begin at lines 4, 9, 26 and 35.
const SMALL: &str = r#"name = "small"
seed = 7

[[stage]]
name = "corpus"
kind = "corpus"
corpus = { blunt = 0.5 }

[[stage]]
name = "base"
kind = "pretrain"
corpus = "corpus"
tokens = 10_000
batch_tokens = 512
context = 64
learning_rate = 1e-3
warmup_steps = 2

[stage.model]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 128

[[stage]]
name = "zero"
kind = "grpo"
model = "base"
task = "mini"
steps = 10
max_completion_length = 64
rewards = [{ name = "accuracy" }, { name = "format", weight = 0.1 }]

[[stage]]
name = "measure"
kind = "eval"
model = ["base", "zero"]
task = "mini"
max_completion_length = 64
"#;

fn parse(text: &str) -> Result<Recipe, RecipeError> {
    RawRecipe::parse(text, "small.toml")?.resolve()
}

fn small() -> Recipe {
    parse(SMALL).expect("the recipe above is valid")
}

/// The small recipe with a DeepSeek-V3 for a model.
fn deepseek() -> Recipe {
    with(&[
        "base.model.architecture=deepseek_v3",
        "base.model.kv_lora_rank=8",
        "base.model.qk_nope_head_dim=8",
        "base.model.qk_rope_head_dim=4",
        "base.model.v_head_dim=8",
        "base.model.moe_intermediate_size=8",
        "base.model.n_routed_experts=4",
        "base.model.num_experts_per_tok=2",
        "base.model.num_nextn_predict_layers=1",
        "base.aux_loss_alpha=0.01",
        "zero.bias_update_speed=0.001",
        "zero.speculative_decoding=true",
        "measure.speculative_decoding=true",
    ])
    .expect("the keys above are valid")
}

#[test]
fn deepseek_shapes_have_the_names_of_their_config() {
    let recipe = deepseek();
    let StageSettings::Pretrain(base) = &recipe.stages[1].settings else { panic!("pretrain") };
    let shape = base.model.deepseek.as_ref().unwrap();
    assert_eq!((shape.config.n_routed_experts, shape.config.first_k_dense_replace, base.model.head_dim), (4, 1, 4));
    let training = base.training.deepseek.as_ref().unwrap();
    assert_eq!((training.aux_loss_alpha, training.bias_update_speed), (0.01, 1e-3));
    assert_eq!((training.balance(100).speed(96), training.balance(100).speed(97)), (1e-3, 0.0));
    assert_eq!((training.prediction(100).at(66), training.prediction(100).at(67)), (0.3, 0.1));
    assert!(grpo(&recipe).speculative_decoding);
    for (assignment, words) in [
        ("base.model.kv_lora_rank=8", "kv_lora_rank"),
        ("base.mtp_loss_weight=0.1", "deepseek_v3"),
        ("base.model.architecture=mamba", "deepseek_v3"),
        ("base.model.architecture=deepseek_v3", "missing"),
    ] {
        let message = with(&[assignment]).unwrap_err().to_string();
        assert!(message.contains(words), "{assignment}: {message}");
    }
}

fn grpo(recipe: &Recipe) -> &GrpoStage {
    let found = recipe.stages.iter().find_map(|stage| match &stage.settings {
        StageSettings::Grpo(settings) => Some(settings),
        _ => None,
    });
    found.expect("a grpo stage")
}

/// The message for SMALL with overrides.
#[track_caller]
fn overridden(assignments: &[&str]) -> String {
    with(assignments).expect_err("must be refused").to_string()
}

fn with(assignments: &[&str]) -> Result<Recipe, RecipeError> {
    let mut raw = RawRecipe::parse(SMALL, "small.toml")?;
    for assignment in assignments {
        raw.set(assignment)?;
    }
    raw.resolve()
}

#[test]
fn defaults_are_those_of_r1() {
    let recipe =
        parse("name = 'r1'\n[[stage]]\nname = 'zero'\nkind = 'grpo'\nmodel = 'V3-Base'\ntask = 'math'\n").unwrap();
    let s = grpo(&recipe);
    assert_eq!(s.model, ModelRef::Path("V3-Base".into()));
    assert_eq!((s.steps, s.num_prompts, s.num_generations, s.steps_per_generation), (10_400, 32, 16, 16));
    assert_eq!((s.max_completion_length, s.temperature, s.top_p, s.num_iterations), (32_768, 1.0, 1.0, 1));
    assert_eq!((s.optimizer.learning_rate, s.beta, s.ref_refresh_steps), (3e-6, 0.001, 400));
    assert_eq!(
        (s.loss_type, s.optimizer.schedule, s.optimizer.weight_decay),
        (LossType::Grpo, ScheduleKind::Constant, 0.0)
    );
    assert_eq!((s.epsilon, s.epsilon_high, s.dual_clip, s.mask_truncated_completions), (0.2, 0.2, None, false));
    assert_eq!(s.prompt_style, "auto");
    let rewards: Vec<_> = s.rewards.iter().map(|r| (r.name.as_str(), r.weight)).collect();
    assert_eq!(rewards, [("accuracy", 1.0), ("format", 1.0)]);
    assert_eq!((s.reference.clone(), s.overlong_penalty.clone(), recipe.seed), (None, None, 1));
}

#[test]
fn the_small_recipe_is_read_as_written() {
    let recipe = small();
    assert_eq!((recipe.name.as_str(), recipe.seed), ("small", 7));
    let kinds: Vec<_> = recipe.stages.iter().map(Stage::kind).collect();
    assert_eq!(kinds, [StageKind::Corpus, StageKind::Pretrain, StageKind::Grpo, StageKind::Eval]);
    let StageSettings::Pretrain(base) = &recipe.stages[1].settings else { panic!("pretrain") };
    assert_eq!(
        (base.training.steps, base.model.head_dim, base.model.num_key_value_heads),
        (20, 8, 2),
        "10,000 / 512 rounded up"
    );
    assert_eq!((base.training.optimizer.schedule, base.training.optimizer.decay_steps), (ScheduleKind::Cosine, 3));
    assert_eq!(base.training.optimizer.schedule(base.training.steps).at(0), 5e-4);
    let StageSettings::Eval(measure) = &recipe.stages[3].settings else { panic!("eval") };
    assert_eq!(measure.label, ["base", "zero"]);
    assert_eq!(recipe.stages[3].inputs(), ["base", "zero"]);
    let loss = grpo(&recipe).loss_config();
    assert_eq!((loss.beta, loss.max_completion_length), (0.001, 64));
    let StageSettings::Corpus(corpus) = &recipe.stages[0].settings else { panic!("corpus") };
    assert_eq!(corpus.corpus["blunt"].as_float(), Some(0.5));
}

#[test]
fn the_resolved_recipe_reads_back_as_itself() {
    let everything = with(&[
        "description=all keys",
        "zero.reference=base",
        "zero.dual_clip=3",
        "zero.moments=8bit",
        "zero.gradients=bf16",
        "zero.master_weights=split",
        "zero.overlong_penalty.cache_length=16",
        "zero.task_options.data=problems.jsonl",
        "zero.task_options.mix={ easy = 0.5, names = [\"a\", \"b\"] }",
        "zero.loss_type=dr_grpo",
        "zero.scale_rewards=none",
        "measure.task_options.data=held_out.jsonl",
        "corpus.corpus.families=[\"chain\", \"countdown\"]",
    ])
    .unwrap();
    for recipe in [small(), deepseek(), everything.clone(), Recipe::embedded("mini-zero").unwrap()] {
        let text = recipe.to_toml().unwrap();
        let again = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again, recipe);
        assert_eq!(again.to_toml().unwrap(), text);
        assert_eq!(
            stage_hashes(&again, &BTreeMap::new()),
            stage_hashes(&recipe, &BTreeMap::new()),
            "a resumed run finds its stages"
        );
    }
    let text = everything.to_toml().unwrap();
    assert!(text.starts_with("# As resolved by aha 0."), "{text}");
    for line in
        ["num_generations = 16", "beta = 0.001", "loss_type = \"dr_grpo\"", "kind = \"grpo\"", "reference = \"base\""]
    {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn embedded_recipes_are_valid() {
    let names: Vec<_> = list_embedded().collect();
    assert_eq!(names[0], "mini-zero", "the default comes first");
    for name in names {
        let mut raw = RawRecipe::embedded(name).unwrap();
        raw.give_missing();
        assert_eq!(raw.resolve().unwrap().name, name);
    }
    let mini = Recipe::embedded("mini-zero").unwrap();
    let zero = grpo(&mini);
    assert_eq!((zero.num_prompts * zero.num_generations, zero.steps, zero.ref_refresh_steps), (512, 105, 25));
    let labels = mini.stages.iter().filter_map(|stage| match &stage.settings {
        StageSettings::Eval(eval) => Some(eval.label.join(",")),
        _ => None,
    });
    assert_eq!(labels.collect::<Vec<_>>(), ["base", "zero"]);
}

#[test]
fn overrides_reach_everything() {
    let recipe = with(&[
        "seed=3",
        "zero.learning_rate=1e-4",
        "zero.rewards.format.weight=0.5",
        "zero.rewards.0.weight=2",
        "base.model.hidden_size = 32",
        "base.tokens=2e4",
        "zero.task=24",
        "zero.mask_truncated_completions=true",
    ])
    .unwrap();
    let zero = grpo(&recipe);
    assert_eq!((recipe.seed, zero.optimizer.learning_rate, zero.task.as_str()), (3, 1e-4, "24"));
    assert_eq!((zero.rewards[0].weight, zero.rewards[1].weight), (2.0, 0.5));
    assert!(zero.mask_truncated_completions);
    let StageSettings::Pretrain(base) = &recipe.stages[1].settings else { panic!("pretrain") };
    assert_eq!((base.model.hidden_size, base.training.steps), (32, 40));
    assert_eq!(with(&["zero.rewards=[{ name = \"accuracy\" }]"]).map(|r| grpo(&r).rewards.len()).unwrap(), 1);
    // The last one wins, and a value cannot smuggle in a second key.
    assert_eq!(with(&["seed=3", "seed=4"]).unwrap().seed, 4);
    assert!(overridden(&["seed=3\nname = 'other'"]).contains("`seed` is the string"));
}

/// Prompts are shared unless that would change what routers count; what is not said is not written.
#[test]
fn prompts_are_shared_by_default_and_the_products_of_muon_have_numbers_of_their_own() {
    let of = |assignments: &[&str]| {
        let recipe = with(assignments).unwrap();
        (grpo(&recipe).shares_prompts(), recipe.to_toml().unwrap(), stage_hash(&recipe, "zero").unwrap())
    };
    let (shared, text, hash) = of(&[]);
    assert!(shared && !text.contains("share_prompts"));
    let (shared, text, other) = of(&["zero.share_prompts=false"]);
    assert!(!shared && text.contains("share_prompts = false") && other != hash);
    assert!(!of(&["zero.bias_update_speed=0.001"]).0);
    assert!(of(&["zero.bias_update_speed=0.001", "zero.share_prompts=true"]).0);

    let muon = |more: &[&str]| with(&[&["zero.optimizer=muon"], more].concat()).unwrap();
    let precision = |recipe: &Recipe| grpo(recipe).optimizer.config(5).muon.unwrap().precision;
    let (plain, short) = (muon(&[]), muon(&["zero.muon_precision=bf16"]));
    assert_eq!((precision(&plain), precision(&short)), (Precision::F32, Precision::Bf16));
    assert!(!plain.to_toml().unwrap().contains("muon_precision"));
    assert!(short.to_toml().unwrap().contains("muon_precision = \"bf16\""));
    let message = overridden(&["zero.muon_precision=bf16"]);
    assert!(message.contains("zero.muon_precision") && message.contains("optimizer = \"muon\""), "{message}");
    let message = overridden(&["zero.optimizer=muon", "zero.muon_precision=fp8"]);
    assert!(message.contains("zero.muon_precision") && message.contains("auto"), "{message}");
}

/// Where memory is short; what is not said is not written, so that the hashes of older recipes stay.
#[test]
fn settings_of_memory_reach_the_optimizer() {
    let of = |assignments: &[&str]| {
        let recipe = with(assignments).unwrap();
        (grpo(&recipe).optimizer.config(5), recipe.to_toml().unwrap(), stage_hash(&recipe, "zero").unwrap())
    };
    let (config, text, hash) = of(&[]);
    assert_eq!((config.moments, config.gradients), (MomentType::F32, GradientType::F32));
    assert!(config.master == MasterWeights::Whole && config.seed == 5);
    assert!(["moments", "gradients", "master_weights"].iter().all(|key| !text.contains(key)), "{text}");
    let said = ["zero.moments=f32", "zero.gradients=f32", "zero.master_weights=whole"];
    assert_eq!(of(&said).2, hash);
    let (config, text, other) = of(&["zero.moments=bf16"]);
    assert!(config.moments == MomentType::Bf16 && text.contains("moments = \"bf16\"") && other != hash);
    let (config, text, _) = of(&["zero.moments=8bit", "zero.gradients=bf16", "zero.master_weights=split"]);
    assert_eq!((config.moments, config.gradients), (MomentType::EightBit, GradientType::Bf16));
    assert!(
        config.master == MasterWeights::Split
            && text.contains("moments = \"8bit\"")
            && text.contains("master_weights = \"split\"")
    );
    let (config, text, _) = of(&["zero.master_weights=bf16"]);
    assert!(config.master == MasterWeights::Bf16 && text.contains("master_weights = \"bf16\""));
    // They share what bf16 products read: nothing to share in other numbers.
    let noted = |assignments: &[&str]| with(assignments).unwrap().stage("zero").unwrap().without_effect();
    for precision in ["f32", "fp8"] {
        let text = noted(&["zero.master_weights=split", &format!("zero.precision={precision}")]).unwrap();
        assert!(text.starts_with("master_weights = \"split\" changes nothing"), "{text}");
    }
    assert_eq!(noted(&["zero.master_weights=split", "zero.precision=bf16"]), None);
    assert_eq!(noted(&["zero.precision=f32"]), None);
    let message = overridden(&["zero.moments=4bit"]);
    assert!(message.contains("zero.moments") && message.contains("8bit"), "{message}");
}

/// Every key that is accepted is also looked at: a date is wrong everywhere.
#[test]
fn no_key_is_accepted_and_ignored() {
    let resolved = with(&[
        "zero.reference=base",
        "zero.dual_clip=3",
        "zero.overlong_penalty.cache_length=16",
        "zero.task_options.x=1",
        "measure.task_options.x=1",
    ])
    .unwrap();
    let written: toml::Table = resolved.to_toml().unwrap().parse().unwrap();
    let mut checked = 0;
    for stage in written["stage"].as_array().unwrap() {
        let name = stage["name"].as_str().unwrap();
        let mut paths: Vec<String> = stage.as_table().unwrap().keys().map(|key| format!("{name}.{key}")).collect();
        if let Some(model) = stage.get("model").and_then(|m| m.as_table()) {
            paths.extend(model.keys().map(|key| format!("{name}.model.{key}")));
        }
        for path in paths.iter().filter(|path| !path.ends_with(".name")) {
            let mut raw = RawRecipe::parse(SMALL, "small.toml").unwrap();
            raw.set(&format!("{path}=2026-01-01")).unwrap();
            // As a flag's text a date may be a string; names of tasks, models and labels take any string.
            let takes_text =
                [".task", ".label", ".model", ".reference", ".corpus"].iter().any(|key| path.ends_with(key));
            match raw.resolve() {
                Err(error) => assert!(error.to_string().contains(path), "{path}: {error}"),
                Ok(_) => assert!(takes_text, "{path} is ignored"),
            }
            checked += 1;
        }
    }
    assert!(checked > 70, "{checked}");
}

/// A distill stage in every form it has.
fn distilled() -> [Recipe; 4] {
    let before = SMALL.split("[[stage]]\nname = \"measure\"").next().expect("the last stage");
    let shape = "[stage.model]\nhidden_size = 8\nintermediate_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\nmax_position_embeddings = 64\n";
    let recipe = |stage: &str| {
        let text = format!("{before}[[stage]]\nname = \"student\"\nkind = \"distill\"\n{stage}");
        parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    [
        recipe(&format!("teacher = \"zero\"\nmethod = \"jsd\"\ndata = [\"rows.jsonl\"]\nmax_steps = 9\n{shape}")),
        recipe("student = \"base\"\nteacher = \"traces.jsonl\""),
        recipe(
            "student = \"base\"\nteacher = \"zero\"\nmethod = \"on_policy\"\ntask = \"jsonl\"\nsteps = 4\nmax_completion_length = 32\ntask_options = { data = \"problems.jsonl\" }",
        ),
        recipe(
            "student = \"base\"\nteacher = \"http://localhost:8000/v1\"\ntask = \"mini\"\nendpoint = { name = \"big\", key_env = \"KEY\", max_requests = 9, max_total_tokens = 99 }",
        ),
    ]
}

#[test]
fn a_distill_stage_reads_back_as_itself_and_names_what_it_uses() {
    for recipe in distilled() {
        let text = recipe.to_toml().unwrap();
        let again = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((&again, again.to_toml().unwrap()), (&recipe, text));
    }
    let [shape, traces, on_policy, endpoint] = distilled();
    let last = |recipe: &Recipe| recipe.stages.last().unwrap().clone();
    assert_eq!((last(&shape).inputs(), last(&shape).external_inputs()), (vec!["zero"], vec!["rows.jsonl"]));
    assert_eq!((last(&traces).inputs(), last(&traces).external_inputs()), (vec!["base"], vec!["traces.jsonl"]));
    assert_eq!(
        (last(&on_policy).inputs(), last(&on_policy).external_inputs()),
        (vec!["base", "zero"], vec!["problems.jsonl"])
    );
    assert_eq!((last(&endpoint).inputs(), last(&endpoint).external_inputs()), (vec!["base"], vec![]));
    let StageSettings::Distill(s) = last(&shape).settings else { panic!("distill") };
    assert_eq!((s.tuning.optimizer.learning_rate, s.data.unwrap().max_length), (1e-4, 64));
    assert_eq!(s.comparison.unwrap().jsd_beta, Some(0.5));
}

#[test]
fn no_key_of_a_distill_stage_is_accepted_and_ignored() {
    let mut checked = 0;
    for recipe in distilled() {
        let text = recipe.to_toml().unwrap();
        let written: toml::Table = text.parse().unwrap();
        let stage = written["stage"].as_array().unwrap().last().unwrap().as_table().unwrap().clone();
        let mut paths: Vec<String> = stage.keys().map(|key| format!("student.{key}")).collect();
        for table in ["model", "endpoint"] {
            let keys = stage.get(table).and_then(|t| t.as_table()).into_iter().flat_map(|t| t.keys());
            paths.extend(keys.map(|key| format!("student.{table}.{key}")));
        }
        for path in paths.iter().filter(|path| *path != "student.name") {
            let mut raw = RawRecipe::parse(&text, "small.toml").unwrap();
            raw.set(&format!("{path}=2026-01-01")).unwrap();
            let takes_text = [".task", ".name", ".key_env"].iter().any(|key| path.ends_with(key));
            match raw.resolve() {
                Err(error) => assert!(error.to_string().contains(path), "{path}: {error}"),
                Ok(_) => assert!(takes_text, "{path} is ignored"),
            }
            checked += 1;
        }
    }
    assert!(checked > 90, "{checked}");
}

#[test]
fn corpus_keys_are_the_ones_accepted() {
    for key in CORPUS_KEYS {
        assert!(with(&[&format!("corpus.corpus.{key}=0.25")]).is_ok(), "{key}");
    }
}

#[test]
fn recipes_of_one_stage_come_from_flags() {
    let mut raw = RawRecipe::single("grpo");
    raw.set_flag("--model", "grpo.model", "Qwen2.5-0.5B").unwrap();
    raw.set_flag("--task", "grpo.task", "gsm8k").unwrap();
    raw.set_flag("--data", "grpo.task_options.data", "train.jsonl").unwrap();
    raw.set_flag("--seed", "seed", "5").unwrap();
    raw.set_flag("--num-generations", "grpo.num_generations", "8").unwrap();
    let recipe = raw.resolve().unwrap();
    let stage = &recipe.stages[0];
    assert_eq!((recipe.name.as_str(), recipe.seed, stage.name.as_str()), ("grpo", 5, "grpo"));
    assert_eq!(grpo(&recipe).model, ModelRef::Path("Qwen2.5-0.5B".into()));
    assert_eq!((grpo(&recipe).num_generations, stage.inputs().len()), (8, 0));
    assert_eq!(stage.external_inputs(), ["Qwen2.5-0.5B", "train.jsonl"]);
    assert_eq!(parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
    // The same stage put together in code.
    assert_eq!(Recipe::single(stage.clone(), 5).unwrap(), recipe);
    let StageSettings::Grpo(settings) = &stage.settings else { panic!("grpo") };
    let bad = Stage {
        name: "grpo".into(),
        settings: StageSettings::Grpo(GrpoStage { num_generations: 1, ..settings.clone() }),
    };
    assert!(
        Recipe::single(bad, 1)
            .unwrap_err()
            .to_string()
            .contains("`grpo.num_generations` is 1, but it must be a whole number of at least 2")
    );

    raw.set_flag("--num-generations", "grpo.num_generations", "1").unwrap();
    assert!(
        raw.resolve().unwrap_err().to_string().starts_with("--num-generations 1: `grpo.num_generations` is 1, but")
    );
    assert_eq!(
        RawRecipe::single("grpo").resolve().unwrap_err().to_string(),
        "aha grpo: `grpo.model` is missing; it must be the name of an earlier stage, or the path of a model"
    );
}

#[test]
fn hashes_follow_what_a_result_depends_on() {
    let hash = |recipe: &Recipe, stage: &str| stage_hash(recipe, stage).unwrap();
    let base = small();
    let same = |changed: &[&str]| {
        let changed = with(changed).unwrap();
        base.stages
            .iter()
            .filter(|s| hash(&base, &s.name) == hash(&changed, &s.name))
            .map(|s| s.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(same(&[]), ["corpus", "base", "zero", "measure"]);
    assert_eq!(same(&["name=other", "description=other"]), ["corpus", "base", "zero", "measure"]);
    assert_eq!(same(&["measure.samples=4"]), ["corpus", "base", "zero"]);
    assert_eq!(same(&["zero.beta=0.01"]), ["corpus", "base"]);
    assert_eq!(same(&["corpus.corpus.blunt=0.6"]), [""; 0]);
    assert_eq!(same(&["seed=8"]), [""; 0]);
    // A default that is written out, and the order of keys, change nothing.
    assert_eq!(same(&["zero.num_generations=16", "base.tokens=10_200"]).len(), 4);
    let reordered = SMALL.replace("task = \"mini\"\nsteps = 10\n", "steps = 10\ntask = \"mini\"\n");
    assert_eq!(hash(&parse(&reordered).unwrap(), "zero"), hash(&base, "zero"));
    // A stage that nobody uses does not matter to the others.
    let extended = format!("{SMALL}\n[[stage]]\nname = \"extra\"\nkind = \"corpus\"\n");
    let extended = parse(&extended).unwrap();
    assert!(base.stages.iter().all(|s| hash(&base, &s.name) == hash(&extended, &s.name)));
    assert_eq!(hash(&base, "zero").len(), 64);
    assert!(stage_hash(&base, "nothing").is_err());
    assert_ne!(hash(&base, "zero"), hash(&base, "base"));
}

#[test]
fn contents_of_files_count_when_given() {
    let recipe = with(&["zero.task_options.data=train.jsonl"]).unwrap();
    let files = |digest: &str| BTreeMap::from([("train.jsonl".to_owned(), digest.to_owned())]);
    let (one, two) = (stage_hashes(&recipe, &files("1")), stage_hashes(&recipe, &files("2")));
    assert_eq!(one["base"], two["base"]);
    assert_ne!(one["zero"], two["zero"]);
    assert_ne!(one["measure"], two["measure"], "it uses zero");
    let done: HashMap<_, _> = one.clone();
    let actions: Vec<_> = plan_with_files(&recipe, &files("2"), &done).into_iter().map(|s| s.action).collect();
    assert_eq!(actions, [StageAction::Keep, StageAction::Keep, StageAction::RunAgain, StageAction::RunAgain]);
}

#[test]
fn plans_say_what_runs() {
    let actions = |recipe: &Recipe, finished: &HashMap<String, String>| {
        plan(recipe, finished).into_iter().map(|stage| stage.action).collect::<Vec<_>>()
    };
    let base = small();
    let mut finished = HashMap::new();
    assert_eq!(actions(&base, &finished), [StageAction::Run; 4]);
    for stage in plan(&base, &finished) {
        finished.insert(stage.name, stage.hash);
    }
    assert_eq!(actions(&base, &finished), [StageAction::Keep; 4]);
    let changed = with(&["zero.beta=0.01"]).unwrap();
    assert_eq!(
        actions(&changed, &finished),
        [StageAction::Keep, StageAction::Keep, StageAction::RunAgain, StageAction::RunAgain]
    );
    finished.remove("measure");
    finished.insert("unrelated".into(), "0".into());
    assert_eq!(actions(&base, &finished), [StageAction::Keep, StageAction::Keep, StageAction::Keep, StageAction::Run]);
}

/// A recipe whose base has to be given and whose steps may be.
fn with_parameters() -> RawRecipe {
    let head = "[parameters]\nbase = { wanted = \"a model\" }\nother = \"${base}\"\nsteps = 10\n\n[[stage]]\nname = \"zero\"\nkind = \"grpo\"\n";
    let rest = "model = \"${base}\"\nreference = \"${other}/x\"\ntask = \"mini\"\nsteps = \"${steps}\"\nmax_completion_length = 64\n";
    RawRecipe::parse(&format!("name = \"p\"\n{head}{rest}"), "p.toml").expect("TOML")
}

#[test]
fn parameters_are_given_once_and_stand_where_they_are_named() {
    let message = |raw: &RawRecipe| raw.resolve().unwrap_err().to_string();
    let raw = with_parameters();
    assert!(message(&raw).starts_with("p.toml:3: the parameter `base` has to be given, `--set base=...`: a model"));
    let mut given = raw.clone();
    given.set("base=./m.gguf").unwrap();
    let recipe = given.resolve().unwrap();
    let zero = grpo(&recipe);
    assert_eq!((zero.model.to_string(), zero.steps), ("./m.gguf".to_owned(), 10));
    assert_eq!(zero.reference.as_ref().unwrap().to_string(), "./m.gguf/x");
    // What is written for a run has no parameters left and means the same.
    let text = recipe.to_toml().unwrap();
    assert!(!text.contains("parameters") && !text.contains("${"), "{text}");
    assert_eq!(RawRecipe::parse(&text, "r").unwrap().resolve().unwrap(), recipe);
    given.set("steps=3").unwrap();
    given.set("other=./b").unwrap();
    let recipe = given.resolve().unwrap();
    assert_eq!((grpo(&recipe).steps, grpo(&recipe).reference.as_ref().unwrap().to_string()), (3, "./b/x".to_owned()));
    given.set("steps=many").unwrap();
    assert!(message(&given).contains("zero.steps"), "{}", message(&given));
    let wrong = raw.clone().set("bose=./m").unwrap_err().to_string();
    assert!(wrong.contains("did you mean `base`"), "{wrong}");
    let outline = raw.clone().outline();
    assert_eq!(outline.parameters[0], ("base".to_owned(), "<a model>".to_owned()));
    assert_eq!((outline.stages, outline.parameters[2].1.as_str()), (vec!["zero".to_owned()], "10"));
    let parse = |head: &str| message(&RawRecipe::parse(&format!("{head}\n{SMALL}"), "x.toml").unwrap());
    assert!(parse("parameters = 3").contains("not a table"));
    assert!(parse("parameters = { Base = 3 }").contains("lower-case"));
    assert!(parse("parameters = { base = { text = \"x\" } }").contains("wanted"));
    assert!(parse("parameters = { a = 1, b = \"${c}\" }").contains("there is no parameter `c`"));
}

#[test]
fn work_is_what_the_settings_say() {
    let recipe = small();
    let all = aha_pipeline::recipe::work(&recipe, None);
    let of = |name: &str| all.iter().find(|w| w.stage == name).map(|w| (w.sampled, w.trained, w.scored));
    let zero = grpo(&recipe);
    let tokens = zero.steps as f64 * (zero.num_prompts * zero.num_generations) as f64 * 64.0;
    assert_eq!(of("base"), Some((0.0, 20.0 * 512.0, 0.0)));
    assert_eq!(of("zero"), Some((tokens, tokens * zero.num_iterations as f64, tokens)));
    assert_eq!(of("corpus"), None);
    let StageSettings::Eval(eval) = &recipe.stages[3].settings else { panic!() };
    assert_eq!(of("measure"), Some(((2 * eval.problems * (eval.samples + 1)) as f64 * 64.0, 0.0, 0.0)));
    let shorter = aha_pipeline::recipe::work(&recipe, Some(16.0));
    assert_eq!(shorter[1].sampled, tokens / 4.0);
    // Two passes over each generation: as many steps, half the samples.
    let mut raw = RawRecipe::parse(SMALL, "small.toml").unwrap();
    raw.set("zero.num_iterations=2").unwrap();
    let twice = aha_pipeline::recipe::work(&raw.resolve().unwrap(), None);
    assert_eq!((twice[1].sampled, twice[1].trained), (tokens / 2.0, tokens));
}
