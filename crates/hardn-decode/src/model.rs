//! A model as decoding sees it: it reads tokens and says what may come next.

use std::sync::Arc;

use hardn_models::{DecodeAdapter, DecodeModel, DecodeRow, KvCache};

use crate::Result;

/// What a model keeps of the text it has read. Clones do not see each other's changes.
#[derive(Clone)]
pub enum Memory {
    /// Keys and values, with the adapter they were computed with.
    Cache(KvCache),
    /// The tokens, for models that look at the whole text each time.
    Tokens(Vec<u32>),
}

impl Memory {
    /// Tokens read so far.
    pub fn len(&self) -> usize {
        match self {
            Self::Cache(cache) => cache.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// Nothing was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        match self {
            Self::Cache(cache) => cache.truncate(n),
            Self::Tokens(tokens) => tokens.truncate(n),
        }
    }
}

/// One text's part of a batch.
pub struct Row<'a> {
    /// What was read so far; grows by `ids`.
    pub memory: &'a mut Memory,
    /// The tokens to read now; at least one.
    pub ids: &'a [u32],
    /// Logits after every token of `ids`, rather than after the last.
    pub all: bool,
}

/// Gives logits for what follows a text.
///
/// What is drawn depends on the batch, the draft length and the threads exactly as far as these logits do.
pub trait LanguageModel: Send + Sync {
    /// Logits after each token.
    fn vocab_size(&self) -> usize;

    /// Tokens a text can have, prompt included.
    fn longest_text(&self) -> usize;

    /// Memory for a text of at most `capacity` tokens.
    ///
    /// # Errors
    /// What the model reports.
    fn memory(&self, capacity: usize) -> Result<Memory>;

    /// Reads every row's tokens and returns its logits: `[ids, vocab_size]` or `[1, vocab_size]`, row after row.
    ///
    /// # Errors
    /// What the model reports; a row's memory of another kind.
    fn read(&self, rows: &mut [Row]) -> Result<Vec<Vec<f32>>>;

    /// Models that answer the same number here can read each other's rows in one pass.
    fn weights(&self) -> usize;
}

/// A model on this machine's CPU, plain or under an adapter that others of its rows need not have.
#[derive(Clone)]
pub struct LocalModel {
    model: Arc<DecodeModel>,
    adapter: Option<DecodeAdapter>,
}

impl LocalModel {
    /// The model as it was packed.
    pub fn new(model: Arc<DecodeModel>) -> Self {
        Self { model, adapter: None }
    }

    /// The same weights under an adapter.
    pub fn with_adapter(model: Arc<DecodeModel>, adapter: DecodeAdapter) -> Self {
        Self { model, adapter: Some(adapter) }
    }

    /// The weights.
    pub fn inner(&self) -> &Arc<DecodeModel> {
        &self.model
    }
}

impl From<Arc<DecodeModel>> for LocalModel {
    fn from(model: Arc<DecodeModel>) -> Self {
        Self::new(model)
    }
}

impl LanguageModel for LocalModel {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn longest_text(&self) -> usize {
        match &self.adapter {
            None => self.model.longest_text(),
            Some(adapter) => self
                .model
                .config()
                .max_position_embeddings
                .saturating_sub(adapter.n_virtual_tokens()),
        }
    }

    fn memory(&self, capacity: usize) -> Result<Memory> {
        Ok(Memory::Cache(match &self.adapter {
            None => self.model.cache(capacity),
            Some(adapter) => self.model.cache_with(adapter, capacity)?,
        }))
    }

    fn read(&self, rows: &mut [Row]) -> Result<Vec<Vec<f32>>> {
        let mut batch = Vec::with_capacity(rows.len());
        for row in rows {
            let Memory::Cache(cache) = &mut *row.memory else {
                let message = "a text of another kind of model".to_owned();
                return Err(hardn_models::ModelError::Input(message).into());
            };
            batch.push(DecodeRow { cache, ids: row.ids, all_logits: row.all });
        }
        Ok(self.model.forward(&mut batch)?)
    }

    fn weights(&self) -> usize {
        Arc::as_ptr(&self.model) as usize
    }
}
