//! Files llama.cpp's converter made: `tests/fixtures/make_gguf_fixtures.py`.

use super::*;
use crate::ModelConfig;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Every converted checkpoint: its name and the type of its numbers.
fn converted() -> Vec<(String, String, std::path::PathBuf)> {
    let files = fs::read_dir(fixtures().join("gguf")).unwrap();
    let files = files.map(|entry| {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (name, kind) = stem.rsplit_once('-').unwrap();
        (name.to_owned(), kind.to_owned(), path)
    });
    files.collect()
}

#[test]
fn tensors_are_the_published_ones() {
    for (name, kind, path) in converted() {
        let published = Weights::open(&fixtures().join(&name)).unwrap();
        let weights = Weights::open(&path).unwrap();
        let config = ModelConfig::load(&fixtures().join(&name)).unwrap();
        let expected = config.tensors();
        assert!(weights.names().eq(expected.keys()), "{name}");
        let allowed = match kind.as_str() {
            "f32" => 0.0,
            "f16" => 1e-3,
            _ => 1e-2,
        };
        for (tensor, shape) in expected {
            assert_eq!(weights.shape(&tensor).unwrap(), shape, "{name} {tensor}");
            let stored = published.resolve(&tensor).unwrap();
            let a = values(&published.load(stored, DType::F32, &Device::Cpu).unwrap());
            let b = values(&weights.load(&tensor, DType::F32, &Device::Cpu).unwrap());
            let error = a.iter().zip(&b).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(error <= allowed, "{name} {tensor}: {error}");
            assert!(weights.quantised(&tensor).unwrap().is_none());
        }
    }
}

#[test]
fn damaged_files_are_errors() {
    let fixtures = fixtures().join("gguf");
    for name in ["llama-llama3-f32.gguf", "deepseek_v2-lite-f32.gguf"] {
        let bytes = fs::read(fixtures.join(name)).unwrap();
        // The header, where damage can do most, is hit as often as the rest.
        super::damage::damage(&bytes, "whole.gguf", 300);
        super::damage::damage_within(&bytes, "header.gguf", 1500, 4096);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        for n in (0..4000).step_by(13).chain((4000..bytes.len()).step_by(997)) {
            fs::write(&path, &bytes[..n]).unwrap();
            check_error(dir.path(), &["model.gguf"]);
        }
    }
}
