//! Changed characters and lines of a fix pair, published or computed, as spans of code points.

use std::ops::Range;

use dissimilar::Chunk;
use hardn_types::{FixPair, Language, Side};

use crate::sequence_matcher::{OpTag, SequenceMatcher};

/// The changed characters of one side: what the fix added, or what it deleted.
///
/// Computed ones come from diff-match-patch with semantic clean-up, from the other side to this one for each side
/// by itself, as SVEN's were; the two sides need not mirror each other.
pub fn char_spans(pair: &FixPair, side: Side) -> Vec<Range<usize>> {
    match &pair.char_changes {
        Some(changes) => {
            let changes = match side {
                Side::Secure => &changes.added,
                Side::Vulnerable => &changes.deleted,
            };
            changes.iter().map(|change| change.char_start..change.char_end).collect()
        }
        None => computed_char_spans(pair.text(side), pair.text(other(side))),
    }
}

/// The changed lines of one side, each from its first character to behind its line end.
///
/// Computed ones leave out comment lines, as SVEN's do: they change nothing that runs.
pub fn line_spans(pair: &FixPair, side: Side) -> Vec<Range<usize>> {
    match &pair.line_changes {
        Some(changes) => {
            let changes = match side {
                Side::Secure => &changes.added,
                Side::Vulnerable => &changes.deleted,
            };
            changes.iter().map(|change| change.char_start..change.char_end).collect()
        }
        None => computed_line_spans(&pair.before, &pair.after, pair.language, side),
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Secure => Side::Vulnerable,
        Side::Vulnerable => Side::Secure,
    }
}

/// Stretches of `text` that are not in `other`.
fn computed_char_spans(text: &str, other: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut position = 0;
    for chunk in dissimilar::diff(text, other) {
        match chunk {
            Chunk::Equal(same) => position += same.chars().count(),
            Chunk::Delete(own) => {
                let start = position;
                position += own.chars().count();
                spans.push(start..position);
            }
            Chunk::Insert(_) => {}
        }
    }
    spans
}

fn computed_line_spans(
    before: &str,
    after: &str,
    language: Language,
    side: Side,
) -> Vec<Range<usize>> {
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    // A last line with and without a line end is the same line.
    let bare = |lines: &[&str]| {
        lines.iter().map(|line| line.trim_end_matches('\n').to_owned()).collect::<Vec<_>>()
    };
    let own = match side {
        Side::Secure => &new,
        Side::Vulnerable => &old,
    };
    let mut starts = vec![0];
    for line in own {
        starts.push(starts[starts.len() - 1] + line.chars().count());
    }
    let mut spans = Vec::new();
    for op in SequenceMatcher::new(&bare(&old), &bare(&new), true).opcodes() {
        if op.tag == OpTag::Equal {
            continue;
        }
        let lines = match side {
            Side::Secure => op.b,
            Side::Vulnerable => op.a,
        };
        for line in lines {
            if !own[line].trim_start().starts_with(language.comment()) {
                spans.push(starts[line]..starts[line + 1]);
            }
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(before: &str, after: &str) -> FixPair {
        serde_json::from_value(serde_json::json!({
            "id": "0", "before": before, "after": after, "language": "python"
        }))
        .unwrap()
    }

    #[track_caller]
    fn check(before: &str, after: &str, side: Side, chars: &[&str], lines: &[&str]) {
        let pair = pair(before, after);
        let slice = |spans: Vec<Range<usize>>| {
            let text: Vec<char> = pair.text(side).chars().collect();
            spans.into_iter().map(|span| text[span].iter().collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(slice(char_spans(&pair, side)), chars);
        assert_eq!(slice(line_spans(&pair, side)), lines);
    }

    #[test]
    fn computed_changes() {
        let (before, after) = ("é = 1\nrun(value)\n# old\n", "é = 1\nrun([value])\n# new\nok()");
        check(before, after, Side::Secure, &["[", "]", "new\nok()"], &["run([value])\n", "ok()"]);
        check(before, after, Side::Vulnerable, &["old\n"], &["run(value)\n"]);
        check("a\nb", "a\nb\n", Side::Vulnerable, &[], &[]);
    }
}
