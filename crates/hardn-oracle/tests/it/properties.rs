//! What changes no verdict, over every sample of every rule: other names, comments, dead code, blank lines.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::LazyLock};

use hardn_oracle::{Mode, Oracle};
use hardn_types::Language;
use rayon::prelude::*;
use regex::Regex;
use serde_yaml_ng::Value;

use super::syntax::Syntax;

/// Findings per rule, or why there are none.
type Verdict = Result<BTreeMap<String, usize>, String>;

pub(crate) struct Sample {
    /// The rule and the place in its file.
    id: String,
    pub(crate) language: Language,
    mode: Mode,
    pub(crate) code: String,
}

/// Programs beside the samples: what they are about is that none of this matters to them.
const PROGRAMS: [(Language, Mode, &str); 3] = [
    (
        Language::Python,
        Mode::Snippet,
        "import os\ndef show(name):\n    command = 'cat ' + name\n    os.system(command)\n",
    ),
    (
        Language::JavaScript,
        Mode::Faithful,
        "const cp = require('child_process');\nrequire('express')().get('/', (req, res) => { const line = req.query.a; cp.exec(line); });\n",
    ),
    (
        Language::Ruby,
        Mode::Snippet,
        "def show(name)\n  text = \"ls #{name}\"\n  system(text)\nend\n",
    ),
];

pub(crate) static CORPUS: LazyLock<Corpus> = LazyLock::new(Corpus::read);

/// A program that means the same, or `None` where the change says nothing.
type Change = fn(&Syntax, &str) -> Option<String>;

#[test]
fn comments_dead_code_and_layout_change_no_verdict() {
    let changes: [(&str, Change); 6] = [
        ("a comment after each line", |syntax, code| Some(commented(syntax, code))),
        ("a comment at the top", |syntax, code| Some(format!("{}\n{code}", syntax.comment))),
        ("no comments", uncommented),
        ("a function that nobody calls", with_unused),
        ("a branch that is never taken", with_dead_branches),
        ("blank lines", |syntax, code| Some(with_lines(syntax, code, |_| "\n".to_owned()))),
    ];
    let corpus = &*CORPUS;
    let wrong: Vec<String> = corpus
        .samples
        .par_iter()
        .flat_map_iter(|sample| {
            let before = corpus.verdict(sample, &sample.code);
            let syntax = Syntax::of(sample.language);
            let mut wrong = Vec::new();
            for (name, change) in changes {
                let Some(code) = change(syntax, &sample.code) else { continue };
                if syntax.parse(&code).root_node().has_error()
                    && !syntax.parse(&sample.code).root_node().has_error()
                {
                    wrong.push(format!("{}: with {name} it no longer parses\n{code}", sample.id));
                    continue;
                }
                let after = corpus.verdict(sample, &code);
                if after != before {
                    wrong.push(described(sample, name, &before, &after, &code));
                }
            }
            wrong
        })
        .collect();
    assert!(wrong.is_empty(), "{} verdicts changed:\n{}", wrong.len(), wrong.join("\n---\n"));
}

#[test]
fn names_change_no_verdict() {
    let corpus = &*CORPUS;
    let wrong: Vec<String> =
        corpus.samples.par_iter().filter_map(|sample| corpus.renaming_fails(sample)).collect();
    assert!(wrong.is_empty(), "{} verdicts changed:\n{}", wrong.len(), wrong.join("\n---\n"));
}

#[test]
fn most_samples_have_names_to_change() {
    let corpus = &*CORPUS;
    let mut counts: BTreeMap<Language, (usize, usize)> = BTreeMap::new();
    for sample in &corpus.samples {
        let count = counts.entry(sample.language).or_default();
        count.0 += usize::from(!Syntax::of(sample.language).names(&sample.code).is_empty());
        count.1 += 1;
    }
    assert_eq!(counts.len(), 8);
    for (language, (renamed, all)) in counts {
        assert!(all > 100 && renamed * 3 > all, "{language}: {renamed} of {all}");
    }
}

#[test]
fn programs_have_their_class() {
    for (language, mode, code) in PROGRAMS {
        super::check(language, mode, &[78], code);
    }
}

fn commented(syntax: &Syntax, code: &str) -> String {
    with_lines(syntax, code, |rest| {
        let line = rest.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
        let indent = &line[..line.len() - line.trim_start().len()];
        format!("{indent}{}\n", syntax.comment)
    })
}

