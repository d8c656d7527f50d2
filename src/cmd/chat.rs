//! `aha chat`: a conversation in the terminal. Reasoning is shown apart from the answer and does not go into the history,
//! as R1's own template has it.

use crate::args::{Style, count, not_negative, nucleus, precision};
use crate::failure::usage;
use crate::interrupt;
use crate::loaded::Loaded;
use crate::output::{note, raw};
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, FinishReason, Request, SamplingParams, generate};
use aha_model::{ChatTemplate, Decoder, Message, ThinkEvent, ThinkParser, ThinkStatus, Tokenizer, prefills_think};
use aha_pipeline::recipe::Precision;
use aha_tasks::{PromptStyle, render_base};
use anyhow::bail;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Talk to a model.
///
/// Commands: /clear begins a new conversation, /exit (or Ctrl-D) ends. Ctrl-C ends an answer that is being written, or
/// the program when none is. A model without a chat template is asked with R1-Zero's.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file.
    model: PathBuf,
    /// System message, for models with a chat template [default: none].
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// In what numbers matrix products run: f32, bf16, auto for the faster of these on this processor, or quantized for the
    /// whole numbers of a GGUF file (8 bits for others), which read the least memory.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    precision: Precision,
    /// Sampling temperature; 0 takes the likeliest token always.
    #[arg(long, value_name = "T", default_value = "0.6", value_parser = not_negative)]
    temperature: f32,
    /// Nucleus: keep the likeliest tokens with this much probability, 1 for all.
    #[arg(long, value_name = "P", default_value = "0.95", value_parser = nucleus)]
    top_p: f32,
    /// Tokens after which an answer is cut off; never more than the model has room for.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = count)]
    max_new_tokens: usize,
    /// How a message becomes a prompt.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    prompt_style: Style,
    /// Seed of the sampling.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Ask this one thing, print the answer and end.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

/// The answer that is being written, which Ctrl-C ends.
type Current = Arc<Mutex<Option<Arc<Control>>>>;

