//! Gradients of the whole model: fused against elementary, and every parameter gets one.

use std::{fs, path::Path};

use candle_core::{Device, Tensor, Var};
use hardn_models::{ForwardOptions, LoraConfig, Model, ModelError, ops::Gradients};

use crate::{
    adapters::{families, fixtures, kinds, shake},
    grouped, lively, untied,
};

/// Three rows of 22 tokens.
fn ids(model: &Model) -> Tensor {
    let vocab = model.config().vocab_size as u32;
    let ids: Vec<u32> = (0..66).map(|i| i % vocab).collect();
    Tensor::from_vec(ids, (3, 22), &Device::Cpu).unwrap()
}

/// A loss that uses every logit, and its gradients by name.
fn gradients(model: &Model, options: &ForwardOptions) -> (f32, Vec<(String, Vec<f32>)>) {
    let logits = model.logits(&ids(model), options).unwrap();
    let loss = logits.tanh().unwrap().sqr().unwrap().mean_all().unwrap();
    let grads = loss.backward().unwrap();
    let of = |(name, var): (String, Var)| {
        let grad = grads.get(&var).cloned().unwrap_or_else(|| {
            // An expert that no token has chosen.
            assert!(name.contains(".experts."), "{name} gets no gradient");
            var.zeros_like().unwrap()
        });
        (name, grad.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    (loss.to_scalar().unwrap(), model.trainable().into_iter().map(of).collect())
}

#[track_caller]
fn check(model: &mut Model, options: &ForwardOptions, may_be_zero: &str) {
    check_above(model, options, &[may_be_zero], 1e-6);
}

/// Errors are measured against the gradient's size, or `noise` times the largest of all where that is more.
#[track_caller]
fn check_above(model: &mut Model, options: &ForwardOptions, may_be_zero: &[&str], noise: f32) {
    let (fused_loss, fused) = gradients(model, options);
    model.set_fused(false);
    let (loss, plain) = gradients(model, options);
    model.set_fused(true);
    assert!((fused_loss - loss).abs() < 1e-5, "{fused_loss} {loss}");
    let largest = plain.iter().flat_map(|(_, g)| g).fold(0.0_f32, |max, g| max.max(g.abs()));
    let noise = noise * largest.min(1.0);
    for ((name, fused), (_, plain)) in fused.iter().zip(&plain) {
        let size = plain.iter().fold(0.0_f32, |max, b| max.max(b.abs()));
        let error = fused.iter().zip(plain).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(error <= 1e-3 * size.max(noise), "{name}: error {error} at size {size}");
        let zero = fused.iter().all(|g| *g == 0.0);
        assert!(
            !zero || may_be_zero.iter().any(|part| !part.is_empty() && name.contains(part)),
            "{name} gets zero"
        );
    }
}

#[test]
fn full_training() {
    check(&mut lively(&grouped(), 1), &ForwardOptions::default(), "");
    check(&mut lively(&untied(), 2), &ForwardOptions::default(), "");
}

/// Every fixture: each weight gets a gradient, the same from fused and from elementary operations.
#[test]
fn every_family() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut n = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("config.json").exists() {
            continue;
        }
        let mut model = Model::load(&dir, &Device::Cpu).unwrap();
        // A key's bias adds the same to all scores of a query where nothing is rotated.
        check_above(&mut model, &ForwardOptions::default(), &[".experts.", "k_proj.bias"], 1e-3);
        n += 1;
    }
    assert!(n >= 20, "{n} fixtures");
}

/// Every tensor of every kind of adapter gets a gradient on every family, the same from fused and from elementary
/// operations.
#[test]
fn every_adapter_on_every_family() {
    for (name, config) in families() {
        for kind in kinds(&config) {
            let mut model = Model::load(&fixtures().join(&name), &Device::Cpu).unwrap();
            model.attach("default", kind, 7).unwrap();
            shake(&model, "");
            // An expert that no token has chosen.
            let may_be_zero: &[&str] =
                if name.starts_with("deepseek") { &[".experts."] } else { &[] };
            let options = ForwardOptions { dropout_seed: Some(11), ..ForwardOptions::default() };
            check_above(&mut model, &options, may_be_zero, 1e-3);
        }
    }
}

