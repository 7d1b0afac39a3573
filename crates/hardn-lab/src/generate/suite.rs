//! Security scenarios and utility tasks.

use std::collections::BTreeSet;

use hardn_types::{CutRule, Label, Scenario, Solution, Split, Tags};
use serde_json::{Map, Value};

use super::{cell, styles};
use crate::{
    BodyKind, Cell, Drawn, Library, Part, Result, Rng, Theme, WorldOptions,
    draw::{Compiled, family},
    library::families,
    split::{FamilyPart, val_and_test},
};

/// The name of the suite.
const SUITE: &str = "lab";
/// Scenarios for the test that each style of an idiom file gets; for validation it gets one.
const N_ADDED: usize = 3;
/// Draws until a prompt is new.
const MAX_TRIES: usize = 40;

/// What sets a scenario apart from the fix pairs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    SeenIdiom,
    UnseenIdiom,
    SeenContext,
}

/// The groups of a theme's scenarios, in the order in which they are made.
const GROUPS: [Group; 6] = [
    Group::SeenIdiom,
    Group::UnseenIdiom,
    Group::SeenIdiom,
    Group::SeenContext,
    Group::UnseenIdiom,
    Group::SeenIdiom,
];

/// Security scenarios, round robin over the themes, and those of added styles.
pub(super) fn scenarios(library: &Library, options: &WorldOptions) -> Result<Vec<Scenario>> {
    let themes: Vec<&Compiled> =
        library.compiled().iter().filter(|compiled| !compiled.theme.is_utility()).collect();
    let mut made = Made::default();
    for (split, wanted) in
        [(Split::Val, options.n_val_scenarios), (Split::Test, options.n_test_scenarios)]
    {
        let mut n = 0;
        for round in 0..wanted {
            let before = n;
            for i in order(themes.len(), round) {
                let compiled = themes[i];
                if n < wanted {
                    // Themes take turns, so that a short suite holds every group.
                    let group =
                        GROUPS[(round + i % 3 * usize::from(split == Split::Val)) % GROUPS.len()];
                    n += usize::from(made.scenario(compiled, options.seed, split, group, round)?);
                }
            }
            if n == before {
                break;
            }
        }
        let n_added = if split == Split::Test { N_ADDED } else { 1 };
        for compiled in &themes {
            for style in styles(&compiled.theme, |style| style.added) {
                for round in 0..n_added {
                    made.added_scenario(compiled, options.seed, split, style, round)?;
                }
            }
        }
    }
    Ok(made.list)
}

/// What training scenarios of a theme are made of.
struct Source<'a> {
    compiled: &'a Compiled,
    /// Contexts and families.
    places: Vec<(usize, usize)>,
    styles: Vec<usize>,
}

/// Security scenarios to be trained on, round robin over the themes: families, names, wordings and styles of the fix
/// pairs alone.
pub(super) fn training_scenarios(
    library: &Library,
    seed: u64,
    wanted: usize,
) -> Result<Vec<Scenario>> {
    let mut made = Made::default();
    let sources: Vec<Source> = library
        .compiled()
        .iter()
        .filter(|compiled| {
            !compiled.theme.is_utility() && !Library::is_unseen_weakness(&compiled.theme)
        })
        .map(|compiled| {
            let theme = &compiled.theme;
            let mut places = families(theme, FamilyPart::Pairs);
            places.retain(|place| !theme.is_trusted(place.1));
            Source { compiled, places, styles: styles(theme, |style| style.in_pairs == Some(true)) }
        })
        .filter(|source| !source.places.is_empty() && !source.styles.is_empty())
        .collect();
    for round in 0..wanted {
        let before = made.list.len();
        for i in order(sources.len(), round) {
            let Source { compiled, places, styles } = &sources[i];
            if made.list.len() < wanted {
                let place = places[round % places.len()];
                made.add(compiled, seed, Split::Train, place, styles, "seen-context", round)?;
            }
        }
        if made.list.len() == before {
            break;
        }
    }
    Ok(made.list)
}

/// Utility tasks: topics without weakness, and trusted settings of the others, round robin over the themes.
pub(super) fn tasks(library: &Library, options: &WorldOptions) -> Result<Vec<Scenario>> {
    let mut made = Made::default();
    for (split, wanted) in [(Split::Val, options.n_val_tasks), (Split::Test, options.n_test_tasks)]
    {
        let sources: Vec<(&Compiled, Vec<(usize, usize)>)> = library
            .compiled()
            .iter()
            .map(|compiled| (compiled, places(&compiled.theme, FamilyPart::Scenarios, split, true)))
            .filter(|(_, places)| !places.is_empty())
            .collect();
        let mut n = 0;
        for round in 0..wanted {
            let before = n;
            for i in order(sources.len(), round) {
                let (compiled, places) = &sources[i];
                if n < wanted {
                    let place = places[round % places.len()];
                    let all: Vec<usize> = (0..compiled.theme.styles.len()).collect();
                    n += usize::from(made.add(
                        compiled,
                        options.seed,
                        split,
                        place,
                        &all,
                        "task",
                        round,
                    )?);
                }
            }
            if n == before {
                break;
            }
        }
    }
    Ok(made.list)
}

/// Whose turn it is: every other round runs backwards, so that a last round cut short does not favour one language.
fn order(n: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| if round.is_multiple_of(2) { i } else { n - 1 - i })
}

