//! Gradients of a long computation of which only the states between its parts are kept.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Error, Result, Tensor, TensorId, Var};

use rayon::prelude::*;

use super::known::Known;

/// Gradients by variable.
#[derive(Debug, Default)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// The gradients of a scalar for those of the variables that it depends on.
    ///
    /// # Errors
    /// Whatever the tensor library reports.
    pub fn of(loss: &Tensor, variables: &[Var]) -> Result<Self> {
        let mut gradients = Self::default();
        gradients.add(loss.clone(), variables, None)?;
        Ok(gradients)
    }

    /// The gradient of a variable, if it has one.
    pub fn get(&self, variable: &Tensor) -> Option<&Tensor> {
        self.0.get(&variable.id())
    }

    /// The same, taken out.
    pub fn remove(&mut self, variable: &Tensor) -> Option<Tensor> {
        self.0.remove(&variable.id())
    }

    /// The sums of these and others' gradients, on all threads.
    ///
    /// # Errors
    /// Gradients of one variable that differ in shape.
    pub fn merged(mut self, other: Self) -> Result<Self> {
        let pair = |(id, theirs): (TensorId, Tensor)| {
            let sum = match self.0.get(&id) {
                Some(own) => (own + theirs)?,
                None => theirs,
            };
            Ok((id, sum))
        };
        let sums = other.0.into_par_iter().map(pair).collect::<Result<Vec<_>>>()?;
        self.0.extend(sums);
        Ok(self)
    }

    /// Adds the gradients of a scalar, and returns that of `state`.
    fn add(
        &mut self,
        mut scalar: Tensor,
        variables: &[Var],
        state: Option<&Var>,
    ) -> Result<Option<Tensor>> {
        // What a variable has already goes first into its sum, as in a single pass.
        let used: HashSet<TensorId> = if self.0.is_empty() {
            HashSet::new()
        } else {
            scalar.sorted_nodes().iter().map(|node| node.id()).collect()
        };
        for variable in variables.iter().filter(|variable| used.contains(&variable.id())) {
            if let Some(gradient) = self.0.remove(&variable.id()) {
                scalar = (scalar + seed(variable, gradient)?)?;
            }
        }
        let mut store = scalar.backward()?;
        for variable in variables {
            if let Some(gradient) = store.remove(variable) {
                self.0.insert(variable.id(), gradient);
            }
        }
        Ok(state.and_then(|state| store.remove(state)))
    }
}

/// A scalar whose gradient for `tensor` is `gradient`.
fn seed(tensor: &Tensor, gradient: Tensor) -> Result<Tensor> {
    if tensor.device().is_cpu() && tensor.dtype() == DType::F32 {
        tensor.apply_op1(Known::new(0.0, [Some(gradient), None, None]))
    } else {
        (tensor * gradient)?.sum_all()
    }
}

/// One part of a computation: the state after it, as a function of the state before.
pub type Segment<'a, E> = Box<dyn Fn(&Tensor) -> std::result::Result<Tensor, E> + 'a>;

/// What `loss` gives besides the loss, and the gradients of that loss after all `segments`, as an ordinary backward pass has them, bit for bit.
///
/// Forward, only the states between segments are kept; backward, each segment is computed once more, so that at any
/// time the intermediate results of a single one are held. A segment must give the same result each time: dropout
/// has to be a function of a seed. `input` gets no gradient.
///
/// # Errors
/// Whatever a segment or the loss reports; a segment whose result does not depend on its argument.
///
/// # Source
/// Chen et al. 2016 (arXiv:1604.06174), section 4.1, with the segments given.
pub fn backward_in_segments<T, E: From<Error>>(
    input: &Tensor,
    segments: &[Segment<E>],
    loss: impl FnOnce(&Tensor) -> std::result::Result<(Tensor, T), E>,
    variables: &[Var],
) -> std::result::Result<(T, Gradients), E> {
    let mut states = vec![input.detach()];
    for segment in segments {
        let state = segment(&states[states.len() - 1])?;
        states.push(state.detach());
    }
    let mut gradients = Gradients::default();
    let last = Var::from_tensor(&states[segments.len()])?;
    let (value, rest) = loss(&last)?;
    let mut upstream = gradients.add(value, variables, Some(&last))?;
    for (i, segment) in segments.iter().enumerate().rev() {
        states.truncate(i + 1);
        let Some(gradient) = upstream.take() else {
            let message = format!("segment {} does not depend on the one before it", i + 1);
            return Err(Error::Msg(message).into());
        };
        let state = match i {
            0 => None,
            _ => Some(Var::from_tensor(&states[i])?),
        };
        let result = segment(state.as_ref().map_or(&states[0], Var::as_tensor))?;
        upstream = gradients.add(seed(&result, gradient)?, variables, state.as_ref())?;
    }
    Ok((rest, gradients))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{
        ops::{Activation, activation, layer_norm, linear},
        rng::Stream,
    };

    fn variable(name: &str, shape: &[usize]) -> Var {
        let mut stream = Stream::new(5, name);
        let n = shape.iter().product();
        let data: Vec<f32> = (0..n).map(|_| stream.normal() as f32).collect();
        Var::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn segments_give_the_bits_of_the_whole() {
        // The table is used at both ends, as in a model with a tied head.
        let table = variable("table", &[19, 8]);
        let weights: Vec<Var> = (0..6)
            .map(|i| variable(&i.to_string(), if i % 2 == 0 { &[8, 8] } else { &[8] }))
            .collect();
        let ids = Tensor::new(&[3_u32, 7, 18, 3], &Device::Cpu).unwrap();
        let layer = |i: usize, x: &Tensor| -> Result<Tensor> {
            let h = layer_norm(x, &weights[2 * i + 1], None, 1e-5)?;
            x + activation(Activation::Gelu, &linear(&h, &weights[2 * i], None)?)?
        };
        let loss = |x: &Tensor| -> Result<(Tensor, f32)> {
            let loss = linear(x, &table, None)?.tanh()?.sqr()?.mean_all()?;
            let value = loss.to_scalar()?;
            Ok((loss, value))
        };
        let mut variables = weights.clone();
        variables.push(table.clone());

        let segments: Vec<Segment<Error>> = vec![
            Box::new(|ids| table.index_select(ids, 0)),
            Box::new(|x| layer(1, &layer(0, x)?)),
            Box::new(|x| layer(2, x)),
        ];
        let (value, gradients) = backward_in_segments(&ids, &segments, loss, &variables).unwrap();

        let x = (0..3).fold(table.index_select(&ids, 0).unwrap(), |x, i| layer(i, &x).unwrap());
        let (whole, expected_value) = loss(&x).unwrap();
        assert_eq!(value, expected_value);
        let expected = Gradients::of(&whole, &variables).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for variable in &variables {
            let gradient = values(gradients.get(variable).unwrap());
            assert!(gradient.iter().any(|g| *g != 0.0));
            assert_eq!(gradient, values(expected.get(variable).unwrap()));
        }
    }

    #[test]
    fn a_segment_that_ignores_its_argument_is_an_error() {
        let x = variable("x", &[3]);
        let constant = variable("c", &[3]);
        let segments: Vec<Segment<Error>> =
            vec![Box::new(|x| x * 2.0), Box::new(|_| Ok(constant.as_tensor().clone()))];
        let loss = |x: &Tensor| Ok((x.sum_all()?, ()));
        assert!(backward_in_segments(&x, &segments, loss, &[]).is_err());
    }
}
