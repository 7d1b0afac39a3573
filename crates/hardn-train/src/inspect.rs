//! Numbers to check and to debug with: the loss of one side of a pair, and which side a model finds likelier.

use std::collections::BTreeMap;

use candle_core::Tensor;
use hardn_code::{MaskKind, mask_pair};
use hardn_models::{ForwardOptions, Model, Tokenizer, ops::Charges};
use hardn_types::{FixPair, Side};
use serde::Serialize;

use crate::{
    Example, ExampleBuilder, ExampleKind, KlDirection, Recipe, Result, Term,
    batch::{MicroBatch, Weighing},
    example::token_text,
    objective::{Objective, Reference, charged, hidden_at},
};

/// The loss of one side of a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairLoss {
    /// Reduced as the recipe says, but not weighted, in nats: `nll` or `unlikelihood`, and `kl` where the recipe has one.
    pub terms: BTreeMap<String, f64>,
    /// The weighted sum the recipe minimises, in nats.
    pub loss: f64,
    /// Selected tokens that carry a loss: the first token of a text cannot.
    pub n_tokens: usize,
}

/// The loss of one side, or the reason why a training would drop it.
///
/// Computed without dropout. The reference of a divergence is the model without its adapter.
///
/// # Errors
/// Text that cannot be tokenized, or a template that cannot be read.
pub fn pair_loss(
    model: &Model,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    pair: &FixPair,
    side: Side,
) -> Result<Result<PairLoss, String>> {
    let loss = recipe.loss.resolved();
    let kind = match side {
        Side::Secure => ExampleKind::Secure,
        Side::Vulnerable => ExampleKind::Vulnerable,
    };
    if !loss.uses(kind) {
        return Ok(Err("the recipe does not train on this side".to_owned()));
    }
    let context = model.config().max_position_embeddings;
    let builder = ExampleBuilder::new(tokenizer, &recipe.data, context, loss.kl_weight != 0.0)?;
    let result = builder.pair(pair)?.into_iter().find(|(of, _)| *of == side);
    let example = match result {
        Some((_, Ok(example))) => example,
        Some((_, Err(why))) => return Ok(Err(why)),
        None => return Ok(Err("the pair has no such side".to_owned())),
    };
    let weighing = Weighing::PerSample { reduction: loss.reduction, n_samples: 1 };
    let batch = MicroBatch::new(&[&example], &loss, weighing);
    let objective = Objective {
        model,
        reference: Reference::AdapterOff,
        kl_direction: loss.kl_direction,
        checkpointing: false,
        per_token: false,
    };
    let parts = objective.evaluate(&batch)?;
    let rename = |(term, loss): (String, f64)| match term.as_str() {
        "secure" => ("nll".to_owned(), loss),
        "vulnerable" => ("unlikelihood".to_owned(), loss),
        _ => (term, loss),
    };
    Ok(Ok(PairLoss {
        terms: parts.means().into_iter().map(rename).collect(),
        loss: parts.loss,
        n_tokens: example.n_selected(),
    }))
}

/// How likely the changed tokens of both sides of a pair are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Preference {
    /// Sum over the changed tokens of `after` of the natural logarithm of p(token | all tokens before it in `after`).
    pub log_p_secure: f64,
    /// The same for `before`.
    pub log_p_vulnerable: f64,
    /// How many tokens were added up.
    pub n_secure: usize,
    /// How many tokens were added up.
    pub n_vulnerable: usize,
}

impl Preference {
    /// The secure side's changed tokens are the likelier ones per token; `None` where a side has no changed token.
    pub fn prefers_secure(&self) -> Option<bool> {
        if self.n_secure == 0 || self.n_vulnerable == 0 {
            return None;
        }
        let secure = self.log_p_secure / self.n_secure as f64;
        Some(secure > self.log_p_vulnerable / self.n_vulnerable as f64)
    }
}

