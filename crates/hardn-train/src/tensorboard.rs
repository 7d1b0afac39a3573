//! TensorBoard's event files: scalars only, written as the training goes.
//!
//! A file is a row of records: length (u64), its checksum, the bytes, their checksum, all little-endian; each holds one
//! `Event` message of protocol buffers.
//!
//! # Source
//! TensorFlow's `record_writer.cc` for the records, `event.proto` and `summary.proto` for the messages.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use hardn_types::write_atomic;

use crate::{Result, TrainError};

/// The name begins as TensorBoard wants it; one file per training, so that a resumed one goes on in it.
const FILE: &str = "tensorboard/events.out.tfevents.0.hardn";

/// What the first record says.
const VERSION: &[u8] = b"brain.Event:2";

/// The open event file of a training.
pub(crate) struct TensorBoard {
    path: PathBuf,
    file: fs::File,
}

impl TensorBoard {
    /// Opens the file in `dir`, without whatever was written after `step`.
    pub(crate) fn open(dir: &Path, step: usize) -> Result<Self> {
        let path = dir.join(FILE);
        let there = fs::read(&path).unwrap_or_default();
        let mut bytes = record(&version_event());
        for event in records(&there).filter(|_| step > 0) {
            if step_of(event).is_some_and(|at| at <= step as u64) {
                bytes.extend(record(event));
            }
        }
        write_atomic(&path, &bytes)?;
        let file = fs::OpenOptions::new().append(true).open(&path);
        Ok(Self { file: file.map_err(TrainError::file("open", &path))?, path })
    }

    /// Writes the scalars of a step, in one write.
    pub(crate) fn write(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let bytes = record(&scalar_event(now, step as u64, scalars));
        self.file.write_all(&bytes).map_err(TrainError::file("write", &self.path))
    }
}

/// `Event { wall_time: 0, file_version }`.
fn version_event() -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, 0.0);
    put_bytes(&mut event, 3, VERSION);
    event
}

/// `Event { wall_time, step, summary: Summary { value: [Value { tag, simple_value }] } }`.
fn scalar_event(seconds: f64, step: u64, scalars: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | 5);
        entry.extend((*value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    put_double(&mut event, 1, seconds);
    event.push(2 << 3);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

/// The step of a scalar event as written above.
fn step_of(event: &[u8]) -> Option<u64> {
    let rest = event.get(9..)?.strip_prefix(&[2 << 3])?;
    let mut step = 0;
    for (i, byte) in rest.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

fn put_double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked_crc(data).to_le_bytes());
    bytes
}

/// The records of a file, up to the first that is torn or damaged.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<12>()?;
        let (length, crc) = head.split_first_chunk::<8>()?;
        if masked_crc(length).to_le_bytes() != *crc {
            return None;
        }
        let (data, rest) = rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        bytes = rest;
        (masked_crc(data).to_le_bytes() == *crc).then_some(data)
    })
}

/// CRC-32C (Castagnoli), turned and shifted as the record format wants it.
fn masked_crc(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        // RFC 3720, B.4: 32 zero bytes have the CRC-32C 8a9136aa, 32 bytes of ones 62a8ab43.
        for (byte, crc) in [(0_u8, 0x8a91_36aa_u32), (0xff, 0x62a8_ab43)] {
            assert_eq!(masked_crc(&[byte; 32]), crc.rotate_right(15).wrapping_add(0xa282_ead8));
        }
    }

    #[test]
    fn a_resumed_file_has_every_step_once_and_no_torn_record() {
        let dir = tempfile::tempdir().unwrap();
        let scalars = [("train/loss".to_owned(), 0.5)];
        let steps = || {
            let bytes = fs::read(dir.path().join(FILE)).unwrap();
            let events: Vec<_> = records(&bytes).map(<[u8]>::to_vec).collect();
            let n_bytes: usize = events.iter().map(|event| record(event).len()).sum();
            assert!(n_bytes <= bytes.len());
            (
                events.iter().filter_map(|event| step_of(event)).collect::<Vec<_>>(),
                bytes.len() - n_bytes,
            )
        };
        let mut board = TensorBoard::open(dir.path(), 0).unwrap();
        for step in [1, 2, 300, 301] {
            board.write(step, &scalars).unwrap();
        }
        board.file.write_all(&record(b"torn")[..9]).unwrap();
        assert_eq!(steps(), (vec![1, 2, 300, 301], 9));
        let mut board = TensorBoard::open(dir.path(), 300).unwrap();
        board.write(301, &scalars).unwrap();
        assert_eq!(steps(), (vec![1, 2, 300, 301], 0));
        TensorBoard::open(dir.path(), 0).unwrap();
        assert_eq!(steps(), (vec![], 0));
    }
}
