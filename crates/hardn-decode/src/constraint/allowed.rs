//! A set of tokens.

/// Which tokens may come next: one bit a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedTokens {
    words: Vec<u32>,
}

impl AllowedTokens {
    /// Whether a token may come next.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The tokens, ids ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index as u32 * 32 + bit)
            })
        })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// None is allowed.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Becomes the bits of `words` that belong to the first `n` tokens.
    pub(super) fn copy(&mut self, words: &[u32], n: usize) {
        self.words.clear();
        self.words.extend(words.iter().take(n.div_ceil(32)));
        self.words.resize(n.div_ceil(32), 0);
        if let Some(last) = self.words.last_mut().filter(|_| !n.is_multiple_of(32)) {
            *last &= (1 << (n % 32)) - 1;
        }
    }

    pub(super) fn set(&mut self, id: u32, is_allowed: bool) {
        if let Some(word) = self.words.get_mut(id as usize / 32) {
            *word = *word & !(1 << (id % 32)) | u32::from(is_allowed) << (id % 32);
        }
    }
}