/// How likely the changed tokens of both sides are, or the reason why that cannot be said.
///
/// The two texts are tokenized as they are, without instruction or special tokens; changed are the tokens that mask
/// kind `difflib` selects, except the first of a text, which nothing precedes. The adapter counts, dropout does not.
/// A side without changed tokens has sum 0 and count 0.
///
/// # Errors
/// Text that cannot be tokenized, or whatever the tensor library reports.
pub fn preference(
    model: &Model,
    tokenizer: &Tokenizer,
    pair: &FixPair,
) -> Result<Result<Preference, String>> {
    let before = tokenizer.encode(&pair.before)?;
    let after = tokenizer.encode(&pair.after)?;
    let context = model.config().max_position_embeddings;
    if before.ids.len().max(after.ids.len()) > context {
        return Ok(Err(format!("longer than the model's context of {context} tokens")));
    }
    let masks = mask_pair(pair, token_text(&before), token_text(&after), MaskKind::Difflib)?;
    let (log_p_secure, n_secure) = log_p(model, after.ids, masks.secure)?;
    let (log_p_vulnerable, n_vulnerable) = log_p(model, before.ids, masks.vulnerable)?;
    Ok(Ok(Preference { log_p_secure, log_p_vulnerable, n_secure, n_vulnerable }))
}

fn log_p(model: &Model, ids: Vec<u32>, selected: Vec<u8>) -> Result<(f64, usize)> {
    let rows: Vec<u32> =
        (1..ids.len()).filter(|&t| selected[t] != 0).map(|t| t as u32 - 1).collect();
    if rows.is_empty() {
        return Ok((0.0, 0));
    }
    let targets: Vec<u32> = rows.iter().map(|&row| ids[row as usize + 1]).collect();
    let n = rows.len();
    let ids = Tensor::from_vec(ids, (1, selected.len()), model.device())?;
    let options = ForwardOptions::evaluate();
    let hidden = hidden_at(model, &ids, rows, &options)?;
    let charges = Charges {
        targets: &targets,
        terms: &vec![Term::Nll; n],
        weights: &vec![1.0; n],
        kl_weights: &[],
        direction: KlDirection::default(),
    };
    let (_, losses) = charged(model, &hidden, &options, &charges, None)?;
    Ok((-losses.into_iter().map(f64::from).sum::<f64>(), n))
}

