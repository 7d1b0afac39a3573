//! The oracle as it reads along while a model writes.

use std::collections::BTreeMap;

use hardn_decode::Inspector;
use hardn_oracle::{Mode, Oracle};
use hardn_types::{Judge, Language, Span};

/// The rules in snippet mode: what is being written is never whole.
pub(crate) struct OracleInspector {
    oracle: Oracle,
    /// By task; a task that is not here has the language below.
    languages: BTreeMap<String, Language>,
    otherwise: Language,
}

impl OracleInspector {
    /// For tasks in one language.
    pub(crate) fn new(language: Language) -> Self {
        let oracle = Oracle::embedded().with_mode(Mode::Snippet);
        Self { oracle, languages: BTreeMap::new(), otherwise: language }
    }

    /// For tasks whose languages are known.
    pub(crate) fn of_tasks(languages: BTreeMap<String, Language>) -> Self {
        Self { languages, ..Self::new(Language::Python) }
    }

    /// What it is, for the keys of samples.
    pub(crate) fn name(&self) -> String {
        format!("{}, snippet", self.oracle.name())
    }
}

impl Inspector for OracleInspector {
    fn inspect(&self, task: &str, prompt: &str, completion: &str, from: usize) -> Option<usize> {
        let language = self.languages.get(task).copied().unwrap_or(self.otherwise);
        let code = format!("{prompt}{completion}");
        let findings = self.oracle.judge(&code, language).findings;
        let places = findings.iter().filter_map(|finding| {
            let (start, end) = bytes(&code, finding.span);
            // A call that the prompt opened is the completion's where it ends in it.
            (end > prompt.len()).then(|| start.saturating_sub(prompt.len()))
        });
        places.filter(|&place| place >= from).min()
    }
}

/// A span's byte offsets.
fn bytes(code: &str, span: Span) -> (usize, usize) {
    let offset = |line: u32, column: u32| {
        let mut start = 0;
        for text in code.split_inclusive('\n').take(line.saturating_sub(1) as usize) {
            start += text.len();
        }
        let rest = &code[start..];
        let chars = rest.char_indices().nth(column.saturating_sub(1) as usize);
        start + chars.map_or(rest.len(), |(at, _)| at)
    };
    (offset(span.line, span.column), offset(span.end_line, span.end_column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_flagged() {
        let inspector = OracleInspector::new(Language::Python);
        let vulnerable = "    os.system('ls ' + name)\n";
        let prompt =
            "import os\nfrom flask import request\n\ndef show():\n    name = request.args['é']\n";
        let written = format!("    print(name)\n{vulnerable}");
        let found = inspector.inspect("t", prompt, &written, 0);
        let line = written.find("    os.system").unwrap();
        assert!(found.is_some_and(|at| at >= line && at < written.len()), "{found:?}");
        assert_eq!(inspector.inspect("t", prompt, &written, written.len()), None);
        assert_eq!(
            inspector.inspect("t", &format!("{prompt}{vulnerable}"), "    return name\n", 0),
            None
        );
    }
}
