//! `hardn complete`: what a model writes after a prompt.

use std::sync::Arc;

use hardn_decode::{DecoderConfig, LocalGenerator, complete};
use hardn_models::{DecodeModel, GenerationConfig};
use serde_json::json;

use super::read_text;
use crate::{
    args::CompleteArgs,
    assets::{load_model, load_tokenizer, model_folder},
    failure::{Failure, Outcome},
    output::{put, put_json},
    stop,
};

pub(crate) fn run(args: CompleteArgs) -> Outcome {
    let prompt = match (&args.prompt, &args.prompt_file) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(file)) => read_text(file)?,
        (None, None) => read_text("-".as_ref())?,
    };
    let tokenizer = load_tokenizer(&args.model)?;
    if tokenizer.encode(&prompt)?.ids.is_empty() {
        return Err(Failure::new("the prompt is empty")
            .help("give a prompt, --prompt-file or text on standard input"));
    }
    let model = load_model(&args.model, args.adapter.as_deref())?;
    let ends = GenerationConfig::load(&model_folder(&args.model)?)?.end_tokens(None, &tokenizer);
    let decoder = DecoderConfig::load(&args.decoder, &args.set)?;
    let fingerprint = model.fingerprint()?;
    let packed = DecodeModel::with_weights(&model, args.dtype)?;
    drop(model);
    let generator = LocalGenerator::new(
        Arc::new(packed),
        Arc::new(tokenizer),
        fingerprint,
        decoder,
        args.seed,
    )?
    .with_end_tokens(ends)
    .with_stop(stop::flag());
    let result = complete(&generator, std::slice::from_ref(&prompt), args.n, &mut |completion| {
        let shown = if args.json {
            put_json(&json!({
                "prompt": prompt, "sample": completion.sample, "text": completion.text, "ids": completion.ids,
                "chosen_by": completion.chosen_by, "log_prob": completion.log_prob, "finish": completion.finish,
            }))
        } else {
            let head = if args.n > 1 {
                format!("--- sample {}\n", completion.sample)
            } else {
                String::new()
            };
            put(&format!("{head}{prompt}{}\n", completion.text))
        };
        shown.map_err(|_| "standard output is closed".into())
    });
    if stop::requested() {
        return Err(Failure::interrupted("the samples above are whole"));
    }
    Ok(result?)
}
