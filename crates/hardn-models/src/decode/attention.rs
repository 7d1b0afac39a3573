//! Projections, attention over the cache, and output of a block.

use std::{iter::repeat_n, ops::Range, sync::Arc};

use super::{
    Pass, Token, each_row,
    norm::Norm,
    product::{Product, Users},
};
use crate::{
    KvCache,
    kernels::{BLOCK, HeadBlock, Team, attend},
    rope::Rope,
};

/// Queries that are computed side by side, where a text has as many: enough that loads of keys and values are shared,
/// and few enough that those after the first see little more than it does.
const SIDE_BY_SIDE: usize = 8;

pub(super) struct Attention {
    /// Its place in the cache.
    pub(super) layer: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    pub(super) scale: f32,
    /// The positions a token sees, its own included.
    pub(super) window: Option<usize>,
    pub(super) rope: Option<Arc<Rope>>,
    pub(super) source: Source,
    pub(super) q_norm: Option<Norm>,
    pub(super) k_norm: Option<Norm>,
    pub(super) output: Product,
}

/// Where queries, keys and values come from.
pub(super) enum Source {
    /// A product whose columns are queries, keys and values, in this order.
    Direct(Product),
    Latent(Box<Latent>),
}

pub(super) struct Latent {
    pub(super) query: Query,
    pub(super) kv_a: Product,
    pub(super) kv_a_norm: Norm,
    pub(super) kv_b: Product,
    pub(super) rank: usize,
    pub(super) nope: usize,
}

pub(super) enum Query {
    Direct(Product),
    LowRank { a: Product, norm: Norm, b: Product },
}

/// Buffers, `[tokens, ..]`.
#[derive(Default)]
pub(super) struct AttentionScratch {
    qkv: Vec<f32>,
    attended: Vec<f32>,
    narrow: Vec<f32>,
    queries: Vec<f32>,
    latent: Vec<f32>,
    expanded: Vec<f32>,
}

impl Attention {
    /// `out[tokens, hidden]` of `x[tokens, hidden]`; keys and values go to the cache.
    pub(super) fn forward(
        &self,
        x: &[f32],
        out: &mut Vec<f32>,
        pass: &mut Pass,
        scratch: &mut AttentionScratch,
    ) {
        let Pass { tokens, users, team, .. } = *pass;
        let (queries, keys) = (self.heads * self.key_dim, self.kv_heads * self.key_dim);
        let values = self.kv_heads * self.value_dim;
        let width = queries + keys + values;
        match &self.source {
            Source::Direct(product) => product.forward(x, &mut scratch.qkv, users, team),
            Source::Latent(latent) => latent.forward(self, x, users, scratch, team),
        }
        let AttentionScratch { qkv, attended, .. } = scratch;
        each_row(team, qkv, width, |i, qkv| {
            let (q, k) = qkv[..queries + keys].split_at_mut(queries);
            for (part, norm) in [(q, &self.q_norm), (k, &self.k_norm)] {
                for head in part.chunks_exact_mut(self.key_dim) {
                    if let Some(norm) = norm {
                        norm.in_place(head);
                    }
                    if let Some(rope) = &self.rope {
                        rope.rotate(tokens[i].position, head);
                    }
                }
            }
        });
        for (token, qkv) in tokens.iter().zip(qkv.chunks_exact(width)) {
            let (keys, values) = qkv[queries..].split_at(keys);
            let cache = &mut *pass.rows[token.row].cache;
            let heads = keys.chunks_exact(self.key_dim).zip(values.chunks_exact(self.value_dim));
            for (kv_head, (key, value)) in heads.enumerate() {
                cache.write(self.layer, kv_head, token.position, key, value);
            }
        }
        attended.resize(tokens.len() * self.heads * self.value_dim, 0.0);
        let rows = &*pass.rows;
        let attend = |kv_heads: Range<usize>, first: usize, out: &mut [f32]| {
            let n = out.len() / (kv_heads.len() * self.heads / self.kv_heads * self.value_dim);
            let run = Run { tokens: &tokens[first..first + n], qkv: &qkv[first * width..], width };
            self.attend(rows[tokens[first].row].cache, kv_heads, run, out);
        };
        let run = longest_run(tokens).min(SIDE_BY_SIDE * self.kv_heads / self.heads);
        let head_width = self.heads / self.kv_heads * self.value_dim;
        if run < 2 {
            team.chunks(attended, head_width, |i, out| {
                let kv_head = i % self.kv_heads;
                attend(kv_head..kv_head + 1, i / self.kv_heads, out);
            });
        } else {
            let token_width = self.heads * self.value_dim;
            team.chunks(attended, run * token_width, |i, mut out| {
                let mut first = i * run;
                while !out.is_empty() {
                    let left = out.len() / token_width;
                    let n = length_of_run(&tokens[first..first + left]);
                    let (part, rest) = out.split_at_mut(n * token_width);
                    attend(0..self.kv_heads, first, part);
                    (first, out) = (first + n, rest);
                }
            });
        }
        self.output.forward(attended, out, users, team);
    }

