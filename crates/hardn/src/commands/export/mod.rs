//! `hardn export`: a model with its adapter worked in, or an adapter alone, as others load it.

mod folder;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use hardn_models::{DEFAULT_ADAPTER, GgufDtype, Model, ModelError, SaveDtype, Tokenizer};

use self::folder::NewFolder;
use crate::{
    args::{ExportArgs, ExportFormat},
    assets::model_folder,
    failure::{Context, Failure, Outcome},
    hub,
    output::put,
};

/// Files beside the weights that say how a model is used.
const COMPANIONS: &[&str] = &[
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// The file in a folder of a GGUF export.
const GGUF: &str = "model.gguf";

/// What is written.
enum Written {
    Adapter,
    Safetensors(SaveDtype),
    Gguf(GgufDtype),
}

pub(crate) fn run(args: &ExportArgs) -> Outcome {
    let written = written(args)?;
    let source = model_folder(&args.model)?;
    let adapter = args.adapter.as_deref().map(hub::adapter_folder).transpose()?;
    let sources: Vec<&Path> =
        [Some(&source), adapter.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
    let out = NewFolder::create(&args.out, &sources, args.force)?;
    let mut model = Model::load(&source, &Device::Cpu)?;
    if let Some(adapter) = &adapter {
        model.load_adapter(DEFAULT_ADAPTER, adapter)?;
    }
    let merged = match &written {
        Written::Adapter => None,
        _ => Some(merged(&model)?),
    };
    let dir = out.path();
    match (&written, &merged) {
        (Written::Safetensors(dtype), Some(merged)) => {
            merged.save(dir, *dtype)?;
            copy_companions(&source, dir)?;
        }
        (Written::Gguf(dtype), Some(merged)) => {
            let is_inside = !args.tokenizer_beside && source.join("tokenizer.json").is_file();
            let tokenizer = is_inside.then_some(source.as_path());
            let saved = merged.save_gguf(&dir.join(GGUF), tokenizer, *dtype);
            saved.map_err(|error| match error {
                ModelError::Tokenizer { .. } => Failure::from(error)
                    .help("--tokenizer-beside leaves it out of the file and copies it beside"),
                _ => Failure::from(error),
            })?;
            if !is_inside {
                copy_companions(&source, dir)?;
            }
        }
        _ => model.save_adapter(DEFAULT_ADAPTER, dir)?,
    }
    drop(merged);
    let mut text = format!("{}\n{}\n", args.out.display(), describe(args, &written));
    if args.verify {
        let again = match &written {
            Written::Adapter => {
                let mut again = Model::load(&source, &Device::Cpu)?;
                again.load_adapter(DEFAULT_ADAPTER, dir)?;
                again
            }
            _ => Model::load(dir, &Device::Cpu)?,
        };
        let agreement = verify::compare(&model, &again, tolerance(&written))?;
        text = format!("{text}verified: {agreement}\n");
    }
    out.publish()?;
    put(&text)
}

/// What the arguments ask for.
fn written(args: &ExportArgs) -> Outcome<Written> {
    if args.adapter_only {
        if args.format == ExportFormat::Gguf {
            return Err(Failure::new("an adapter alone is written as safetensors, not as GGUF"));
        }
        if args.dtype != "f32" {
            return Err(Failure::new("an adapter alone is written in f32"));
        }
        return Ok(Written::Adapter);
    }
    let gguf = GgufDtype::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(&args.dtype));
    let plain = [SaveDtype::F32, SaveDtype::F16, SaveDtype::BF16]
        .into_iter()
        .find(|dtype| format!("{dtype:?}").eq_ignore_ascii_case(&args.dtype));
    match (args.format, gguf, plain) {
        (ExportFormat::Gguf, Some((_, dtype)), _) => Ok(Written::Gguf(*dtype)),
        (ExportFormat::Safetensors, _, Some(dtype)) => Ok(Written::Safetensors(dtype)),
        (ExportFormat::Safetensors, Some(_), None) => {
            Err(Failure::new(format!("safetensors are not written in {}", args.dtype))
                .help("take f32, bf16 or f16, or `--format gguf`"))
        }
        _ => {
            let known: Vec<String> =
                GgufDtype::ALL.iter().map(|(name, _)| name.to_lowercase()).collect();
            Err(Failure::new(format!("there is no number format `{}`", args.dtype))
                .help(format!("take one of {}", known.join(", "))))
        }
    }
}

fn describe(args: &ExportArgs, written: &Written) -> String {
    match (written, &args.adapter) {
        (Written::Adapter, Some(adapter)) => format!("the adapter {}", adapter.display()),
        (_, Some(adapter)) => {
            format!("{} with {} worked in, {}", args.model, adapter.display(), args.dtype)
        }
        (_, None) => format!("{}, {}", args.model, args.dtype),
    }
}

fn merged(model: &Model) -> Outcome<Model> {
    model.merged().map_err(|error| match error {
        error @ ModelError::Input(_) => {
            Failure::from(error).help("--adapter-only writes the adapter itself")
        }
        other => other.into(),
    })
}

/// Share of the spread of logits that a difference may have: rounding of weights, not other weights.
fn tolerance(written: &Written) -> f32 {
    match written {
        Written::Adapter => 0.0,
        Written::Safetensors(SaveDtype::F32) | Written::Gguf(GgufDtype::F32) => 1e-4,
        Written::Safetensors(SaveDtype::F16) | Written::Gguf(GgufDtype::F16) => 1e-2,
        Written::Safetensors(SaveDtype::BF16)
        | Written::Gguf(GgufDtype::BF16 | GgufDtype::Q8_0) => 5e-2,
        Written::Gguf(GgufDtype::Q6K | GgufDtype::Q5K) => 1e-1,
        Written::Gguf(GgufDtype::Q4K | GgufDtype::Q4_0) => 2e-1,
    }
}

/// Copies the tokenizer's and other files; also the published code of a model that has its own.
fn copy_companions(source: &Path, out: &Path) -> Outcome {
    let copy = |from: &Path| -> Outcome {
        let name = from.file_name().unwrap_or_default();
        let doing = format!("cannot copy {} to {}", from.display(), out.display());
        fs::copy(from, out.join(name)).context(doing)?;
        Ok(())
    };
    for name in COMPANIONS {
        let from = source.join(name);
        if from.is_file() {
            copy(&from)?;
        }
    }
    for entry in fs::read_dir(source).into_iter().flatten().flatten() {
        let from = entry.path();
        if from.extension().is_some_and(|extension| extension == "py") {
            copy(&from)?;
        }
    }
    // A GGUF file has its tokenizer inside.
    if !out.join("tokenizer.json").exists()
        && !source.join("config.json").exists()
        && let Ok(tokenizer) = Tokenizer::load(source)
    {
        tokenizer.save(out)?;
    }
    Ok(())
}
