//! `hardn rules new`: a rule file to be filled in.

use std::path::{Path, PathBuf};

use hardn_types::{Cwe, Language, write_atomic};

use super::load::RuleSet;
use crate::{OracleError, Result};

/// A sample that holds this is still the template's; it never passes.
pub(super) const UNFINISHED: &str = "UNFINISHED";

/// Writes `<root>/<language>/cwe-NNN-<slug>.yml` and gives its path and id.
///
/// # Errors
/// [`OracleError::Rule`] for a slug that is none or a file that exists, [`OracleError::File`] where it cannot be written.
pub fn new_rule(
    root: &Path,
    language: Language,
    cwe: Cwe,
    slug: &str,
    flow: bool,
) -> Result<(PathBuf, String)> {
    let id = format!("{language}/cwe-{:03}-{slug}", cwe.0);
    let path = root.join(format!("{id}.yml"));
    let fail = |message: &str| OracleError::Rule {
        file: path.display().to_string(),
        message: message.to_owned(),
    };
    let is_slug = !slug.is_empty()
        && slug.split('-').all(|word| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
    if !is_slug {
        return Err(fail("a slug is lower-case words joined by dashes, such as report-query"));
    }
    if path.exists() {
        return Err(fail("it exists already; give the rule another slug"));
    }
    write_atomic(&path, text(language, cwe, flow).as_bytes())?;
    // What was written must be a rule.
    RuleSet::check(&id, &text(language, cwe, flow))?;
    Ok((path, id))
}

fn text(language: Language, cwe: Cwe, flow: bool) -> String {
    let mark = language.comment();
    let number = cwe.0;
    let models = if flow { FLOW } else { PATTERN };
    let kind = if flow { "flow" } else { "pattern" };
    format!(
        "# Every key is described in rules/README.md. `hardn rules test` fails until the samples are written.\n\
kind: {kind}\n\
# Most specific class first.\n\
cwe: [{cwe}]\n\
# What is wrong, in one sentence without a full stop.\n\
message: {UNFINISHED} what is wrong\n\
help: >\n  \
  {UNFINISHED} how to fix it.\n\
references:\n  \
  - https://cwe.mitre.org/data/definitions/{number}.html\n\
{models}\
# Snippet mode: bare functions, whose parameters are an attacker's.\n\
valid:\n  \
  - |\n    \
    {mark} {UNFINISHED}: code that is right and looks much like what is wrong\n\
invalid:\n  \
  - |\n    \
    {mark} {UNFINISHED}: code that is wrong\n\
# Faithful mode: whole programs, where only data from outside counts.\n\
# faithful:\n\
#   valid: []\n\
#   invalid: []\n"
    )
}

const FLOW: &str = "\
# Where data enters, beside what the language's common.yml has.\n\
# sources:\n\
#   - call: [acme.read_request]\n\
# Where it does harm. Arguments: 0, name, 0|name, receiver, any, rest:2.\n\
sinks:\n  \
  - call: [acme.run, \"*.run_query\"]\n    \
    argument: [0]\n\
# What takes the harm: calls with a clean result, and checks.\n\
# sanitizers:\n\
#   - call: [acme.quote]\n\
# guards:\n\
#   - call: [acme.is_known]\n\
#     argument: 0\n\
#     holds: true\n\
# Calls that pass data on.\n\
# propagators:\n\
#   - call: [acme.wrap]\n\
#     from: 0\n";

const PATTERN: &str = "\
# Calls that are wrong wherever they stand; `literals`, `attributes` and `contains` are the other patterns.\n\
calls:\n  \
  - call: [acme.unsafe]\n    \
    # when: [{argument: verify, is: [false]}]\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Oracle;

    #[test]
    fn a_new_rule_loads_and_does_not_pass() {
        let place = tempfile::tempdir().unwrap();
        for (language, flow) in
            [(Language::Python, true), (Language::Go, false), (Language::Cpp, true)]
        {
            let root = place.path();
            let (path, id) = new_rule(root, language, Cwe(89), "report-query", flow).unwrap();
            assert!(path.ends_with(format!("{language}/cwe-089-report-query.yml")));
            let oracle = Oracle::from_folder(root).unwrap();
            let report = oracle.rules().test(&oracle, Some(&id)).unwrap();
            assert_eq!((report.samples, report.failures.len()), (2, 2));
            assert!(report.failures[0].message.contains("unfinished"));
            let again = new_rule(root, language, Cwe(89), "report-query", flow).unwrap_err();
            assert!(again.to_string().contains("exists already"));
            assert!(new_rule(root, language, Cwe(89), "../x", flow).is_err());
        }
    }
}
