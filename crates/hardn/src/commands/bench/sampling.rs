//! Batched sampling.

use std::{sync::Arc, time::Instant};

use hardn_decode::{DecoderConfig, LocalGenerator};
use hardn_models::DecodeModel;
use hardn_types::Prompt;

use super::Row;
use crate::{
    args::BenchArgs,
    assets,
    failure::Outcome,
    harden::{config::WorldConfig, inputs},
};

/// Tokens a second of batched sampling.
pub(super) fn sampling(args: &BenchArgs) -> Outcome<Row> {
    let tokenizer = Arc::new(assets::load_tokenizer(&args.model)?);
    let model = assets::load_model(&args.model, None)?;
    let config = DecoderConfig::load("plain", &["max_new_tokens=64".to_owned()])?;
    let fingerprint = model.fingerprint()?;
    let world = inputs::world(&WorldConfig::default())?;
    let prompts: Vec<Prompt> = world
        .scenarios
        .iter()
        .take(16)
        .map(|scenario| Prompt {
            task: scenario.id.clone(),
            text: scenario.prompt.clone(),
            indices: (0..16).collect(),
        })
        .collect();
    let generator = LocalGenerator::new(
        Arc::new(DecodeModel::new(&model)?),
        tokenizer,
        fingerprint,
        config,
        1,
    )?;
    let start = Instant::now();
    generator.draw_samples("bench", &prompts, &mut |_| Ok(()))?;
    let rate = generator.n_tokens() as f64 / start.elapsed().as_secs_f64();
    Ok(Row {
        what: format!("sampling from {}, 16 prompts x 16 samples", args.model),
        ours: format!("{rate:.0} tokens/s"),
        peer: "not measured".to_owned(),
        ratio: "–".to_owned(),
    })
}