#[test]
fn keeping_only_the_states_between_layers_changes_no_bit() {
    for config in [grouped(), untied()] {
        let mut model = lively(&config, 5);
        for dropout_seed in [None, Some(4)] {
            let options = ForwardOptions { dropout_seed, ..ForwardOptions::default() };
            let loss = |model: &Model, hidden: &Tensor| -> Result<(Tensor, f32), ModelError> {
                let loss = model.head(hidden, &options)?.tanh()?.sqr()?.mean_all()?;
                let value = loss.to_scalar()?;
                Ok((loss, value))
            };
            let variables: Vec<Var> = model.trainable().into_iter().map(|(_, var)| var).collect();
            let ids = ids(&model);
            let hidden = model.hidden(&ids, &options).unwrap();
            let (whole, value) = loss(&model, &hidden).unwrap();
            let expected = Gradients::of(&whole, &variables).unwrap();
            let (again, gradients) =
                model.checkpointed(&ids, None, &options, |x| loss(&model, x), &variables).unwrap();
            assert_eq!(value, again);
            for (name, var) in model.trainable() {
                let values = |gradients: &Gradients| {
                    gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
                };
                assert_eq!(values(&gradients), values(&expected), "{name}");
            }
            if model.adapter_config().is_none() {
                let mut lora = LoraConfig::new(4, 8.0);
                lora.lora_dropout = 0.2;
                model.attach_lora(&lora, 7).unwrap();
            }
        }
    }
}

#[test]
fn adapters_with_dropout() {
    for config in [grouped(), untied()] {
        let mut model = lively(&config, 3);
        let mut lora = LoraConfig::new(4, 8.0);
        lora.lora_dropout = 0.2;
        model.attach_lora(&lora, 7).unwrap();
        // B is zero at first, so A gets no gradient yet.
        check(&mut model, &ForwardOptions::default(), "lora_A");
        for (name, var) in model.trainable() {
            if name.contains("lora_B") {
                var.set(&(var.ones_like().unwrap() * 0.05).unwrap()).unwrap();
            }
        }
        let options = ForwardOptions { dropout_seed: Some(11), ..ForwardOptions::default() };
        check(&mut model, &options, "");
        let other = ForwardOptions { dropout_seed: Some(12), ..options };
        assert_eq!(gradients(&model, &options), gradients(&model, &options));
        assert_ne!(gradients(&model, &options).0, gradients(&model, &other).0);
    }
}

#[test]
fn the_base_model_shows_through() {
    let mut model = lively(&grouped(), 3);
    let ids = Tensor::new(&[[1_u32, 2, 3, 4]], &Device::Cpu).unwrap();
    let logits = |model: &Model, options: &ForwardOptions| {
        model.logits(&ids, options).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let base = logits(&model, &ForwardOptions::evaluate());
    model.attach_lora(&LoraConfig::new(4, 8.0), 7).unwrap();
    assert_eq!(logits(&model, &ForwardOptions::evaluate()), base);
    for (_, var) in model.trainable() {
        var.set(&var.ones_like().unwrap()).unwrap();
    }
    assert_ne!(logits(&model, &ForwardOptions::evaluate()), base);
    assert_eq!(logits(&model, &ForwardOptions::base()), base);
    let merged = model.merged().unwrap();
    let with_adapter = logits(&model, &ForwardOptions::evaluate());
    for (a, b) in with_adapter.iter().zip(logits(&merged, &ForwardOptions::evaluate())) {
        assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn padding_on_the_right_changes_nothing_before_it() {
    let model = lively(&grouped(), 4);
    let ids: Vec<u32> = (0..20).collect();
    let hidden = |rows: Vec<u32>, n: usize| {
        let ids = Tensor::from_vec(rows, (1, n), &Device::Cpu).unwrap();
        model.hidden(&ids, &ForwardOptions::evaluate()).unwrap().squeeze(0).unwrap()
    };
    let short = hidden(ids.clone(), 20).to_vec2::<f32>().unwrap();
    let long = hidden([ids, vec![0; 13]].concat(), 33).to_vec2::<f32>().unwrap();
    for (a, b) in short.iter().flatten().zip(long.iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}
