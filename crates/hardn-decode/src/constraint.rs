//! Texts of a wanted form: a regular expression, a grammar, a JSON schema, a choice.

mod allowed;
mod config;
mod state;

use std::sync::{Mutex, PoisonError};

use hardn_models::Tokenizer;
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    panic_utils::catch_unwind,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};

use crate::{DecodeError, Result};
use config::Form;

pub use allowed::AllowedTokens;
pub use config::ConstraintConfig;
pub use state::ConstraintState;

/// Longest token that can be chosen under a constraint, in bytes.
const MAX_TOKEN_BYTES: usize = 1000;

/// A compiled constraint; texts of any number share it.
///
/// Tokens are taken as bytes, so that a character may be split between them. Every split of a wanted text into tokens is
/// allowed. Tokens that steer the model ([`Tokenizer::control_tokens`]) are never text.
pub struct Constraint {
    key: &'static str,
    /// Before the first token. Whoever starts a text copies it.
    fresh: Mutex<Matcher>,
    vocab_size: usize,
    end_tokens: Vec<u32>,
    /// Stands for every end token, and is none of the vocabulary.
    end: u32,
}

impl Constraint {
    /// Compiles a constraint for a model with `vocab_size` logits, whose text ends with one of `end_tokens`.
    ///
    /// # Errors
    /// [`DecodeError::Constraint`] for a form that is not understood, with the place, or that no text of this vocabulary
    /// has.
    pub fn new(
        config: &ConstraintConfig,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        end_tokens: &[u32],
    ) -> Result<Self> {
        let form = config.form()?;
        let key = form.key();
        let fail = |message: String| DecodeError::Constraint { key, message: readable(&message) };
        let (environment, end) = vocabulary(tokenizer, vocab_size, end_tokens);
        let grammar = grammar(&form);
        let compile = || {
            let slices = llguidance::earley::SlicedBiasComputer::general_slices();
            let capabilities = InferenceCapabilities::default();
            let mut factory = ParserFactory::new(&environment, capabilities, &slices)?;
            factory.limits_mut().verbose_errors = false;
            factory.quiet().create_parser(grammar)
        };
        let parser = catch_unwind(std::panic::AssertUnwindSafe(compile))
            .map_err(|error| fail(format!("{error:#}")))?;
        let constraint = Self {
            key,
            fresh: Mutex::new(Matcher::new(Ok(parser))),
            vocab_size,
            end_tokens: end_tokens.to_vec(),
            end,
        };
        // A form without any text is found now and not in the middle of a run.
        constraint.start().allow(&mut AllowedTokens::default())?;
        Ok(constraint)
    }

    /// The state before a text's first token.
    pub fn start(&self) -> ConstraintState {
        let matcher = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        ConstraintState::new(matcher, self.key, self.vocab_size, &self.end_tokens, self.end)
    }
}

/// The tokens as bytes, and the id of the end.
fn vocabulary(tokenizer: &Tokenizer, vocab_size: usize, end_tokens: &[u32]) -> (TokEnv, u32) {
    let control = tokenizer.control_tokens();
    let n_words = tokenizer.vocab_size().min(vocab_size);
    let is_text = |id: u32, bytes: &[u8]| {
        // The library takes what starts with 0xff, which begins no character, for its own marks.
        !bytes.starts_with(&[0xff])
            && bytes.len() <= MAX_TOKEN_BYTES
            && !end_tokens.contains(&id)
            && control.binary_search(&id).is_err()
    };
    let mut words: Vec<Vec<u8>> = (0..n_words as u32)
        .map(|id| match tokenizer.token_bytes(id) {
            bytes if is_text(id, bytes) => bytes.to_vec(),
            _ => Vec::new(),
        })
        .collect();
    words.push(b"\xff<end>".to_vec());
    let info = TokRxInfo::new(words.len() as u32, n_words as u32);
    let trie = TokTrie::from(&info, &words);
    (std::sync::Arc::new(ApproximateTokEnv::new(trie)), n_words as u32)
}

fn grammar(form: &Form) -> TopLevelGrammar {
    match form {
        Form::Regex(regex) => TopLevelGrammar::from_regex(without_anchors(regex)),
        Form::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
        Form::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema.clone()),
        Form::Choice(choices) => {
            let quoted: Vec<String> =
                choices.iter().map(|choice| serde_json::json!(choice).to_string()).collect();
            let text = format!("start: CHOICE\nCHOICE: {}\n", quoted.join(" | "));
            TopLevelGrammar::from_lark(text)
        }
    }
}

/// The whole text has to match, which is what `^` at the beginning and `$` at the end say.
fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if (rest.len() - rest.trim_end_matches('\\').len()) % 2 == 0 => rest,
        _ => regex,
    }
}

