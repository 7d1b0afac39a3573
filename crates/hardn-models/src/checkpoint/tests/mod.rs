//! Files that are whole, cut, changed or contradict each other.

mod damage;
mod gguf;
mod pickled;
mod shards;

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};

use super::*;

/// Tensors of a small model.
fn tensors() -> BTreeMap<String, Tensor> {
    let make = |name: &str, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| i as f32 / 8.0 - 1.0).collect();
        (name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    BTreeMap::from([
        make("transformer.wte.weight", &[7, 4]),
        make("transformer.h.0.attn.weight", &[4, 4]),
        make("transformer.h.0.attn.bias", &[4]),
        make("lm_head.weight", &[7, 4]),
    ])
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn check_error(dir: &Path, parts: &[&str]) {
    let error = Weights::open(dir).err().expect("an error").to_string();
    for part in parts {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn tensors_are_read_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for dtype in [SaveDtype::F32, SaveDtype::F16, SaveDtype::BF16] {
        write_file(&path, &tensors(), dtype).unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        let expected = tensors();
        assert!(weights.names().eq(expected.keys()));
        for (name, tensor) in &expected {
            assert_eq!(weights.shape(name).unwrap(), tensor.dims());
            assert_eq!(weights.file(name), path);
            for asked in [DType::F32, DType::F16, DType::BF16] {
                let loaded = weights.load(name, asked, &Device::Cpu).unwrap();
                assert_eq!(loaded.dtype(), asked);
                assert_eq!(values(&loaded), values(tensor), "{name}");
            }
        }
        assert_eq!(weights.shape("other"), None);
        assert_eq!(weights.dtype("other"), None);
        assert!(weights.load("other", DType::F32, &Device::Cpu).is_err());
    }
    assert_eq!(Weights::open(dir.path()).unwrap().dtype("lm_head.weight"), Some(DType::BF16));
}

#[test]
fn names_with_and_without_the_first_component() {
    let dir = tempfile::tempdir().unwrap();
    write_file(&dir.path().join("model.safetensors"), &tensors(), SaveDtype::F32).unwrap();
    let weights = Weights::open(dir.path()).unwrap();
    for (asked, stored) in [
        ("lm_head.weight", Some("lm_head.weight")),
        ("h.0.attn.weight", Some("transformer.h.0.attn.weight")),
        ("model.transformer.wte.weight", Some("transformer.wte.weight")),
        ("model.wte.weight", None),
        ("weight", None),
        ("attn.weight", None),
    ] {
        assert_eq!(weights.resolve(asked), stored, "{asked}");
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let tensor = Tensor::new(&[0.0, 1.0, bad], &Device::Cpu).unwrap();
        candle_core::safetensors::save(&[("w", tensor.clone())].into(), &path).unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        let error = weights.load("w", DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("`w`") && error.contains("element 2"), "{error}");
        let tensors = BTreeMap::from([("w".to_owned(), tensor)]);
        assert!(write_file(&path, &tensors, SaveDtype::F32).is_err());
    }
    // 70,000 is finite, but not in 16 bits.
    let large = BTreeMap::from([("w".to_owned(), Tensor::new(&[7e4_f32], &Device::Cpu).unwrap())]);
    let error = write_file(&path, &large, SaveDtype::F16).unwrap_err().to_string();
    assert!(error.contains("float16"), "{error}");
    write_file(&path, &large, SaveDtype::F32).unwrap();
    assert!(Weights::open(dir.path()).unwrap().load("w", DType::F16, &Device::Cpu).is_err());
}

#[test]
fn a_pointer_of_git_lfs_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    fs::write(dir.path().join("model.safetensors"), text).unwrap();
    check_error(dir.path(), &["git lfs pull"]);
}
