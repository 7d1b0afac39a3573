//! Renders everything a theme can produce and collects what is wrong.

use std::fmt;

use crate::{BodyKind, Cell, Library, Part, Rng, Theme};

/// Something wrong with a theme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The theme's id.
    pub theme: String,
    /// Where: operation, setting and style.
    pub place: String,
    /// What.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.theme, self.place, self.problem)
    }
}

/// Renders every operation, setting, style and idiom of every theme with names of each part of the world.
/// Nothing is run: tests are somebody else's to run.
pub fn check(library: &Library) -> Vec<Problem> {
    let mut problems = Vec::new();
    for compiled in library.compiled() {
        let theme = &compiled.theme;
        for cell in cells(theme) {
            for part in Part::ALL {
                let mut rng = Rng::new(0, &format!("check/{}/{cell:?}/{part:?}", theme.id));
                if let Some(problem) = check_cell(library, theme, cell, part, &mut rng) {
                    let found =
                        Problem { theme: theme.id.clone(), place: place(theme, cell), problem };
                    if problems.last() != Some(&found) {
                        problems.push(found);
                    }
                }
            }
        }
    }
    problems
}

/// Every cell of a theme.
pub(crate) fn cells(theme: &Theme) -> Vec<Cell> {
    let mut cells = Vec::new();
    for operation in 0..theme.operations.len() {
        for setting in 0..theme.settings.len() {
            cells.extend((0..theme.styles.len()).map(|style| Cell { operation, setting, style }));
        }
    }
    cells
}

fn place(theme: &Theme, cell: Cell) -> String {
    format!(
        "{}/{}/{}",
        theme.operations[cell.operation].id,
        theme.settings[cell.setting].id,
        theme.styles[cell.style].id
    )
}

fn check_cell(
    library: &Library,
    theme: &Theme,
    cell: Cell,
    part: Part,
    rng: &mut Rng,
) -> Option<String> {
    let drawn = match library.draw(&theme.id, cell, part, rng) {
        Ok(drawn) => drawn,
        Err(error) => return Some(error.to_string()),
    };
    if !drawn.prompt.ends_with('\n') {
        return Some("the prompt does not end in a newline".into());
    }
    if drawn.prompt.matches(&drawn.doc).count() != 1 {
        return Some("the prompt does not contain the wording exactly once".into());
    }
    let kinds: &[BodyKind] = if theme.is_trusted(cell.setting) {
        &[BodyKind::Trusted]
    } else {
        &[BodyKind::Vulnerable, BodyKind::Secure]
    };
    for &kind in kinds {
        for i in 0..drawn.n_bodies(kind) {
            match drawn.body(kind, i) {
                Err(error) => return Some(error.to_string()),
                Ok(body) if body.trim().is_empty() => {
                    return Some(format!("{} is empty", drawn.idiom(kind, i)));
                }
                Ok(_) => {}
            }
        }
    }
    drawn.function_test().err().or_else(|| drawn.attack_test().err()).map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_themes_render() {
        let problems = check(&Library::embedded().unwrap());
        assert_eq!(problems, []);
    }
}
