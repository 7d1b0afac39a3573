//! Logits of decoding do not depend on how the work is cut, and equal those of the training form.

use candle_core::{Device, Tensor};
use hardn_models::{
    DecodeModel, DecodeRow, ForwardOptions, KvCache, LoraConfig, Model, ModelConfig, SaveDtype,
    WeightFormat,
};

use crate::{
    families::{families, noisy},
    grouped, lively, untied,
};

pub(crate) fn text(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i * seed) % 67) as u32).collect()
}

pub(crate) fn read(model: &DecodeModel, cache: &mut KvCache, ids: &[u32]) -> Vec<f32> {
    model.forward(&mut [DecodeRow { cache, ids, all_logits: true }]).unwrap().remove(0)
}

fn whole(model: &DecodeModel, ids: &[u32]) -> Vec<f32> {
    read(model, &mut model.cache(96), ids)
}

/// Large enough for work to be split over threads.
fn wide() -> ModelConfig {
    ModelConfig::llama(67, 192, 2, 6, 512, 96).unwrap()
}

fn models() -> Vec<(&'static str, Model)> {
    let mut models: Vec<(&str, Model)> =
        families().into_iter().map(|(name, config)| (name, noisy(&config, 5))).collect();
    let llamas = [("grouped", grouped()), ("untied", untied()), ("wide", wide())];
    models.extend(llamas.map(|(name, config)| (name, lively(&config, 5))));
    models
}

#[test]
fn any_cut_of_a_text_gives_the_same_bits() {
    for (name, model) in models() {
        let model = DecodeModel::new(&model).unwrap();
        let ids = text(83, 3);
        let expected = whole(&model, &ids);
        for sizes in [vec![1; 83], vec![82, 1], vec![16, 16, 51], vec![7, 1, 1, 40, 34]] {
            let mut cache = model.cache(96);
            let mut logits = Vec::new();
            let mut start = 0;
            for size in &sizes {
                logits.extend(read(&model, &mut cache, &ids[start..start + size]));
                start += size;
            }
            assert!(logits == expected, "{name}: {sizes:?}");
            assert_eq!(cache.len(), 83);
        }
    }
}

#[test]
fn a_batch_gives_the_bits_of_its_rows() {
    for (name, model) in models() {
        let model = DecodeModel::new(&model).unwrap();
        let texts: Vec<Vec<u32>> = (0..33).map(|i| text(1 + (i * 13) % 70, i)).collect();
        let mut caches: Vec<KvCache> = texts.iter().map(|_| model.cache(96)).collect();
        let mut rows: Vec<DecodeRow> = texts
            .iter()
            .zip(&mut caches)
            .enumerate()
            .map(|(i, (ids, cache))| DecodeRow { cache, ids, all_logits: i % 2 == 0 })
            .collect();
        let first = model.forward(&mut rows).unwrap();
        for (i, (ids, logits)) in texts.iter().zip(&first).enumerate() {
            let all = whole(&model, ids);
            let expected = if i % 2 == 0 { &all[..] } else { &all[all.len() - 67..] };
            assert!(logits == expected, "{name}, row {i}");
        }
        // One more token for every row together.
        let mut rows: Vec<DecodeRow> = caches
            .iter_mut()
            .map(|cache| DecodeRow { cache, ids: &[9], all_logits: false })
            .collect();
        for (ids, logits) in texts.iter().zip(model.forward(&mut rows).unwrap()) {
            let all = whole(&model, &[ids.as_slice(), &[9]].concat());
            assert!(logits == all[all.len() - 67..], "{name}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |model: &DecodeModel, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut caches: Vec<KvCache> = (0..5).map(|_| model.cache(96)).collect();
            let texts: Vec<Vec<u32>> = (0..5).map(|i| text(20 + 12 * i, i)).collect();
            let mut rows: Vec<DecodeRow> = caches
                .iter_mut()
                .zip(&texts)
                .map(|(cache, ids)| DecodeRow { cache, ids, all_logits: true })
                .collect();
            let mut logits = model.forward(&mut rows).unwrap();
            logits.push(whole(model, &text(90, 1)));
            logits
        })
    };
    for (name, model) in models() {
        let model = DecodeModel::new(&model).unwrap();
        let expected = run(&model, 1);
        for threads in [2, 3, 8] {
            assert!(run(&model, threads) == expected, "{name}, {threads} threads");
        }
    }
}

