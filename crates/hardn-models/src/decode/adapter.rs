//! Adapters beside the packed weights: each row of a batch can have another one.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Tensor, Var};

use super::product::Layout;
use crate::{
    KvCache, Model, ModelConfig, ModelError, Result, UseAdapter,
    adapter::{Plan, Prefix, Side, Term as ModelTerm},
    config::spec::{LayerSpec, LinearSpec},
    kernels::{Packed, Team, WeightFormat},
    kv_cache::CacheShape,
};

/// An adapter's numbers.
#[derive(Clone, Debug, Default)]
pub struct AdapterWeights {
    /// What changes at linear layers, by their published names.
    pub modules: BTreeMap<String, ModuleTerm>,
    /// Virtual tokens before the text.
    pub prefix: Option<PrefixWeights>,
}

impl AdapterWeights {
    /// An adapter that is attached to a model; nothing where there is none.
    ///
    /// # Errors
    /// An adapter that is not attached, or weights that cannot be copied from their device.
    pub fn of(model: &Model, which: UseAdapter) -> Result<Self> {
        let mut weights = Self::default();
        let Some(slot) = model.adapters.chosen(which)? else { return Ok(weights) };
        let id = Some(slot.id);
        for linear in model.linears() {
            if let Some(term) = linear.terms.get(id) {
                weights.modules.insert(linear.name.clone(), ModuleTerm::of(term)?);
            }
        }
        let prefixes = model.prefixes().filter_map(|prefixes| prefixes.get(id));
        weights.prefix = PrefixWeights::of(prefixes)?;
        Ok(weights)
    }

    /// What a folder holds for a model.
    pub(super) fn of_plan(
        plan: &Plan,
        variables: &BTreeMap<String, Var>,
        model: &ModelConfig,
    ) -> Result<Self> {
        let mut weights = Self::default();
        for linear in model.spec.linears() {
            if let Some(term) = plan.term(&linear.name, variables, 0.0, 0) {
                weights.modules.insert(linear.name.clone(), ModuleTerm::of(&term)?);
            }
        }
        let layers = 0..model.num_hidden_layers;
        let prefixes: Vec<Prefix> =
            layers.filter_map(|layer| plan.prefix_of(layer, variables, 0.0, 0)).collect();
        weights.prefix = PrefixWeights::of(prefixes.iter())?;
        Ok(weights)
    }

    /// Linear layers that an adapter can change: name, outputs, inputs.
    pub fn modules_of(config: &ModelConfig) -> Vec<(String, usize, usize)> {
        let module = |linear: &LinearSpec| (linear.name.clone(), linear.out, linear.input);
        config.spec.linears().map(module).collect()
    }

    /// For each layer the numbers that a virtual token's keys and values have.
    pub fn prefix_sizes(config: &ModelConfig) -> Vec<(usize, usize)> {
        let sizes = |layer: &LayerSpec| {
            let attention = &layer.attention;
            (attention.kv_heads * attention.key_dim, attention.kv_heads * attention.value_dim)
        };
        config.spec.layers.iter().map(sizes).collect()
    }
}

/// What an adapter changes at a linear layer.
#[derive(Clone, Debug)]
pub enum ModuleTerm {
    /// `scale * b (a x)` is added to the output.
    LowRank {
        /// `[r, in]`
        a: Vec<f32>,
        /// `[out, r]`
        b: Vec<f32>,
        /// What the term is multiplied by.
        scale: f32,
    },
    /// The input is multiplied by these: `[in]`.
    InputFactors(Vec<f32>),
    /// The output, bias included, is multiplied by these: `[out]`.
    OutputFactors(Vec<f32>),
}

impl ModuleTerm {
    fn of(term: &ModelTerm) -> Result<Self> {
        Ok(match term {
            ModelTerm::Lora(lora) => Self::LowRank {
                a: numbers(&lora.a.see(false)?)?,
                b: numbers(&lora.b.see(false)?)?,
                scale: lora.scale as f32,
            },
            ModelTerm::Ia3(ia3) => {
                let factors = numbers(&ia3.factors()?)?;
                match ia3.side {
                    Side::Input => Self::InputFactors(factors),
                    Side::Output => Self::OutputFactors(factors),
                }
            }
        })
    }
}

/// Keys and values of virtual tokens.
#[derive(Clone, Debug)]
pub struct PrefixWeights {
    /// Virtual tokens.
    pub n_tokens: usize,
    /// For each layer the keys `[n_tokens, kv_heads * key_dim]`, not rotated, and the values
    /// `[n_tokens, kv_heads * value_dim]`.
    pub layers: Vec<(Vec<f32>, Vec<f32>)>,
}

