//! Keys and values of the positions a text has so far.

use std::sync::Arc;

/// Positions of a block.
pub(crate) const BLOCK: usize = 16;

/// The cache of one text. Clones share what they have in common until one of them writes.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) shape: CacheShape,
    capacity: usize,
    len: usize,
    /// Each block holds 16 positions: `[layer][kv_head][keys [dim][16], values [16][dim]]`.
    blocks: Vec<Arc<Vec<f32>>>,
}

/// Sizes a cache is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
}

impl CacheShape {
    fn head_size(self) -> usize {
        2 * BLOCK * self.dim
    }

    fn block_size(self) -> usize {
        self.layers * self.kv_heads * self.head_size()
    }

    fn offset(self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * self.head_size()
    }
}

impl KvCache {
    pub(crate) fn new(shape: CacheShape, capacity: usize) -> Self {
        Self { shape, capacity, len: 0, blocks: Vec::new() }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that can be held. Memory grows with what is held.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
        self.blocks.truncate(self.len.div_ceil(BLOCK));
    }

    /// Makes room for positions up to `end`.
    pub(crate) fn reserve(&mut self, end: usize) {
        while self.blocks.len() * BLOCK < end {
            self.blocks.push(Arc::new(vec![0.0; self.shape.block_size()]));
        }
    }

    /// Counts the positions written since as held.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Stores one head's key and value of a position there is room for.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        kv_head: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let dim = self.shape.dim;
        let offset = self.shape.offset(layer, kv_head);
        let block = Arc::make_mut(&mut self.blocks[position / BLOCK]);
        let (keys, values) =
            block[offset..offset + self.shape.head_size()].split_at_mut(BLOCK * dim);
        let slot = position % BLOCK;
        for (keys, key) in keys.chunks_exact_mut(BLOCK).zip(key) {
            keys[slot] = *key;
        }
        values[slot * dim..(slot + 1) * dim].copy_from_slice(value);
    }

    /// Keys `[dim][16]` and values `[16][dim]` of one head, block by block.
    pub(crate) fn head(
        &self,
        layer: usize,
        kv_head: usize,
    ) -> impl Iterator<Item = (&[f32], &[f32])> + Clone {
        let offset = self.shape.offset(layer, kv_head);
        let size = self.shape.head_size();
        self.blocks.iter().map(move |block| block[offset..offset + size].split_at(size / 2))
    }
}
