//! Differentiable operations of a decoder: fused CPU kernels in f32 with their own backward passes, and
//! the same functions of elementary operations for other devices and for tests.
//!
//! candle's own fused normalisation, softmax and rotary functions return tensors without history, so none
//! of them may appear on a path that is trained.

mod activation;
mod adamw;
mod attention;
mod column_stats;
pub(crate) mod elementary;
mod known;
mod layer_norm;
mod linear;
mod lora_linear;
mod rms_norm;
mod scale_columns;
mod segments;
mod storage;
mod sums;
mod vocabulary_loss;

pub use activation::{Activation, activation, gated};
pub use adamw::{AdamW, Moments, adamw_step};
pub(crate) use attention::{AttentionShape, attention};
pub use layer_norm::layer_norm;
pub use linear::{frozen_linear, linear};
pub(crate) use lora_linear::{Dropout, LoraTerm, lora_linear, low_rank_input};
pub(crate) use rms_norm::inverse_rms;
pub use rms_norm::rms_norm;
pub use scale_columns::scale_columns;
pub use segments::{Gradients, Segment, backward_in_segments};
pub(crate) use storage::{argument, elements};
pub(crate) use sums::sum;
pub use vocabulary_loss::{
    Charges, Head, KlDirection, MIN_COMPLEMENT, Term, vocabulary_loss, vocabulary_losses,
};

pub use crate::kernels::{filled, zeros};

#[cfg(test)]
mod tests;
