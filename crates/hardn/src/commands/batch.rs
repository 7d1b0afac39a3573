//! `hardn inspect batch`: a step's tokens as the loss sees them.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stdout},
};

use hardn_models::{ModelConfig, Tokenizer};
use hardn_train::{
    BatchSample, Mark, Recipe, StepBatches, TrainingData, read_utility_with, step_batches,
};
use serde_json::json;

use crate::{
    args::InspectBatchArgs,
    assets::{load_model, load_tokenizer, model_folder},
    failure::{Failure, Outcome},
    output::{put, put_json, say},
};

pub(crate) fn run(args: &InspectBatchArgs) -> Outcome {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    let tokenizer = load_tokenizer(&args.model)?;
    let columns = &recipe.data.columns;
    let (pairs, errors) = hardn_code::read_pairs_with(&args.pairs, &columns.of_pairs())?;
    if let Some(error) = errors.into_iter().next() {
        return Err(Failure::from(hardn_code::CodeError::from(error)));
    }
    let mut utility = Vec::new();
    for path in &args.utility {
        utility.extend(read_utility_with(path, columns)?);
    }
    // The weights are not needed, unless there is no other way to the model's context.
    let context = match ModelConfig::load(&model_folder(&args.model)?) {
        Ok(config) => config.max_position_embeddings,
        Err(_) => load_model(&args.model, None)?.config().max_position_embeddings,
    };
    let data = TrainingData { pairs: &pairs, utility: &utility, ..TrainingData::default() };
    let found = step_batches(&tokenizer, context, &recipe, &data, args.step)?;
    for (title, counts) in [("kept", &found.counts.kept), ("dropped", &found.counts.dropped)] {
        for (name, n) in counts {
            say(&format!("{title:>8} {n:>6}  {name}"));
        }
    }
    if args.json {
        return rows(&tokenizer, &found, args.step);
    }
    let coloured = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if coloured { Style::Colours } else { Style::Marks };
    put(&legend(style))?;
    put(&shown(&tokenizer, &found, args.step, style))
}

/// One line per sample, `tokens` being the text of each.
fn rows(tokenizer: &Tokenizer, found: &StepBatches, step: usize) -> Outcome {
    for sample in &found.samples {
        let mut row = serde_json::to_value(sample)?;
        let text = |id: &u32| String::from_utf8_lossy(tokenizer.token_bytes(*id)).into_owned();
        row["step"] = json!(step);
        row["tokens"] = sample.ids.iter().map(text).collect();
        row["shape"] = json!(found.shapes[sample.micro_batch]);
        put_json(&row)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Colours,
    Marks,
}

impl Style {
    /// What stands around a stretch of tokens.
    fn around(self, mark: Mark) -> (&'static str, &'static str) {
        match (self, mark) {
            (Self::Colours, Mark::Context) => ("\u{1b}[2m", "\u{1b}[0m"),
            (Self::Colours, Mark::Utility) => ("\u{1b}[36m", "\u{1b}[0m"),
            (Self::Colours, Mark::Secure) => ("\u{1b}[1;32m", "\u{1b}[0m"),
            (Self::Colours, Mark::Vulnerable) => ("\u{1b}[1;31m", "\u{1b}[0m"),
            (Self::Colours, Mark::Kl) => ("\u{1b}[34m", "\u{1b}[0m"),
            (Self::Marks, Mark::Context) => ("", ""),
            (Self::Marks, Mark::Utility) => ("{=", "=}"),
            (Self::Marks, Mark::Secure) => ("{+", "+}"),
            (Self::Marks, Mark::Vulnerable) => ("{-", "-}"),
            (Self::Marks, Mark::Kl) => ("{~", "~}"),
        }
    }

    fn put(self, mark: Mark, text: &str) -> String {
        let (before, behind) = self.around(mark);
        format!("{before}{text}{behind}")
    }
}

fn legend(style: Style) -> String {
    let parts = [
        (Mark::Secure, "learnt as secure"),
        (Mark::Vulnerable, "of the vulnerable side"),
        (Mark::Utility, "learnt as utility"),
        (Mark::Kl, "held to the untrained model"),
        (Mark::Context, "seen, not learnt"),
    ];
    parts.map(|(mark, text)| style.put(mark, text)).join("  ") + "\n"
}

fn shown(tokenizer: &Tokenizer, found: &StepBatches, step: usize, style: Style) -> String {
    let n = found.samples.len();
    let mut out = format!("step {step} of {}: {n} samples\n", found.total_steps);
    for (i, sample) in found.samples.iter().enumerate() {
        let is_new = |other: &BatchSample| {
            (other.micro_batch, other.row) != (sample.micro_batch, sample.row)
        };
        let before = i.checked_sub(1).map(|i| &found.samples[i]);
        if before.is_none_or(|before| before.micro_batch != sample.micro_batch) {
            let (rows, seq) = found.shapes[sample.micro_batch];
            let _ = writeln!(out, "\n=== micro-batch {}: {rows} rows of {seq}", sample.micro_batch);
        }
        let place = if before.is_none_or(is_new) {
            format!("row {}", sample.row)
        } else {
            format!("row {}, packed behind it from {}", sample.row, sample.start)
        };
        let kl = if sample.n_kl > 0 { format!(", {} with KL", sample.n_kl) } else { String::new() };
        let _ = writeln!(
            out,
            "--- {place}: {} ({}), {} tokens, {} {}{kl}",
            sample.id,
            sample.kind.name(),
            sample.n_tokens,
            sample.n_selected,
            sample.term.unwrap_or("charged"),
        );
        out += &text(tokenizer, sample, style);
        let padding = found.shapes[sample.micro_batch].1 - sample.start - sample.n_tokens;
        if found.samples.get(i + 1).is_none_or(is_new) && padding > 0 {
            let _ = writeln!(out, "[{padding} of padding]");
        }
    }
    out
}

/// The sample's text, stretch by stretch of one mark. A colour is ended before each line's end, so that pagers show it.
fn text(tokenizer: &Tokenizer, sample: &BatchSample, style: Style) -> String {
    let mut out = String::new();
    let mut first = 0;
    for t in 1..=sample.ids.len() {
        if t < sample.ids.len() && sample.marks[t] == sample.marks[first] {
            continue;
        }
        let ids = &sample.ids[first..t];
        let bytes: Vec<u8> =
            ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).copied().collect();
        let stretch = String::from_utf8_lossy(&bytes).into_owned();
        let mark = sample.marks[first];
        if style == Style::Colours {
            let lines: Vec<String> =
                stretch.split('\n').map(|line| style.put(mark, line)).collect();
            out += &lines.join("\n");
        } else {
            out += &style.put(mark, &stretch);
        }
        first = t;
    }
    out + "\n"
}
