//! Adapters beside packed weights: as if merged, and each row for itself.

use hardn_models::{
    AdapterWeights, DecodeAdapter, DecodeModel, DecodeRow, KvCache, Model, ModuleTerm,
    PrefixWeights, UseAdapter,
};

use crate::{
    decode::{attach, close, read, text},
    families::{families, noisy},
};

fn wave(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 11 + i * i * 3) % 101) as f32 * 0.02 - 1.0).collect()
}

/// Factors at some of the modules, half of them at inputs.
fn factors(model: &Model) -> AdapterWeights {
    let mut weights = AdapterWeights::default();
    let shapes = AdapterWeights::modules_of(model.config());
    for (i, (module, out, input)) in shapes.into_iter().enumerate() {
        let near_one = |n: usize| wave(n, i).iter().map(|x| 1.0 + 0.3 * x).collect();
        let term = match i % 3 {
            0 => ModuleTerm::InputFactors(near_one(input)),
            1 => ModuleTerm::OutputFactors(near_one(out)),
            _ => continue,
        };
        weights.modules.insert(module, term);
    }
    weights
}

fn prefix(model: &Model, n_tokens: usize) -> AdapterWeights {
    let layers = AdapterWeights::prefix_sizes(model.config())
        .into_iter()
        .enumerate()
        .map(|(i, (keys, values))| (wave(n_tokens * keys, i), wave(n_tokens * values, i + 50)))
        .collect();
    let prefix = Some(PrefixWeights { n_tokens, layers });
    AdapterWeights { prefix, ..AdapterWeights::default() }
}

fn whole(model: &DecodeModel, adapter: &DecodeAdapter, ids: &[u32]) -> Vec<f32> {
    read(model, &mut model.cache_with(adapter, 96).unwrap(), ids)
}

#[test]
fn low_rank_terms_beside_the_weights_act_as_if_merged() {
    for (name, config) in families() {
        let mut model = noisy(&config, 3);
        let base = DecodeModel::new(&model).unwrap();
        attach(&mut model, ".*", 1);
        let adapter =
            base.adapter(&AdapterWeights::of(&model, UseAdapter::Active).unwrap()).unwrap();
        let ids = text(50, 2);
        let merged = DecodeModel::new(&model).unwrap();
        let expected = read(&merged, &mut merged.cache(96), &ids);
        close(&whole(&base, &adapter, &ids), &expected, name);
        let plain = read(&base, &mut base.cache(96), &ids);
        assert!(plain.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 0.1), "{name}");
    }
}

#[test]
fn rows_of_a_batch_have_adapters_of_their_own() {
    for (name, config) in families() {
        let mut model = noisy(&config, 3);
        let base = DecodeModel::new(&model).unwrap();
        let mut adapters = vec![
            base.adapter(&factors(&model)).unwrap(),
            base.adapter(&prefix(&model, 5)).unwrap(),
        ];
        for (seed, pattern) in [(1, ".*"), (2, ".*[012].*")] {
            attach(&mut model, pattern, seed);
            adapters.push(
                base.adapter(&AdapterWeights::of(&model, UseAdapter::Active).unwrap()).unwrap(),
            );
            model.detach("default").unwrap();
        }
        let adapter_of = |i: usize| adapters.get(i % 5);
        let cache = |i: usize| match adapter_of(i) {
            Some(adapter) => base.cache_with(adapter, 90).unwrap(),
            None => base.cache(90),
        };
        let texts: Vec<Vec<u32>> = (0..13).map(|i| text(1 + (i * 13) % 40, i)).collect();
        let mut caches: Vec<KvCache> = (0..13).map(cache).collect();
        let mut logits: Vec<Vec<f32>> = vec![Vec::new(); 13];
        // Uneven pieces: every call advances all rows that are not at their end.
        for call in 0..40 {
            let mut rows = Vec::new();
            let mut numbers = Vec::new();
            for (i, (cache, ids)) in caches.iter_mut().zip(&texts).enumerate() {
                let done = cache.len();
                let end = ids.len().min(done + 1 + (call + i) % 7);
                if done < end {
                    rows.push(DecodeRow { cache, ids: &ids[done..end], all_logits: true });
                    numbers.push(i);
                }
            }
            for (i, new) in numbers.into_iter().zip(base.forward(&mut rows).unwrap()) {
                logits[i].extend(new);
            }
        }
        for (i, (ids, logits)) in texts.iter().zip(&logits).enumerate() {
            let expected = read(&base, &mut cache(i), ids);
            assert!(*logits == expected, "{name}, row {i}");
            let plain = read(&base, &mut base.cache(90), ids);
            assert_eq!(plain == expected, adapter_of(i).is_none(), "{name}, row {i}");
        }
    }
}

#[test]
fn virtual_tokens_stay_when_a_cache_is_cut() {
    for (name, config) in families() {
        let model = noisy(&config, 3);
        let base = DecodeModel::new(&model).unwrap();
        for n in [1, 16, 21] {
            let adapter = base.adapter(&prefix(&model, n)).unwrap();
            assert_eq!(adapter.n_virtual_tokens(), n);
            let mut cache = base.cache_with(&adapter, 1000).unwrap();
            assert_eq!((cache.len(), cache.capacity()), (0, 96 - n));
            let ids = text(60, 2);
            read(&base, &mut cache, &ids);
            for keep in [41, 3, 0] {
                cache.truncate(keep);
                assert_eq!(cache.len(), keep);
                let mut copy = cache.clone();
                let other = [&ids[..keep], &text(9, 7)].concat();
                let expected = whole(&base, &adapter, &other);
                assert!(read(&base, &mut copy, &other[keep..]) == expected[keep * 67..], "{name}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_, config) = families().swap_remove(0);
    let model = noisy(&config, 1);
    let base = DecodeModel::new(&model).unwrap();
    let check = |weights: &AdapterWeights, part: &str| {
        let error = base.adapter(weights).err().unwrap().to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    };
    let term = |module: &str, term: ModuleTerm| {
        let modules = [(module.to_owned(), term)].into_iter().collect();
        AdapterWeights { modules, prefix: None }
    };
    let (module, ..) = AdapterWeights::modules_of(&config).swap_remove(0);
    check(&term("lm", ModuleTerm::InputFactors(Vec::new())), "`lm`");
    check(&term(&module, ModuleTerm::InputFactors(vec![1.0; 3])), &module);
    check(&term(&module, ModuleTerm::OutputFactors(vec![1.0; 3])), &module);
    let low_rank =
        |a: usize, b: usize| ModuleTerm::LowRank { a: vec![0.0; a], b: vec![0.0; b], scale: 1.0 };
    check(&term(&module, low_rank(41, 120)), "numbers in A");
    check(&term(&module, low_rank(40, 121)), "numbers in B");
    check(&prefix(&model, 96), "96 virtual tokens");
    let mut short = prefix(&model, 4);
    short.prefix.as_mut().unwrap().layers[1].0.pop();
    check(&short, "layer 1");
    short.prefix.as_mut().unwrap().layers.pop();
    check(&short, "1 layers");

    let other = DecodeModel::new(&model).unwrap();
    let adapter = other.adapter(&prefix(&model, 4)).unwrap();
    assert!(base.cache_with(&adapter, 8).err().unwrap().to_string().contains("another model"));
}