    /// What a text's tokens attend to, for some heads of keys: `out` is `[tokens, heads of queries, value_dim]`.
    fn attend(&self, cache: &KvCache, kv_heads: Range<usize>, run: Run, out: &mut [f32]) {
        let Run { tokens, qkv, width } = run;
        let group = self.heads / self.kv_heads;
        let first_seen =
            |position: usize| self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let (first, last) = (first_seen(tokens[0].position), tokens[tokens.len() - 1].position);
        // Blocks are counted from the first in sight.
        let start = first - first % BLOCK;
        let blocks = first / BLOCK..(last + 1).div_ceil(BLOCK);
        let seen: Vec<Range<usize>> = tokens
            .iter()
            .map(|token| first_seen(token.position) - start..token.position + 1 - start)
            .flat_map(|seen| repeat_n(seen, group))
            .collect();
        let (query_width, value_width) = (group * self.key_dim, group * self.value_dim);
        let out_width = kv_heads.len() * value_width;
        let mut queries = Vec::with_capacity(tokens.len() * query_width);
        let mut values = vec![0.0; tokens.len() * value_width];
        for (i, kv_head) in kv_heads.enumerate() {
            queries.clear();
            for qkv in qkv.chunks(width).take(tokens.len()) {
                queries.extend_from_slice(&qkv[kv_head * query_width..][..query_width]);
            }
            let blocks: Vec<HeadBlock> = cache.head(self.layer, kv_head, blocks.clone()).collect();
            attend(&queries, &blocks, &seen, self.scale, &mut values);
            let rows = out.chunks_exact_mut(out_width).zip(values.chunks_exact(value_width));
            for (out, values) in rows {
                out[i * value_width..][..value_width].copy_from_slice(values);
            }
        }
    }
}

/// Tokens of one text in order, and their queries at the start of rows of `width`.
#[derive(Clone, Copy)]
struct Run<'a> {
    tokens: &'a [Token],
    qkv: &'a [f32],
    width: usize,
}

/// How many of the first tokens are of one text.
fn length_of_run(tokens: &[Token]) -> usize {
    tokens.iter().take_while(|token| token.row == tokens[0].row).count()
}

fn longest_run(tokens: &[Token]) -> usize {
    tokens.chunk_by(|a, b| a.row == b.row).map(<[Token]>::len).max().unwrap_or(0)
}

impl Latent {
    /// Queries, keys and values of all heads, side by side in `scratch.qkv`.
    fn forward(
        &self,
        shape: &Attention,
        x: &[f32],
        users: &Users,
        scratch: &mut AttentionScratch,
        team: &Team,
    ) {
        let AttentionScratch { qkv, narrow, queries, latent, expanded, .. } = scratch;
        match &self.query {
            Query::Direct(q) => q.forward(x, queries, users, team),
            Query::LowRank { a, norm, b } => {
                a.forward(x, narrow, users, team);
                each_row(team, narrow, a.n(), |_, row| norm.in_place(row));
                b.forward(narrow, queries, users, team);
            }
        }
        self.kv_a.forward(x, narrow, users, team);
        let (compressed, rank) = (self.kv_a.n(), self.rank);
        latent.resize(narrow.len() / compressed * rank, 0.0);
        each_row(team, latent, rank, |i, latent| {
            self.kv_a_norm.forward(&narrow[i * compressed..][..rank], latent);
        });
        self.kv_b.forward(latent, expanded, users, team);
        let Attention { heads, key_dim, value_dim, .. } = *shape;
        let width = heads * (2 * key_dim + value_dim);
        qkv.resize(narrow.len() / compressed * width, 0.0);
        each_row(team, qkv, width, |i, qkv| {
            let (q, kv) = qkv.split_at_mut(heads * key_dim);
            q.copy_from_slice(&queries[i * q.len()..][..q.len()]);
            let (keys, values) = kv.split_at_mut(heads * key_dim);
            let common = &narrow[i * compressed + rank..(i + 1) * compressed];
            let size = self.nope + value_dim;
            let parts = expanded[i * heads * size..].chunks_exact(size);
            let heads = keys.chunks_exact_mut(key_dim).zip(values.chunks_exact_mut(value_dim));
            for ((key, value), part) in heads.zip(parts) {
                key[..self.nope].copy_from_slice(&part[..self.nope]);
                key[self.nope..].copy_from_slice(common);
                value.copy_from_slice(&part[self.nope..]);
            }
        });
    }
}
