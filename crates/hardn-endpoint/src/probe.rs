//! What a server can do, found out by asking.

use serde_json::Value;
use ureq::http::Method;

use crate::{Ask, Endpoint, EndpointError, EndpointOptions, Names, Result, Scored, ask::Fields};

/// Numbers of likeliest tokens to ask for, the first that a server grants counts: vLLM's limit is 20 unless it is started
/// with `--max-logprobs`, OpenAI's 5.
const TOPS: [usize; 5] = [256, 100, 20, 5, 1];

/// What a server can do.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    /// The tokens given with the probe as the server names and scores them, by their text; empty where it does not score
    /// given tokens.
    pub scored: Vec<Scored>,
    /// The drawn token of the probe.
    pub drawn: Option<Scored>,
    /// The longest text, prompt and completion together, where the server says it.
    pub longest_text: Option<usize>,
}

impl Abilities {
    /// Whether it scores given tokens.
    pub fn scores(&self) -> bool {
        !self.scored.is_empty()
    }
}

impl Endpoint {
    /// Connects to a server and finds out what it can do, with token ids of some text; at least two.
    ///
    /// # Errors
    /// [`EndpointError`]; a server that takes no token ids or gives no log-probabilities cannot be used.
    pub fn connect(options: EndpointOptions, ids: &[u32]) -> Result<(Self, Abilities)> {
        let mut endpoint = Self::new(options)?;
        let (others, longest_text) = endpoint.models()?;
        let ask = Ask { prompt: ids, seed: 1, echo: false, top: 1, names: Names::Text };
        let mut answer = endpoint.ask(&ask);
        if answer.as_ref().is_err_and(is_bad_request) {
            endpoint.fields = Fields::OpenAi;
            answer = endpoint.ask(&ask);
        }
        let answer = answer.map_err(|error| endpoint.explained(error, others))?;
        if answer.n_prompt.is_some_and(|n| n != ids.len()) {
            let n = answer.n_prompt.unwrap_or_default();
            let message = format!("it read {} token ids as {n} tokens", ids.len());
            return Err(EndpointError::NoTokenIds { url: endpoint.url().to_owned(), message });
        }
        let scored = match endpoint.ask_patiently(&Ask { echo: true, ..ask }, 0) {
            Ok(answer) if answer.prompt.iter().skip(1).all(|token| token.log_prob.is_some()) => {
                answer.prompt
            }
            Ok(_) => Vec::new(),
            Err(error) if error.is_refusal() => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok((endpoint, Abilities { scored, drawn: answer.drawn, longest_text }))
    }

    /// How many of the likeliest tokens the server gives, found out after these ids.
    ///
    /// # Errors
    /// [`EndpointError`], also where it gives none.
    pub fn most_likely(&self, ids: &[u32]) -> Result<usize> {
        let mut last = None;
        for top in TOPS {
            let ask = Ask { prompt: ids, seed: 1, echo: false, top, names: Names::Ids };
            match self.ask_patiently(&ask, 0) {
                Ok(answer) => {
                    let n = answer.drawn.map_or(0, |drawn| drawn.top.len().min(top));
                    if n > 0 {
                        return Ok(n);
                    }
                }
                Err(error) if error.is_refusal() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        let message = "it gives no log-probabilities of likely tokens".to_owned();
        Err(last.unwrap_or_else(|| self.answer_error(message)))
    }

    /// The models there are, and how long a text ours can read, as far as the server says.
    fn models(&self) -> Result<(Vec<String>, Option<usize>)> {
        let value = match self.send(&Method::GET, "models", "") {
            Ok(value) => value,
            Err(error @ (EndpointError::Unreachable { .. } | EndpointError::TimedOut { .. })) => {
                return Err(error);
            }
            Err(_) => return Ok((Vec::new(), None)),
        };
        let list = value.get("data").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let name = |model: &Value| model.get("id").and_then(Value::as_str).map(str::to_owned);
        let ours = list.iter().find(|model| name(model).as_deref() == Some(self.model()));
        let longest = ours.and_then(|model| model.get("max_model_len")?.as_u64());
        let names = list.iter().filter_map(name).take(20).collect();
        Ok((names, longest.map(|n| n as usize)))
    }

    /// The first question's error, where it says more than its status.
    fn explained(&self, error: EndpointError, others: Vec<String>) -> EndpointError {
        let known = others.iter().any(|name| name == self.model());
        match error {
            EndpointError::Status { url, status: 400 | 404, message, .. }
                if !known && !others.is_empty() =>
            {
                EndpointError::NoModel { url, model: self.model().to_owned(), message, others }
            }
            EndpointError::Status { url, status: 400 | 422, message, .. } => {
                EndpointError::NoTokenIds { url, message }
            }
            other => other,
        }
    }
}

fn is_bad_request(error: &EndpointError) -> bool {
    matches!(error, EndpointError::Status { status: 400 | 422, .. })
}
