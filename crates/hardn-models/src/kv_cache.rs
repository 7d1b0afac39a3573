//! Keys and values of the positions a text has so far.

use std::{ops::Range, sync::Arc};

use crate::{
    decode::AdapterTerms,
    kernels::{BLOCK, HeadBlock},
};

/// The cache of one text. Clones share what they have in common until one of them writes.
///
/// It belongs to the model, and to the adapter, that it was made for.
#[derive(Clone)]
pub struct KvCache {
    pub(crate) shape: Arc<CacheShape>,
    pub(crate) adapter: Option<Arc<AdapterTerms>>,
    capacity: usize,
    /// Positions before the first token.
    prefix: usize,
    len: usize,
    /// Each block holds 16 positions: `[layer][kv_head][keys [key_dim][16], values [16][value_dim]]`.
    blocks: Vec<Arc<Vec<f32>>>,
}

/// Sizes a cache is made for.
#[derive(Debug)]
pub(crate) struct CacheShape {
    layers: Vec<LayerShape>,
    block_size: usize,
}

#[derive(Clone, Copy, Debug)]
struct LayerShape {
    /// Where a block has the layer.
    offset: usize,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
}

impl LayerShape {
    fn head_size(self) -> usize {
        BLOCK * (self.key_dim + self.value_dim)
    }

    fn head(self, kv_head: usize) -> Range<usize> {
        let start = self.offset + kv_head * self.head_size();
        start..start + self.head_size()
    }
}

impl CacheShape {
    /// The shape of layers given as (heads of keys and values, size of a key, size of a value).
    pub(crate) fn new(layers: impl IntoIterator<Item = (usize, usize, usize)>) -> Self {
        let mut shape = Self { layers: Vec::new(), block_size: 0 };
        for (kv_heads, key_dim, value_dim) in layers {
            let layer = LayerShape { offset: shape.block_size, kv_heads, key_dim, value_dim };
            shape.block_size += kv_heads * layer.head_size();
            shape.layers.push(layer);
        }
        shape
    }

    pub(crate) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// A layer's heads of keys and values, and the sizes of a key and a value.
    pub(crate) fn layer(&self, layer: usize) -> (usize, usize, usize) {
        let LayerShape { kv_heads, key_dim, value_dim, .. } = self.layers[layer];
        (kv_heads, key_dim, value_dim)
    }
}

impl KvCache {
    pub(crate) fn new(shape: Arc<CacheShape>, capacity: usize) -> Self {
        Self { shape, adapter: None, capacity, prefix: 0, len: 0, blocks: Vec::new() }
    }

    /// Tokens held. Virtual tokens of a prefix do not count.
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
        self.blocks.truncate(self.end().div_ceil(BLOCK));
    }

    /// An empty cache for `capacity` tokens that come after what this one holds.
    pub(crate) fn as_prefix(&self, adapter: Arc<AdapterTerms>, capacity: usize) -> Self {
        let (prefix, blocks) = (self.end(), self.blocks.clone());
        Self { shape: self.shape.clone(), adapter: Some(adapter), capacity, prefix, len: 0, blocks }
    }

    /// The position of the next token.
    pub(crate) fn end(&self) -> usize {
        self.prefix + self.len
    }

    /// Makes room for positions up to `end`.
    pub(crate) fn reserve(&mut self, end: usize) {
        while self.blocks.len() * BLOCK < end {
            self.blocks.push(Arc::new(vec![0.0; self.shape.block_size]));
        }
    }

    /// Counts the positions written since, up to `end`, as held.
    pub(crate) fn set_end(&mut self, end: usize) {
        self.len = end - self.prefix;
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
        let layer = self.shape.layers[layer];
        let block = Arc::make_mut(&mut self.blocks[position / BLOCK]);
        let (keys, values) = block[layer.head(kv_head)].split_at_mut(BLOCK * layer.key_dim);
        let slot = position % BLOCK;
        for (keys, key) in keys.chunks_exact_mut(BLOCK).zip(key) {
            keys[slot] = *key;
        }
        values[slot * layer.value_dim..][..layer.value_dim].copy_from_slice(value);
    }

    /// What one head keeps, block by block.
    pub(crate) fn head(
        &self,
        layer: usize,
        kv_head: usize,
        blocks: Range<usize>,
    ) -> impl Iterator<Item = HeadBlock<'_>> {
        let layer = self.shape.layers[layer];
        let (range, keys) = (layer.head(kv_head), BLOCK * layer.key_dim);
        self.blocks[blocks].iter().map(move |block| {
            let (keys, values) = block[range.clone()].split_at(keys);
            HeadBlock { keys, values }
        })
    }
}
