//! clang-tidy with the static analyzer: C and C++; classes come from `engines/clang-tidy.toml`.

use hardn_types::{Finding, Language, TraceStep};
use regex::Regex;

use super::{
    batch::Batch,
    external::{Adapter, Looked, c_or_cpp},
    place::{Columns, Lines, Place},
    process::{Runner, ToolError},
    table,
};

#[derive(Debug)]
pub(crate) struct ClangTidy;

const ID: &str = "clang-tidy";

/// Errors of newer compilers that were warnings.
const OLD_C: [&str; 4] = [
    "implicit-function-declaration",
    "implicit-int",
    "int-conversion",
    "incompatible-pointer-types",
];

impl Adapter for ClangTidy {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        c_or_cpp(language)
    }

    fn batch_size(&self) -> usize {
        // It is slow: a batch should end within its time limit.
        200
    }

    fn run(&self, runner: &Runner, group: &str, batch: &Batch) -> Result<Looked, ToolError> {
        let table = table::clang_tidy();
        let checks: Vec<&str> = std::iter::once("-*").chain(table.names()).collect();
        let output = runner.run(batch.folder(), |command| {
            command.arg("--quiet").arg(format!("--checks={}", checks.join(",")));
            // A project's own configuration must not change the checks.
            command.args(["--config={}", "--header-filter=^$"]).args(&batch.files);
            command.args(["--", "-x", group, "-w"]);
            if group == "c" {
                // Old C, which GCC 13 and earlier take with a warning.
                command.args(OLD_C.map(|what| format!("-Wno-error={what}")));
            }
        })?;
        // 1 says that a file does not compile, which is told below.
        let output = output.expect(&[0, 1])?;
        let line = Regex::new(
            r"^(.+?):(\d+):(\d+): (warning|error|fatal error|note): (.*?)(?: \[([\w.,+*-]+)\])?$",
        )
        .expect("the pattern is constant");
        let mut looked = Looked::silent(batch.pieces.len());
        looked.covers = table.covers();
        let mut failed = false;
        let mut last: Vec<usize> = Vec::new();
        for text in output.stdout.lines() {
            let Some(fields) = line.captures(text) else {
                if text.starts_with("error: ") {
                    return Err(output.wrong(text));
                }
                continue;
            };
            let (number_of, message) = (|at: usize| fields[at].parse().ok(), &fields[5]);
            let rules = fields.get(6).map_or("", |rules| rules.as_str());
            let numbers = batch.pieces_of(&fields[1]);
            let place =
                Place { line: number_of(2).unwrap_or(1), column: number_of(3), ..Place::default() };
            if &fields[4] == "note" {
                for &number in numbers.iter().filter(|number| last.contains(number)) {
                    let span = Lines::new(batch.pieces[number].code).span(place, Columns::Bytes);
                    if let Ok(findings) = &mut looked.pieces[number]
                        && let Some(finding) = findings.last_mut()
                    {
                        finding.trace.push(TraceStep { span, message: message.to_owned() });
                    }
                }
                continue;
            }
            last.clear();
            if rules.starts_with("clang-diagnostic-") || fields[4].contains("error") {
                failed = true;
                if numbers.is_empty() {
                    // In a header: which file includes it is not said, so no silence can be trusted.
                    let why = format!("{}:{}: {message} [{rules}]", &fields[1], &fields[2]);
                    (0..batch.pieces.len()).for_each(|number| looked.fail(number, &why));
                }
                for &number in numbers {
                    looked.fail(number, format!("line {}: {message} [{rules}]", &fields[2]));
                }
                continue;
            }
            // Several names of one check stand together; the first with a class speaks.
            let Some((rule, classes)) = rules
                .split(',')
                .map(|rule| (rule, table.classes(rule)))
                .find(|(_, classes)| !classes.is_empty())
            else {
                continue;
            };
            for &number in numbers {
                let span = Lines::new(batch.pieces[number].code).span(place, Columns::Bytes);
                last.push(number);
                looked.add(
                    number,
                    Finding {
                        engine: ID.to_owned(),
                        rule: rule.to_owned(),
                        cwe: classes.to_vec(),
                        span,
                        message: message.to_owned(),
                        trace: Vec::new(),
                    },
                );
            }
        }
        if output.code == Some(1) && !failed {
            return Err(output.wrong("ended with exit status 1 and does not say why"));
        }
        Ok(looked)
    }
}
