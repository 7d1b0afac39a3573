//! Small models and data for this crate's tests.

use candle_core::Tensor;
use hardn_models::{ForwardOptions, LAB_SPECIALS, Model, ModelConfig, Tokenizer, train_bpe};
use hardn_types::{FixPair, Language};

/// A byte-level tokenizer that has seen a little Python.
pub(crate) fn tokenizer() -> Tokenizer {
    let texts = [
        "def run(name):\n    return system(\"ls \" + name)\n",
        "def run(name):\n    return call([\"ls\", name])\n",
        "def add(a, b):\n    return a + b\n",
    ];
    train_bpe(texts.iter().copied(), 300, LAB_SPECIALS).unwrap()
}

/// A model of two layers for that tokenizer.
pub(crate) fn model(seed: u64) -> Model {
    let config = ModelConfig::llama(tokenizer().vocab_size(), 16, 2, 2, 32, 128).unwrap();
    Model::random(&config, seed).unwrap()
}

/// A pair whose sides share `prompt`.
pub(crate) fn pair(id: &str, prompt: &str, before: &str, after: &str) -> FixPair {
    FixPair {
        id: id.to_owned(),
        before: format!("{prompt}{before}"),
        after: format!("{prompt}{after}"),
        cwe: Some(hardn_types::Cwe(78)),
        language: Language::Python,
        description: None,
        prompt: prompt.to_owned(),
        origin: None,
        licence: None,
        file_name: None,
        line_changes: None,
        char_changes: None,
        extra: serde_json::Map::new(),
    }
}

/// log p of each token given those before it, from whole-sequence logits: index 0 has none.
pub(crate) fn token_log_probs(model: &Model, ids: &[u32]) -> Vec<f64> {
    let input = Tensor::new(ids, model.device()).unwrap().unsqueeze(0).unwrap();
    let logits = model.logits(&input, &ForwardOptions::evaluate()).unwrap();
    let rows = logits.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
    let mut out = vec![f64::NAN];
    for (row, &target) in rows.iter().zip(&ids[1..]) {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        out.push(f64::from(row[target as usize]) - sum.ln());
    }
    out
}