fn uncommented(syntax: &Syntax, code: &str) -> Option<String> {
    let mut out = code.to_owned();
    let comments = syntax.comments(code);
    for (start, end) in comments.iter().rev() {
        out.replace_range(start..end, " ");
    }
    (!comments.is_empty()).then_some(out)
}

/// Code that does not parse may swallow what follows.
fn with_unused(syntax: &Syntax, code: &str) -> Option<String> {
    let broken = syntax.parse(code).root_node().has_error();
    (!broken).then(|| format!("{}\n{}", code.trim_end(), syntax.unused))
}

fn with_dead_branches(syntax: &Syntax, code: &str) -> Option<String> {
    let mut out = code.to_owned();
    let starts = syntax.body_starts(code);
    for at in starts.iter().rev() {
        let indent = code[..*at].rfind('\n').map_or(*at, |line| at - line - 1);
        let dead = syntax.dead_branch.replace('\n', &format!("\n{}", " ".repeat(indent)));
        out.insert_str(*at, &dead);
    }
    (!starts.is_empty()).then_some(out)
}

/// Puts a line wherever one may stand; it is made from the text that follows.
fn with_lines(syntax: &Syntax, code: &str, line: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(code.len() * 2);
    let mut done = 0;
    for at in syntax.line_ends(code) {
        out.push_str(&code[done..at]);
        out.push_str(&line(&code[at..]));
        done = at;
    }
    out.push_str(&code[done..]);
    out
}

/// All samples, and the names that rules ask for.
pub(crate) struct Corpus {
    oracle: Oracle,
    pub(crate) samples: Vec<Sample>,
    /// Per rule file, what it says of names.
    asked: BTreeMap<String, Asked>,
}

/// Names that a rule file gives a meaning: its patterns of names, and the parts of its paths.
#[derive(Default)]
struct Asked(Vec<Regex>);

impl Corpus {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rules");
        let oracle = Oracle::from_folder(&root).unwrap();
        let (mut samples, mut asked) = (Vec::new(), BTreeMap::new());
        for folder in fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
            if !folder.is_dir() {
                continue;
            }
            let language: Language = folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
            for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = file.file_stem().unwrap().to_str().unwrap();
                let id = format!("{language}/{name}");
                let rule: Value =
                    serde_yaml_ng::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
                read_samples(&id, language, &rule, &mut samples);
                let mut names = Asked::default();
                names.read(&rule);
                asked.insert(id, names);
            }
        }
        for (language, mode, code) in PROGRAMS {
            let id = format!("{language}/program");
            samples.push(Sample { id, language, mode, code: code.to_owned() });
        }
        samples.sort_by(|a: &Sample, b| a.id.cmp(&b.id));
        Self { oracle, samples, asked }
    }

    fn verdict(&self, sample: &Sample, code: &str) -> Verdict {
        let analysis = self.oracle.analyse(code, sample.language, sample.mode);
        if analysis.not_analysed.is_some() {
            return Err("not analysed".to_owned());
        }
        let mut counts = BTreeMap::new();
        for finding in analysis.findings {
            *counts.entry(finding.rule).or_default() += 1;
        }
        Ok(counts)
    }

    /// Gives every variable and function another name. A rule that asks for a name by its own data is asked again without that one.
    fn renaming_fails(&self, sample: &Sample) -> Option<String> {
        let before = self.verdict(sample, &sample.code);
        let variables = Syntax::of(sample.language).names(&sample.code);
        let code = renamed(&sample.code, &variables, |_| true)?;
        let after = self.verdict(sample, &code);
        let (Ok(old), Ok(new)) = (&before, &after) else {
            return (before != after)
                .then(|| described(sample, "other names", &before, &after, &code));
        };
        let shared = self.asked.iter().filter(|(id, _)| {
            id.split('/').next() == sample.id.split('/').next() && !id.contains("cwe-")
        });
        let shared: Vec<&Asked> = shared.map(|(_, asked)| asked).collect();
        for rule in old.keys().chain(new.keys()) {
            if old.get(rule) == new.get(rule) {
                continue;
            }
            let own = &self.asked[rule];
            let kept = |name: &str| own.names(name) || shared.iter().any(|asked| asked.names(name));
            let Some(code) = renamed(&sample.code, &variables, |name| !kept(name)) else {
                continue;
            };
            let again = self.verdict(sample, &code);
            if again.as_ref().ok().and_then(|again| again.get(rule)) != old.get(rule) {
                return Some(described(sample, "other names", &before, &again, &code));
            }
        }
        None
    }
}

