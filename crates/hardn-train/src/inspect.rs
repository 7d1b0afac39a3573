//! Numbers to check and to debug with: the loss of one side of a pair, and which side a model finds likelier.

use std::collections::BTreeMap;

use candle_core::Tensor;
use hardn_code::{MaskKind, mask_pair};
use hardn_models::{ForwardOptions, Model, Tokenizer};
use hardn_types::{FixPair, Side};
use serde::Serialize;

use crate::{
    Example, ExampleBuilder, ExampleKind, Recipe, Result, Term,
    batch::{MicroBatch, Weighing},
    example::token_text,
    objective::{Objective, Reference, hidden_at, nll},
    terms::Terms,
};

/// The loss of one side of a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairLoss {
    /// Reduced as the recipe says, but not weighted, in nats: `nll` or `unlikelihood`, and `kl` and `contrastive` where
    /// the recipe has one. Where the loss takes both sides together, also the pair's: `dpo` or `simpo`, and `margin`, how
    /// much better the secure side does, times `beta`.
    pub terms: BTreeMap<String, f64>,
    /// The weighted sum the recipe minimises, in nats; the pair's, on both sides, where the loss takes both together.
    pub loss: f64,
    /// Selected tokens that carry a loss: the first token of a text cannot.
    pub n_tokens: usize,
}

/// The losses of both sides, or the reason why a training would drop a side.
///
/// Computed without dropout, with the adapters that [`crate::load_adapters`] attaches. What divergences and `dpo` are
/// measured from is `reference`, or the model without its adapter.
///
/// # Errors
/// Text that cannot be tokenized, a template that cannot be read, or adapters that are missing.
pub fn pair_losses(
    model: &Model,
    reference: Option<&Model>,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    pair: &FixPair,
) -> Result<[(Side, Result<PairLoss, String>); 2]> {
    let loss = recipe.loss.resolved();
    let objective = Objective {
        model,
        reference: reference.map_or(Reference::AdapterOff, Reference::Copy),
        loss,
        checkpointing: false,
        per_token: false,
    };
    let is_pairwise = loss.kind.is_pairwise();
    let context = model.config().max_position_embeddings;
    let builder = ExampleBuilder::new(tokenizer, &recipe.data, &loss, context)?;
    let sides = builder.pair(pair)?;
    let weighing = Weighing::PerSample { reduction: loss.reduction, n_samples: 1 };
    let together = match &sides {
        [(_, Ok(secure)), (_, Ok(vulnerable))] if is_pairwise => {
            let batch = MicroBatch::new(&[secure, vulnerable], &loss, weighing);
            Some(objective.evaluate(&batch)?)
        }
        _ => None,
    };
    let is_single = sides.iter().filter(|(_, example)| example.is_ok()).count() == 1;
    let of_side = |side, example: Result<Example, String>| -> Result<_> {
        if !loss.uses(kind_of(side)) {
            return Ok((side, Err("the recipe does not train on this side".to_owned())));
        }
        let found = match example {
            Ok(_) if is_single && loss.wastes_alone(kind_of(side)) => {
                Err("the other side was dropped".to_owned())
            }
            Ok(example) => Ok(side_loss(&objective, &example, weighing, together.as_ref())?),
            Err(why) => Err(why),
        };
        Ok((side, found))
    };
    let [(first, secure), (second, vulnerable)] = sides;
    Ok([of_side(first, secure)?, of_side(second, vulnerable)?])
}

/// The loss of a side for itself, with that of its pair where the loss takes both together.
fn side_loss(
    objective: &Objective<'_>,
    example: &Example,
    weighing: Weighing,
    together: Option<&Terms>,
) -> Result<PairLoss> {
    let loss = &objective.loss;
    let mut batch = MicroBatch::new(&[example], loss, weighing);
    batch.pairs.clear();
    let own = objective.evaluate(&batch)?;
    let of_tokens = match loss.token_term(example.kind).0 {
        Term::Nll => "nll",
        Term::Unlikelihood => "unlikelihood",
    };
    let renamed = |(name, value): (String, f64)| {
        if name == example.kind.name() { (of_tokens.to_owned(), value) } else { (name, value) }
    };
    let is_of_pair = |name: &str| name == loss.kind.pair_term() || name == "margin";
    let of_pair = together.into_iter().flat_map(Terms::means).filter(|(name, _)| is_of_pair(name));
    Ok(PairLoss {
        terms: own.means().into_iter().map(renamed).chain(of_pair).collect(),
        loss: together.unwrap_or(&own).loss,
        n_tokens: example.n_selected(),
    })
}

fn kind_of(side: Side) -> ExampleKind {
    match side {
        Side::Secure => ExampleKind::Secure,
        Side::Vulnerable => ExampleKind::Vulnerable,
    }
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
    let losses = nll(model, &hidden, &options, &targets)?;
    Ok((-losses.into_iter().map(f64::from).sum::<f64>(), n))
}

/// Examples of a recipe for one pair, as [`pair_losses`] and training see them.
///
/// # Errors
/// As [`ExampleBuilder::pair`].
pub fn pair_examples(
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    pair: &FixPair,
) -> Result<Vec<(ExampleKind, Result<Example, String>)>> {
    let loss = recipe.loss.resolved();
    let builder = ExampleBuilder::new(tokenizer, &recipe.data, &loss, usize::MAX)?;
    Ok(builder.pair(pair)?.into_iter().map(|(side, example)| (kind_of(side), example)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{model, pair, token_log_probs, tokenizer};

    const BEFORE: &str = "    return system(\"ls \" + name)\n";
    const AFTER: &str = "    return call([\"ls\", name])\n";

    fn pair_loss(
        model: &Model,
        tokenizer: &Tokenizer,
        recipe: &Recipe,
        pair: &FixPair,
        side: Side,
    ) -> Result<PairLoss, String> {
        let found = pair_losses(model, None, tokenizer, recipe, pair).unwrap();
        found.into_iter().find(|(of, _)| *of == side).unwrap().1
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
        let loss = pair_loss(&model, &tokenizer, &recipe, &pair, side).unwrap();
        let example = example(&recipe, kind_of(side));
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
        let loss = pair_loss(&model, &tokenizer(), &recipe, &pair, Side::Secure).unwrap();
        assert!(loss.terms["kl"].abs() < 1e-6, "{loss:?}");
        assert!((loss.terms["nll"] - loss.loss).abs() < 1e-5, "{loss:?}");
        let vulnerable = pair_loss(&model, &tokenizer(), &recipe, &pair, Side::Vulnerable);
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
