//! A client of the OpenAI-compatible chat endpoint (`POST URL/chat/completions`) with timeouts and retries.

use crate::chat::{Chat, ChatError, ChatRequest, Reply};
use serde_json::{Value, json};
use std::time::Duration;
use ureq::Agent;

/// Waits between tries are at most this, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read.
const MOST_BYTES: u64 = 8 << 20;

/// A model behind an endpoint.
pub struct Endpoint {
    agent: Agent,
    url: String,
    model: String,
    key: Option<String>,
    retries: u32,
    first_wait: Duration,
    reasoning: bool,
}

impl Endpoint {
    /// For the address that `/chat/completions` is added to, such as `http://localhost:8000/v1`. `timeout` bounds every try as
    /// a whole; after a temporary failure it is tried `retries` times more, after 1, 2, 4, ... times `first_wait` or what the
    /// server's Retry-After says, at most a minute.
    ///
    /// # Errors
    /// An address that is not `http://...`.
    pub fn new(
        url: &str,
        model: &str,
        key: Option<String>,
        timeout: Duration,
        retries: u32,
        first_wait: Duration,
    ) -> Result<Self, String> {
        if url.starts_with("https://") {
            return Err(format!(
                "{url}: this build speaks http only; put a local proxy that adds TLS in front and give its http:// address"
            ));
        }
        if url.strip_prefix("http://").is_none_or(|rest| rest.trim_matches('/').is_empty()) {
            return Err(format!("{url:?} is no address; write http://HOST:PORT/v1"));
        }
        let config = Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
        Ok(Endpoint {
            agent: config.build().into(),
            url: format!("{}/chat/completions", url.trim_end_matches('/')),
            model: model.to_owned(),
            key,
            retries,
            first_wait,
            reasoning: false,
        })
    }

    /// Servers may give the thinking apart from the answer (`reasoning_content`); with this it stands before the answer, in
    /// think tags.
    pub fn keep_reasoning(self) -> Self {
        Endpoint { reasoning: true, ..self }
    }

    fn once(&self, body: &Value) -> Result<Reply, (ChatError, Option<Duration>)> {
        let temporary = |problem: String| (ChatError::Temporary(problem), None);
        let mut request = self.agent.post(&self.url);
        if let Some(key) = &self.key {
            request = request.header("Authorization", &format!("Bearer {key}"));
        }
        let mut response = request.send_json(body).map_err(|e| temporary(format!("{}: {e}", self.url)))?;
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse::<f64>().ok());
        let wait = wait.filter(|s| s.is_finite() && *s >= 0.0).map(|s| Duration::from_secs_f64(s.min(3600.0)));
        let text = response
            .body_mut()
            .with_config()
            .limit(MOST_BYTES)
            .read_to_string()
            .map_err(|e| temporary(format!("{}: {e}", self.url)))?;
        if status != 200 {
            let said: String = text.chars().take(200).collect();
            let problem = format!("{} answered {status}: {said}", self.url);
            let again = status == 408 || status == 409 || status == 429 || status >= 500;
            let error = if again { ChatError::Temporary(problem) } else { ChatError::Permanent(problem) };
            return Err((error, wait));
        }
        let value: Value = serde_json::from_str(&text).map_err(|e| temporary(format!("{}: {e}", self.url)))?;
        let choice = &value["choices"][0];
        let message = &choice["message"];
        let thought = ["reasoning_content", "reasoning"].iter().find_map(|key| message[*key].as_str());
        let thought = thought.filter(|text| self.reasoning && !text.is_empty());
        let text = match (thought, message["content"].as_str()) {
            (None, Some(content)) => content.to_owned(),
            (Some(thought), Some(content)) => format!("<think>\n{}\n</think>\n\n{content}", thought.trim()),
            // Cut off while it was thinking.
            (Some(thought), None) => format!("<think>\n{}", thought.trim()),
            (None, None) => return Err(temporary(format!("{}: the answer has no message", self.url))),
        };
        let truncated = choice["finish_reason"] == "length";
        Ok(Reply { text, tokens: value["usage"]["total_tokens"].as_u64().unwrap_or(0), truncated })
    }
}

impl Chat for Endpoint {
    fn name(&self) -> &str {
        &self.model
    }

    fn complete(&self, request: &ChatRequest) -> Result<Reply, ChatError> {
        let body = json!({
            "model": self.model, "messages": request.messages, "temperature": request.temperature,
            "max_tokens": request.max_tokens, "seed": request.seed, "stream": false,
        });
        let mut wait = self.first_wait;
        let mut left = self.retries;
        loop {
            match self.once(&body) {
                Ok(reply) => return Ok(reply),
                Err((error @ ChatError::Permanent(_), _)) => return Err(error),
                Err((ChatError::Temporary(problem), _)) if left == 0 => {
                    return Err(ChatError::Temporary(format!("{problem} (after {} tries)", self.retries + 1)));
                }
                Err((ChatError::Temporary(_), asked)) => {
                    std::thread::sleep(asked.unwrap_or(wait).min(LONGEST_WAIT));
                    wait *= 2;
                    left -= 1;
                }
            }
        }
    }
}
