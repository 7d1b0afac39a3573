//! Agreement with transformers and PEFT on the fixtures that `tests/fixtures/make_fixtures.py` wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use hardn_models::{DecodeModel, DecodeRow, ForwardOptions, KvCache, Model, WeightFormat};
use serde::Deserialize;

/// Folders of checkpoints, each with the folders of its adapters.
const FIXTURES: &[(&str, &[&str])] = &[
    ("codegen", &["ia3", "lora", "prefix"]),
    ("codegen2", &["lora", "prefix"]),
    ("deepseek_v2-grouped", &["lora"]),
    ("deepseek_v2-lite", &["ia3", "lora", "lora-experts"]),
    ("gpt2", &["ia3", "lora", "prefix"]),
    ("gpt_bigcode", &["ia3", "lora", "prefix"]),
    ("gpt_bigcode-multihead", &["prefix"]),
    ("gptj", &[]),
    ("llama-dynamic", &[]),
    ("llama-grouped", &["ia3", "lora", "prefix", "prefix-projected", "rslora"]),
    ("llama-linear", &[]),
    ("llama-llama3", &[]),
    ("llama-tied", &[]),
    ("llama-yarn", &[]),
    ("mistral", &["prefix"]),
    ("phi", &["ia3", "lora", "prefix"]),
    ("phi-normed", &[]),
    ("qwen2", &[]),
    ("qwen3", &["ia3", "lora", "prefix"]),
    ("qwen3-yarn", &[]),
    ("santacoder", &["ia3", "lora", "prefix"]),
    ("starcoder2", &[]),
    ("starcoder2-untied", &[]),
    ("xglm", &["ia3", "lora", "prefix"]),
    ("xglm-unscaled", &[]),
];

/// Greedy continuations are compared up to the first choice between logits closer than this.
const MIN_MARGIN: f32 = 1e-3;

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Prompt>,
    greedy: Greedy,
    gradients: Option<Gradients>,
}

/// Logits after some positions of a text, one row of the vocabulary's size each.
#[derive(Deserialize)]
struct Prompt {
    kind: String,
    ids: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<f32>,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: Vec<u32>,
    ids: Vec<u32>,
    margins: Vec<f32>,
}

/// Gradients of the mean square of the logits.
#[derive(Deserialize)]
struct Gradients {
    ids: Vec<u32>,
    values: BTreeMap<String, Vec<f32>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Sums of f32 in another order differ by some 1e-6 of the largest; never more than 1e-4 is allowed.
#[track_caller]
fn close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let error = actual.iter().zip(expected).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    let size = expected.iter().fold(0.0_f32, |max, b| max.max(b.abs()));
    let allowed = (2e-5 * size).clamp(2e-5, 1e-4);
    assert!(error < allowed, "{what}: error {error}, allowed {allowed}");
}

impl Prompt {
    #[track_caller]
    fn check(&self, logits: &[f32], what: &str) {
        let n_vocab = self.logits.len() / self.positions.len();
        let rows = self.positions.iter().flat_map(|i| &logits[i * n_vocab..(i + 1) * n_vocab]);
        close(&rows.copied().collect::<Vec<_>>(), &self.logits, &format!("{what}, {}", self.kind));
    }
}

/// Logits of each row of a batch padded on the right.
fn batch_logits(model: &Model, rows: &[&[u32]], options: &ForwardOptions) -> Tensor {
    let n = rows.iter().map(|row| row.len()).max().unwrap();
    let mut ids = Vec::new();
    for row in rows {
        ids.extend_from_slice(row);
        ids.resize(ids.len() + n - row.len(), 0);
    }
    let ids = Tensor::from_vec(ids, (rows.len(), n), &Device::Cpu).unwrap();
    model.logits(&ids, options).unwrap()
}

fn check_prompts(model: &mut Model, prompts: &[Prompt], what: &str) {
    for fused in [true, false] {
        model.set_fused(fused);
        for kind in prompts.iter().map(|prompt| &prompt.kind).collect::<BTreeSet<_>>() {
            let batch: Vec<_> = prompts.iter().filter(|prompt| prompt.kind == *kind).collect();
            let rows: Vec<_> = batch.iter().map(|prompt| prompt.ids.as_slice()).collect();
            let logits = batch_logits(model, &rows, &ForwardOptions::evaluate());
            for (i, prompt) in batch.iter().enumerate() {
                let row = logits.get(i).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                prompt.check(&row, &format!("{what}, fused {fused}"));
            }
        }
    }
}

