//! Trains a tokenizer and a model on documents: `pretrain_lab RECIPE DOCUMENTS.jsonl OUT [key=value ...]`.
//!
//! `hardn lab pretrain` does the same with progress bars; this is the library's own, shortest way.

use std::{env, error::Error, path::Path, sync::atomic::AtomicBool};

use hardn_models::{LAB_SPECIALS, Tokenizer, train_bpe};
use hardn_train::{
    PretrainRecipe, Progress, StepUpdate, TokenizedDocuments, pretrain, read_documents,
};

struct Lines;

#[expect(clippy::print_stderr, reason = "an example may print")]
impl Progress for Lines {
    fn step(&mut self, update: &StepUpdate) {
        if update.step.is_multiple_of(10) {
            eprintln!(
                "{}/{} loss {:.4} rate {:.1e} {:.0} tokens/s",
                update.step,
                update.total,
                update.loss,
                update.learning_rate,
                update.tokens_per_second
            );
        }
    }

    fn validation(&mut self, step: usize, losses: &std::collections::BTreeMap<String, f64>) {
        eprintln!("{step} validation {losses:?}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [recipe, documents, out, assignments @ ..] = arguments.as_slice() else {
        return Err("usage: pretrain_lab RECIPE DOCUMENTS.jsonl OUT [key=value ...]".into());
    };
    let recipe = PretrainRecipe::load(recipe, assignments)?;
    let texts = read_documents(Path::new(documents))?;
    let out = Path::new(out);
    let tokenizer_dir = out.join("tokenizer");
    let tokenizer = if tokenizer_dir.exists() {
        Tokenizer::load(&tokenizer_dir)?
    } else {
        let tokenizer =
            train_bpe(texts.iter().map(String::as_str), recipe.model.vocab_size, LAB_SPECIALS)?;
        tokenizer.save(&tokenizer_dir)?;
        tokenizer
    };
    let tokens = TokenizedDocuments::new(&texts, &tokenizer, Some(&out.join("cache")))?;
    let stop = AtomicBool::new(false);
    pretrain(&recipe, &tokenizer, &tokens, None, out, &mut Lines, &stop)?;
    Ok(())
}
