//! Training items cut from fixed code: files, functions, blocks and lines.

use std::iter;

use hardn_code::{Piece, changed_pieces};
use hardn_types::FixPair;

use crate::{
    Counts, Example, ExampleBuilder, ExampleKind, Granularity, PairExamples, Result, rng::Rng,
};

/// A piece of fixed code to learn.
pub(crate) struct Item {
    id: String,
    class: [String; 2],
    text: String,
}

/// The items of pairs, in their order. A pair that gives none is counted as dropped.
///
/// # Errors
/// Code that cannot be parsed at all.
///
/// # Source
/// Papers 000 (section 5.2) and 001: from each fixed file, the whole of it, or what the fix changed.
pub(crate) fn items(
    pairs: &[FixPair],
    granularity: Granularity,
    class_of: impl Fn(&FixPair) -> [String; 2],
    counts: &mut Counts,
) -> Result<Vec<Item>> {
    let piece = match granularity {
        Granularity::Pair | Granularity::File => None,
        Granularity::Function => Some(Piece::Function),
        Granularity::Block => Some(Piece::Block),
        Granularity::Line => Some(Piece::Line),
    };
    let name = granularity.name();
    let mut items = Vec::new();
    for pair in pairs {
        let ranges = match piece {
            None if pair.after.is_empty() => Vec::new(),
            None => iter::once(0..pair.after.len()).collect(),
            Some(piece) => changed_pieces(pair, piece)?,
        };
        if ranges.is_empty() {
            let why = match granularity {
                Granularity::Pair | Granularity::File => "not given".to_owned(),
                Granularity::Line => "no line changed".to_owned(),
                _ => format!("no {name} around a change"),
            };
            counts.drop(ExampleKind::Secure, &why);
        }
        let single = ranges.len() == 1;
        for (i, range) in ranges.into_iter().enumerate() {
            let number = if single { String::new() } else { format!("-{i}") };
            items.push(Item {
                id: format!("{}#{name}{number}", pair.id),
                class: class_of(pair),
                text: pair.after[range].to_owned(),
            });
        }
    }
    Ok(items)
}

/// Takes `fraction` of the items out, at random by `seed`; the rest keeps its order. Of what there is, at least one stays,
/// and of two or more, at least one goes where `fraction` is above 0.
pub(crate) fn split_off<T>(items: Vec<T>, fraction: f64, seed: u64) -> (Vec<T>, Vec<T>) {
    if fraction == 0.0 || items.len() < 2 {
        return (items, Vec::new());
    }
    let n = ((items.len() as f64 * fraction).round() as usize).clamp(1, items.len() - 1);
    let mut order: Vec<usize> = (0..items.len()).collect();
    Rng::new(seed, &[0x59_11]).shuffle(&mut order);
    let mut is_out = vec![false; items.len()];
    for &i in &order[..n] {
        is_out[i] = true;
    }
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for (item, is_out) in items.into_iter().zip(is_out) {
        if is_out { out.push(item) } else { kept.push(item) }
    }
    (kept, out)
}