/// Examples of a recipe for one pair, as [`pair_loss`] and training see them.
///
/// # Errors
/// As [`ExampleBuilder::pair`].
pub fn pair_examples(
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    pair: &FixPair,
) -> Result<Vec<(ExampleKind, Result<Example, String>)>> {
    let builder = ExampleBuilder::new(tokenizer, &recipe.data, usize::MAX, false)?;
    let kind = |side| match side {
        Side::Secure => ExampleKind::Secure,
        Side::Vulnerable => ExampleKind::Vulnerable,
    };
    Ok(builder.pair(pair)?.into_iter().map(|(side, example)| (kind(side), example)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{model, pair, tokenizer};

    const BEFORE: &str = "    return system(\"ls \" + name)\n";
    const AFTER: &str = "    return call([\"ls\", name])\n";

    /// log p of each token given those before it, from whole-sequence logits: index 0 has none.
    fn token_log_probs(model: &Model, ids: &[u32]) -> Vec<f64> {
        let input = Tensor::new(ids, model.device()).unwrap().unsqueeze(0).unwrap();
        let logits = model.logits(&input, &ForwardOptions::evaluate()).unwrap();
        let rows = logits.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        let mut out = vec![f64::NAN];
        for (row, &target) in rows.iter().zip(&ids[1..]) {
            let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            out.push(f64::from(row[target as usize]) - sum.ln());
        }
        out
    }

    fn example(recipe: &Recipe, kind: ExampleKind) -> Example {
        let examples =
            pair_examples(&tokenizer(), recipe, &pair("p", "def run(name):\n", BEFORE, AFTER));
        examples.unwrap().into_iter().find(|(of, _)| *of == kind).unwrap().1.unwrap()
    }

    #[track_caller]
    fn check(
        assignments: &[&str],
        side: Side,
        term: &str,
        reduced: impl Fn(&[f64]) -> f64,
        weight: f64,
    ) {
        let mut all = vec!["data.format=completion".to_owned()];
        all.extend(assignments.iter().map(|&a| a.to_owned()));
        let recipe = Recipe::load("safecoder", &all).unwrap();
        let (model, tokenizer) = (model(1), tokenizer());
        let pair = pair("p", "def run(name):\n", BEFORE, AFTER);
        let loss = pair_loss(&model, &tokenizer, &recipe, &pair, side).unwrap().unwrap();
        let kind = if side == Side::Secure { ExampleKind::Secure } else { ExampleKind::Vulnerable };
        let example = example(&recipe, kind);
        let log_probs = token_log_probs(&model, &example.ids);
        let chosen: Vec<f64> = (1..example.ids.len())
            .filter(|&t| example.selected[t] != 0)
            .map(|t| log_probs[t])
            .collect();
        let expected = reduced(&chosen);
        assert_eq!(loss.n_tokens, chosen.len());
        assert!((loss.terms[term] - expected).abs() < 1e-4, "{loss:?}, expected {expected}");
        assert!((loss.loss - weight * expected).abs() < 1e-4, "{loss:?}");
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn losses_follow_from_token_probabilities() {
        check(&[], Side::Secure, "nll", |p| -mean(p.iter().copied()), 1.0);
        check(
            &[],
            Side::Vulnerable,
            "unlikelihood",
            |p| -mean(p.iter().map(|p| (1.0 - p.exp()).ln())),
            1.0,
        );
        check(&["loss.reduction=sum"], Side::Secure, "nll", |p| -p.iter().sum::<f64>(), 1.0);
        check(&["loss.weights.secure=2.5"], Side::Secure, "nll", |p| -mean(p.iter().copied()), 2.5);
        check(&["data.mask=line"], Side::Secure, "nll", |p| -mean(p.iter().copied()), 1.0);
    }

    #[test]
    fn an_untrained_adapter_diverges_by_nothing() {
        let mut model = model(2);
        model.attach_lora(&hardn_models::LoraConfig::new(4, 8.0), 1).unwrap();
        let recipe = Recipe::load("cosec-security", &[]).unwrap();
        let pair = pair("p", "def run(name):\n", BEFORE, AFTER);
        let loss = pair_loss(&model, &tokenizer(), &recipe, &pair, Side::Secure).unwrap().unwrap();
        assert!(loss.terms["kl"].abs() < 1e-6, "{loss:?}");
        assert!((loss.terms["nll"] - loss.loss).abs() < 1e-5, "{loss:?}");
        let vulnerable = pair_loss(&model, &tokenizer(), &recipe, &pair, Side::Vulnerable).unwrap();
        assert!(vulnerable.is_err());
    }

    #[test]
    fn preference_is_the_sum_over_changed_tokens() {
        let (model, tokenizer) = (model(3), tokenizer());
        let pair = pair("p", "def run(name):\n", BEFORE, AFTER);
        let preference = preference(&model, &tokenizer, &pair).unwrap().unwrap();
        let ids = tokenizer.encode(&pair.after).unwrap();
        let before = tokenizer.encode(&pair.before).unwrap();
        let masks =
            mask_pair(&pair, token_text(&before), token_text(&ids), MaskKind::Difflib).unwrap();
        let log_probs = token_log_probs(&model, &ids.ids);
        let chosen: Vec<f64> =
            (1..ids.ids.len()).filter(|&t| masks.secure[t] != 0).map(|t| log_probs[t]).collect();
        assert_eq!(preference.n_secure, chosen.len());
        assert!((preference.log_p_secure - chosen.iter().sum::<f64>()).abs() < 1e-3);
        assert!(preference.n_vulnerable > 0 && preference.prefers_secure().is_some());
    }
}
