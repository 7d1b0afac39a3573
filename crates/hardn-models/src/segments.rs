//! Rows that hold several texts.

use std::ops::Range;

use crate::{ModelError, Result};

/// Where texts lie in the rows of a packed batch. A text begins at position 0 and sees itself alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Of every row; they add up to the row's length.
    lengths: Vec<Vec<usize>>,
    seq: usize,
}

impl Segments {
    /// The lengths of the texts of each row; what is left of the `seq` positions of a row is padding.
    ///
    /// # Errors
    /// A row whose texts are longer than it is, or a text of no tokens.
    pub fn new(mut lengths: Vec<Vec<usize>>, seq: usize) -> Result<Self> {
        for (row, lengths) in lengths.iter_mut().enumerate() {
            let used: usize = lengths.iter().sum();
            if used > seq || lengths.contains(&0) {
                return Err(ModelError::Input(format!(
                    "row {row} of a packed batch has {seq} positions, but texts of {lengths:?} tokens"
                )));
            }
            // Padding sees itself alone, too.
            lengths.extend(Some(seq - used).filter(|rest| *rest > 0));
        }
        Ok(Self { lengths, seq })
    }

    /// Rows, and positions of each.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.lengths.len(), self.seq)
    }

    /// Some of the rows.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Self {
        Self { lengths: self.lengths[rows].to_vec(), seq: self.seq }
    }

    /// Positions of the longest text.
    pub(crate) fn longest(&self) -> usize {
        self.lengths.iter().flatten().copied().max().unwrap_or(0)
    }

    /// The stretches of the rows, which are counted through.
    pub(crate) fn spans(&self) -> Vec<Range<usize>> {
        let mut first = 0;
        let mut span = |length: &usize| {
            first += length;
            first - length..first
        };
        self.lengths.iter().flatten().map(&mut span).collect()
    }

    /// The place of every position in its text, `[rows * seq]`.
    pub(crate) fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flatten().flat_map(|length| 0..*length as u32).collect()
    }
}
