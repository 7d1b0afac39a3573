//! Several texts in a row.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use hardn_models::{
    DEFAULT_ADAPTER, ForwardOptions, LoraConfig, Model, PrefixTuningConfig, Segments,
};

use crate::adapters::families;

fn rows(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Every family, hence every kind of position and of window: states in a row are those of the text alone.
#[test]
fn texts_of_a_row_do_not_see_each_other() {
    let lengths = vec![vec![5, 9, 1], vec![16], vec![3, 11]];
    let ids: Vec<u32> = (0..48).map(|i| (i * 7 + 3) % 53).collect();
    let batch = Tensor::from_slice(&ids, (3, 16), &Device::Cpu).unwrap();
    let segments = Arc::new(Segments::new(lengths.clone(), 16).unwrap());
    let options = ForwardOptions::evaluate();
    for (name, config) in families() {
        let mut model = Model::random(&config, 5).unwrap();
        model.attach(DEFAULT_ADAPTER, LoraConfig::new(2, 4.0), 3).unwrap();
        for fused in [true, false] {
            model.set_fused(fused);
            let packed = model.hidden_packed(&batch, Some(&segments), &options).unwrap();
            let packed = packed.flatten(0, 1).unwrap();
            for (row, lengths) in lengths.iter().enumerate() {
                let mut first = row * 16;
                for &length in lengths {
                    let text =
                        Tensor::from_slice(&ids[first..first + length], (1, length), &Device::Cpu);
                    let alone = rows(&model.hidden(&text.unwrap(), &options).unwrap());
                    let inside = rows(&packed.narrow(0, first, length).unwrap());
                    for (a, b) in inside.iter().zip(&alone) {
                        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{name}: {a} {b}");
                    }
                    first += length;
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_, config) = families().remove(0);
    let mut model = Model::random(&config, 5).unwrap();
    let batch = Tensor::zeros((2, 4), candle_core::DType::U32, &Device::Cpu).unwrap();
    let options = ForwardOptions::evaluate();
    let segments = |lengths: Vec<Vec<usize>>, seq| Segments::new(lengths, seq).map(Arc::new);
    assert!(segments(vec![vec![3, 2]], 4).is_err());
    assert!(segments(vec![vec![0, 2]], 4).is_err());
    let other = segments(vec![vec![2, 2]], 4).unwrap();
    assert!(model.hidden_packed(&batch, Some(&other), &options).is_err());
    let fitting = segments(vec![vec![2, 2], vec![3]], 4).unwrap();
    assert!(model.hidden_packed(&batch, Some(&fitting), &options).is_ok());
    model.attach(DEFAULT_ADAPTER, PrefixTuningConfig::new(2), 3).unwrap();
    let error = model.hidden_packed(&batch, Some(&fitting), &options).unwrap_err().to_string();
    assert!(error.contains("prefix"), "{error}");
}
