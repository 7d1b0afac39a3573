//! Imports of published prompts and pairs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hardn_code::{
    KnownPackages, complete_imports, import_block, import_place, imports, open_block, packages,
    read_pairs, read_rows, read_scenarios, unknown_packages, unused_imports, without,
};
use hardn_types::{Language, testing::reference_data};

#[test]
fn imports_of_published_code() {
    let mut texts: Vec<(Language, String)> = Vec::new();
    for set in ["sven/data_eval/trained", "safecoder/data_eval/sec_eval/trained-new"] {
        let Some(path) = reference_data(set) else { return };
        texts.extend(read_scenarios(&path).unwrap().into_iter().map(|s| (s.language, s.prompt)));
    }
    for set in [
        "sven/data_train_val/val",
        "safecoder/data_train_val/val/sec-new-desc.jsonl.gz",
        "hexacoder/dataset/dataset.jsonl.gz",
    ] {
        let Some(path) = reference_data(set) else { return };
        let (pairs, _) = read_pairs(&path).unwrap();
        texts.extend(pairs.into_iter().map(|pair| (pair.language, pair.after)));
    }
    for (set, key) in [
        ("oracle_corpus/codeql_tests.jsonl.gz", "text"),
        ("humaneval_x/humaneval_go.jsonl.gz", "prompt"),
        ("humaneval_x/humaneval_java.jsonl.gz", "prompt"),
        ("humaneval_x/humaneval_cpp.jsonl.gz", "prompt"),
    ] {
        let Some(path) = reference_data(set) else { return };
        for (_, row) in read_rows(&path).unwrap() {
            let row = row.unwrap();
            let of_set = || set.trim_end_matches(".jsonl.gz").rsplit('_').next();
            let language = row.get("language").and_then(|l| l.as_str()).or_else(of_set);
            if let Some(Ok(language)) = language.map(str::parse) {
                texts.push((language, row[key].as_str().unwrap().to_owned()));
            }
        }
    }
    let Some(path) = reference_data("hexacoder/benchmark_data") else { return };
    let mut files = Vec::new();
    find(&path, &mut files);
    for file in files {
        if let (Some(language), Ok(text)) = (Language::of_path(&file), fs::read_to_string(&file)) {
            texts.push((language, text));
        }
    }

    let mut n_imports: BTreeMap<Language, usize> = BTreeMap::new();
    let mut n_unknown: BTreeMap<Language, usize> = BTreeMap::new();
    for (i, (language, text)) in texts.iter().enumerate() {
        *n_imports.entry(*language).or_default() += imports(text, *language).unwrap().len();
        let unknown = unknown_packages(text, KnownPackages::shipped(), *language).unwrap();
        *n_unknown.entry(*language).or_default() += unknown.len();
        check(text, *language);
        // Prompts end anywhere.
        let cut = text.floor_char_boundary(i * 37 % (text.len() + 1));
        check(&text[..cut], *language);
    }
    assert!(texts.len() > 3_000, "{}", texts.len());
    for language in Language::ALL {
        let (n_imports, n_unknown) = (n_imports[&language], n_unknown[&language]);
        assert!(n_imports > 20, "{language}: {n_imports}");
        // Published code imports what exists; test programs make some names up.
        assert!(n_unknown * 8 < n_imports, "{language}: {n_unknown} of {n_imports} unknown");
    }
}

#[track_caller]
fn check(text: &str, language: Language) {
    let place = import_place(text, language).unwrap();
    assert!(text.is_char_boundary(place), "{text}");
    for package in packages(text, language).unwrap() {
        assert!(text[package.span.clone()].contains(&package.module), "{package:?} in {text}");
    }
    let unused = unused_imports(text, language).unwrap();
    let left = without(text, &unused, language).unwrap();
    assert_eq!(unused_imports(&left, language).unwrap(), [], "{text}");
    assert_eq!(without(&left, &[], language).unwrap(), left);

    let Some(block) = import_block(text, language).unwrap() else { return };
    let block_text = &text[block.clone()];
    assert!(place <= block.start, "{text}");
    assert_eq!(import_block(block_text, language).unwrap(), Some(0..block_text.len()), "{text}");
    // A block that is put where it belongs is found again.
    let rest = [&text[..block.start], text[block.end..].trim_start()].concat();
    if import_block(&rest, language).unwrap().is_none() {
        let place = import_place(&rest, language).unwrap();
        let end = if rest[..place].is_empty() || rest[..place].ends_with('\n') { "" } else { "\n" };
        let put = [&rest[..place], end, block_text, "\n", &rest[place..]].concat();
        let found =
            import_block(&put, language).unwrap().unwrap_or_else(|| panic!("{language} {put}"));
        assert_eq!(put[found].trim_end(), block_text.trim_end(), "{text}");
    }
    // Whole imports are repeated by nothing.
    let open = open_block(block_text, language).unwrap();
    let same = complete_imports(open, "", language).unwrap();
    assert_eq!(same.trim_end(), block_text.trim_end(), "{text}");
    let again = complete_imports(block_text, &format!("\n{block_text}\n"), language).unwrap();
    assert_eq!(again, block_text.trim_end(), "{text}");
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else {
            found.push(path);
        }
    }
}