struct Chat<'a> {
    args: &'a Args,
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    style: PromptStyle,
    decoder: Decoder,
    stop_tokens: Vec<u32>,
    current: Current,
    history: Vec<Message>,
    turns: u64,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let model = Loaded::open(&args.model)?;
    let tokenizer = model.need_tokenizer("a conversation")?;
    let template = model.chat_template()?;
    let fallback = if template.is_some() { PromptStyle::Chat } else { PromptStyle::R1Zero };
    let style = args.prompt_style.prompt_style().unwrap_or(fallback);
    if style == PromptStyle::Chat && template.is_none() {
        return Err(usage("the model has no chat template; leave --prompt-style out"));
    }
    if style != PromptStyle::Chat && args.system.is_some() {
        return Err(usage("a system message needs a chat template, which is not used here; leave --system out"));
    }
    let current = Current::default();
    let handle = current.clone();
    interrupt::on_every_ctrl_c(move || match &*handle.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(control) if !control.stop.swap(true, Ordering::SeqCst) => {}
        _ => std::process::exit(0),
    })?;
    let decoder = model.decoder(args.precision)?;
    let mut chat = Chat {
        args: &args,
        tokenizer,
        template,
        style,
        decoder,
        stop_tokens: model.stop_tokens(),
        current,
        history: Vec::new(),
        turns: 0,
    };
    match &args.prompt {
        Some(text) => chat.turn(text)?,
        None => chat.converse()?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Chat<'_> {
    /// Reads and answers until the end of the input.
    fn converse(&mut self) -> anyhow::Result<()> {
        let stdin = std::io::stdin();
        let terminal = stdin.is_terminal();
        loop {
            if terminal {
                raw("> ");
            }
            let mut line = String::new();
            if stdin.lock().read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim() {
                "" => {}
                "/exit" | "/quit" => return Ok(()),
                "/clear" => self.history.clear(),
                command if command.starts_with('/') && !command.contains(' ') => {
                    note(format!("{command} is not a command; there are /clear and /exit"));
                }
                text => {
                    // One question that does not work out is no reason to lose the conversation.
                    if let Err(error) = self.turn(text) {
                        note(format!("error: {error:#}"));
                    }
                }
            }
        }
    }

    /// Asks, prints the answer as it comes, and remembers both.
    fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.history.push(Message::new("user", text));
        let answer = self.answer();
        match answer {
            Ok(answer) => self.history.push(Message::new("assistant", answer)),
            Err(error) => {
                self.history.pop();
                return Err(error);
            }
        }
        self.turns += 1;
        Ok(())
    }

    /// The conversation so far as a prompt.
    fn prompt(&self) -> anyhow::Result<String> {
        if let (PromptStyle::Chat, Some(template)) = (self.style, &self.template) {
            let system = self.args.system.iter().map(|s| Message::new("system", s));
            return Ok(template.render(&system.chain(self.history.iter().cloned()).collect::<Vec<_>>(), true)?);
        }
        let mut text = String::new();
        for message in &self.history {
            match message.role.as_str() {
                "user" if text.is_empty() => text = render_base(self.style, &message.content).unwrap_or_default(),
                "user" => text += &format!("\nUser: {}\nAssistant:", message.content),
                _ => text += &format!(" {}", message.content),
            }
        }
        Ok(text)
    }

    fn answer(&self) -> anyhow::Result<String> {
        let prompt = self.prompt()?;
        let tokens = self.tokenizer.encode(&prompt, self.style != PromptStyle::Chat)?;
        let limit = self.decoder.config.max_position_embeddings;
        if tokens.len() >= limit {
            bail!(
                "the conversation has {} tokens with this message, and the model takes {limit}; shorten it, or begin a new one with /clear",
                tokens.len()
            );
        }
        let room = limit - tokens.len();
        let params = SamplingParams {
            temperature: self.args.temperature,
            top_p: self.args.top_p,
            max_new_tokens: self.args.max_new_tokens.min(room),
            stop_tokens: self.stop_tokens.clone(),
            ..SamplingParams::default()
        };
        let seed = mix(self.args.seed ^ mix(self.turns));
        let request = Request { prompt: tokens.into(), samples: 1, params, seed };
        let mut printer = Printer::new(prefills_think(&prompt));
        let end = self.stream(&request, &mut printer)?;
        let answer = printer.finish();
        match end {
            Some(FinishReason::Stop) => {}
            Some(FinishReason::Length) if request.params.max_new_tokens == room => {
                note(format!("(cut off: the model's {limit} positions are full; /clear begins a new conversation)"));
            }
            Some(FinishReason::Length) => {
                note(format!("(cut off after {} tokens, see --max-new-tokens)", self.args.max_new_tokens))
            }
            None => note("(stopped)"),
        }
        Ok(answer)
    }

    /// Generates and hands text to the printer token by token; `None` when Ctrl-C ended it.
    fn stream(&self, request: &Request, printer: &mut Printer) -> anyhow::Result<Option<FinishReason>> {
        // A token, or the end.
        let (sender, receiver) = mpsc::channel::<Option<u32>>();
        let end = sender.clone();
        let on_token = move |_, _, token| {
            // The receiver is gone only when printing failed; the generation is then stopped anyway.
            let _ = sender.send(Some(token));
        };
        let control = Arc::new(Control { on_token: Some(Box::new(on_token)), ..Control::default() });
        let slot = || self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *slot() = Some(control.clone());
        let config = EngineConfig { workers: 1, ..EngineConfig::default() };
        let done = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let done = generate(&self.decoder, std::slice::from_ref(request), &config, &control);
                let _ = end.send(None);
                done
            });
            let mut text = self.tokenizer.stream(true);
            let mut printed = Ok(());
            while let Ok(Some(token)) = receiver.recv() {
                if printed.is_ok() && !self.stop_tokens.contains(&token) {
                    printed = text.push(token).map(|chunk| printer.push(&chunk));
                    if printed.is_err() {
                        control.stop.store(true, Ordering::SeqCst);
                    }
                }
            }
            let done = worker.join().expect("the engine returns its errors");
            printed.and_then(|()| text.finish()).map(|rest| printer.push(&rest))?;
            Ok::<_, anyhow::Error>(done)
        });
        *slot() = None;
        Ok(done??.first().map(|c| c.finish))
    }
}

/// Prints reasoning and answer apart: dimmed on a terminal, between tags elsewhere.
struct Printer {
    parser: Option<ThinkParser>,
    terminal: bool,
    thinking: bool,
    answer: String,
    whole: String,
}

impl Printer {
    fn new(prefilled: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Printer {
            parser: Some(ThinkParser::new(prefilled)),
            terminal,
            thinking: false,
            answer: String::new(),
            whole: String::new(),
        }
    }

    fn push(&mut self, chunk: &str) {
        self.whole += chunk;
        let events = self.parser.as_mut().map(|p| p.push(chunk)).unwrap_or_default();
        self.print(events);
    }

    fn print(&mut self, events: Vec<ThinkEvent>) {
        for event in events {
            match event {
                ThinkEvent::Reasoning(text) => {
                    if !self.thinking {
                        self.thinking = true;
                        raw(if self.terminal { "\x1b[2m" } else { "<think>\n" });
                    }
                    raw(&text);
                }
                ThinkEvent::Closed => self.close(),
                ThinkEvent::Answer(text) => {
                    // White space before the first word only moves the answer away from its place.
                    let text = if self.answer.is_empty() { text.trim_start() } else { &text };
                    raw(text);
                    self.answer += text;
                }
            }
        }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.thinking) {
            raw(if self.terminal { "\x1b[0m\n\n" } else { "\n</think>\n\n" });
        }
    }

    /// Ends the line and gives the answer; everything that was written where the reasoning never ended.
    fn finish(mut self) -> String {
        let Some(parser) = self.parser.take() else { return self.answer };
        let (events, status) = parser.finish();
        self.print(events);
        if status == ThinkStatus::Unclosed && self.thinking {
            raw(if self.terminal { "\x1b[0m" } else { "" });
        }
        raw("\n");
        let _ = std::io::stdout().flush();
        if status == ThinkStatus::Unclosed { self.whole } else { self.answer.trim_end().to_owned() }
    }
}
