//! `hardn inspect`: what scripts and people look at when a number is off. JSON Lines on standard output, nothing else there.

use std::path::Path;

use candle_core::Tensor;
use hardn_code::{MaskKind, TokenText, drop_reason, mask_pair, read_pairs_strict};
use hardn_models::{ChatOptions, ForwardOptions, Model, Tokenizer};
use hardn_train::Recipe;
use hardn_types::Side;
use serde_json::{Value, json};

use super::read_text;
use crate::{
    args::InspectCommand,
    assets::{load_model, load_model_as, load_tokenizer},
    failure::{Context, Failure, Outcome},
    hub,
    output::{put, put_json},
};

pub(crate) fn run(command: InspectCommand) -> Outcome {
    match command {
        InspectCommand::Logits { model, adapter, ids, dtype } => {
            logits(&load_model_as(&model, adapter.as_deref(), dtype)?, &ids)
        }
        InspectCommand::Tokens { model, file } => tokens(&load_tokenizer(&model)?, &file),
        InspectCommand::Chat {
            model,
            template,
            tools,
            add_generation_prompt,
            continue_final_message,
            messages,
        } => {
            let tools = tools.map(|path| read_json(&path)).transpose()?;
            let options = ChatOptions {
                template,
                tools,
                add_generation_prompt,
                continue_final_message,
                ..ChatOptions::default()
            };
            chat(&load_tokenizer(&model)?, &read_json(&messages)?, &options)
        }
        InspectCommand::Masks { tokenizer, kind, max_tokens, complete, pairs } => {
            masks(&load_tokenizer(&tokenizer)?, &kind, max_tokens, complete, &pairs)
        }
        InspectCommand::Loss { model, adapter, reference, recipe, set, pairs } => {
            let recipe = Recipe::load(&recipe, &set)?;
            let tokenizer = load_tokenizer(&model)?;
            let mut trained = load_model(&model, None)?;
            let find = if recipe.loss.kind.has_two_adapters() {
                hub::any_adapter_folder
            } else {
                hub::adapter_folder
            };
            let adapter = adapter.as_deref().map(find).transpose()?;
            hardn_train::load_adapters(&mut trained, &recipe, adapter.as_deref())?;
            let reference = reference.map(|name| load_model(&name, None)).transpose()?;
            loss(&trained, reference.as_ref(), &tokenizer, &recipe, &pairs)
        }
        InspectCommand::Batch(args) => super::batch::run(&args),
        InspectCommand::Preference { model, adapter, pairs } => {
            let tokenizer = load_tokenizer(&model)?;
            preference(&load_model(&model, adapter.as_deref())?, &tokenizer, &pairs)
        }
        InspectCommand::Stats { test, json } => {
            let numbers = serde_json::from_str(&json).context("the numbers are not JSON")?;
            put_json(&hardn_eval::stat_test(&test, &numbers)?)
        }
    }
}

fn logits(model: &Model, ids: &[u32]) -> Outcome {
    let vocabulary = model.config().vocab_size;
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
        return Err(Failure::new(format!(
            "token id {id} is outside the model's vocabulary of {vocabulary}"
        )));
    }
    let batch = Tensor::new(ids, model.device())?.unsqueeze(0)?;
    let rows = model.logits(&batch, &ForwardOptions::evaluate())?.squeeze(0)?.to_vec2::<f32>()?;
    put_json(&json!({"shape": [ids.len(), vocabulary], "logits": rows}))
}

fn tokens(tokenizer: &Tokenizer, file: &Path) -> Outcome {
    let encoding = tokenizer.encode(&read_text(file)?)?;
    put_json(&json!({"ids": encoding.ids, "offsets": encoding.offsets}))
}

fn chat(tokenizer: &Tokenizer, messages: &Value, options: &ChatOptions) -> Outcome {
    let text = tokenizer.render_chat(messages, options)?;
    let ids = tokenizer.encode(&text)?.ids;
    put_json(&json!({"text": text, "ids": ids}))
}

fn read_json(path: &Path) -> Outcome<Value> {
    serde_json::from_str(&read_text(path)?).context(format!("{} is not JSON", path.display()))
}

fn masks(
    tokenizer: &Tokenizer,
    kind: &str,
    max_tokens: usize,
    complete: bool,
    path: &Path,
) -> Outcome {
    let kind: MaskKind = kind.parse()?;
    let mut lines = String::new();
    for pair in read_pairs_strict(path)? {
        let (before, after) = (tokenizer.encode(&pair.before)?, tokenizer.encode(&pair.after)?);
        let mut masks = mask_pair(
            &pair,
            TokenText { ids: &before.ids, offsets: &before.offsets },
            TokenText { ids: &after.ids, offsets: &after.offsets },
            kind,
        )?;
        let own = masks.clone();
        if complete {
            masks.complete(&before.ids, &after.ids, kind, 1);
        }
        for side in [Side::Secure, Side::Vulnerable] {
            let mask = masks.side(side);
            let trimmed = &mask[..masks.trim(side)];
            let row = match drop_reason(trimmed, kind, max_tokens) {
                Some(why) => json!({"id": pair.id, "side": side, "dropped": why.to_string()}),
                None if own.side(side) != mask => {
                    json!({"id": pair.id, "side": side, "mask": mask, "completed": true})
                }
                None => json!({"id": pair.id, "side": side, "mask": mask}),
            };
            lines.push_str(&serde_json::to_string(&row)?);
            lines.push('\n');
        }
    }
    put(&lines)
}

fn loss(
    model: &Model,
    reference: Option<&Model>,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    path: &Path,
) -> Outcome {
    for pair in read_pairs_strict(path)? {
        for (side, found) in hardn_train::pair_losses(model, reference, tokenizer, recipe, &pair)? {
            put_json(&match found {
                Ok(found) => json!({
                    "id": pair.id, "side": side, "terms": found.terms, "loss": found.loss, "n_tokens": found.n_tokens,
                }),
                Err(why) => json!({"id": pair.id, "side": side, "dropped": why}),
            })?;
        }
    }
    Ok(())
}

fn preference(model: &Model, tokenizer: &Tokenizer, path: &Path) -> Outcome {
    for pair in read_pairs_strict(path)? {
        put_json(&match hardn_train::preference(model, tokenizer, &pair)? {
            Ok(found) => json!({
                "id": pair.id, "log_p_secure": found.log_p_secure, "log_p_vulnerable": found.log_p_vulnerable,
                "n_secure": found.n_secure, "n_vulnerable": found.n_vulnerable,
            }),
            Err(why) => json!({"id": pair.id, "dropped": why}),
        })?;
    }
    Ok(())
}
