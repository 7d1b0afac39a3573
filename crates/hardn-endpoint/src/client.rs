//! Requests and their answers, with patience that ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hardn_hub::{HttpAgent, Token, Unreached};
use serde_json::Value;
use ureq::{
    Body,
    http::{Method, Request, Response, Uri, header},
};

use crate::{Answer, Ask, EndpointError, Result, ask::Fields};

/// Answers with the log-probabilities of a long prompt are a few megabytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Characters of a server's own message that are passed on.
const MAX_MESSAGE: usize = 300;
/// The longest wait before a further try, whatever the server asks for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// The API's address, as in `http://localhost:8000/v1`; without a path `/v1` is added.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Sent as a bearer token to that address alone.
    pub key: Option<Token>,
    /// The longest a request and its answer may take.
    pub timeout: Duration,
    /// How often a request is sent again that the server could not take now (429, 5xx, a broken connection).
    pub retries: u32,
    /// The wait before the first of them; it doubles from one to the next, up to half a minute.
    pub retry_wait: Duration,
    /// Set from elsewhere to stop.
    pub stop: Arc<AtomicBool>,
}

impl EndpointOptions {
    /// A server without a key: two minutes an answer, four retries from half a second on.
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.to_owned(),
            model: model.to_owned(),
            key: None,
            timeout: Duration::from_mins(2),
            retries: 4,
            retry_wait: Duration::from_millis(500),
            stop: Arc::default(),
        }
    }
}

/// A model behind a server.
pub struct Endpoint {
    agent: HttpAgent,
    options: EndpointOptions,
    /// Without a `/` at its end.
    base: String,
    pub(crate) fields: Fields,
}

impl Endpoint {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// [`EndpointError::BadUrl`].
    pub(crate) fn new(options: EndpointOptions) -> Result<Self> {
        let bad = |message: &str| EndpointError::BadUrl {
            url: options.url.clone(),
            message: message.to_owned(),
        };
        let uri: Uri = options.url.trim().parse().map_err(|_| bad("it cannot be read"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("it does not begin with http:// or https://"));
        }
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("it has a query or a user's name"));
        }
        let mut base = options.url.trim().trim_end_matches('/').to_owned();
        base.truncate(base.strip_suffix("/completions").unwrap_or(&base).len());
        if uri.path().trim_matches('/').is_empty() {
            base += "/v1";
        }
        let agent = HttpAgent::new(&base, options.timeout, Some(options.timeout));
        Ok(Self { agent, options, base, fields: Fields::All })
    }

    /// The API's address.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// The model's name there.
    pub fn model(&self) -> &str {
        &self.options.model
    }

    /// Asks, again where the server could not answer now.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn ask(&self, ask: &Ask) -> Result<Answer> {
        self.ask_patiently(ask, self.options.retries)
    }

    pub(crate) fn ask_patiently(&self, ask: &Ask, retries: u32) -> Result<Answer> {
        let body = ask.body(&self.options.model, self.fields).to_string();
        let value = self.patiently(retries, || self.send(&Method::POST, "completions", &body))?;
        Answer::parse(&value, ask).map_err(|message| self.answer_error(message))
    }

    pub(crate) fn answer_error(&self, message: String) -> EndpointError {
        EndpointError::Answer { url: self.base.clone(), message }
    }

    /// One attempt.
    pub(crate) fn send(&self, method: &Method, path: &str, body: &str) -> Result<Value> {
        let url = format!("{}/{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(key) = &self.options.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.as_str()));
        }
        let bad = |error: ureq::http::Error| EndpointError::BadUrl {
            url: self.base.clone(),
            message: self.shown(&format!("the request cannot be made: {error}")),
        };
        let answer = if *method == Method::GET {
            self.agent.run(request.body(()).map_err(bad)?)
        } else {
            let request = request.header(header::CONTENT_TYPE, "application/json");
            self.agent.run(request.body(body).map_err(bad)?)
        };
        let mut response = answer.map_err(|error| self.unreached(error))?;
        let bytes = self.read(&mut response)?;
        let status = response.status();
        if !status.is_success() {
            let wait_secs = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let message = self.shown(&message(&bytes));
            let url = self.base.clone();
            return Err(EndpointError::Status { url, status: status.as_u16(), message, wait_secs });
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            let kind = response.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("no type");
            let message = self.shown(&format!("{kind}, {error}"));
            EndpointError::NotJson { url: self.base.clone(), message }
        })
    }

    fn patiently<T>(&self, retries: u32, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut wait = self.options.retry_wait;
        for _ in 0..retries {
            match work() {
                Err(error) if error.may_pass() => {
                    let asked = match error {
                        EndpointError::Status { wait_secs: Some(seconds), .. } => {
                            Duration::from_secs(seconds)
                        }
                        _ => Duration::ZERO,
                    };
                    self.rest(wait.max(asked).min(MAX_WAIT))?;
                    wait *= 2;
                }
                done => return done,
            }
        }
        work()
    }

    fn rest(&self, wait: Duration) -> Result<()> {
        let end = Instant::now() + wait;
        loop {
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(EndpointError::Stopped);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn read(&self, response: &mut Response<Body>) -> Result<Vec<u8>> {
        let url = || self.base.clone();
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => {
                EndpointError::TooLong { url: url(), limit: MAX_ANSWER }
            }
            error => match Unreached::from(error) {
                Unreached { message, timed_out: true, .. } => {
                    EndpointError::TimedOut { url: url(), message }
                }
                Unreached { message, .. } => EndpointError::BrokeOff { url: url(), message },
            },
        })
    }

    fn unreached(&self, error: Unreached) -> EndpointError {
        let Unreached { message, may_pass, timed_out } = error;
        let url = self.base.clone();
        if timed_out {
            EndpointError::TimedOut { url, message }
        } else {
            EndpointError::Unreachable { url, message, may_pass }
        }
    }

    /// What of a server's own words is passed on: one short line, without the key, which some servers repeat.
    fn shown(&self, text: &str) -> String {
        let hidden = match &self.options.key {
            Some(key) => text.replace(key.as_str(), "..."),
            None => text.to_owned(),
        };
        let line: String = hidden.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.trim().chars().take(MAX_MESSAGE).collect()
    }
}

/// A server's own words for what is wrong: `error.message` (OpenAI), `message` (older vLLM), `error` or `detail`.
fn message(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let found = ["/error/message", "/message", "/error", "/detail"]
        .iter()
        .filter_map(|path| value.pointer(path))
        .find(|value| !value.is_null());
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
