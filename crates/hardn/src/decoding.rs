//! Models made ready to generate: one, or a base model and the security model that watches over it.

use std::{path::Path, sync::Arc};

use hardn_decode::{DecoderConfig, LocalGenerator, LocalModel};
use hardn_models::{
    AdapterWeights, DEFAULT_ADAPTER, DecodeModel, GenerationConfig, Model, Tokenizer, UseAdapter,
    WeightFormat,
};

use crate::{
    args::DecodingModels,
    assets::{load_model, load_tokenizer, model_folder},
    failure::{Failure, Outcome},
    hub, stop,
};

/// What generates.
#[derive(Clone)]
pub(crate) struct Models {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) base: Ready,
    pub(crate) security: Option<Ready>,
    /// Tokens that end a text, beyond those of tokenizer and `config.json`.
    end_tokens: Vec<u32>,
}

/// One packed model.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) model: LocalModel,
    pub(crate) fingerprint: String,
}

impl Models {
    /// Loads what the arguments name.
    pub(crate) fn load(args: &DecodingModels) -> Outcome<Self> {
        let tokenizer = load_tokenizer(&args.model)?;
        let end_tokens =
            GenerationConfig::load(&model_folder(&args.model)?)?.end_tokens(None, &tokenizer);
        let alone = |name: &str, adapter| Ready::load(name, adapter, args.dtype);
        let (base, security) = match (&args.security_model, &args.security_adapter) {
            (None, None) => (alone(&args.model, args.adapter.as_deref())?, None),
            (Some(name), adapter) => {
                same_vocabulary(&args.model, &tokenizer, name)?;
                let base = alone(&args.model, args.adapter.as_deref())?;
                (base, Some(alone(name, adapter.as_deref())?))
            }
            (None, Some(adapter)) => {
                // The weights are packed once; what an adapter adds is computed beside them, row by row.
                let mut model = load_model(&args.model, None)?;
                let packed = Arc::new(DecodeModel::with_weights(&model, args.dtype)?);
                let base = match &args.adapter {
                    None => {
                        Ready { model: packed.clone().into(), fingerprint: model.fingerprint()? }
                    }
                    Some(adapter) => under_adapter(&mut model, &packed, adapter)?,
                };
                let security = under_adapter(&mut model, &packed, adapter)?;
                (base, Some(security))
            }
        };
        Ok(Self { tokenizer: Arc::new(tokenizer), base, security, end_tokens })
    }

    /// The base model with nobody to watch over it.
    pub(crate) fn without_security(&self) -> Self {
        Self { security: None, ..self.clone() }
    }

    /// A generator with a decoder.
    pub(crate) fn generator(&self, decoder: DecoderConfig, seed: u64) -> Outcome<LocalGenerator> {
        let Ready { model, fingerprint } = self.base.clone();
        let generator =
            LocalGenerator::new(model, self.tokenizer.clone(), fingerprint, decoder, seed)?
                .with_end_tokens(self.end_tokens.iter().copied())
                .with_stop(stop::flag());
        Ok(match &self.security {
            None => generator,
            Some(Ready { model, fingerprint }) => {
                generator.with_security(Arc::new(model.clone()), fingerprint)?
            }
        })
    }
}

impl Ready {
    pub(crate) fn load(name: &str, adapter: Option<&Path>, format: WeightFormat) -> Outcome<Self> {
        let model = load_model(name, adapter)?;
        let packed = Arc::new(DecodeModel::with_weights(&model, format)?);
        Ok(Self { model: packed.into(), fingerprint: model.fingerprint()? })
    }
}

/// The packed weights under an adapter of a folder.
fn under_adapter(model: &mut Model, packed: &Arc<DecodeModel>, adapter: &Path) -> Outcome<Ready> {
    let id = model.load_adapter(DEFAULT_ADAPTER, &hub::adapter_folder(adapter)?)?;
    let terms = packed.adapter(&AdapterWeights::of(model, UseAdapter::Id(id))?)?;
    let fingerprint = model.fingerprint()?;
    model.detach(DEFAULT_ADAPTER)?;
    Ok(Ready { model: LocalModel::with_adapter(packed.clone(), terms), fingerprint })
}

/// Refuses a security model that reads texts as other tokens: what it proposes would mean something else to the base.
pub(crate) fn same_vocabulary(base: &str, tokenizer: &Tokenizer, security: &str) -> Outcome {
    let other = load_tokenizer(security)?;
    let n_tokens = tokenizer.vocab_size().max(other.vocab_size());
    let differs =
        (0..n_tokens as u32).find(|&id| tokenizer.token_bytes(id) != other.token_bytes(id));
    let what = match differs {
        Some(id) => {
            let text = |of: &Tokenizer| String::from_utf8_lossy(of.token_bytes(id)).into_owned();
            format!(
                "token {id} is {:?} in one and {:?} in the other",
                text(tokenizer),
                text(&other)
            )
        }
        None if tokenizer.eos() != other.eos() => "their end-of-text tokens differ".to_owned(),
        None => return Ok(()),
    };
    Err(Failure::new(format!("`{base}` and `{security}` have different vocabularies: {what}"))
        .help(
            "co-decoding takes two models with the same tokenizer, such as two sizes of one family",
        ))
}
