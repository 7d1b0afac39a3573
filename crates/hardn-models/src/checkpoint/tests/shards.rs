use serde_json::json;

use super::*;

fn write(dir: &Path, shard_bytes: u64) -> Result<()> {
    let tensors = tensors();
    let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
    write_weights(dir, &shapes.collect(), SaveDtype::F32, shard_bytes, |name| {
        Ok(tensors[name].clone())
    })
}

use crate::Result;

fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn shards_are_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    // Sizes in order of names: 112, 16, 64, 112 bytes.
    for (limit, n_shards) in [(0, 4), (128, 3), (200, 2), (128, 3), (10_000, 1), (64, 4)] {
        write(dir.path(), limit).unwrap();
        let expected: Vec<String> = if n_shards == 1 {
            vec!["model.safetensors".to_owned()]
        } else {
            let shards =
                (1..=n_shards).map(|i| format!("model-{i:05}-of-{n_shards:05}.safetensors"));
            shards.chain(["model.safetensors.index.json".to_owned()]).collect()
        };
        assert_eq!(listing(dir.path()), expected, "{limit}");
        let weights = Weights::open(dir.path()).unwrap();
        for (name, tensor) in tensors() {
            let loaded = weights.load(&name, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(values(&loaded), values(&tensor));
        }
    }
    let index = fs::read_to_string(dir.path().join("model.safetensors.index.json")).unwrap();
    assert!(index.contains("\"total_size\": 304"), "{index}");
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 10_000).unwrap();
    let shapes = BTreeMap::from([("a".to_owned(), vec![2]), ("b".to_owned(), vec![2])]);
    let zeros = |n: usize| Ok(Tensor::zeros(n, DType::F32, &Device::Cpu)?);
    for limit in [0, 1000] {
        for wrong in [false, true] {
            let result =
                write_weights(dir.path(), &shapes, SaveDtype::F32, limit, |name| match name {
                    "b" if wrong => zeros(3),
                    "b" => Err(tensor_error(dir.path(), name, "cannot be made")),
                    _ => zeros(2),
                });
            assert!(result.unwrap_err().to_string().contains("`b`"));
            assert_eq!(listing(dir.path()), ["model.safetensors"]);
        }
    }
    Weights::open(dir.path()).unwrap().load("lm_head.weight", DType::F32, &Device::Cpu).unwrap();
}

#[test]
fn an_index_that_lies_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0).unwrap();
    let path = dir.path().join("model.safetensors.index.json");
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let check = |change: &dyn Fn(&mut serde_json::Value), parts: &[&str]| {
        let mut index = good.clone();
        change(&mut index);
        fs::write(&path, index.to_string()).unwrap();
        check_error(dir.path(), parts);
    };
    let name = "lm_head.weight";
    let first = "model-00001-of-00004.safetensors";
    for elsewhere in
        ["../a.safetensors", "/etc/passwd", "a/b", "", "..", ".", "a\\b", "c:b", "a\0b"]
    {
        check(&|index| index["weight_map"][name] = json!(elsewhere), &[name, "not a file name"]);
    }
    check(&|index| index["weight_map"][name] = json!(3), &[name, "not a file name"]);
    check(
        &|index| index["weight_map"][name] = json!("gone.safetensors"),
        &[name, "gone", "missing"],
    );
    check(&|index| index["weight_map"]["extra.w"] = json!(first), &["extra.w", first, "not hold"]);
    check(
        &|index| index["weight_map"]["transformer.wte.weight"] = json!(first),
        &["transformer.wte.weight", first, "not hold"],
    );
    check(&|index| index["weight_map"] = json!({}), &["index.json", "empty"]);
    check(&|index| index["weight_map"] = json!([1]), &["index.json", "weight_map"]);
    check(&|index| *index = json!([]), &["index.json", "weight_map"]);
    fs::write(&path, "{\"weight_map\": {").unwrap();
    check_error(dir.path(), &["index.json"]);

    fs::copy(dir.path().join(first), dir.path().join("copy.safetensors")).unwrap();
    check(&|index| index["weight_map"]["other"] = json!("copy.safetensors"), &["twice", "copy"]);
    fs::remove_file(&path).unwrap();
    check_error(dir.path(), &["model.safetensors", "missing"]);
}
