//! Inner loops on slices of f32. The only `unsafe` code of the crate lies here and in the file mapping.

mod attend;
mod exp;
mod fill;
mod matmul;
mod packed;
mod panel;
mod prefetch;
mod route;
mod shared;
mod softmax;
mod team;
mod tile;
mod weight;

pub(crate) use attend::{BLOCK, HeadBlock, attend};
pub(crate) use exp::exp;
pub use fill::{filled, zeros};
pub(crate) use matmul::{Matrix, matmul, product};
pub(crate) use packed::Packed;
pub use packed::WeightFormat;
pub(crate) use route::route;
pub(crate) use softmax::softmax;
pub(crate) use team::Team;
pub(crate) use tile::tile_mm;

/// Below this many multiplications a parallel section costs more than it saves.
pub(crate) const MIN_PARALLEL: usize = 1 << 20;
