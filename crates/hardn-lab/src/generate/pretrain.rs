//! Pretraining text.

use std::collections::BTreeMap;

use hardn_types::{Label, Language};
use rayon::prelude::*;

use super::cell;
use crate::{
    BodyKind, Document, DocumentKind, Library, Part, Result, Rng, WorldOptions,
    draw::{Compiled, family},
    extra,
    instruct::{fim_text, instruction_prompt},
    library::families,
    split::FamilyPart,
};

/// Bounds of a family's share of vulnerable programs.
const SHARES: (f64, f64) = (0.1, 0.9);
/// Mean of these shares, as measured of crawled code.
const MEAN_SHARE: f64 = 0.4;

/// The share of vulnerable programs of every family in pretraining text, `SHARES.0 + width * u^k` with `u` uniform
/// and `k` such that the mean is [`MEAN_SHARE`].
pub(super) fn vulnerable_shares(library: &Library, seed: u64) -> BTreeMap<String, f64> {
    let width = SHARES.1 - SHARES.0;
    let k = width / (MEAN_SHARE - SHARES.0) - 1.0;
    let mut shares = BTreeMap::new();
    for theme in library.themes() {
        for place in families(theme, FamilyPart::Pretraining) {
            if !theme.is_trusted(place.1) {
                let family = family(theme, cell(place, 0));
                let u = Rng::new(seed, &format!("share/{family}")).unit();
                shares.insert(family, SHARES.0 + width * u.powf(k));
            }
        }
    }
    shares
}

/// Draws all documents, real code among them.
pub(super) fn documents(
    library: &Library,
    options: &WorldOptions,
    shares: &BTreeMap<String, f64>,
) -> Result<Vec<Document>> {
    let n = options.n_pretrain_documents;
    if n == 0 || library.compiled().is_empty() {
        return Ok(Vec::new());
    }
    let mut extra = Vec::new();
    if let Some(dir) = &options.extra {
        let chunks = extra::chunks(dir)?;
        let wanted = (n as f64 * options.extra_share.clamp(0.0, 1.0)) as usize;
        let mut order: Vec<(u64, usize)> = (0..chunks.len())
            .map(|i| (Rng::new(options.seed, &format!("extra/{i}")).next_u64(), i))
            .collect();
        order.sort_unstable();
        for (_, i) in order.into_iter().take(wanted) {
            let (family, _, text) = chunks[i].clone();
            let theme = "extra".to_owned();
            extra.push(Document {
                text,
                kind: DocumentKind::Extra,
                theme,
                family,
                label: None,
                idiom: String::new(),
            });
        }
    }
    let n_drawn = n - extra.len();
    let mut documents: Vec<Document> = (0..n_drawn)
        .into_par_iter()
        .map(|i| document(library, options, shares, i))
        .collect::<Result<_>>()?;
    if !extra.is_empty() {
        documents.append(&mut extra);
        let mut rng = Rng::new(options.seed, "pretraining order");
        for i in (1..documents.len()).rev() {
            documents.swap(i, rng.below(i + 1));
        }
    }
    Ok(documents)
}

fn document(
    library: &Library,
    options: &WorldOptions,
    shares: &BTreeMap<String, f64>,
    i: usize,
) -> Result<Document> {
    let mut rng = Rng::new(options.seed, &format!("pretraining/{i}"));
    let compiled: &Compiled = rng.pick(library.compiled());
    let theme = &compiled.theme;
    let place = *rng.pick(&families(theme, FamilyPart::Pretraining));
    let style = rng.below(theme.styles.len());
    let drawn = compiled.draw(cell(place, style), Part::Pretraining, &mut rng)?;
    let family = drawn.family();
    let kind = match shares.get(&family) {
        None => BodyKind::Trusted,
        Some(&share) if rng.chance(share) => BodyKind::Vulnerable,
        Some(_) => BodyKind::Secure,
    };
    let label = match kind {
        BodyKind::Vulnerable => Some(Label::Vulnerable),
        BodyKind::Secure => Some(Label::Secure),
        BodyKind::Trusted => None,
    };
    let body = rng.below(drawn.n_bodies(kind));
    let program = format!("{}{}", drawn.prompt, drawn.body(kind, body)?);
    let form = rng.unit();
    let (kind_of_text, text) = if form < options.instruction_share {
        let context = if rng.chance(0.25) { signature(&drawn.prompt, theme.language) } else { "" };
        let prompt = instruction_prompt(theme.language.name(), &drawn.doc, context);
        (DocumentKind::Instruction, format!("{prompt}{program}"))
    } else if form < options.instruction_share + options.fim_share {
        (DocumentKind::Fim, with_hole(&program, &mut rng))
    } else {
        (DocumentKind::Code, program)
    };
    let idiom = drawn.idiom(kind, body);
    Ok(Document { text, kind: kind_of_text, theme: theme.id.clone(), family, label, idiom })
}

/// The line that opens the last function of a prompt.
fn signature(prompt: &str, language: Language) -> &str {
    let is_signature = |line: &&str| match language {
        Language::Python => line.trim_start().starts_with("def "),
        _ => !line.starts_with([' ', '#', '/', '*', '}', '{']) && line.contains('('),
    };
    prompt.lines().rev().find(is_signature).unwrap_or_default()
}

/// Takes whole lines out: the first lines half of the time, as where imports are asked for, else any.
fn with_hole(program: &str, rng: &mut Rng) -> String {
    let ends: Vec<usize> = program.match_indices('\n').map(|(i, _)| i + 1).collect();
    if ends.is_empty() {
        return fim_text("", program, "");
    }
    let longest = 4.min(ends.len());
    let (start, end) = if rng.chance(0.5) {
        (0, ends[rng.below(longest.min(3))])
    } else {
        let first = rng.below(ends.len());
        let last = (first + rng.below(longest)).min(ends.len() - 1);
        (if first == 0 { 0 } else { ends[first - 1] }, ends[last])
    };
    fim_text(&program[..start], &program[start..end], &program[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_loses_nothing() {
        let program = "import a\n\ndef f():\n    x = 1\n    return x\n";
        for i in 0..50 {
            let text = with_hole(program, &mut Rng::new(i, "hole"));
            let (prefix, rest) =
                text.strip_prefix("<|fim_prefix|>").unwrap().split_once("<|fim_suffix|>").unwrap();
            let (suffix, middle) = rest.split_once("<|fim_middle|>").unwrap();
            assert_eq!(format!("{prefix}{middle}{suffix}"), program);
            assert!(!middle.is_empty());
        }
    }

    #[test]
    fn signatures() {
        let prompt = "class A:\n    def f(self, x):\n        \"\"\"Do it.\"\"\"\n";
        assert_eq!(signature(prompt, Language::Python), "    def f(self, x):");
        let prompt = "#include <stdio.h>\n/* Do (it). */\nint f(int x)\n{\n";
        assert_eq!(signature(prompt, Language::C), "int f(int x)");
    }

    #[test]
    fn shares_have_the_wanted_mean_and_bounds() {
        let library = Library::embedded().unwrap();
        let all: Vec<f64> =
            (0..20).flat_map(|seed| vulnerable_shares(&library, seed).into_values()).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!((mean - MEAN_SHARE).abs() < 0.02, "{mean}");
        assert!(all.iter().all(|share| (SHARES.0..SHARES.1).contains(share)));
    }
}
