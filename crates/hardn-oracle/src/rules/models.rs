//! Model rows: tables that say of a library's functions what they read, write and pass on, as CodeQL's data extensions
//! have them. A row becomes a source, a sink, a sanitizer, a guard or a propagator of our own rules; a row that cannot
//! is counted under its reason.
//!
//! Java, Go, C and C++ name a function by package, type and name; Python, JavaScript and Ruby by a type and an access
//! path. Sinks, sanitizers and guards go to the rule of their language that has the class of the row's kind.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hardn_types::{Cwe, Language};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    load::Rule,
    schema::{Kind, RuleFile},
};
use crate::{OracleError, Result};

/// A result, or why there is none.
type Said<T> = std::result::Result<T, String>;

/// A row as written.
type Row = Vec<Value>;

/// Why rows that say "nothing here" change nothing.
const NEUTRAL: &str = "a neutral row: faithful mode passes nothing on through calls without a rule";

/// What became of model rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// Files read.
    pub files: usize,
    /// Rows read.
    pub rows: usize,
    /// What was understood, one line a row.
    pub understood: Vec<String>,
    /// Rows that say more than we can, by what we leave aside; they count as understood, too.
    pub approximated: BTreeMap<String, usize>,
    /// Rows that are not used, by reason.
    pub left_out: BTreeMap<String, Vec<String>>,
}

/// The key `models` of a rule file: rows in the form of its language; its sinks are the rule's own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRows {
    #[serde(default)]
    sources: Vec<Row>,
    #[serde(default)]
    sinks: Vec<Row>,
    #[serde(default)]
    summaries: Vec<Row>,
}

/// A file of rows.
#[derive(Deserialize)]
struct ModelFile {
    #[serde(default)]
    extensions: Vec<Extension>,
}

#[derive(Deserialize)]
struct Extension {
    #[serde(rename = "addsTo")]
    adds_to: AddsTo,
    #[serde(default)]
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct AddsTo {
    pack: String,
    extensible: String,
}

/// One row in our words: where it goes, and the model itself as a rule file would have it.
struct Model {
    part: Part,
    /// The class of what it does harm to; none for sources and propagators.
    kind: Option<String>,
    value: Value,
    approximated: Vec<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Source,
    Sink,
    Sanitizer,
    Guard,
    Propagator,
    Result,
}

impl Part {
    fn key(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Sink => "sinks",
            Self::Sanitizer => "sanitizers",
            Self::Guard => "guards",
            Self::Propagator => "propagators",
            Self::Result => "results",
        }
    }
}

/// Models to add, by the id of the rule file they go to.
pub(super) type Additions = BTreeMap<String, Vec<(&'static str, Value)>>;

/// The file id of models that hold for all rules of a folder.
pub(super) fn shared_id(folder: Language) -> String {
    format!("{folder}/models")
}

/// Reads files and folders of model rows; `rules` gives the rules of a folder.
pub(super) fn read<'a>(
    paths: &[PathBuf],
    rules: impl Fn(Language) -> &'a [std::sync::Arc<Rule>],
) -> Result<(Additions, ModelReport)> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    let (mut additions, mut report) = (Additions::new(), ModelReport::default());
    for path in files {
        let fail =
            |message: String| OracleError::Rule { file: path.display().to_string(), message };
        let text = fs::read_to_string(&path)
            .map_err(|source| OracleError::Read { path: path.clone(), source })?;
        let file: ModelFile =
            serde_yaml_ng::from_str(&text).map_err(|error| fail(error.to_string()))?;
        report.files += 1;
        for extension in file.extensions {
            let AddsTo { pack, extensible } = extension.adds_to;
            let folder = folder_of(&pack).ok_or_else(|| {
                fail(format!("the pack `{pack}` names no language, as codeql/python-all does"))
            })?;
            for row in extension.data {
                report.rows += 1;
                let shown = format!("{folder} {extensible} {}", show(&row));
                let models = convert(&extensible, &row, folder).and_then(|models| {
                    let placed = models.into_iter().map(|model| {
                        let id = match &model.kind {
                            None => shared_id(folder),
                            Some(kind) => rule_for(kind, folder, rules(folder))?,
                        };
                        Ok((id, model))
                    });
                    placed.collect::<Said<Vec<_>>>()
                });
                match models {
                    Err(why) => report.left_out.entry(why).or_default().push(shown),
                    Ok(models) => {
                        for (id, model) in models {
                            let what = model.part.key();
                            report.understood.push(format!("{id} {what}: {}", model.value));
                            for why in model.approximated {
                                *report.approximated.entry(why.to_owned()).or_default() += 1;
                            }
                            additions.entry(id).or_default().push((what, model.value));
                        }
                    }
                }
            }
        }
    }
    Ok((additions, report))
}

