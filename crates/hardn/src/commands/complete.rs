//! `hardn complete`: what a model writes after a prompt.

use std::{borrow::Cow, error::Error, io::IsTerminal, sync::Arc};

use clap::ColorChoice;
use hardn_code::{KnownPackages, unknown_packages};
use hardn_decode::{Author, Completion, DecodeError, DecoderConfig, complete, stream};
use hardn_types::Language;
use serde_json::json;

use super::read_text;
use crate::{
    args::CompleteArgs,
    decoding::Models,
    failure::{Failure, Outcome},
    inspector::OracleInspector,
    output::{put, put_json, say},
    stop,
};

/// Green, and back.
const SECURITY: (&str, &str) = ("\x1b[32m", "\x1b[0m");

pub(crate) fn run(args: CompleteArgs, quiet: bool) -> Outcome {
    let prompt = match (&args.prompt, &args.prompt_file) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(file)) => read_text(file)?,
        (None, None) => read_text("-".as_ref())?,
    };
    if prompt.is_empty() {
        return Err(Failure::new("the prompt is empty")
            .help("give a prompt, --prompt-file or text on standard input"));
    }
    let decoder = DecoderConfig::load(&args.decoder, &args.set)?;
    let models = Models::load(&args.models)?;
    if models.tokenizer.encode(&prompt)?.ids.is_empty() {
        return Err(Failure::new("the prompt is empty: it has no token"));
    }
    let (repaired, two_step) = (decoder.repair.is_some(), decoder.two_step.is_some());
    let mut generator = models.generator(decoder, args.seed)?;
    if let Some(file) = &args.suffix_file {
        if two_step {
            return Err(Failure::new("two-step generation does not fill gaps")
                .help("leave --suffix-file out, or use another decoder"));
        }
        generator = generator.with_suffix(&read_text(file)?);
    }
    let language = if repaired || two_step { Some(language(&args)?) } else { None };
    if let Some(language) = language {
        let inspector = OracleInspector::new(language);
        let name = inspector.name();
        generator = generator
            .with_languages(move |_| Some(language))
            .with_inspector(Arc::new(inspector), &name);
    }
    let mut packages = Cow::Borrowed(KnownPackages::shipped());
    if let (Some(file), Some(language)) = (&args.packages, language) {
        packages.to_mut().read(language, file)?;
    }
    let unknown = |completion: &Completion| {
        let Some(language) = language.filter(|_| two_step) else { return Ok(Vec::new()) };
        let head = completion.completed_prompt.as_ref().unwrap_or(&prompt);
        let code = format!("{head}{}", completion.text);
        unknown_packages(&code, &packages, language)
    };
    let closed = || Box::<dyn Error + Send + Sync>::from("standard output is closed");
    let result = if args.json {
        complete(&generator, std::slice::from_ref(&prompt), args.n, &mut |completion| {
            let mut line = json!({
                "prompt": prompt, "sample": completion.sample, "text": completion.text, "ids": completion.ids,
                "chosen_by": completion.chosen_by, "log_prob": completion.log_prob, "finish": completion.finish,
            });
            if two_step {
                line["completed_prompt"] =
                    json!(completion.completed_prompt.as_ref().unwrap_or(&prompt));
                let found = unknown(&completion)?;
                line["unknown_packages"] = found
                    .iter()
                    .map(|found| json!({"name": found.package.name, "did_you_mean": found.did_you_mean}))
                    .collect();
            }
            if args.trace {
                line["trace"] = serde_json::to_value(&completion.trace)?;
            }
            put_json(&line).map_err(|_| closed())
        })
    } else if two_step {
        // What comes first is known last.
        complete(&generator, std::slice::from_ref(&prompt), args.n, &mut |completion| {
            let head = completion.completed_prompt.as_ref().unwrap_or(&prompt);
            let title = title(&args, completion.sample);
            put(&format!("{title}{head}{}\n", completion.text)).map_err(|_| closed())?;
            for found in unknown(&completion)? {
                let name = &found.package.name;
                let meant = found
                    .did_you_mean
                    .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                say(&format!(
                    "warning: sample {}: no list has a package `{name}`{meant}",
                    completion.sample
                ));
            }
            Ok(())
        })
    } else {
        let coloured = match args.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
            }
        };
        let coloured = coloured && models.security.is_some();
        if coloured && !quiet {
            say(&format!("{}green{}: chosen by the security model", SECURITY.0, SECURITY.1));
        }
        (0..args.n).try_for_each(|sample| {
            let failed = |_| DecodeError::Taker(closed());
            put(&format!("{}{prompt}", title(&args, sample))).map_err(failed)?;
            stream(&generator, &prompt, sample, &mut |piece| {
                let shown = if coloured && piece.author == Author::Security {
                    put(&format!("{}{}{}", SECURITY.0, piece.text, SECURITY.1))
                } else {
                    put(piece.text)
                };
                shown.map_err(|_| closed())
            })?;
            put("\n").map_err(failed)
        })
    };
    if stop::requested() {
        return Err(Failure::interrupted(
            "the samples above are whole but the last, if it was begun",
        ));
    }
    Ok(result?)
}

fn title(args: &CompleteArgs, sample: u32) -> String {
    if args.n > 1 { format!("--- sample {sample}\n") } else { String::new() }
}

/// The language the oracle reads: what was said, or what the prompt's file is.
fn language(args: &CompleteArgs) -> Outcome<Language> {
    let of_file = || Language::of_path(args.prompt_file.as_ref()?);
    args.language.or_else(of_file).ok_or_else(|| {
        Failure::new("the oracle does not know what language the prompt is in")
            .help("give --language, such as --language python")
    })
}
