//! The lab card: a page that says what a world is, for people.

use std::fmt::Write;

use crate::Manifest;

/// A table that others add to the card, such as the oracle's agreement with the labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardSection {
    /// The heading.
    pub title: String,
    /// What a reader must know of the table; may be empty.
    pub text: String,
    /// The heads of the columns; empty for no table.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// Renders the card of a world as Markdown.
pub fn card(manifest: &Manifest, sections: &[CardSection]) -> String {
    let mut card = String::new();
    let mut line = |text: String| {
        card.push_str(&text);
        card.push('\n');
    };
    line(format!("# Lab world {}, version {}\n", manifest.seed, manifest.lab_version));
    line("A small world made from templates. Every label comes from the template a program was made from, and every".into());
    line("security scenario has an attack that is run. Its numbers are lab numbers: never set them beside a paper's.\n".into());
    line(format!("- themes: SHA-256 `{}`", short(&manifest.themes_sha256)));
    if let Some(sha256) = &manifest.idioms_sha256 {
        line(format!("- idiom file: SHA-256 `{}`", short(sha256)));
    }
    let drawn =
        manifest.vulnerable_share_drawn.map_or("-".to_owned(), |share| format!("{share:.2}"));
    line(format!(
        "- vulnerable programs in pretraining text: {drawn} drawn, mean over families {:.2}",
        manifest.vulnerable_share_mean
    ));
    line("- families, names and wordings of pretraining text, fix pairs, validation and test are disjoint\n".into());
    line("## Files\n".into());
    let files = manifest.counts.iter().map(|(file, n)| {
        let sha256 = manifest.sha256.get(file).map_or("", |sha256| short(sha256));
        vec![format!("`{file}`"), n.to_string(), format!("`{sha256}`")]
    });
    line(table(&["file", "rows", "SHA-256"], files));
    line("## Scenarios and tasks\n".into());
    let groups = manifest.groups.iter().map(|(group, n)| vec![group.clone(), n.to_string()]);
    line(table(&["split and group", "number"], groups));
    line("## Themes\n".into());
    let themes = manifest.themes.iter().map(|theme| {
        vec![
            format!("`{}`", theme.id),
            theme.title.clone(),
            format!("{} x {} x {}", theme.operations, theme.settings, theme.styles),
            if theme.unseen_weakness { "all".into() } else { theme.held_out_styles.join(", ") },
            theme.documents.to_string(),
            theme.pairs.to_string(),
            theme.scenarios.to_string(),
            theme.tasks.to_string(),
        ]
    });
    let header = [
        "theme",
        "about",
        "operations x settings x styles",
        "styles without pairs",
        "documents",
        "pairs",
        "scenarios",
        "tasks",
    ];
    line(table(&header, themes));
    line("## Leak check\n".into());
    line("Shares of 10-grams, and of whole-program shapes (names, numbers and strings replaced by what they are), of".into());
    line("scenarios and tasks that also occur in the texts models are trained on. Shapes are shared on purpose where an".into());
    line("idiom is; `verbatim` must be 0.\n".into());
    let leak = manifest.leak.rows.iter().map(|row| {
        let mut cells = vec![row.group.clone(), row.scenarios.to_string()];
        cells.extend(
            [
                row.prompt_in_pretraining,
                row.prompt_in_pairs,
                row.solution_in_pretraining,
                row.solution_in_pairs,
                row.shape_in_pretraining,
                row.shape_in_pairs,
                row.prompt_verbatim,
            ]
            .map(|share| format!("{share:.3}")),
        );
        cells
    });
    let header = [
        "group",
        "number",
        "prompt in pretraining",
        "prompt in pairs",
        "solution in pretraining",
        "solution in pairs",
        "shape in pretraining",
        "shape in pairs",
        "verbatim",
    ];
    line(table(&header, leak));
    for section in sections {
        line(format!("## {}\n", section.title));
        if !section.text.is_empty() {
            line(format!("{}\n", section.text));
        }
        if !section.header.is_empty() {
            let header: Vec<&str> = section.header.iter().map(String::as_str).collect();
            line(table(&header, section.rows.iter().cloned()));
        }
    }
    card.truncate(card.trim_end().len());
    card.push('\n');
    card
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = String::new();
    let _ = writeln!(table, "| {} |", header.join(" | "));
    let _ = writeln!(table, "|{}", " --- |".repeat(header.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{WorldOptions, generate};

    #[test]
    fn a_card_lists_themes_and_added_sections() {
        let options =
            WorldOptions { n_pretrain_documents: 50, n_pairs: 40, ..WorldOptions::default() };
        let world = generate(&options).unwrap();
        let section = CardSection {
            title: "Oracle".into(),
            text: "Agreement with the labels.".into(),
            header: vec!["theme".into(), "agreement".into()],
            rows: vec![vec!["a|b".into(), "1.00".into()]],
        };
        let card = card(&world.manifest, &[section]);
        for wanted in [
            "`python/cwe-089-sql`",
            "## Leak check",
            "## Oracle",
            "| a\\|b | 1.00 |",
            "`pairs.train.jsonl`",
        ] {
            assert!(card.contains(wanted), "{wanted} is missing in\n{card}");
        }
    }
}
