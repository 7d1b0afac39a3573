//! What is asked: one token after given ones.

use serde_json::{Value, json};

/// How tokens are to be named in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// By their ids where the server can (vLLM).
    Ids,
    /// By their text.
    Text,
}

/// A question. The token is drawn at temperature 1 from the whole distribution.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Token ids of the text so far; at least one.
    pub prompt: &'a [u32],
    /// What the server draws with, where it draws reproducibly; below 2^31.
    pub seed: u32,
    /// Log-probabilities of the prompt's own tokens are wanted.
    pub echo: bool,
    /// How many of the likeliest tokens are wanted, with their log-probabilities; at least 1.
    pub top: usize,
    /// How tokens are to be named.
    pub names: Names,
}

/// Which fields a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// OpenAI's and those by which other servers switch off what they do to a distribution unasked.
    All,
    /// OpenAI's.
    OpenAi,
}

impl Ask<'_> {
    pub(crate) fn body(&self, model: &str, fields: Fields) -> Value {
        let top = self.top.max(1);
        let mut body = json!({
            "model": model, "prompt": self.prompt, "max_tokens": 1, "temperature": 1.0, "top_p": 1.0,
            "seed": self.seed, "logprobs": top, "stream": false,
        });
        if self.echo {
            body["echo"] = true.into();
        }
        if fields == Fields::All {
            // vLLM fills what is left out from the model's generation_config.json, llama.cpp from its own defaults.
            let more = json!({
                "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "samplers": ["temperature"], "n_probs": top,
                "skip_special_tokens": false, "return_token_ids": true,
                "return_tokens_as_token_ids": self.names == Names::Ids,
            });
            for (key, value) in more.as_object().into_iter().flatten() {
                body[key] = value.clone();
            }
        }
        body
    }
}