#[test]
fn forgetting_and_sharing_leave_no_trace() {
    for (name, model) in models() {
        let model = DecodeModel::new(&model).unwrap();
        let ids = text(60, 2);
        for keep in [0, 1, 16, 17, 31, 48, 59] {
            let mut cache = model.cache(96);
            read(&model, &mut cache, &ids);
            let mut copy = cache.clone();
            cache.truncate(keep);
            assert_eq!(cache.len(), keep);
            let other = [&ids[..keep], &text(20, 9)].concat();
            let expected = whole(&model, &other);
            assert!(read(&model, &mut cache, &other[keep..]) == expected[keep * 67..], "{name}");
            // The copy still holds what it held.
            let longer = [ids.as_slice(), &[4, 5]].concat();
            let expected = whole(&model, &longer);
            assert!(read(&model, &mut copy, &[4, 5]) == expected[60 * 67..], "{name}");
        }
    }
}

#[test]
fn both_forms_agree() {
    let attached = [("grouped, adapter", grouped()), ("untied, adapter", untied())];
    let attached = attached.map(|(name, config)| {
        let mut model = lively(&config, 9);
        attach(&mut model, ".*_proj|lm_head", 0);
        (name, model)
    });
    for (name, model) in models().into_iter().chain(attached) {
        let ids = text(70, 4);
        let expected = trained(&model, &ids);
        close(&whole(&DecodeModel::new(&model).unwrap(), &ids), &expected, name);
        assert!(expected.iter().any(|x| x.abs() > 0.5), "{name}");
    }
}

#[test]
fn packing_straight_from_files_gives_the_same_bits() {
    for (name, model) in models() {
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), SaveDtype::F32).unwrap();
        let ids = text(40, 1);
        for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
            let packed = DecodeModel::with_weights(&model, format).unwrap();
            let loaded = DecodeModel::load(dir.path(), format).unwrap();
            let expected = whole(&packed, &ids);
            assert!(whole(&loaded, &ids) == expected, "{name}, {format:?}");
            let mut cache = loaded.cache(96);
            let first = read(&loaded, &mut cache, &ids[..23]);
            let rest = read(&loaded, &mut cache, &ids[23..]);
            assert!([first, rest].concat() == expected, "{name}, {format:?}, in two pieces");
        }
    }
}

/// Logits of the training form.
pub(crate) fn trained(model: &Model, ids: &[u32]) -> Vec<f32> {
    let input = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = model.logits(&input, &ForwardOptions::evaluate()).unwrap();
    logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

/// The order of additions differs, so the last digits do.
#[track_caller]
pub(crate) fn close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let error = actual.iter().zip(expected).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(error < 2e-4, "{what}: error {error}");
}

/// A LoRA adapter that changes much, on modules whose whole name the pattern matches.
pub(crate) fn attach(model: &mut Model, pattern: &str, seed: usize) {
    let mut config = LoraConfig::new(3, 6.0);
    config.target_modules = hardn_models::TargetModules::Pattern(pattern.to_owned());
    model.attach_lora(&config, seed as u64).unwrap();
    for (i, (name, var)) in model.trainable().into_iter().enumerate() {
        if name.contains("lora_B") {
            let n = var.elem_count();
            let wave = |j: usize| ((i * 7 + j * 13 + seed * 5) % 11) as f32 * 0.02 - 0.1;
            let data: Vec<f32> = (0..n).map(wave).collect();
            var.set(&Tensor::from_vec(data, var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
    }
}

#[test]
fn wrong_input_is_refused_before_anything_changes() {
    let model = DecodeModel::new(&lively(&grouped(), 5)).unwrap();
    let other =
        DecodeModel::new(&lively(&ModelConfig::llama(67, 16, 1, 2, 16, 96).unwrap(), 5)).unwrap();
    let check = |cache: &mut KvCache, ids: &[u32], part: &str| {
        let error = model.forward(&mut [DecodeRow { cache, ids, all_logits: false }]).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    check(&mut model.cache(8), &[], "no tokens");
    check(&mut model.cache(8), &[67], "vocabulary");
    check(&mut model.cache(8), &[1; 9], "capacity");
    check(&mut model.cache(1000), &[1; 97], "capacity");
    check(&mut other.cache(8), &[1], "another model");
    assert!(model.forward(&mut []).unwrap().is_empty());
}