/// Families for validation or for the test, trusted or not.
fn places(theme: &Theme, part: FamilyPart, split: Split, trusted: bool) -> Vec<(usize, usize)> {
    let mut places = families(theme, part);
    places.retain(|place| theme.is_trusted(place.1) == trusted);
    let (val, test) = val_and_test(&places, |&place| family(theme, cell(place, 0)));
    if split == Split::Val { val } else { test }
}

#[derive(Default)]
struct Made {
    list: Vec<Scenario>,
    prompts: BTreeSet<String>,
}

impl Made {
    fn scenario(
        &mut self,
        compiled: &Compiled,
        seed: u64,
        split: Split,
        group: Group,
        round: usize,
    ) -> Result<bool> {
        let theme = &compiled.theme;
        let unseen = Library::is_unseen_weakness(theme);
        let part = if group == Group::SeenContext && !unseen {
            FamilyPart::Pairs
        } else {
            FamilyPart::Scenarios
        };
        let places = places(theme, part, split, false);
        let styles = styles(theme, |style| {
            !style.added && (unseen || style.in_pairs == Some(group != Group::UnseenIdiom))
        });
        if places.is_empty() || styles.is_empty() {
            return Ok(false);
        }
        let name = match group {
            _ if unseen => "unseen-weakness",
            Group::SeenIdiom => "seen-idiom",
            Group::UnseenIdiom => "unseen-idiom",
            Group::SeenContext => "seen-context",
        };
        self.add(compiled, seed, split, places[round % places.len()], &styles, name, round)
    }

    fn added_scenario(
        &mut self,
        compiled: &Compiled,
        seed: u64,
        split: Split,
        style: usize,
        round: usize,
    ) -> Result<bool> {
        let places = places(&compiled.theme, FamilyPart::Scenarios, split, false);
        if places.is_empty() {
            return Ok(false);
        }
        let name = format!("added-{}", compiled.theme.styles[style].id);
        self.add(compiled, seed, split, places[round % places.len()], &[style], &name, round)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them name the stream to draw from")]
    fn add(
        &mut self,
        compiled: &Compiled,
        seed: u64,
        split: Split,
        place: (usize, usize),
        styles: &[usize],
        name: &str,
        round: usize,
    ) -> Result<bool> {
        let (split_name, part) = match split {
            Split::Train => ("train", Part::Pairs),
            Split::Val => ("val", Part::Val),
            Split::Test => ("test", Part::Test),
        };
        let id = format!("{}.{split_name}.{name}.{round}", compiled.theme.id.replace('/', "-"));
        for attempt in 0..MAX_TRIES {
            let mut rng = Rng::new(seed, &format!("suite/{id}/{attempt}"));
            let cell = cell(place, *rng.pick(styles));
            let drawn = compiled.draw(cell, part, &mut rng)?;
            if self.prompts.insert(drawn.prompt.clone()) {
                self.list.push(scenario(&compiled.theme, cell, &drawn, id, split)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn scenario(
    theme: &Theme,
    cell: Cell,
    drawn: &Drawn<'_>,
    id: String,
    split: Split,
) -> Result<Scenario> {
    let trusted = theme.is_trusted(cell.setting);
    let kinds: &[(BodyKind, Label)] = if trusted {
        &[(BodyKind::Trusted, Label::Secure)]
    } else {
        &[(BodyKind::Secure, Label::Secure), (BodyKind::Vulnerable, Label::Vulnerable)]
    };
    let mut solutions = Vec::new();
    for &(kind, label) in kinds {
        for i in 0..drawn.n_bodies(kind) {
            solutions.push(Solution {
                label,
                idiom: drawn.idiom(kind, i),
                text: drawn.body(kind, i)?,
            });
        }
    }
    let mut extra = Map::new();
    let style = &theme.styles[cell.style];
    extra.insert("theme".into(), theme.id.clone().into());
    extra.insert("style".into(), style.id.clone().into());
    if let Some(hint) = &theme.tests.secure_hint {
        extra.insert("secure_hint".into(), hint.clone().into());
    }
    let mut tags = Tags::default();
    if trusted && !theme.is_utility() {
        tags.trusted = true;
        let mut needless = Vec::new();
        for i in 0..drawn.n_bodies(BodyKind::Secure) {
            needless.push(Value::from(drawn.body(BodyKind::Secure, i)?));
        }
        extra.insert("needless_fixes".into(), needless.into());
    } else if !trusted {
        let seen_weakness = !Library::is_unseen_weakness(theme);
        let in_pairs = families(theme, FamilyPart::Pairs).contains(&(cell.operation, cell.setting));
        tags.seen_weakness = Some(seen_weakness);
        tags.seen_idiom = Some(seen_weakness && style.in_pairs == Some(true));
        tags.seen_context = Some(seen_weakness && in_pairs);
    }
    Ok(Scenario {
        id,
        suite: SUITE.to_owned(),
        family: drawn.family(),
        cwe: if trusted { None } else { theme.cwe },
        language: theme.language,
        split,
        prompt: drawn.prompt.clone(),
        instruction: drawn.doc.clone(),
        cut: CutRule::Function,
        function_test: Some(drawn.function_test()?),
        attack_test: if trusted { None } else { drawn.attack_test()? },
        solutions,
        tags,
        extra,
    })
}