/// An adapter packed for one [`DecodeModel`](crate::DecodeModel); clones are cheap.
#[derive(Clone)]
pub struct DecodeAdapter(pub(crate) Arc<AdapterTerms>);

/// An adapter as rows are computed with it.
pub(crate) struct AdapterTerms {
    pub(super) shape: Arc<CacheShape>,
    /// By the products' numbers; empty where no product changes.
    terms: Vec<Option<Term>>,
    /// Holds the virtual tokens.
    prefix: KvCache,
}

/// Columns of a product that see its inputs multiplied.
struct ScaledInputs {
    /// `[k]`
    factors: Vec<f32>,
    /// Runs of (first column, columns).
    runs: Vec<(usize, usize)>,
}

/// What changes at a product.
#[derive(Default)]
pub(super) struct Term {
    /// Columns that are computed of multiplied inputs.
    inputs: Vec<ScaledInputs>,
    /// `[r, k]` and `[n, r]`.
    low_rank: Option<(Packed, Packed)>,
    /// `[n]`
    outputs: Option<Vec<f32>>,
}

impl AdapterTerms {
    /// # Errors
    /// A module the model does not have, or numbers of the wrong count.
    pub(super) fn new(
        weights: &AdapterWeights,
        layouts: &[Layout],
        shape: &Arc<CacheShape>,
        context: usize,
    ) -> Result<Self> {
        let known = |module: &str| {
            layouts.iter().flat_map(|layout| &layout.linears).any(|linear| linear.name == *module)
        };
        if let Some(module) = weights.modules.keys().find(|module| !known(module)) {
            return Err(ModelError::Input(format!("adapter: the model has no layer `{module}`")));
        }
        let mut terms = Vec::new();
        if !weights.modules.is_empty() {
            for layout in layouts {
                terms.push(Term::new(weights, layout)?);
            }
        }
        let mut prefix = KvCache::new(shape.clone(), context);
        if let Some(virtual_tokens) = &weights.prefix {
            virtual_tokens.fill(&mut prefix, context)?;
        }
        Ok(Self { shape: shape.clone(), terms, prefix })
    }

    pub(super) fn changes_products(&self) -> bool {
        !self.terms.is_empty()
    }

    pub(super) fn term(&self, product: usize) -> Option<&Term> {
        self.terms.get(product).and_then(Option::as_ref)
    }
}

impl DecodeAdapter {
    /// Virtual tokens before the text; they take places of the context.
    pub fn n_virtual_tokens(&self) -> usize {
        self.0.prefix.len()
    }

    /// An empty cache for texts with this adapter.
    pub(super) fn cache(&self, capacity: usize, context: usize) -> KvCache {
        let capacity = capacity.min(context - self.n_virtual_tokens());
        self.0.prefix.as_prefix(self.0.clone(), capacity)
    }
}

impl PrefixWeights {
    /// The prefixes of all layers; `None` if there are none.
    fn of<'a>(prefixes: impl Iterator<Item = &'a Prefix>) -> Result<Option<Self>> {
        let (mut n_tokens, mut layers) = (0, Vec::new());
        for prefix in prefixes {
            let [keys, values] = prefix.keys_values()?;
            n_tokens = prefix.len()?;
            layers.push((numbers(&keys)?, numbers(&values)?));
        }
        Ok((!layers.is_empty()).then_some(Self { n_tokens, layers }))
    }

    fn fill(&self, cache: &mut KvCache, context: usize) -> Result<()> {
        let error = |message: String| Err(ModelError::Input(format!("adapter: {message}")));
        let n = self.n_tokens;
        if n >= context {
            return error(format!("{n} virtual tokens leave no room in a context of {context}"));
        }
        let shape = cache.shape.clone();
        if self.layers.len() != shape.n_layers() {
            let expected = shape.n_layers();
            return error(format!("a prefix of {} layers, expected {expected}", self.layers.len()));
        }
        cache.reserve(n);
        for (layer, (keys, values)) in self.layers.iter().enumerate() {
            let (kv_heads, key_dim, value_dim) = shape.layer(layer);
            let expected = (n * kv_heads * key_dim, n * kv_heads * value_dim);
            if (keys.len(), values.len()) != expected {
                return error(format!(
                    "{} keys and {} values of layer {layer}, expected {} and {}",
                    keys.len(),
                    values.len(),
                    expected.0,
                    expected.1
                ));
            }
            let heads = keys.chunks_exact(key_dim).zip(values.chunks_exact(value_dim));
            for (i, (key, value)) in heads.enumerate() {
                cache.write(layer, i % kv_heads, i / kv_heads, key, value);
            }
        }
        cache.set_end(n);
        Ok(())
    }
}

