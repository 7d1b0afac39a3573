//! `hardn complete`: what a model writes after a prompt.

use std::io::IsTerminal;

use clap::ColorChoice;
use hardn_decode::{Author, DecoderConfig, complete, stream};
use serde_json::json;

use super::read_text;
use crate::{
    args::CompleteArgs,
    decoding::Models,
    failure::{Failure, Outcome},
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
    let generator = models.generator(decoder, args.seed)?;
    let result = if args.json {
        complete(&generator, std::slice::from_ref(&prompt), args.n, &mut |completion| {
            let mut line = json!({
                "prompt": prompt, "sample": completion.sample, "text": completion.text, "ids": completion.ids,
                "chosen_by": completion.chosen_by, "log_prob": completion.log_prob, "finish": completion.finish,
            });
            if args.trace {
                line["trace"] = serde_json::to_value(&completion.trace)?;
            }
            put_json(&line).map_err(|_| "standard output is closed".into())
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
            let head = if args.n > 1 { format!("--- sample {sample}\n") } else { String::new() };
            let closed = |_| hardn_decode::DecodeError::Taker("standard output is closed".into());
            put(&format!("{head}{prompt}")).map_err(closed)?;
            stream(&generator, &prompt, sample, &mut |piece| {
                let shown = if coloured && piece.author == Author::Security {
                    put(&format!("{}{}{}", SECURITY.0, piece.text, SECURITY.1))
                } else {
                    put(piece.text)
                };
                shown.map_err(|_| "standard output is closed".into())
            })?;
            put("\n").map_err(closed)
        })
    };
    if stop::requested() {
        return Err(Failure::interrupted(
            "the samples above are whole but the last, if it was begun",
        ));
    }
    Ok(result?)
}
