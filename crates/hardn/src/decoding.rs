//! Models made ready to generate: one, or a base model and the security model that watches over it.

use std::{env, path::Path, sync::Arc, time::Duration};

use hardn_decode::{
    DecodeError, DecoderConfig, LocalGenerator, LocalModel, RemoteBase, Vocabularies,
};
use hardn_endpoint::{EndpointOptions, Token};
use hardn_models::{
    AdapterWeights, DEFAULT_ADAPTER, DecodeModel, GenerationConfig, Model, Tokenizer, UseAdapter,
    WeightFormat,
};

use crate::{
    args::{DecodingModels, EndpointArgs},
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
    /// The security model's own, where it need not be the base model's.
    security_tokenizer: Option<Arc<Tokenizer>>,
    /// Tokens that end a text, beyond those of tokenizer and `config.json`.
    end_tokens: Vec<u32>,
    /// Where the base model is; `base` is then the security model.
    endpoint: Option<EndpointOptions>,
}

/// One packed model.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) model: LocalModel,
    pub(crate) fingerprint: String,
}

impl Models {
    /// Loads what the arguments name, for a decoder.
    pub(crate) fn load(args: &DecodingModels, decoder: &DecoderConfig) -> Outcome<Self> {
        let section = decoder.co_decoding.as_ref();
        let by_bytes = section.is_some_and(|own| own.vocabularies == Vocabularies::Bytes);
        let mut security_tokenizer = None;
        let base_name = args.base()?;
        let tokenizer = load_tokenizer(base_name)?;
        let end_tokens =
            GenerationConfig::load(&model_folder(base_name)?)?.end_tokens(None, &tokenizer);
        let alone = |name: &str, adapter| Ready::load(name, adapter, args.dtype);
        let (base, security) = match (&args.security_model, &args.security_adapter) {
            (None, None) => (alone(base_name, args.adapter.as_deref())?, None),
            (Some(name), adapter) => {
                if by_bytes {
                    security_tokenizer = Some(Arc::new(load_tokenizer(name)?));
                } else {
                    same_vocabulary(base_name, &tokenizer, name)?;
                }
                let base = alone(base_name, args.adapter.as_deref())?;
                (base, Some(alone(name, adapter.as_deref())?))
            }
            (None, Some(adapter)) => {
                // The weights are packed once; what an adapter adds is computed beside them, row by row.
                let mut model = load_model(base_name, None)?;
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
        let tokenizer = Arc::new(tokenizer);
        Ok(Self { tokenizer, base, security, security_tokenizer, end_tokens, endpoint: None })
    }

    /// Loads the security model, whose tokenizer counts, of a base model behind a server.
    pub(crate) fn load_beside(args: &DecodingModels, endpoint: &EndpointArgs) -> Outcome<Self> {
        let options = endpoint_options(endpoint)?;
        let Some(name) = &args.security_model else {
            return Err(Failure::new("there is no security model").help("give --security-model"));
        };
        let tokenizer = load_tokenizer(name)?;
        let end_tokens = GenerationConfig::load(&model_folder(name)?)?.end_tokens(None, &tokenizer);
        let security = Ready::load(name, args.security_adapter.as_deref(), args.dtype)?;
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            base: security.clone(),
            security: Some(security),
            security_tokenizer: None,
            end_tokens,
            endpoint: options,
        })
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
        let generator = match &self.security {
            None => generator,
            Some(Ready { model, fingerprint }) => {
                generator.with_security(Arc::new(model.clone()), fingerprint)?
            }
        };
        let generator = match &self.security_tokenizer {
            None => generator,
            Some(tokenizer) => generator.with_security_tokenizer(tokenizer.clone())?,
        };
        let Some(options) = &self.endpoint else { return Ok(generator) };
        let base = RemoteBase::connect(options.clone(), &self.tokenizer).map_err(explained)?;
        generator.with_remote_base(base).map_err(explained)
    }
}

impl DecodingModels {
    /// The name of the model whose text it is.
    pub(crate) fn base(&self) -> Outcome<&str> {
        self.model.as_deref().ok_or_else(|| {
            Failure::new("there is no model")
                .help("give --model: a shipped lab model, a checkpoint folder or a hub name")
        })
    }
}

/// What to do about an error of decoding, where that is known.
pub(crate) fn explained(error: DecodeError) -> Failure {
    let help = match &error {
        DecodeError::Endpoint(error) => error.help(),
        _ => None,
    };
    let failure = Failure::from(error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// How the server of the arguments is asked; none where there is none.
fn endpoint_options(args: &EndpointArgs) -> Outcome<Option<EndpointOptions>> {
    let (Some(url), Some(model)) = (&args.endpoint, &args.endpoint_model) else { return Ok(None) };
    let key = match &args.api_key_env {
        None => None,
        Some(name) => {
            let key = env::var(name).ok().and_then(|key| Token::new(&key));
            Some(key.ok_or_else(|| {
                Failure::new(format!("the environment variable `{name}` holds no key")).help(
                    "set it to the key, or leave --api-key-env out where the server needs none",
                )
            })?)
        }
    };
    let timeout = Duration::from_secs(args.endpoint_timeout);
    let stop = stop::flag();
    Ok(Some(EndpointOptions { key, timeout, stop, ..EndpointOptions::new(url, model) }))
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
            "co-decoding takes two models with the same tokenizer, such as two sizes of one family; \
             `--set co_decoding.vocabularies=bytes` joins others, approximately and step by step",
        ))
}
