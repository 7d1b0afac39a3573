//! A client of OpenAI-compatible `/v1/completions` servers, such as vLLM, SGLang and llama.cpp's.
//!
//! It asks for one token after given ones, and for log-probabilities: of that token, of the likeliest ones in its place
//! and, where the server scores given tokens (`echo` with `logprobs`), of those. What answers say is checked for form
//! and size, never believed beyond it: that tokens mean here what they mean there is for the caller to check.

#![forbid(unsafe_code)]

mod answer;
mod ask;
mod client;
mod error;
mod probe;

pub use answer::{Answer, Named, Scored};
pub use ask::{Ask, Names};
pub use client::{Endpoint, EndpointOptions};
pub use error::{EndpointError, Result};
pub use hardn_hub::Token;
pub use probe::Abilities;
