//! The `aha` command: parses arguments, calls the crates, and turns what they say into text and exit codes.
//!
//! Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod cmd;
mod execute;
mod failure;
mod interrupt;
mod lines;
mod loaded;
mod output;
mod progress;
mod single;
mod table;

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static MEMORY: aha_kernels::memory::LineAligned = aha_kernels::memory::LineAligned;

/// The whole system behind DeepSeek-R1: data, reinforcement learning on verifiable rewards, evaluation, chat.
#[derive(Parser)]
#[command(name = "aha", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    /// Threads to compute with [default: all that the machine gives].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(cmd::run::Args),
    Grpo(cmd::grpo::Args),
    Sft(cmd::sft::Args),
    RewardModel(cmd::reward_model::Args),
    Distill(cmd::distill::Args),
    Eval(cmd::eval::Args),
    Generate(cmd::generate::Args),
    Grade(cmd::grade::Args),
    Judge(cmd::judge::Args),
    Curate(cmd::curate::Args),
    Annotate(cmd::annotate::Args),
    Chat(cmd::chat::Args),
    #[cfg(target_os = "linux")]
    Sandbox(cmd::sandbox::Args),
    Score(cmd::score::Args),
    Inspect(cmd::inspect::Args),
    Convert(cmd::convert::Args),
    Recipes(cmd::recipes::Args),
    Cost(cmd::cost::Args),
    Bench(cmd::bench::Args),
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(threads) = cli.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(threads));
        pool.build_global().context("cannot start the threads")?;
    }
    match cli.command {
        Command::Run(args) => cmd::run::run(args),
        Command::Grpo(args) => cmd::grpo::run(args),
        Command::Sft(args) => cmd::sft::run(args),
        Command::RewardModel(args) => cmd::reward_model::run(args),
        Command::Distill(args) => cmd::distill::run(args),
        Command::Eval(args) => cmd::eval::run(args),
        Command::Generate(args) => cmd::generate::run(args),
        Command::Grade(args) => cmd::grade::run(args),
        Command::Judge(args) => cmd::judge::run(args),
        Command::Curate(args) => cmd::curate::run(args),
        Command::Annotate(args) => cmd::annotate::run(args),
        Command::Chat(args) => cmd::chat::run(args),
        #[cfg(target_os = "linux")]
        Command::Sandbox(args) => cmd::sandbox::run(args),
        Command::Score(args) => cmd::score::run(args),
        Command::Inspect(args) => cmd::inspect::run(args),
        Command::Convert(args) => cmd::convert::run(args),
        Command::Recipes(args) => cmd::recipes::run(args),
        Command::Cost(args) => cmd::cost::run(args),
        Command::Bench(args) => cmd::bench::run(args),
    }
}

fn main() -> ExitCode {
    // The sandbox starts this binary again as its helper, before anything else has run.
    #[cfg(target_os = "linux")]
    if let Some(code) = aha_sandbox::run_helper_if_asked() {
        return code;
    }
    failure::report_panics();
    // Wrong usage ends in here with 2, help and version with 0.
    let cli = Cli::parse();
    match std::panic::catch_unwind(|| dispatch(cli)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => failure::report(&error),
        Err(_) => ExitCode::from(1),
    }
}
