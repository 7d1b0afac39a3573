//! Checkpoint and tokenizer to logits: decoder, KV cache, adapters.
//!
//! [`Model`] is the differentiable form of a checkpoint, for training and scoring.
//! [`DecodeModel`] is the same weights packed for generation: bitwise the same logits for a position,
//! however the work is cut into batches, chunks and threads.

#![deny(unsafe_code)]

mod adapter;
mod chat;
mod checkpoint;
mod config;
mod decode;
mod error;
mod fim;
mod generation_config;
mod head_loss;
mod kernels;
mod kv_cache;
mod linear;
mod model;
pub mod ops;
pub mod quantised;
mod rng;
mod rope;
mod segments;
mod tokenizer;
mod widen;

pub use adapter::{
    AdapterConfig, AdapterId, DEFAULT_ADAPTER, Ia3Config, LoraConfig, OneOrMany,
    PrefixTuningConfig, TargetModules, UseAdapter,
};
pub use chat::{ChatOptions, ChatTemplates};
pub use checkpoint::{BaseWeights, GgufDtype, SaveDtype};
pub use config::{ModelConfig, RopeScaling, TokenIds};
pub use decode::{
    AdapterWeights, DecodeAdapter, DecodeModel, DecodeRow, ModuleTerm, PrefixWeights,
};
pub use error::{ModelError, Result};
pub use fim::{FIM_FORMATS, FimFormat, FimOrder, FimPart};
pub use generation_config::GenerationConfig;
pub use kernels::WeightFormat;
pub use kv_cache::KvCache;
pub use model::{ForwardOptions, Model};
pub use segments::Segments;
pub use tokenizer::{Encoding, LAB_SPECIALS, Tokenizer, train_bpe};
pub use widen::widen;
