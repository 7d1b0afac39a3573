//! What can go wrong between a question and its answer, and what to do then.

/// The crate's result.
pub type Result<T, E = EndpointError> = std::result::Result<T, E>;

/// A server that did not answer as it should. Messages hold no key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EndpointError {
    #[error("`{url}` is no server's address: {message}")]
    BadUrl { url: String, message: String },
    #[error("cannot reach {url}: {message}")]
    Unreachable { url: String, message: String, may_pass: bool },
    #[error("{url} did not answer in time: {message}")]
    TimedOut { url: String, message: String },
    #[error("{url} answered {status}{}", colon(message))]
    Status { url: String, status: u16, message: String, wait_secs: Option<u64> },
    #[error("{url} has no model `{model}`{}", colon(message))]
    NoModel { url: String, model: String, message: String, others: Vec<String> },
    #[error("{url} takes no token ids as a prompt{}", colon(message))]
    NoTokenIds { url: String, message: String },
    #[error("{url} answered what is not JSON: {message}")]
    NotJson { url: String, message: String },
    #[error("the answer of {url} broke off: {message}")]
    BrokeOff { url: String, message: String },
    #[error("the answer of {url} is longer than {limit} bytes")]
    TooLong { url: String, limit: u64 },
    #[error("{url} answered what a completion server does not: {message}")]
    Answer { url: String, message: String },
    #[error("stopped")]
    Stopped,
}

impl EndpointError {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { may_pass, .. } => *may_pass,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            Self::BrokeOff { .. } => true,
            _ => false,
        }
    }

    /// The server understood and will not.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status, .. } if (400..=599).contains(status) && ![401, 403, 408, 429].contains(status))
    }

    /// What to do next.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::BadUrl { .. } => "give it as in http://localhost:8000/v1".to_owned(),
            Self::Unreachable { .. } => {
                "is the server running, and are host, port and scheme (http, https) right?".to_owned()
            }
            Self::TimedOut { .. } => {
                "a busy server may need longer: raise --endpoint-timeout".to_owned()
            }
            Self::Status { status: 401 | 403, .. } => {
                "name the environment variable that holds the key: --api-key-env VAR".to_owned()
            }
            Self::Status { status: 404, .. } => {
                "is this the address of an OpenAI-compatible API, with /v1 at its end?".to_owned()
            }
            Self::Status { status: 300..=399, .. } => {
                "redirects are not followed: give the address it leads to".to_owned()
            }
            Self::Status { status: 429 | 500..=599, .. } => {
                "the server is overloaded or broken: try again later, or look into its log".to_owned()
            }
            Self::NoModel { others, .. } if !others.is_empty() => {
                format!("it serves {}", others.join(", "))
            }
            Self::NoTokenIds { .. } => {
                "co-decoding speaks of tokens, not text: use a server that takes them, such as vLLM, SGLang or \
                 llama.cpp's"
                    .to_owned()
            }
            Self::NotJson { .. } | Self::Answer { .. } => {
                "is this the address of an OpenAI-compatible API that serves a base model (not chat alone)?"
                    .to_owned()
            }
            Self::BrokeOff { .. } => "try again; a proxy on the way may cut long answers".to_owned(),
            Self::Status { .. } | Self::NoModel { .. } | Self::TooLong { .. } | Self::Stopped => {
                return None;
            }
        })
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
