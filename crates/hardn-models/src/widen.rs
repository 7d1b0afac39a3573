//! A wider model that computes the same function.
//!
//! Net2Net (Chen et al. 2016, arXiv:1511.05641, section 3.2), in its plainest form: every unit is copied `times` times and
//! what reads the copies is divided by their number. So a small trained model gives a large one whose text is known, to
//! measure decoding where acceptance between two sizes matters and no larger trained model is at hand.

use std::path::Path;

use candle_core::Tensor;
use serde_json::{Value, json};

use crate::{Model, ModelConfig, ModelError, Result};

/// Families whose modules are known to be of this form.
const FAMILIES: [&str; 3] = ["llama", "mistral", "qwen2"];
/// Sizes that grow; the size of a head and the number of layers stay.
const SIZES: [&str; 4] =
    ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"];

/// A model `times` as wide with the same logits up to rounding. Adapters are not part of it.
///
/// # Errors
/// Another family than Llama, Mistral and Qwen2, quantised weights, or `times` of 0.
pub fn widen(model: &Model, times: usize) -> Result<Model> {
    let refuse = |message: &str| Err(ModelError::Input(message.to_owned()));
    if times == 0 {
        return refuse("a model cannot become 0 times as wide");
    }
    let config = model.config();
    let mut keys = config.to_json("float32");
    let family = keys["model_type"].as_str().unwrap_or_default();
    if !FAMILIES.contains(&family) {
        return refuse(&format!("models of type `{family}` cannot be widened; {FAMILIES:?} can"));
    }
    if keys["head_dim"].is_null() {
        keys["head_dim"] = json!(config.hidden_size / config.num_attention_heads);
    }
    for size in SIZES {
        if let Some(number) = keys[size].as_u64() {
            keys[size] = Value::from(number * times as u64);
        }
    }
    let wide = ModelConfig::from_json(&keys, Path::new("config.json"))?;
    let shapes = wide.tensors();
    let tied = !shapes.contains_key("lm_head.weight");
    let mut weights = model.published_weights()?;
    for (name, tensor) in &mut weights {
        let Some(shape) = shapes.get(name) else { continue };
        let scale = match tensor.dims() {
            // What reads copies adds them up. The table of embeddings is looked up.
            [_, columns] if !name.ends_with("embed_tokens.weight") && shape[1] > *columns => times,
            // With a tied table the division is done before it.
            [_] if tied && name.ends_with("model.norm.weight") => times,
            _ => 1,
        };
        *tensor = grown(tensor, shape, 1.0 / scale as f64)?;
    }
    Model::from_weights(wide, weights, model.device())
}

/// The tensor repeated along each dimension up to a shape, times a number.
fn grown(tensor: &Tensor, shape: &[usize], scale: f64) -> Result<Tensor> {
    let times: Vec<usize> = shape.iter().zip(tensor.dims()).map(|(new, old)| new / old).collect();
    Ok((tensor.repeat(times)? * scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeModel, DecodeRow};

    fn logits(model: &Model) -> Vec<f32> {
        let packed = DecodeModel::new(model).unwrap();
        let mut cache = packed.cache(8);
        let mut rows = [DecodeRow { cache: &mut cache, ids: &[1, 5, 2, 7], all_logits: true }];
        packed.forward(&mut rows).unwrap().remove(0)
    }

    #[test]
    fn the_function_stays() {
        let json = |extra: Value| {
            let mut keys = json!({
                "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 40,
                "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
                "rms_norm_eps": 1e-6, "rope_theta": 1e4, "hidden_act": "silu", "tie_word_embeddings": true,
            });
            for (key, value) in extra.as_object().unwrap() {
                keys[key] = value.clone();
            }
            ModelConfig::from_json(&keys, Path::new("config.json")).unwrap()
        };
        let llama = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": false
        });
        for config in [json(json!({})), json(llama)] {
            let model = Model::random(&config, 3).unwrap();
            let wide = widen(&model, 3).unwrap();
            assert!(wide.config().parameters() > 5 * config.parameters());
            for (narrow, wide) in logits(&model).iter().zip(logits(&wide)) {
                assert!((narrow - wide).abs() < 1e-4, "{narrow} {wide}");
            }
        }
    }

    #[test]
    fn other_families_are_refused() {
        let keys = json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 40, "n_embd": 32,
            "n_layer": 1, "n_head": 2, "n_positions": 64,
        });
        let config = ModelConfig::from_json(&keys, Path::new("config.json")).unwrap();
        let error = widen(&Model::random(&config, 1).unwrap(), 2).err().unwrap().to_string();
        assert!(error.contains("gpt2"), "{error}");
    }
}
