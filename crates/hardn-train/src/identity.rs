//! Hashes that say whether two trainings are made of the same things.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// SHA-256, in hexadecimal, of a list of byte strings; where one ends counts.
pub(crate) fn sha256<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_count() {
        assert_ne!(sha256(["ab", "c"]), sha256(["a", "bc"]));
        assert_eq!(sha256(["ab"]).len(), 64);
    }
}