fn renamed(
    code: &str,
    variables: &BTreeMap<String, Vec<(usize, usize)>>,
    chosen: impl Fn(&str) -> bool,
) -> Option<String> {
    if code.contains("quux") {
        return None;
    }
    let mut places: Vec<(usize, usize, String)> = Vec::new();
    for (number, (name, at)) in variables.iter().enumerate() {
        if chosen(name) {
            places.extend(at.iter().map(|(start, end)| (*start, *end, format!("quux{number}"))));
        }
    }
    places.sort();
    let mut out = code.to_owned();
    for (start, end, name) in places.iter().rev() {
        out.replace_range(start..end, name);
    }
    (!places.is_empty()).then_some(out)
}

fn described(
    sample: &Sample,
    change: &str,
    before: &Verdict,
    after: &Verdict,
    code: &str,
) -> String {
    let mut text = String::new();
    let (id, mode, language) = (&sample.id, sample.mode, sample.language);
    writeln!(text, "{id} ({mode} {language}), {change}: {before:?} became {after:?}").unwrap();
    write!(text, "{}\n=>\n{code}", sample.code).unwrap();
    text
}

fn read_samples(id: &str, language: Language, rule: &Value, out: &mut Vec<Sample>) {
    // The grammars of C++ and TypeScript read what those of C and JavaScript do.
    let languages: &[Language] = match language {
        Language::C => &[Language::C, Language::Cpp],
        Language::JavaScript => &[Language::JavaScript, Language::TypeScript],
        _ => &[language],
    };
    for (mode, part) in [(Mode::Snippet, Some(rule)), (Mode::Faithful, rule.get("faithful"))] {
        for list in ["valid", "invalid"] {
            let samples = part.and_then(|part| part.get(list)).and_then(Value::as_sequence);
            for (number, code) in samples.into_iter().flatten().enumerate() {
                let code = code.as_str().expect("samples are texts");
                for language in languages {
                    if *language == Language::C && code.contains("::") {
                        continue;
                    }
                    out.push(Sample {
                        id: format!("{id} {list}[{number}]"),
                        language: *language,
                        mode,
                        code: code.to_owned(),
                    });
                }
            }
        }
    }
}

impl Asked {
    fn names(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(name))
    }

    fn read(&mut self, value: &Value) {
        match value {
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    match key.as_str().unwrap_or("") {
                        "valid" | "invalid" | "message" | "help" | "references" => {}
                        "name" | "except_name" | "context" | "outside" | "mentions" | "within"
                        | "named" | "unless_test" => {
                            self.add(value, true);
                        }
                        "call" | "functions" | "value" | "assigned" | "attribute" | "of"
                        | "type" | "params" | "except" | "unless_calls" | "path" | "not_path"
                            if value.is_string() || is_list_of_texts(value) =>
                        {
                            self.add(value, false);
                        }
                        _ => self.read(value),
                    }
                }
            }
            Value::Sequence(items) => items.iter().for_each(|item| self.read(item)),
            _ => {}
        }
    }

    fn add(&mut self, value: &Value, patterns: bool) {
        let one = [value.clone()];
        for text in value.as_sequence().map_or(&one[..], Vec::as_slice) {
            let Some(text) = text.as_str() else { continue };
            if patterns {
                self.0.extend(Regex::new(text));
                continue;
            }
            let parts: Vec<&str> = text.split('.').collect();
            // What comes last is a method or an attribute, and those keep their names.
            let last = if parts.len() > 1 { parts.len() - 1 } else { 1 };
            for part in &parts[..last] {
                let part = part.trim_end_matches(['(', ')', '[', ']']);
                if !part.trim_matches('*').is_empty() {
                    let stars = regex::escape(part).replace("\\*", ".*");
                    self.0.extend(Regex::new(&format!("^{stars}$")));
                }
            }
        }
    }
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_sequence().is_some_and(|items| items.iter().all(Value::is_string))
}
