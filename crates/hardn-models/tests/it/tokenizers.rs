//! Tokenizers of every published kind against transformers (fixtures/make_tokenizer_fixtures.py).

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::{Crc, read::GzDecoder};
use hardn_models::{ModelError, Tokenizer};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn unpacked(file: &str) -> Value {
    let mut text = String::new();
    let packed = fs::File::open(fixtures().join(file)).unwrap();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The checksum of ids, offsets, and ids with begin and end tokens; as the fixtures' script takes it.
fn digest(ids: &[u32], offsets: &[(usize, usize)], whole: &[u32]) -> u64 {
    let mut crc = Crc::new();
    let offsets = offsets.iter().flat_map(|(start, end)| [*start as u32, *end as u32]);
    for number in ids.iter().copied().chain(offsets).chain(whole.iter().copied()) {
        crc.update(&number.to_le_bytes());
    }
    u64::from(crc.sum())
}

#[test]
fn every_kind_gives_the_ids_and_offsets_of_transformers() {
    let lines: Vec<String> = serde_json::from_value(unpacked("lines.json.gz")).unwrap();
    let expected = unpacked("expected.json.gz");
    for (name, expected) in expected.as_object().unwrap() {
        let tokenizer = Tokenizer::load(&fixtures().join(name)).unwrap();
        let digests = expected["lines"].as_array().unwrap();
        let awkward = expected["awkward"].as_array().unwrap();
        assert_eq!(digests.len() + awkward.len(), lines.len());
        for (i, line) in lines.iter().enumerate() {
            let plain = tokenizer.encode(line).unwrap();
            let whole = tokenizer.encode_with(line, true).unwrap().ids;
            if let Some(one) = i.checked_sub(digests.len()).map(|i| &awkward[i]) {
                let found =
                    serde_json::json!({"ids": plain.ids, "offsets": plain.offsets, "whole": whole});
                assert_eq!(&found, one, "{name}: {line:?}");
            } else {
                let found = digest(&plain.ids, &plain.offsets, &whole);
                assert_eq!(
                    Some(found),
                    digests[i].as_u64(),
                    "{name}: {line:?} {plain:?} {whole:?}"
                );
            }
        }
        let long: String = "x = [1, 22]; ".repeat(8000).chars().take(100_000).collect();
        let plain = tokenizer.encode(&long).unwrap();
        let whole = tokenizer.encode_with(&long, true).unwrap().ids;
        let found = digest(&plain.ids, &plain.offsets, &whole);
        assert_eq!(Some(found), expected["long"].as_u64(), "{name}: a long line");
        for (i, text) in expected["decoded"].as_array().unwrap().iter().enumerate() {
            let ids = tokenizer.encode(&lines[i]).unwrap().ids;
            assert_eq!(text.as_str(), Some(tokenizer.decode(&ids).unwrap().as_str()), "{name}");
        }
        for (role, id) in expected["roles"].as_object().unwrap() {
            // No token of the model: see `add_special_tokens`.
            if role == "fill_token" {
                continue;
            }
            assert_eq!(tokenizer.role(role).map(u64::from), id.as_u64(), "{name}: {role}");
        }
    }
}

#[track_caller]
fn check_prompt(name: &str, before: &[u32]) {
    let tokenizer = Tokenizer::load(&fixtures().join(name)).unwrap();
    for text in ["", "def f(x):", "return</s>"] {
        let prompt = tokenizer.encode_prompt(text).unwrap();
        let plain = tokenizer.encode(text).unwrap();
        assert_eq!(prompt.ids, [before, &plain.ids].concat(), "{name}: {text:?}");
        assert_eq!(prompt.offsets.len(), prompt.ids.len());
    }
}

#[test]
fn a_prompt_begins_as_the_tokenizer_begins_and_is_left_open() {
    check_prompt("gptj-files", &[]);
    check_prompt("codellama-model", &[1]);
    // Adds both, of which a prompt takes the first.
    check_prompt("llama2-model-new", &[1]);
    check_prompt("llama3", &[0]);
    // Begins a text with its end token.
    check_prompt("xglm", &[2]);
}

#[test]
fn infilling_prompts_have_no_space_of_their_own_behind_a_token() {
    let tokenizer = Tokenizer::load(&fixtures().join("codellama-model")).unwrap();
    let ids = tokenizer.fim_prompt("def f(x):\n", "return x").unwrap();
    let text: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, "<s>▁<PRE> def f(x):\n▁<SUF>return x▁<MID>");
    assert_eq!(tokenizer.fim_end(), tokenizer.special("▁<EOT>"));
}

#[track_caller]
fn check_refused(name: &str, change: impl FnOnce(&Path), expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    change(dir.path());
    let error: ModelError = Tokenizer::load(dir.path()).err().expect("the folder is refused");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn broken_folders_are_refused_with_the_file_that_is_wrong() {
    let remove = |file: &'static str| move |dir: &Path| fs::remove_file(dir.join(file)).unwrap();
    let write = |file: &'static str, text: &'static str| {
        move |dir: &Path| fs::write(dir.join(file), text).unwrap()
    };
    check_refused("gptj-files", remove("merges.txt"), "nor `vocab.json` with `merges.txt`");
    check_refused("gptj-files", write("vocab.json", "{\"a\": 0}"), "merges.txt");
    check_refused("llama2-model", write("tokenizer.model", "\u{1}"), "not a sentencepiece model");
    check_refused("llama2-model", write("tokenizer.model", ""), "it has no pieces");
    check_refused("starcoder2", write("tokenizer.json.gz", "no"), "tokenizer.json.gz");
    check_refused("starcoder2", write("tokenizer.json", "{}"), "tokenizer.json");
    check_refused("starcoder2", write("tokenizer_config.json", "[1]"), "tokenizer_config.json");
    check_refused("codegen", write("added_tokens.json", "{\"  \": 5}"), "given as id 5");
    check_refused("codegen", write("added_tokens.json", "{\"  \": -1}"), "key `  `");
    check_refused(
        "llama2-model",
        write("tokenizer_config.json", "{\"tokenizer_class\": \"LlamaTokenizer\", \"legacy\": 3}"),
        "key `legacy`",
    );
    let truncated = |dir: &Path| {
        let path = dir.join("tokenizer.model");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    };
    check_refused("llama2-model", truncated, "not a sentencepiece model");
}

#[test]
fn a_saved_tokenizer_is_the_same_tokenizer() {
    let lines: Vec<String> = serde_json::from_value(unpacked("lines.json.gz")).unwrap();
    for name in ["codegen", "llama2-model-new", "llama3", "deepseek", "qwen3", "xglm"] {
        let tokenizer = Tokenizer::load(&fixtures().join(name)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let again = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(again.vocab_size(), tokenizer.vocab_size(), "{name}");
        assert_eq!(
            (again.bos(), again.eos(), again.pad()),
            (tokenizer.bos(), tokenizer.eos(), tokenizer.pad())
        );
        for line in lines.iter().rev().take(60) {
            let both = [&again, &tokenizer].map(|one| one.encode_with(line, true).unwrap());
            assert_eq!(both[0], both[1], "{name}: {line:?}");
        }
    }
}
