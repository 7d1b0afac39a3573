//! Which files of a repository make a model.

use std::path::Path;

use serde_json::Value;

/// Read by hardn or by `transformers` beside the weights.
const PLAIN: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
];

/// Weights of a model, and of an adapter, best first; `transformers` and PEFT prefer the same.
const MODEL: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
const ADAPTER: &[&str] = &["adapter_model.safetensors", "adapter_model.bin"];

/// Files to fetch, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) plain: Vec<String>,
    /// Names the shards; they come after it.
    pub(crate) index: Option<String>,
    pub(crate) weights: Vec<String>,
}

/// Chooses from a repository's files, or from a snapshot's. `None` if there are no weights.
pub(crate) fn choose(files: &[String]) -> Option<Wanted> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let best = |names: &[&str]| names.iter().find(|name| has(name)).map(|name| (*name).to_owned());
    let is_template = |file: &&String| {
        file.strip_prefix("additional_chat_templates/")
            .is_some_and(|name| has_extension(name, "jinja") && !name.contains('/'))
    };
    let mut wanted = Wanted {
        plain: PLAIN.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect(),
        ..Wanted::default()
    };
    wanted.plain.extend(files.iter().filter(is_template).cloned());
    match best(MODEL) {
        Some(index) if index.ends_with(".index.json") => wanted.index = Some(index),
        found => wanted.weights.extend(found),
    }
    wanted.weights.extend(best(ADAPTER));
    (wanted.index.is_some() || !wanted.weights.is_empty()).then_some(wanted)
}

/// Chooses one named file; a part of a GGUF file that was cut stands for all parts. `None` where one is missing.
pub(crate) fn choose_file(files: &[String], name: &str) -> Option<Wanted> {
    let weights: Vec<String> = match split_of(name) {
        Some(whole) => files.iter().filter(|file| split_of(file) == Some(whole)).cloned().collect(),
        None => files.iter().filter(|file| *file == name).cloned().collect(),
    };
    let n_parts = split_of(name).map_or(1, |(_, parts)| parts.parse().unwrap_or(1));
    let all = weights.iter().any(|file| file == name) && weights.len() == n_parts;
    all.then(|| Wanted { weights, ..Wanted::default() })
}

/// The GGUF files of a repository.
pub(crate) fn gguf_files(files: &[String]) -> Vec<String> {
    files.iter().filter(|file| has_extension(file, "gguf")).cloned().collect()
}

/// The shards an index names, each once, in order.
///
/// # Errors
/// What is wrong with the index.
pub(crate) fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    let index: Value = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let map = index["weight_map"].as_object().ok_or("it has no `weight_map`")?;
    let mut names = std::collections::BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str().filter(|file| crate::source::is_relative_path(file)) {
            Some(file) => names.insert(file.to_owned()),
            None => return Err(format!("tensor `{tensor}`: {file} is no file name")),
        };
    }
    if names.is_empty() {
        return Err("`weight_map` is empty".to_owned());
    }
    Ok(names.into_iter().collect())
}

fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Stem and number of parts of `STEM-00001-of-00003.gguf`.
fn split_of(file: &str) -> Option<(&str, &str)> {
    let (head, parts) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = head.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(part) && is_number(parts)).then_some((stem, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[track_caller]
    fn check(names: &[&str], plain: &[&str], index: Option<&str>, weights: &[&str]) {
        let expected = Wanted {
            plain: files(plain),
            index: index.map(str::to_owned),
            weights: files(weights),
        };
        assert_eq!(choose(&files(names)), Some(expected));
    }

    #[test]
    fn safetensors_before_pickles_and_never_both() {
        let names =
            ["pytorch_model.bin", "README.md", "model.safetensors", "modeling_x.py", "config.json"];
        check(&names, &["config.json"], None, &["model.safetensors"]);
        let names = ["model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5"];
        check(&names, &[], Some("model.safetensors.index.json"), &[]);
        check(&["pytorch_model.bin.index.json"], &[], Some("pytorch_model.bin.index.json"), &[]);
    }

    #[test]
    fn adapters_and_templates() {
        let names = [
            "adapter_model.safetensors",
            "adapter_model.bin",
            "adapter_config.json",
            "additional_chat_templates/tool_use.jinja",
            "onnx/model.safetensors",
        ];
        let plain = ["adapter_config.json", "additional_chat_templates/tool_use.jinja"];
        check(&names, &plain, None, &["adapter_model.safetensors"]);
        assert_eq!(choose(&files(&["config.json", "model.gguf"])), None);
    }

    #[test]
    fn a_part_stands_for_all_parts() {
        let all = files(&["q-00001-of-00002.gguf", "q-00002-of-00002.gguf", "q.gguf", "r.gguf"]);
        let weights = |name: &str| choose_file(&all, name).map(|wanted| wanted.weights);
        assert_eq!(weights("q-00001-of-00002.gguf"), Some(all[..2].to_vec()));
        assert_eq!(weights("q.gguf"), Some(files(&["q.gguf"])));
        assert_eq!(weights("x.gguf"), None);
        assert_eq!(choose_file(&all[..1], "q-00001-of-00002.gguf"), None);
    }

    #[test]
    fn shards_are_file_names() {
        let named = br#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        assert_eq!(shards(named).unwrap(), ["1.safetensors", "2.safetensors"]);
        for bad in ["{", "{}", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": "../x"}}"#] {
            assert!(shards(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
