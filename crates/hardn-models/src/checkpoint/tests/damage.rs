//! Thousands of cut and changed files: an error or numbers, never a panic. Seeds are fixed.

use super::*;
use crate::rng::Stream;

/// Opens `file` as `name` in many damaged versions and reads all there is.
pub(super) fn damage(file: &[u8], name: &str, n: usize) {
    damage_within(file, name, n, file.len());
}

/// The same with changes among the first `len` bytes.
pub(super) fn damage_within(file: &[u8], name: &str, n: usize, len: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let mut random = Stream::new(7, name);
    let mut below = |n: usize| ((random.uniform() * n as f64) as usize).min(n - 1);
    for round in 0..n {
        let mut bytes = file.to_vec();
        match round % 4 {
            0 => bytes.truncate(below(len)),
            1 => bytes[below(len)] ^= 1 << below(8),
            2 => bytes[below(len)] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
            _ => {
                // A length or offset of any size.
                let at = below(len.saturating_sub(8).max(1));
                let value = [u64::MAX, 1 << 62, 1 << 32, 1 << 31, file.len() as u64][below(5)];
                for (to, from) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                    *to = from;
                }
            }
        }
        fs::write(&path, bytes).unwrap();
        let Ok(weights) = Weights::open_file(&path) else { continue };
        for name in weights.names() {
            let _ = weights.load(name, DType::F32, &Device::Cpu);
        }
    }
}

#[test]
fn safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_file(&path, &tensors(), SaveDtype::F16).unwrap();
    let bytes = fs::read(&path).unwrap();
    damage(&bytes, "model.safetensors", 1000);
    for n in 0..bytes.len() {
        fs::write(&path, &bytes[..n]).unwrap();
        check_error(dir.path(), &["model.safetensors"]);
    }
}

#[test]
fn pickles() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickled");
    for name in ["zip.bin", "legacy.bin", "module.bin"] {
        let bytes = fs::read(fixtures.join(name)).unwrap();
        damage(&bytes, name, 1000);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pytorch_model.bin");
        for n in (0..bytes.len()).step_by(7) {
            fs::write(&path, &bytes[..n]).unwrap();
            check_error(dir.path(), &["pytorch_model.bin"]);
        }
    }
}

#[test]
fn what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    check_error(dir.path(), &["model.safetensors", "missing"]);
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    check_error(dir.path(), &["model.safetensors", "not a file"]);
}

/// The user who may read everything is not stopped by permissions.
#[cfg(unix)]
#[test]
fn what_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_file(&path, &tensors(), SaveDtype::F32).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_err() {
        check_error(dir.path(), &["model.safetensors", "denied"]);
    }
}
