//! What every fuzz target does: any bytes are analysed in both modes, and findings lie inside the text.

use hardn_oracle::{Mode, Oracle};
use hardn_types::Language;

/// Analyses bytes as a program of a language.
///
/// # Panics
/// Where the analyser does, or where a finding lies outside the text.
pub fn analyse(bytes: &[u8], language: Language) {
    let code = String::from_utf8_lossy(bytes);
    let n_lines = code.split('\n').count();
    for mode in [Mode::Faithful, Mode::Snippet] {
        for finding in Oracle::shared().analyse(&code, language, mode).findings {
            let (first, last) = (finding.span.line as usize, finding.span.end_line as usize);
            assert!(
                1 <= first && first <= last && last <= n_lines,
                "{} on lines {first}-{last} of {n_lines}",
                finding.rule
            );
        }
    }
}
