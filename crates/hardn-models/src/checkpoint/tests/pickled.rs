//! Files PyTorch wrote: `tests/fixtures/make_pickled_fixtures.py`.

use std::path::PathBuf;

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickled")
}

#[test]
fn both_formats_give_what_was_saved() {
    let text = fs::read(fixtures().join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let expected = expected.as_object().unwrap();
    for file in ["zip.bin", "legacy.bin"] {
        let weights = Weights::open_file(&fixtures().join(file)).unwrap();
        assert_eq!(weights.names().count(), expected.len(), "{file}");
        for (name, tensor) in expected {
            let shape = serde_json::to_value(weights.shape(name).unwrap()).unwrap();
            assert_eq!(shape, tensor["shape"], "{file} {name}");
            let result = weights.load(name, DType::F32, &Device::Cpu);
            if ["mask", "position_ids"].contains(&name.as_str()) {
                let error = result.unwrap_err().to_string();
                assert!(error.contains("only F16, BF16, F32 and F64"), "{error}");
                continue;
            }
            let loaded = serde_json::to_value(values(&result.unwrap())).unwrap();
            assert_eq!(loaded, tensor["values"], "{file} {name}");
        }
        assert_eq!(weights.dtype("bf16"), Some(DType::BF16));
        assert_eq!(weights.dtype("position_ids"), Some(DType::I64));
        assert_eq!(weights.dtype("mask"), Some(DType::U8));
    }
    let weights = Weights::open_file(&fixtures().join("module.bin")).unwrap();
    let weight = weights.load("weight", DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&weight), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn a_folder_of_bin_files_is_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("zip.bin"), dir.path().join("pytorch_model.bin")).unwrap();
    assert_eq!(Weights::open(dir.path()).unwrap().shape("f32"), Some(&[4, 6][..]));
    fs::rename(dir.path().join("pytorch_model.bin"), dir.path().join("part.bin")).unwrap();
    fs::copy(fixtures().join("module.bin"), dir.path().join("rest.bin")).unwrap();
    let index = r#"{"weight_map": {"f32": "part.bin", "weight": "rest.bin"}}"#;
    fs::write(dir.path().join("pytorch_model.bin.index.json"), index).unwrap();
    let weights = Weights::open(dir.path()).unwrap();
    assert!(weights.file("weight").ends_with("rest.bin"));
    assert_eq!(weights.shape("f32"), Some(&[4, 6][..]));
}

#[test]
fn a_flipped_bit_in_an_archive_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    let good = fs::read(fixtures().join("module.bin")).unwrap();
    // 3.0, the fourth value of the weight.
    let at = good.windows(8).position(|w| w == [0, 0, 0x40, 0x40, 0, 0, 0x80, 0x40]).unwrap();
    let mut bytes = good.clone();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let weights = Weights::open(dir.path()).unwrap();
    let error = weights.load("weight", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("`weight`") && error.contains("checksum"), "{error}");
    weights.load("bias", DType::F32, &Device::Cpu).unwrap();
}
