//! Sampling: hardened and plain decoding over a batch