impl Term {
    fn new(weights: &AdapterWeights, layout: &Layout) -> Result<Option<Self>> {
        let terms: Vec<Option<&ModuleTerm>> =
            layout.linears.iter().map(|linear| weights.modules.get(&linear.name)).collect();
        if terms.iter().all(Option::is_none) {
            return Ok(None);
        }
        let (k, n) = (layout.linears[0].input, layout.width());
        let mut term = Self::default();
        // Ranks of all layers side by side: inputs of a row of `b` that belong to another layer are zero.
        let mut ranks = Vec::new();
        let mut rank = 0;
        for (index, (linear, module)) in layout.linears.iter().zip(&terms).enumerate() {
            let count = |what: &str, count: usize, expected: usize| {
                if count == expected {
                    return Ok(());
                }
                let message =
                    format!("adapter, `{}`: {count} {what}, expected {expected}", linear.name);
                Err(ModelError::Input(message))
            };
            ranks.push(rank);
            match module {
                None => {}
                Some(ModuleTerm::LowRank { a, b, .. }) => {
                    let r = a.len() / k;
                    count("numbers in A", a.len(), r * k)?;
                    count("numbers in B", b.len(), r * linear.out)?;
                    rank += r;
                }
                Some(ModuleTerm::InputFactors(factors)) => {
                    count("factors", factors.len(), k)?;
                    let runs = layout.columns().filter(|(_, run)| run.linear == index);
                    let runs = runs.map(|(first, run)| (first, run.len)).collect();
                    term.inputs.push(ScaledInputs { factors: factors.clone(), runs });
                }
                Some(ModuleTerm::OutputFactors(factors)) => {
                    count("factors", factors.len(), linear.out)?;
                    let all = term.outputs.get_or_insert_with(|| vec![1.0; n]);
                    for (first, run) in layout.columns().filter(|(_, run)| run.linear == index) {
                        all[first..first + run.len]
                            .copy_from_slice(&factors[run.start..run.start + run.len]);
                    }
                }
            }
        }
        if rank > 0 {
            let mut down = Packed::empty(k, rank, WeightFormat::F32);
            for module in &terms {
                if let Some(ModuleTerm::LowRank { a, .. }) = module {
                    down.push(a);
                }
            }
            let mut up = Packed::empty(rank, n, WeightFormat::F32);
            let mut row = vec![0.0; rank];
            for run in &layout.runs {
                for j in run.start..run.start + run.len {
                    row.fill(0.0);
                    if let Some(ModuleTerm::LowRank { a, b, scale }) = terms[run.linear] {
                        let r = a.len() / k;
                        let to = &mut row[ranks[run.linear]..][..r];
                        for (to, b) in to.iter_mut().zip(&b[j * r..]) {
                            *to = b * scale;
                        }
                    }
                    up.push(&row);
                }
            }
            term.low_rank = Some((down, up));
        }
        Ok(Some(term))
    }

    /// Changes `out` for some of the rows of `x`.
    pub(super) fn apply(
        &self,
        weight: &Packed,
        x: &[f32],
        out: &mut [f32],
        rows: &[usize],
        team: &Team,
    ) {
        let (k, n) = (weight.k(), weight.n());
        let mut inputs = Vec::with_capacity(rows.len() * k);
        for row in rows {
            inputs.extend_from_slice(&x[row * k..][..k]);
        }
        let mut result = vec![0.0; rows.len() * n];
        for ScaledInputs { factors, runs } in &self.inputs {
            let scaled: Vec<f32> =
                inputs.iter().zip(factors.iter().cycle()).map(|(x, factor)| x * factor).collect();
            weight.multiply(&scaled, &mut result, team);
            for (row, result) in rows.iter().zip(result.chunks_exact(n)) {
                for (first, len) in runs {
                    out[row * n + first..][..*len].copy_from_slice(&result[*first..][..*len]);
                }
            }
        }
        if let Some((a, b)) = &self.low_rank {
            let mut narrow = vec![0.0; rows.len() * a.n()];
            a.multiply(&inputs, &mut narrow, team);
            b.multiply(&narrow, &mut result, team);
            for (row, result) in rows.iter().zip(result.chunks_exact(n)) {
                for (out, result) in out[row * n..][..n].iter_mut().zip(result) {
                    *out += result;
                }
            }
        }
        if let Some(factors) = &self.outputs {
            for row in rows {
                for (out, factor) in out[row * n..][..n].iter_mut().zip(factors) {
                    *out *= factor;
                }
            }
        }
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
