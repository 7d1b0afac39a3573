//! Pairs of which one side has no token of its own, from the recipe to the loss.

use hardn_types::FixPair;

use crate::{
    Example, ExampleKind, Recipe, TrainingData, pair_examples, pair_losses, step_batches,
    testing::{model, pair, token_log_probs, tokenizer},
};

const PROMPT: &str = "def run(name):\n";
// Lines that differ from their first letter on.
const A: &str = "    log(name)\n";
const B: &str = "    check(name)\n";
const C: &str = "    system(name)\n";
const D: &str = "    return name\n";

fn recipe(assignments: &[&str]) -> Recipe {
    let mut all = vec!["data.format=completion", "data.mask=difflib", "data.utility_ratio=0"];
    all.extend(assignments);
    let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
    Recipe::load("simpo", &all).unwrap()
}

fn fix(before: &[&str], after: &[&str]) -> FixPair {
    let mut pair = pair("p", PROMPT, &before.concat(), &after.concat());
    pair.description = Some("Run it.".to_owned());
    pair
}

/// The secure and the vulnerable example.
fn sides(recipe: &Recipe, pair: &FixPair) -> [Result<Example, String>; 2] {
    let found = pair_examples(&tokenizer(), recipe, pair).unwrap();
    let of = |kind| found.iter().find(|(of, _)| *of == kind).unwrap().1.clone();
    [of(ExampleKind::Secure), of(ExampleKind::Vulnerable)]
}

/// The texts of selected tokens, one behind the other where they stand so.
fn selected(example: &Example) -> Vec<String> {
    let tokenizer = tokenizer();
    let mut stretches: Vec<Vec<u8>> = Vec::new();
    for (t, id) in example.ids.iter().enumerate().filter(|(t, _)| example.selected[*t] != 0) {
        let bytes = tokenizer.token_bytes(*id);
        match stretches.last_mut() {
            Some(last) if example.selected[t - 1] != 0 => last.extend(bytes),
            _ => stretches.push(bytes.to_vec()),
        }
    }
    stretches.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}
/// What is selected on the sides of a fix that adds, and, the sides swapped, of one that removes.
#[track_caller]
fn check(before: &[&str], after: &[&str], added: &[&str], parting: &[&str]) {
    for extra in ["data.trim=false", "data.trim=true", "data.format=instruction", "loss.kind=dpo"] {
        let recipe = recipe(&["loss.one_sided=next_token", extra]);
        let of = |pair| sides(&recipe, &pair).map(|side| selected(&side.unwrap()));
        assert_eq!(of(fix(before, after)), [added, parting], "{extra}");
        assert_eq!(of(fix(after, before)), [parting, added], "{extra}");
    }
}

#[test]
fn the_token_that_leaves_the_change_out_stands_for_it() {
    check(&[A, C], &[A, B, C], &["check(name)\n    "], &["s"]);
    check(&[A, C], &[B, A, C], &["\n    check(name)"], &["l"]);
    check(&[A, C, D], &[A, B, C, B, D], &["check(name)\n    "; 2], &["s", "return"]);
    check(&[A, C], &[A, C, B], &[B], &["<|endoftext|>"]);
    // A second copy of a line: the place is behind what both have.
    check(&[A, B, C], &[A, B, B, C], &["check(name)\n    "], &["s"]);
}

#[test]
fn the_end_of_a_text_is_behind_it_once() {
    for (trim, end) in [("data.trim=true", false), ("data.trim=false", true)] {
        let recipe = recipe(&["loss.one_sided=next_token", "data.end_of_text=true", trim]);
        let eos = tokenizer().eos().unwrap();
        let n_ends = |example: &Example| example.ids.iter().filter(|&&id| id == eos).count();
        let [secure, vulnerable] = sides(&recipe, &fix(&[A, C], &[A, C, B])).map(Result::unwrap);
        assert_eq!((n_ends(&secure), n_ends(&vulnerable)), (usize::from(end), 1), "{trim}");
        let [secure, _] = sides(&recipe, &fix(&[A, C, B], &[A, C])).map(Result::unwrap);
        assert_eq!((n_ends(&secure), selected(&secure).len()), (1, 1), "{trim}");
    }
}