/// The library's message without what it says of its own insides.
fn readable(message: &str) -> String {
    let mut text = message;
    for mark in ["<non-verbose/>", "<backtrace>", "<state>"] {
        text = text.split(mark).next().unwrap_or(text);
    }
    let text = text.trim().trim_end_matches('.');
    // A regular expression is wrapped into a grammar, whose places say nothing to a user.
    if let Some((_, regex)) = text.split_once("regex parse error:") {
        let text = regex.split("\n   1 | start:").next().unwrap_or(regex).trim_end();
        return format!("not a regular expression:{text}");
    }
    if let Some((line, column, rest)) = place(text) {
        return format!("line {line}, column {column}: {}", rest.trim_start());
    }
    // Chained messages start small, unless with a name.
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

/// `at 1(8): ` at the beginning of a message, and what is behind it.
fn place(text: &str) -> Option<(u32, u32, &str)> {
    let text = text.strip_prefix("at ").unwrap_or(text);
    let (line, rest) = text.split_once('(')?;
    let (column, rest) = rest.split_once("):")?;
    Some((line.parse().ok()?, column.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use hardn_models::{LAB_SPECIALS, train_bpe};

    use super::*;
    use crate::{Draws, Role};

    /// A small byte-level vocabulary; most characters beyond ASCII are several tokens.
    fn tokenizer() -> Tokenizer {
        let text = r#"def f(x): return {"name": "a", "age": 12, "tags": ["b"]} # naïve ((1+2)*3)"#;
        train_bpe(std::iter::repeat_n(text, 20), 320, LAB_SPECIALS).unwrap()
    }

    fn config(toml: &str) -> ConstraintConfig {
        toml::from_str(toml).unwrap()
    }

    fn compile(toml: &str, tokenizer: &Tokenizer) -> Constraint {
        // Models have more logits than the tokenizer has tokens.
        let n = tokenizer.vocab_size() + 70;
        Constraint::new(&config(toml), tokenizer, n, &[tokenizer.eos().unwrap()]).unwrap()
    }

    fn allowed(state: &mut ConstraintState) -> AllowedTokens {
        let mut allowed = AllowedTokens::default();
        state.allow(&mut allowed).unwrap();
        allowed
    }

    /// Draws texts from what is allowed alone, with steps back in between. Each that ends must fit, and so must each of
    /// `texts`, written as the tokenizer does and byte by byte, end where it ends, and every other text be refused.
    #[track_caller]
    fn check(toml: &str, fits: impl Fn(&str) -> bool, texts: &[&str], refused: &[&str]) {
        let tokenizer = tokenizer();
        let eos = tokenizer.eos().unwrap();
        let constraint = compile(toml, &tokenizer);
        let mut n_ended = 0;
        for sample in 0..40 {
            let draws = Draws::new(1, &[0; 32], sample, 0, 0, Role::Text);
            let mut uniform = (0..).map(|index| draws.uniform(index));
            let mut below = |n: usize| (uniform.next().unwrap() * n as f64) as usize;
            let mut state = constraint.start();
            let mut ids: Vec<u32> = Vec::new();
            for _ in 0..200 {
                let next = allowed(&mut state);
                assert_eq!(next.contains(eos), state.may_end().unwrap(), "{toml}");
                assert_eq!(state.is_over().unwrap(), next.ids().eq([eos]), "{toml} {ids:?}");
                // Ends half of the time where it may.
                let may_end = next.contains(eos) && below(2) == 0;
                let id = if may_end { eos } else { next.ids().nth(below(next.len())).unwrap() };
                let copy = state.clone();
                state.push(id).unwrap();
                ids.push(id);
                if ids.len() < 40 && below(8) == 0 {
                    let n = below(ids.len().min(4) + 1);
                    state.rollback(n).unwrap();
                    ids.truncate(ids.len() - n);
                    let mut never = constraint.start();
                    for id in &ids {
                        never.push(*id).unwrap();
                    }
                    assert_eq!(allowed(&mut state), allowed(&mut never), "{toml}");
                    assert_eq!(state.is_over().unwrap(), never.is_over().unwrap());
                } else if below(4) == 0 {
                    // Neither does a copy feel what the other does.
                    let mut copy = copy;
                    assert_eq!(allowed(&mut copy), next, "{toml}");
                }
                if ids.last() == Some(&eos) {
                    break;
                }
            }
            if ids.last() == Some(&eos) {
                n_ended += 1;
                let bytes: Vec<u8> = ids[..ids.len() - 1]
                    .iter()
                    .flat_map(|id| tokenizer.token_bytes(*id).to_vec())
                    .collect();
                let text = String::from_utf8(bytes).unwrap();
                assert!(fits(&text), "{toml} gave {text:?}");
            }
        }
        assert!(n_ended > 5, "{toml}: {n_ended} texts ended");
        let byte = |byte: u8| {
            let mut ids = 0..tokenizer.vocab_size() as u32;
            ids.find(|id| tokenizer.token_bytes(*id) == [byte]).unwrap()
        };
        for text in texts {
            for ids in [tokenizer.encode(text).unwrap().ids, text.bytes().map(byte).collect()] {
                let mut state = constraint.start();
                for id in ids {
                    let token = String::from_utf8_lossy(tokenizer.token_bytes(id));
                    assert!(allowed(&mut state).contains(id), "{toml} refuses {text:?} at {token}");
                    state.push(id).unwrap();
                }
                assert!(allowed(&mut state).contains(eos), "{toml} does not end {text:?}");
                state.push(eos).unwrap();
                assert!(state.is_over().unwrap() && allowed(&mut state).is_empty());
                assert!(state.push(eos).is_err());
            }
        }
        for text in refused {
            let mut state = constraint.start();
            let ids = tokenizer.encode(text).unwrap().ids;
            let taken = ids.iter().chain([&eos]).all(|id| {
                let before = allowed(&mut state);
                let taken = state.push(*id).is_ok();
                assert_eq!(taken, before.contains(*id), "{toml} {text:?}");
                // What is refused changes nothing.
                assert!(taken || allowed(&mut state) == before);
                taken
            });
            assert!(!taken, "{toml} takes {text:?}");
        }
    }

    #[test]
    fn regular_expressions() {
        for (regex, texts, refused) in [
            (r"[a-f]{2,4}(-\d+)?", &["abc", "fefe-12"][..], &["a", "abcdef", "ab-", ""][..]),
            (r"^(yes|no|naïve)$", &["naïve", "no"], &["naive", "yes "]),
            (r"(漢|字|é){1,3}", &["漢é字"], &["漢字漢字", "a"]),
            (r"(a|b)*", &["", "abba"], &["c"]),
            (r"[^\x00-\x7f]{1,2}", &["ü", "🙂é"], &["a", "é1"]),
            (r"costs 1\$", &["costs 1$"], &["costs 1"]),
            (r"def \w+\((x|y)\):\n", &["def f(x):\n"], &["def f(z):\n"]),
        ] {
            let full = regex::Regex::new(&format!(r"\A(?:{regex})\z")).unwrap();
            let toml = toml::to_string(&ConstraintConfig {
                regex: Some(regex.to_owned()),
                ..ConstraintConfig::default()
            });
            check(&toml.unwrap(), |text| full.is_match(text), texts, refused);
        }
    }

    #[test]
    fn grammars() {
        let sum = "grammar = '''\nstart: product (\"+\" product)?\nproduct: atom (\"*\" atom)?\natom: /[0-9]{1,2}/ | \"(\" start \")\"\n'''";
        let fits = |text: &str| {
            let mut depth = 0_i32;
            let deep = text.bytes().all(|b| {
                depth += i32::from(b == b'(') - i32::from(b == b')');
                depth >= 0
            });
            let pairs =
                regex::Regex::new(r"[0-9]{3}|\)[0-9(]|[0-9]\(|[+*]\)|\([+*]|[+*]{2}").unwrap();
            deep && depth == 0 && !pairs.is_match(text) && !text.starts_with(['+', '*'])
        };
        check(sum, fits, &["1", "(1+2)*3", "((12))"], &["1+", "(1", "1+2+3", ")", "123"]);
    }

    #[test]
    fn json_schemas() {
        let table = "[json_schema]\ntype = \"object\"\nrequired = [\"name\", \"age\"]\nadditionalProperties = false\n\
                     [json_schema.properties.name]\nenum = [\"a\", \"é\\\"\"]\n\
                     [json_schema.properties.age]\ntype = \"integer\"\nminimum = 3\nmaximum = 12\n";
        let fits = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let age = value["age"].as_i64();
            let name = value["name"].as_str().is_some_and(|name| ["a", "é\""].contains(&name));
            name && age.is_some_and(|age| (3..=12).contains(&age))
                && value.as_object().unwrap().len() == 2
        };
        let texts = [r#"{"name": "a", "age": 12}"#, r#"{"name":"é\"","age":3}"#];
        let refused =
            [r#"{"age": 3}"#, r#"{"name": "a", "age": 13}"#, r#"{"age": 3, "name": "a"}"#];
        check(table, fits, &texts, &refused);
        let text = format!(
            "json_schema = '{}'",
            r#"{"type": "array", "items": {"enum": [1, null]}, "maxItems": 3}"#
        );
        let fits = |text: &str| {
            let value: Vec<Option<i64>> = serde_json::from_str(text).unwrap();
            value.len() <= 3 && value.iter().all(|item| matches!(item, None | Some(1)))
        };
        check(&text, fits, &["[]", "[1,null]"], &["[2]", "[1,1,1,1]", "{}"]);
    }

    #[test]
    fn choices() {
        let choices = ["a", "ab", "a\nb", "naïve \"q\"", "\\"];
        let toml = r#"choice = ["a", "ab", "a\nb", "naïve \"q\"", "\\"]"#;
        check(toml, |text| choices.contains(&text), &choices, &["", "b", "abc", "naïve"]);
    }

    #[test]
    fn control_tokens_are_no_text() {
        let tokenizer = tokenizer();
        let constraint = compile("regex = '(.|\\n)*'", &tokenizer);
        let next = allowed(&mut constraint.start());
        let control = tokenizer.control_tokens();
        assert!(control.len() > 1, "{control:?}");
        for id in 0..tokenizer.vocab_size() as u32 {
            let is_end = Some(id) == tokenizer.eos();
            let bytes = tokenizer.token_bytes(id);
            let begins = std::str::from_utf8(bytes).is_ok()
                || bytes
                    .utf8_chunks()
                    .next()
                    .is_some_and(|c| !c.valid().is_empty() || bytes[0] >= 0xc2 && bytes[0] < 0xf5);
            assert_eq!(
                next.contains(id),
                is_end || begins && !control.contains(&id),
                "{id} {bytes:?}"
            );
        }
        assert!((tokenizer.vocab_size() as u32..).take(100).all(|id| !next.contains(id)));
        assert_eq!(next.ids().count(), next.len());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let tokenizer = tokenizer();
        for (toml, expected) in [
            ("", &["exactly one", "none"][..]),
            ("regex = 'a'\nchoice = ['b']", &["exactly one", "regex, choice"]),
            ("regex = 'a('", &["`regex`", "unclosed group"]),
            ("regex = 'a(?=b)'", &["`regex`", "look-around"]),
            ("grammar = '''\nstart: \"a\"\n  | nothing\n'''", &["`grammar`", "nothing"]),
            ("grammar = '''\nstart: \"a\n'''", &["`grammar`", "2"]),
            ("json_schema = '{'", &["`json_schema`", "not JSON", "line 1"]),
            ("json_schema = { type = 'nothing' }", &["`json_schema`", "nothing"]),
            ("choice = []", &["`choice`", "at least one"]),
            ("choice = ['a', '']", &["`choice`", "no empty one"]),
            ("regex_file = '/nothing/here'", &["`regex`", "cannot read /nothing/here"]),
        ] {
            let n = tokenizer.vocab_size();
            let error = match Constraint::new(&config(toml), &tokenizer, n, &[0]) {
                Ok(_) => panic!("{toml} is taken"),
                Err(error) => error.to_string(),
            };
            for part in expected {
                assert!(error.contains(part), "{toml}: {error}");
            }
        }
        assert!(toml::from_str::<ConstraintConfig>("regexp = 'a'").is_err());
    }

    #[test]
    fn a_vocabulary_without_the_needed_bytes_is_an_error() {
        // Of this tokenizer the model knows the first bytes only: control characters and a little punctuation.
        let tokenizer = tokenizer();
        let error = Constraint::new(&config("regex = 'z+'"), &tokenizer, 20, &[0]);
        let error = error.err().unwrap().to_string();
        assert!(error.contains("no token of the vocabulary"), "{error}");
    }

    #[test]
    fn files_are_taken_in() {
        let folder = std::env::temp_dir().join(format!("hardn-constraint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (key, text, expected) in [
            ("regex", "a+\n", "regex = 'a+'"),
            ("grammar", "start: \"a\"\n", "grammar = '''start: \"a\"\n'''"),
            ("json_schema", "{\"type\": \"null\"}", "json_schema = { type = 'null' }"),
            ("choice", "a\nb\n", "choice = ['a', 'b']"),
        ] {
            let path = folder.join(key);
            std::fs::write(&path, text).unwrap();
            let given = config(&format!("{key}_file = {:?}", path.to_str().unwrap()));
            assert_eq!(given.resolved().unwrap(), config(expected), "{key}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn threads_share_a_constraint() {
        fn is_shared<T: Send + Sync>(_: &T) {}
        fn moves<T: Send>(_: T) {}
        let constraint = compile("regex = 'a{2}'", &tokenizer());
        is_shared(&constraint);
        moves(constraint.start());
    }
}