fn check_decoding(
    cache: &dyn Fn(usize) -> KvCache,
    model: &DecodeModel,
    expected: &Expected,
    what: &str,
) {
    // Rows of different length in one batch; a text beyond the context does not fit into a cache.
    let prompts: Vec<_> = expected.prompts.iter().filter(|p| p.kind != "beyond").collect();
    let mut caches: Vec<_> = prompts.iter().map(|p| cache(p.ids.len())).collect();
    let mut rows: Vec<_> = prompts
        .iter()
        .zip(&mut caches)
        .map(|(p, cache)| DecodeRow { cache, ids: &p.ids, all_logits: true })
        .collect();
    for (prompt, logits) in prompts.iter().zip(model.forward(&mut rows).unwrap()) {
        prompt.check(&logits, &format!("{what}, decoded"));
    }
    let greedy = &expected.greedy;
    let mut cache = cache(greedy.prompt.len() + greedy.ids.len());
    let mut ids = greedy.prompt.clone();
    for (step, (id, margin)) in greedy.ids.iter().zip(&greedy.margins).enumerate() {
        if *margin < MIN_MARGIN {
            assert!(step > 0, "{what}: nothing to compare");
            break;
        }
        let row = DecodeRow { cache: &mut cache, ids: &ids, all_logits: false };
        let logits = model.forward(&mut [row]).unwrap().remove(0);
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best, *id as usize, "{what}: greedy step {step}");
        ids = vec![*id];
    }
}

fn check_gradients(model: &mut Model, expected: &Gradients, what: &str) {
    model.set_fused(true);
    let logits = batch_logits(model, &[&expected.ids], &ForwardOptions::default());
    let grads = logits.sqr().unwrap().mean_all().unwrap().backward().unwrap();
    let trainable: BTreeMap<_, _> = model.trainable().into_iter().collect();
    for (name, gradient) in &expected.values {
        let var = trainable.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
        let grad = grads.get(var).unwrap_or_else(|| panic!("{what}: no gradient of {name}"));
        // GPT-2 publishes the weights of its blocks as `[in, out]`.
        let is_transposed = model.config().model_type == "gpt2"
            && name.contains(".h.")
            && name.ends_with(".weight")
            && !name.contains("lora_")
            && grad.rank() == 2;
        let grad = if is_transposed { grad.t().unwrap() } else { grad.clone() };
        let actual: Vec<f32> = grad.flatten_all().unwrap().to_vec1().unwrap();
        close(&actual, gradient, &format!("{what}, {name}"));
    }
}

fn check(name: &str, adapter: Option<&str>) {
    let dir = fixtures().join(name);
    let mut model = Model::load(&dir, &Device::Cpu).unwrap();
    let mut what = name.to_owned();
    let mut file = dir.join("expected.json");
    if let Some(adapter) = adapter {
        model.load_adapter("default", &dir.join(adapter)).unwrap();
        what = format!("{name}/{adapter}");
        file = dir.join(adapter).join("expected.json");
    }
    let expected: Expected = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    check_prompts(&mut model, &expected.prompts, &what);
    let decode = DecodeModel::new(&model).unwrap();
    check_decoding(&|capacity| decode.cache(capacity), &decode, &expected, &what);
    if let Some(adapter) = adapter {
        // Beside weights that were packed without it.
        let decode = DecodeModel::load(&dir, WeightFormat::F32).unwrap();
        let adapter = decode.load_adapter(&dir.join(adapter)).unwrap();
        let cache = |capacity: usize| decode.cache_with(&adapter, capacity).unwrap();
        check_decoding(&cache, &decode, &expected, &what);
    }
    if let Some(gradients) = &expected.gradients {
        check_gradients(&mut model, gradients, &what);
    }
}

#[test]
fn checkpoints() {
    for (name, _) in FIXTURES {
        check(name, None);
    }
}

#[test]
fn adapters() {
    for (name, adapters) in FIXTURES {
        for adapter in *adapters {
            check(name, Some(adapter));
        }
    }
}

#[test]
fn every_fixture_is_listed() {
    let folders = |dir: &Path, config: &str| -> BTreeSet<String> {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join(config).is_file())
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let mut listed = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, adapters) in FIXTURES {
        let adapters = adapters.iter().map(|&adapter| adapter.to_owned());
        listed.entry((*name).to_owned()).or_default().extend(adapters);
    }
    let found: BTreeMap<_, _> = folders(&fixtures(), "config.json")
        .into_iter()
        .map(|name| {
            let adapters = folders(&fixtures().join(&name), "adapter_config.json");
            (name, adapters)
        })
        .collect();
    assert_eq!(listed, found);
}