#[test]
fn what_cannot_be_completed_stays_dropped() {
    let recipe = recipe(&["loss.one_sided=next_token", "data.drop_all_set=false"]);
    let dropped = |pair: &FixPair| sides(&recipe, pair).map(Result::err);
    let none = Some("no token selected".to_owned());
    assert_eq!(dropped(&fix(&[A], &[A])), [none.clone(), none.clone()]);
    let mut only = fix(&[], &[A]);
    (only.prompt, only.before) = (String::new(), String::new());
    assert_eq!(dropped(&only), [None, Some("not given".to_owned())]);
    // No token stands before the place at which the sides part.
    let mut first = fix(&[C], &[B, C]);
    (first.before, first.after) = (C.trim_start().to_owned(), format!("{}{C}", B.trim_start()));
    assert_eq!(dropped(&first), [None, none]);
}

#[test]
fn scores_count_the_tokens_of_their_side() {
    let (model, tokenizer) = (model(5), tokenizer());
    let pair = fix(&[A, C, D], &[A, B, C, B, D]);
    for (log_probs, is_mean) in [("loss.log_probs=mean", true), ("loss.log_probs=sum", false)] {
        let recipe = recipe(&["loss.one_sided=next_token", "loss.nll_weight=0.5", log_probs]);
        let scores = sides(&recipe, &pair).map(|side| {
            let example = side.unwrap();
            let log_p = token_log_probs(&model, &example.ids);
            let chosen = (1..log_p.len()).filter(|&t| example.selected[t] != 0);
            let chosen: Vec<f64> = chosen.map(|t| log_p[t]).collect();
            let n = chosen.len() as f64;
            (chosen.iter().sum::<f64>() / if is_mean { n } else { 1.0 }, n)
        });
        let [(secure, n_secure), (vulnerable, n_vulnerable)] = scores;
        assert_eq!(n_vulnerable, 2.0);
        let margin = recipe.loss.beta * (secure - vulnerable);
        for (side, found) in pair_losses(&model, None, &tokenizer, &recipe, &pair).unwrap() {
            let found = found.unwrap();
            assert!((found.terms["margin"] - margin).abs() < 1e-4, "{found:?}, not {margin}");
            let n = [n_secure, n_vulnerable][usize::from(side == hardn_types::Side::Vulnerable)];
            assert_eq!(found.n_tokens as f64, n);
            // The likelihood beside it stays the mean over the secure side's tokens.
            let nll = if is_mean { -secure } else { -secure / n_secure };
            let expected = (recipe.loss.gamma - margin).exp().ln_1p() + 0.5 * nll;
            assert!((found.loss - expected).abs() < 1e-4, "{found:?}, not {expected}");
        }
    }
}

#[test]
fn a_step_holds_what_the_recipe_says() {
    let pairs = [fix(&[A, C], &[A, B, C]), fix(&[A, B, C], &[A, C]), fix(&[A, B], &[A, C])];
    let pairs: Vec<FixPair> = pairs
        .into_iter()
        .enumerate()
        .map(|(i, pair)| FixPair { id: i.to_string(), ..pair })
        .collect();
    let check = |assignments: &[&str], expected: &[&str]| {
        let all = [&["oversampling.mode=none", "training.batch_size=8"], assignments].concat();
        let data = TrainingData { pairs: &pairs, ..TrainingData::default() };
        let found = step_batches(&tokenizer(), 128, &recipe(&all), &data, 1).unwrap();
        let mut ids: Vec<String> = found
            .samples
            .iter()
            .map(|sample| format!("{} {}", sample.id, sample.n_selected > 0))
            .collect();
        ids.sort();
        let mut expected: Vec<String> = expected.iter().map(|id| format!("{id} true")).collect();
        expected.sort();
        assert_eq!(ids, expected, "{assignments:?}");
    };
    let both = ["2#secure", "2#vulnerable"];
    let all = ["0#secure", "0#vulnerable", "1#secure", "1#vulnerable", both[0], both[1]];
    check(&["loss.nll_weight=1"], &["0#secure", both[0], both[1]]);
    check(&[], &both);
    check(&["loss.nll_weight=1", "loss.one_sided=drop"], &both);
    check(&["loss.one_sided=next_token"], &all);
    for kind in ["loss.kind=safecoder", "loss.kind=sven"] {
        check(&[kind], &["0#secure", "1#vulnerable", both[0], both[1]]);
        check(&[kind, "loss.one_sided=drop"], &both);
        check(&[kind, "loss.one_sided=next_token"], &all);
    }
    check(&["loss.kind=nll", "loss.one_sided=drop"], &["0#secure", both[0]]);
    check(&["loss.kind=nll", "loss.one_sided=next_token"], &["0#secure", "1#secure", both[0]]);
}