impl ExampleBuilder<'_> {
    /// An item as an example whose every token is learnt, or the reason why it was dropped.
    ///
    /// The lead is tokenized with the text, as the released trainer has it.
    pub(crate) fn item(&self, item: &Item) -> Result<Result<Example, String>> {
        let lead = &self.data.lead;
        let text = self.tokenizer.encode(&format!("{lead}{}", item.text))?;
        let n_lead = if self.data.learn_lead { 0 } else { lead.chars().count() };
        let selected = text.offsets.iter().map(|&(start, _)| u8::from(start >= n_lead)).collect();
        let mut example =
            Example { id: item.id.clone(), kind: ExampleKind::Secure, ids: text.ids, selected };
        if self.data.end_of_text
            && let Some(eos) = self.tokenizer.eos()
            && example.ids.len() < self.max_tokens
        {
            example.ids.push(eos);
            example.selected.push(1);
        }
        Ok(self.check(example, self.data.drop_all_set))
    }

    /// The examples of many items, each as a pair of which only the secure side is there.
    pub(crate) fn items(&self, items: &[Item], counts: &mut Counts) -> Result<Vec<PairExamples>> {
        let mut out = Vec::new();
        for item in items {
            match self.item(item)? {
                Ok(example) => {
                    counts.keep(ExampleKind::Secure);
                    let class = item.class.clone();
                    out.push(PairExamples { class, secure: Some(example), vulnerable: None });
                }
                Err(why) => counts.drop(ExampleKind::Secure, &why),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DataRecipe, LossRecipe, Overlong,
        testing::{pair, tokenizer},
    };

    const BEFORE: &str = "x = 1\ndef f(a):\n    if a:\n        return eval(a)\n    return a\n";
    const AFTER: &str = "x = 1\ndef f(a):\n    if a:\n        return int(a)\n    return a\n";

    fn build(granularity: Granularity, data: &DataRecipe) -> (Vec<Example>, Counts) {
        let pairs = [pair("p", "", BEFORE, AFTER), pair("q", "", "y = 1\n", "y = 2\n")];
        let tokenizer = tokenizer();
        let builder = ExampleBuilder::new(&tokenizer, data, &LossRecipe::default(), 64).unwrap();
        let mut counts = Counts::default();
        let class = |_: &FixPair| ["py".to_owned(), String::new()];
        let found = items(&pairs, granularity, class, &mut counts).unwrap();
        let examples = builder.items(&found, &mut counts).unwrap();
        (examples.into_iter().filter_map(|pair| pair.secure).collect(), counts)
    }

    fn data() -> DataRecipe {
        DataRecipe {
            mask: hardn_code::MaskKind::Whole,
            drop_all_set: false,
            lead: "# fix\n".to_owned(),
            end_of_text: true,
            max_tokens: 500,
            ..DataRecipe::default()
        }
    }

    #[track_caller]
    fn check(granularity: Granularity, expected: &[(&str, &str)], dropped: &[&str]) {
        let (examples, counts) = build(granularity, &data());
        let shown: Vec<(String, String)> = examples
            .iter()
            .map(|example| (example.id.clone(), tokenizer().decode(&example.ids).unwrap()))
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(id, text)| ((*id).to_owned(), format!("# fix\n{text}")))
            .collect();
        assert_eq!(shown, expected);
        assert_eq!(counts.dropped.keys().collect::<Vec<_>>(), dropped);
        assert_eq!(counts.kept["secure"], expected.len());
    }

    #[test]
    fn every_granularity() {
        check(Granularity::File, &[("p#file", AFTER), ("q#file", "y = 2\n")], &[]);
        let function = "def f(a):\n    if a:\n        return int(a)\n    return a";
        check(
            Granularity::Function,
            &[("p#function", function)],
            &["secure: no function around a change"],
        );
        check(
            Granularity::Block,
            &[("p#block", "    if a:\n        return int(a)")],
            &["secure: no block around a change"],
        );
        check(Granularity::Line, &[("p#line", "        return int(a)"), ("q#line", "y = 2")], &[]);
    }

    #[test]
    fn leads_and_cuts() {
        let lead = tokenizer().encode("# fix\n").unwrap().ids.len();
        let unlearnt = DataRecipe { learn_lead: false, ..data() };
        for (data, n) in [(data(), 0), (unlearnt, lead)] {
            let (examples, _) = build(Granularity::File, &data);
            let Example { ids, selected, .. } = &examples[0];
            assert_eq!(*selected, [vec![0; n], vec![1; ids.len() - n]].concat());
            assert_eq!(ids.last().copied(), tokenizer().eos());
        }
        let whole = build(Granularity::File, &data()).0[0].ids.clone();
        let cut = DataRecipe { overlong: Overlong::Cut, max_tokens: 10, ..data() };
        assert_eq!(build(Granularity::File, &cut).0[0].ids, whole[..10]);
        // What just fits goes without an end.
        let cut = DataRecipe { max_tokens: whole.len() - 1, ..cut };
        assert_eq!(build(Granularity::File, &cut).0[0].ids, whole[..whole.len() - 1]);
        let drop = DataRecipe { max_tokens: 10, ..data() };
        assert_eq!(build(Granularity::File, &drop).1.dropped["secure: too long"], 2);
    }

    #[test]
    fn a_split_is_a_function_of_its_seed() {
        let split = |seed| split_off((0..50).collect::<Vec<_>>(), 0.1, seed);
        let (train, held) = split(1);
        assert_eq!((train.len(), held.len()), (45, 5));
        assert!(train.is_sorted() && held.is_sorted() && held.iter().all(|i| !train.contains(i)));
        assert_eq!(split(1), split(1));
        assert_ne!(split(1).1, split(2).1);
        assert_eq!(split_off(vec![1], 0.5, 1), (vec![1], vec![]));
    }
}
