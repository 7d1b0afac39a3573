//! Fix pairs, and the utility rows that are trained on beside them.

use std::collections::BTreeSet;

use hardn_types::FixPair;

use super::{cell, styles};
use crate::{
    BodyKind, Library, Part, Result, Rng, UtilityRow, WorldOptions, draw::Compiled,
    library::families, split::FamilyPart,
};

/// One pair in so many is for validation.
const VAL_EVERY: usize = 10;
/// Draws per wanted row before a theme is given up as exhausted.
const MAX_TRIES: usize = 6;

/// Fix pairs for training and for validation, round robin over the themes. Both sides have the same prompt and
/// differ in the idiom of one style.
pub(super) fn pairs(
    library: &Library,
    options: &WorldOptions,
) -> Result<(Vec<FixPair>, Vec<FixPair>)> {
    let themes: Vec<&Compiled> = library
        .compiled()
        .iter()
        .filter(|compiled| {
            !compiled.theme.is_utility() && !Library::is_unseen_weakness(&compiled.theme)
        })
        .collect();
    let mut lists = Vec::new();
    for (i, compiled) in themes.iter().enumerate() {
        lists.push(pairs_of(compiled, options.seed, quota(options.n_pairs, themes.len(), i))?);
    }
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (i, pair) in round_robin(lists) {
        if i % VAL_EVERY == VAL_EVERY - 1 { val.push(pair) } else { train.push(pair) }
    }
    Ok((train, val))
}

/// Utility rows: topics without weakness, and trusted settings, in the families of the fix pairs.
pub(super) fn utility_rows(library: &Library, options: &WorldOptions) -> Result<Vec<UtilityRow>> {
    let sources: Vec<(&Compiled, Vec<(usize, usize)>)> = library
        .compiled()
        .iter()
        .filter(|compiled| !Library::is_unseen_weakness(&compiled.theme))
        .map(|compiled| {
            let theme = &compiled.theme;
            let mut places = families(theme, FamilyPart::Pairs);
            places.retain(|place| theme.is_trusted(place.1));
            (compiled, places)
        })
        .filter(|(_, places)| !places.is_empty())
        .collect();
    let mut lists = Vec::new();
    for (i, (compiled, places)) in sources.iter().enumerate() {
        let theme = &compiled.theme;
        let styles = styles(theme, |style| style.in_pairs != Some(false));
        let wanted = quota(options.n_utility_rows, sources.len(), i);
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for attempt in 0..wanted * MAX_TRIES {
            if rows.len() == wanted || styles.is_empty() {
                break;
            }
            let mut rng = Rng::new(options.seed, &format!("utility/{}/{attempt}", theme.id));
            let place = places[attempt % places.len()];
            let drawn = compiled.draw(cell(place, *rng.pick(&styles)), Part::Pairs, &mut rng)?;
            let completion =
                drawn.body(BodyKind::Trusted, rng.below(drawn.n_bodies(BodyKind::Trusted)))?;
            if seen.insert((drawn.prompt.clone(), completion.clone())) {
                let family = drawn.family();
                let (prompt, instruction) = (drawn.prompt, drawn.doc);
                rows.push(UtilityRow {
                    prompt,
                    completion,
                    instruction,
                    language: theme.language,
                    family,
                });
            }
        }
        lists.push(rows);
    }
    Ok(round_robin(lists))
}

fn pairs_of(compiled: &Compiled, seed: u64, wanted: usize) -> Result<Vec<(usize, FixPair)>> {
    let theme = &compiled.theme;
    let mut places = families(theme, FamilyPart::Pairs);
    places.retain(|place| !theme.is_trusted(place.1));
    let styles = styles(theme, |style| style.in_pairs == Some(true));
    let mut seen = BTreeSet::new();
    let mut pairs = Vec::new();
    if places.is_empty() || styles.is_empty() {
        return Ok(pairs);
    }
    for attempt in 0..wanted * MAX_TRIES {
        if pairs.len() == wanted {
            break;
        }
        let mut rng = Rng::new(seed, &format!("pairs/{}/{attempt}", theme.id));
        let place = places[attempt % places.len()];
        let drawn = compiled.draw(cell(place, *rng.pick(&styles)), Part::Pairs, &mut rng)?;
        let vulnerable = rng.below(drawn.n_bodies(BodyKind::Vulnerable));
        let secure = rng.below(drawn.n_bodies(BodyKind::Secure));
        let before = format!("{}{}", drawn.prompt, drawn.body(BodyKind::Vulnerable, vulnerable)?);
        let after = format!("{}{}", drawn.prompt, drawn.body(BodyKind::Secure, secure)?);
        if before == after || !seen.insert((before.clone(), after.clone())) {
            continue;
        }
        let mut extra = serde_json::Map::new();
        extra.insert("style".into(), theme.styles[drawn.cell().style].id.clone().into());
        let family = drawn.family();
        let id = format!("{}-{}", theme.id.replace('/', "-"), pairs.len());
        let pair = FixPair {
            id,
            before,
            after,
            cwe: theme.cwe,
            language: theme.language,
            description: Some(drawn.doc),
            prompt: drawn.prompt,
            origin: Some(family),
            licence: None,
            file_name: None,
            line_changes: None,
            char_changes: None,
            extra,
        };
        pairs.push((pairs.len(), pair));
    }
    Ok(pairs)
}

/// The `i`-th share of `n` things among `among`.
fn quota(n: usize, among: usize, i: usize) -> usize {
    n / among + usize::from(i < n % among)
}

/// Takes the first of each list, then the second of each, and so on.
fn round_robin<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        for list in &mut lists {
            all.extend(list.next());
        }
        if all.len() == before {
            return all;
        }
    }
}
