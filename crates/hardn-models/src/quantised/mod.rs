//! Frozen weights in few bits, and the linear layer that reads them.

mod linear;
mod weight;

pub use linear::quantised_linear;
pub use weight::{Int8Rows, QuantisedWeight};

#[cfg(test)]
mod tests;