/// A rule file's text with models added to it.
pub(super) fn add_to(text: &str, models: &[(&'static str, Value)]) -> Said<String> {
    let mut file: serde_json::Map<String, Value> =
        serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    for (key, model) in models {
        let list = file.entry(*key).or_insert_with(|| json!([]));
        list.as_array_mut().ok_or_else(|| format!("`{key}` is no list"))?.push(model.clone());
    }
    // JSON is YAML.
    serde_json::to_string_pretty(&file).map_err(|error| error.to_string())
}

/// Puts the rows of a rule file's own `models` where sources, sinks and propagators are.
pub(super) fn expand(file: &mut RuleFile, folder: Language) -> Said<()> {
    let rows = std::mem::take(&mut file.models);
    for (extensible, rows) in
        [("sourceModel", rows.sources), ("sinkModel", rows.sinks), ("summaryModel", rows.summaries)]
    {
        for row in rows {
            let at = |why: String| format!("key `models`, row {}: {why}", show(&row));
            for model in convert(extensible, &row, folder).map_err(at)? {
                let bad = |error: serde_json::Error| at(error.to_string());
                match model.part {
                    Part::Source => {
                        file.sources.push(serde_json::from_value(model.value).map_err(bad)?);
                    }
                    Part::Sink => {
                        file.sinks.push(serde_json::from_value(model.value).map_err(bad)?);
                    }
                    _ => file.propagators.push(serde_json::from_value(model.value).map_err(bad)?),
                }
            }
        }
    }
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let wrap = |source| OracleError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(wrap)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .map_err(wrap)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(wrap))
        .collect::<Result<_>>()?;
    entries.sort();
    for entry in entries {
        let is_yaml = entry.extension().is_some_and(|end| end == "yml" || end == "yaml");
        if entry.is_dir() || is_yaml {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

/// `codeql/python-all` -> Python. C++ shares the rules of C.
fn folder_of(pack: &str) -> Option<Language> {
    let name = pack.rsplit('/').next()?.split('-').next()?;
    match name {
        "cpp" => Some(Language::C),
        "typescript" => Some(Language::JavaScript),
        name => name.parse().ok(),
    }
}

fn show(row: &Row) -> String {
    Value::Array(row.clone()).to_string()
}

/// The class a kind of sink belongs to.
///
/// # Source
/// The kinds that CodeQL's library models documentation lists.
fn class_of(kind: &str) -> Option<Cwe> {
    let name = kind.split('[').next().unwrap_or(kind);
    Some(Cwe(match name {
        "path-injection" | "read-file" | "create-file" | "path-injection-write" => 22,
        "command-injection" | "shell-command-injection" | "indirect-command-injection" => 78,
        "html-injection" | "js-injection" | "xss" | "stored-xss" | "dom-xss" => 79,
        "sql-injection" => 89,
        "nosql-injection" => 943,
        "ldap-injection" => 90,
        "xpath-injection" => 643,
        "code-injection"
        | "groovy-injection"
        | "mvel-injection"
        | "ognl-injection"
        | "jexl-injection"
        | "spel-injection"
        | "template-injection"
        | "bean-validation"
        | "unsafe-code-construction" => 94,
        "header-injection" | "response-splitting" | "http-response-splitting" => 113,
        "log-injection" => 117,
        "format-string" => 134,
        "information-leak" => 209,
        "unsafe-deserialization" | "deserialization" => 502,
        "credentials-key"
        | "credentials-password"
        | "credentials-username"
        | "credentials-other" => 798,
        "url-redirection" | "open-redirect" => 601,
        "xxe" | "xml" => 611,
        "regex-use" | "regexp-injection" => 730,
        "request-forgery" => 918,
        _ => return None,
    }))
}

/// The flow rule that has the class of a kind as its first, or else at all; the one with most sinks.
fn rule_for(kind: &str, folder: Language, rules: &[std::sync::Arc<Rule>]) -> Said<String> {
    let class = class_of(kind).ok_or_else(|| format!("the kind `{kind}` has no class here"))?;
    rules
        .iter()
        .filter(|rule| rule.file.kind == Kind::Flow && rule.file.remote)
        .filter(|rule| rule.file.cwe.contains(&class))
        .max_by_key(|rule| (rule.file.cwe.first() == Some(&class), rule.file.sinks.len()))
        .map(|rule| rule.id.clone())
        .ok_or_else(|| format!("no flow rule of {folder} has {class}, the class of `{kind}`"))
}

/// A row in our words, or why it has none.
fn convert(extensible: &str, row: &Row, folder: Language) -> Said<Vec<Model>> {
    let cells: Vec<String> = row
        .iter()
        .map(|cell| match cell {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    let dynamic = matches!(folder, Language::Python | Language::JavaScript | Language::Ruby);
    let (callee, rest, approximated) = if dynamic {
        let at_most = if extensible == "summaryModel" { 5 } else { 3 };
        if cells.len() < 3 || cells.len() > at_most + 2 {
            return Err(format!("a {extensible} of {folder} does not have {} cells", cells.len()));
        }
        if extensible == "typeModel" {
            return result_model(&cells, folder);
        }
        let (mut callee, mut access) = walk(&cells[0], &cells[1], folder)?;
        if callee.called && access.is_empty() {
            // A path that ends in `ReturnValue` is the result of a call.
            (callee.called, access) = (false, "ReturnValue".to_owned());
        }
        let mut rest = cells[2..].to_vec();
        if extensible != "summaryModel" {
            rest.insert(0, access);
        } else if !access.is_empty() {
            return Err(format!("a summary of what is at `{access}` of a call"));
        }
        (callee, rest, Vec::new())
    } else {
        let n = if extensible == "summaryModel" { 9 } else { 8 };
        if extensible == "neutralModel" {
            return Err(NEUTRAL.to_owned());
        }
        if cells.len() < n {
            return Err(format!("a {extensible} of {folder} does not have {} cells", cells.len()));
        }
        let mut approximated = Vec::new();
        if !cells[4].is_empty() {
            approximated.push("overloads are not told apart");
        }
        let callee = match folder {
            Language::Java => java_name(&cells[1], &cells[3])?,
            Language::Go => go_name(&cells[0], &cells[1], &cells[3])?,
            _ => {
                if !cells[1].is_empty() {
                    approximated.push("methods of C++ are known by their name alone");
                }
                c_name(&cells[0], &cells[1], &cells[3])?
            }
        };
        (callee, cells[6..].to_vec(), approximated)
    };
    let mut models = match extensible {
        "sourceModel" => sources(&callee, &rest[0], &rest[1], folder)?,
        "sinkModel" => {
            let Place::Arguments(arguments) = place(&rest[0])?.0 else {
                return Err(format!("a sink at `{}`", rest[0]));
            };
            vec![model(
                Part::Sink,
                Some(&rest[1]),
                json!({"call": callee.calls()?, "argument": arguments}),
            )]
        }
        "barrierModel" => {
            let Place::Result = place(&rest[0])?.0 else {
                return Err(format!("a barrier at `{}`", rest[0]));
            };
            vec![model(Part::Sanitizer, Some(&rest[1]), json!({"call": callee.calls()?}))]
        }
        "barrierGuardModel" if rest.len() >= 3 => {
            let Place::Arguments(arguments) = place(&rest[0])?.0 else {
                return Err(format!("a guard at `{}`", rest[0]));
            };
            let holds = match rest[1].as_str() {
                "true" => true,
                "false" => false,
                other => return Err(format!("a guard that accepts `{other}`")),
            };
            let calls = callee.calls()?;
            let one = |argument| json!({"call": calls, "argument": argument, "holds": holds});
            arguments
                .into_iter()
                .map(|argument| model(Part::Guard, Some(&rest[2]), one(argument)))
                .collect()
        }
        "summaryModel" => propagators(&callee, &rest[0], &rest[1])?,
        "neutralModel" => {
            return Err(NEUTRAL.to_owned());
        }
        other => return Err(format!("`{other}` rows")),
    };
    for model in &mut models {
        model.approximated.extend(&approximated);
        let inner = rest.iter().take(2).any(|text| place(text).is_ok_and(|place| place.1));
        if inner {
            model.approximated.push("elements and fields count as the whole value");
        }
    }
    Ok(models)
}

fn model(part: Part, kind: Option<&str>, value: Value) -> Model {
    Model { part, kind: kind.map(str::to_owned), value, approximated: Vec::new() }
}

/// What a row names: paths, and whether they end in a call.
struct Callee {
    paths: Vec<String>,
    /// The result of the call is meant, not the function.
    called: bool,
    /// The methods of a type, for what overrides them.
    method: Option<(String, String)>,
}

impl Callee {
    fn calls(&self) -> Said<Vec<String>> {
        if self.called { Err("a call of a result".to_owned()) } else { Ok(self.paths.clone()) }
    }
}

fn sources(callee: &Callee, output: &str, kind: &str, folder: Language) -> Said<Vec<Model>> {
    let local = match kind {
        "remote" => false,
        "local" | "file" | "commandargs" | "environment" | "stdin" | "database"
        | "windows-registry" => true,
        other => return Err(format!("sources of the kind `{other}`")),
    };
    let mut value = match place(output)?.0 {
        Place::Nothing => json!({"value": callee.paths}),
        Place::Result if !callee.called => json!({"call": callee.paths}),
        Place::Arguments(arguments) if !callee.called => {
            let calls = &callee.paths;
            return Ok(arguments
                .iter()
                .map(|argument| {
                    model(
                        Part::Source,
                        None,
                        json!({"call": calls, "fills": argument, "local": local}),
                    )
                })
                .collect());
        }
        Place::Parameter => match &callee.method {
            Some((of, name)) if folder == Language::Java => {
                let mut source = model(
                    Part::Source,
                    None,
                    json!({"methods": [name], "of": [of], "local": local}),
                );
                source.approximated.push("all parameters of overriding methods count");
                return Ok(vec![source]);
            }
            _ => return Err("parameters of functions that are handed over".to_owned()),
        },
        _ => return Err(format!("a source at `{output}`")),
    };
    value["local"] = local.into();
    Ok(vec![model(Part::Source, None, value)])
}

fn propagators(callee: &Callee, input: &str, output: &str) -> Said<Vec<Model>> {
    let calls = callee.calls()?;
    let Place::Arguments(from) = place(input)?.0 else {
        return Err(format!("a summary from `{input}`"));
    };
    let into: Vec<Option<String>> = match place(output)?.0 {
        Place::Result => vec![None],
        Place::Arguments(into) => into.into_iter().map(Some).collect(),
        _ => return Err(format!("a summary into `{output}`")),
    };
    let mut models = Vec::new();
    for from in &from {
        for into in &into {
            let mut value = json!({"call": calls, "from": from});
            if let Some(into) = into {
                value["into"] = into.as_str().into();
                // What it held before is still in it.
                value["adds"] = true.into();
            }
            models.push(model(Part::Propagator, None, value));
        }
    }
    Ok(models)
}

/// `[type1, type2, path]`: what is at the path of `type2` is a `type1`.
fn result_model(cells: &[String], folder: Language) -> Said<Vec<Model>> {
    let (callee, access) = walk(&cells[1], &cells[2], folder)?;
    let named = dotted(&cells[0], folder);
    match (callee.called, access.as_str()) {
        (true, "") => {
            Ok(vec![model(Part::Result, None, json!({"call": callee.paths, "type": named}))])
        }
        (false, "") => {
            Ok(vec![model(Part::Result, None, json!({"value": callee.paths, "type": named}))])
        }
        _ => Err(format!("a type at `{access}` of a call")),
    }
}

/// A place in a call.
enum Place {
    /// The function itself, or what the path led to.
    Nothing,
    Result,
    Arguments(Vec<String>),
    Parameter,
}

/// Reads `Argument[0]`, `Argument[0..2]`, `Argument[this]`, `Argument[name:]`, `ReturnValue`, `Parameter[0]`; the second
/// says that only a part of the value was meant.
fn place(text: &str) -> Said<(Place, bool)> {
    let tokens = tokens(text);
    let Some((name, inside)) = tokens.first() else { return Ok((Place::Nothing, false)) };
    let mut part = false;
    for (name, _) in &tokens[1..] {
        match name.as_str() {
            "ArrayElement"
            | "Element"
            | "MapValue"
            | "MapKey"
            | "ListElement"
            | "SetElement"
            | "DictionaryElement"
            | "DictionaryElementAny"
            | "TupleElement"
            | "WithElement"
            | "Field"
            | "Attribute"
            | "Member" => part = true,
            "Awaited" => {}
            "Parameter" | "ReturnValue" => {
                return Err("functions that are handed over".to_owned());
            }
            other => return Err(format!("`{other}` inside a value")),
        }
    }
    let place = match name.as_str() {
        "ReturnValue" => Place::Result,
        "Parameter" => Place::Parameter,
        "Argument" => Place::Arguments(arguments(inside)?),
        other => return Err(format!("`{other}` as a place in a call")),
    };
    Ok((place, part))
}

fn arguments(inside: &str) -> Said<Vec<String>> {
    let mut places = Vec::new();
    let mut names = Vec::new();
    for item in inside.split(',').map(str::trim) {
        let item = item.trim_start_matches(['*', '@']);
        if let Some(name) = item.strip_suffix(':') {
            names.push(name.to_owned());
        } else if let Some((first, last)) = item.split_once("..") {
            let first: usize = first.parse().map_err(|_| format!("`Argument[{inside}]`"))?;
            match last.parse::<usize>() {
                Ok(last) => places.extend((first..=last.min(first + 20)).map(|at| at.to_string())),
                Err(_) => places.push(format!("rest:{first}")),
            }
        } else {
            match item {
                "this" | "self" | "receiver" | "qualifier" | "-1" => {
                    places.push("receiver".to_owned());
                }
                "any" => places.push("any".to_owned()),
                item if item.parse::<usize>().is_ok() => places.push(item.to_owned()),
                _ => return Err(format!("`Argument[{inside}]`")),
            }
        }
    }
    // `Argument[0,name:]` is one argument under two names.
    if let ([place], false) = (places.as_slice(), names.is_empty()) {
        return Ok(vec![format!("{place}|{}", names.join("|"))]);
    }
    places.extend(names);
    Ok(places)
}

/// Splits `Member[a].Argument[0]` into names and what stands in brackets.
fn tokens(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut name, mut inside, mut depth) = (String::new(), String::new(), 0);
    for c in text.chars() {
        match c {
            '[' => {
                depth += 1;
                if depth > 1 {
                    inside.push(c);
                }
            }
            ']' => {
                depth -= 1;
                if depth > 0 {
                    inside.push(c);
                }
            }
            '.' if depth == 0 => {
                found.push((std::mem::take(&mut name), std::mem::take(&mut inside)));
            }
            c if depth > 0 => inside.push(c),
            c => name.push(c),
        }
    }
    if !name.is_empty() {
        found.push((name, inside));
    }
    found
}

/// Follows an access path from a type; gives what it leads to and the rest of the path, a place in a call.
fn walk(root: &str, path: &str, folder: Language) -> Said<(Callee, String)> {
    let mut paths = vec![dotted(root, folder)];
    let mut called = false;
    let steps = tokens(path);
    for (at, (name, inside)) in steps.iter().enumerate() {
        match name.as_str() {
            "Member" | "Method" => {
                if called {
                    for path in &mut paths {
                        path.push_str("()");
                    }
                    called = false;
                }
                paths = paths
                    .iter()
                    .flat_map(|path| {
                        inside.split(',').map(move |member| {
                            let member = member.trim();
                            if path.is_empty() {
                                member.to_owned()
                            } else {
                                format!("{path}.{member}")
                            }
                        })
                    })
                    .collect();
            }
            "ReturnValue" | "Instance" if !called => called = true,
            "Awaited" => {}
            "Argument" | "Parameter" => {
                let rest: Vec<String> =
                    steps[at..]
                        .iter()
                        .map(|(name, inside)| {
                            if inside.is_empty() {
                                name.clone()
                            } else {
                                format!("{name}[{inside}]")
                            }
                        })
                        .collect();
                return Ok((Callee { paths, called, method: None }, rest.join(".")));
            }
            other => return Err(format!("`{other}` in an access path")),
        }
    }
    Ok((Callee { paths, called, method: None }, String::new()))
}

/// A type as rules write it.
fn dotted(root: &str, folder: Language) -> String {
    let root = root.trim_end_matches('!').replace("::", ".");
    if folder == Language::JavaScript && root == "global" { String::new() } else { root }
}

fn java_name(class: &str, name: &str) -> Said<Callee> {
    // Nested classes are known by their own name, too.
    let class = class.rsplit(['$', '.']).next().unwrap_or(class);
    let class = class.split('<').next().unwrap_or(class);
    if class.is_empty() {
        return Err("a row without a type".to_owned());
    }
    let path =
        if name == class || name.is_empty() { class.to_owned() } else { format!("{class}.{name}") };
    let method = Some((class.to_owned(), name.to_owned()));
    Ok(Callee { paths: vec![path], called: false, method })
}

fn go_name(package: &str, receiver: &str, name: &str) -> Said<Callee> {
    if package.starts_with("group:") {
        return Err("a group of packages".to_owned());
    }
    let package = package.strip_prefix("fixed-version:").unwrap_or(package);
    let is_version = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let last = package.split('/').rev().find(|part| !is_version(part)).unwrap_or("");
    let last = match last.rsplit_once('.') {
        Some((head, version)) if is_version(&version) => head,
        _ => last,
    };
    let parts = [last, receiver, name];
    let path: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if path.is_empty() {
        return Err("a row without a name".to_owned());
    }
    Ok(Callee { paths: vec![path.join(".")], called: false, method: None })
}

fn c_name(namespace: &str, class: &str, name: &str) -> Said<Callee> {
    if name.is_empty() {
        return Err("a row without a name".to_owned());
    }
    let path = if !class.is_empty() {
        format!("*.{name}")
    } else if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{}.{name}", namespace.replace("::", "."))
    };
    Ok(Callee { paths: vec![path], called: false, method: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &str) -> Row {
        serde_json::from_str(cells).unwrap()
    }

    /// The model a row becomes, as JSON, or the reason why not.
    #[track_caller]
    fn check(language: Language, extensible: &str, cells: &str, expected: &str) {
        let said = match convert(extensible, &row(cells), language) {
            Ok(models) => {
                let models: Vec<String> = models
                    .iter()
                    .map(|model| format!("{} {}", model.part.key(), model.value))
                    .collect();
                models.join("\n")
            }
            Err(why) => why,
        };
        assert_eq!(said, expected, "{cells}");
    }

    #[test]
    fn rows_with_access_paths() {
        let (py, js, rb) = (Language::Python, Language::JavaScript, Language::Ruby);
        check(
            py,
            "sinkModel",
            r#"["acme.db", "Member[connect].ReturnValue.Member[run].Argument[0,sql:]", "sql-injection"]"#,
            r#"sinks {"call":["acme.db.connect().run"],"argument":["0|sql"]}"#,
        );
        check(
            py,
            "sourceModel",
            r#"["acme", "Member[request].Member[args,form]", "remote"]"#,
            r#"sources {"value":["acme.request.args","acme.request.form"],"local":false}"#,
        );
        check(
            py,
            "sourceModel",
            r#"["acme", "Member[read_flag].ReturnValue", "commandargs"]"#,
            r#"sources {"call":["acme.read_flag"],"local":true}"#,
        );
        check(
            py,
            "summaryModel",
            r#"["acme", "Member[join]", "Argument[0..1]", "ReturnValue", "taint"]"#,
            "propagators {\"call\":[\"acme.join\"],\"from\":\"0\"}\npropagators {\"call\":[\"acme.join\"],\"from\":\"1\"}",
        );
        check(
            js,
            "sinkModel",
            r#"["global", "Member[runIt].Argument[0]", "code-injection"]"#,
            r#"sinks {"call":["runIt"],"argument":["0"]}"#,
        );
        check(
            js,
            "typeModel",
            r#"["acme.Client", "acme", "Member[open].ReturnValue"]"#,
            r#"results {"call":["acme.open"],"type":"acme.Client"}"#,
        );
        check(
            rb,
            "sinkModel",
            r#"["Acme::Shell!", "Method[run].Argument[any]", "command-injection"]"#,
            r#"sinks {"call":["Acme.Shell.run"],"argument":["any"]}"#,
        );
        check(
            js,
            "sinkModel",
            r#"["acme", "Member[on].Argument[1].Parameter[0]", "sql-injection"]"#,
            "functions that are handed over",
        );
        check(
            py,
            "barrierModel",
            r#"["acme", "Member[quote].ReturnValue", "sql-injection"]"#,
            r#"sanitizers {"call":["acme.quote"]}"#,
        );
        check(
            py,
            "barrierGuardModel",
            r#"["acme", "Member[is_name].Argument[0]", "true", "sql-injection"]"#,
            r#"guards {"call":["acme.is_name"],"argument":"0","holds":true}"#,
        );
        check(
            js,
            "sinkModel",
            r#"["acme", "Fuzzy.Argument[0]", "sql-injection"]"#,
            "`Fuzzy` in an access path",
        );
    }

    #[test]
    fn rows_with_packages_and_types() {
        let (java, go, c) = (Language::Java, Language::Go, Language::C);
        check(
            java,
            "sinkModel",
            r#"["com.acme", "Db$Query", true, "run", "(String)", "", "Argument[0]", "sql-injection", "manual"]"#,
            r#"sinks {"call":["Query.run"],"argument":["0"]}"#,
        );
        check(
            java,
            "sourceModel",
            r#"["com.acme", "Handler", true, "handle", "", "", "Parameter[0]", "remote", "manual"]"#,
            r#"sources {"methods":["handle"],"of":["Handler"],"local":false}"#,
        );
        check(
            java,
            "summaryModel",
            r#"["com.acme", "Text", false, "Text", "", "", "Argument[0]", "Argument[this]", "taint", "manual"]"#,
            r#"propagators {"call":["Text"],"from":"0","into":"receiver","adds":true}"#,
        );
        check(
            go,
            "sinkModel",
            r#"["github.com/acme/store/v2", "DB", true, "Find", "", "", "Argument[0..1]", "sql-injection", "manual"]"#,
            r#"sinks {"call":["store.DB.Find"],"argument":["0","1"]}"#,
        );
        check(
            go,
            "sourceModel",
            r#"["gopkg.in/acme.v3", "Request", true, "Body", "", "", "", "remote", "manual"]"#,
            r#"sources {"value":["acme.Request.Body"],"local":false}"#,
        );
        check(
            c,
            "sourceModel",
            r#"["", "", false, "acme_read", "", "", "Argument[*1]", "remote", "manual"]"#,
            r#"sources {"call":["acme_read"],"fills":"1","local":false}"#,
        );
        check(
            java,
            "sinkModel",
            r#"["com.acme", "Db"]"#,
            "a sinkModel of java does not have 2 cells",
        );
        check(
            java,
            "sourceModel",
            r#"["com.acme", "Db", true, "f", "", "", "ReturnValue", "android", "manual"]"#,
            "sources of the kind `android`",
        );
    }
}
