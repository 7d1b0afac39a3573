//! Checkpoint and tokenizer to logits: decoder, KV cache, adapters.
//!
//! [`Model`] is the differentiable form of a checkpoint, for training and scoring.
//! [`DecodeModel`] is the same weights packed for generation: bitwise the same logits for a position,
//! however the work is cut into batches, chunks and threads.

#![deny(unsafe_code)]

mod adapter;
mod checkpoint;
mod config;
mod decode;
mod error;
mod head_loss;
mod kernels;
mod kv_cache;
mod linear;
mod lora;
mod model;
pub mod ops;
pub mod quantised;
mod rng;
mod rope;
mod tokenizer;
mod tokenizer_bytes;
mod tokenizer_train;

pub use checkpoint::{GgufDtype, SaveDtype};
pub use config::{ModelConfig, RopeScaling, TokenIds};
pub use decode::{
    AdapterWeights, DecodeAdapter, DecodeModel, DecodeRow, ModuleTerm, PrefixWeights,
};
pub use error::{ModelError, Result};
pub use kernels::WeightFormat;
pub use kv_cache::KvCache;
pub use lora::{LoraConfig, TargetModules};
pub use model::{ForwardOptions, Model};
pub use tokenizer::{Encoding, Tokenizer};
pub use tokenizer_train::{LAB_SPECIALS, train_bpe};
