//! Checks against published data, which lies outside the project.

mod golden_masks;
mod imports;
