//! A packed product, and what adapters change about it.

use std::sync::Arc;

use super::adapter::AdapterTerms;
use crate::{
    config::spec::{LinearSpec, Slice},
    kernels::{Packed, Team},
};

/// One or more published linear layers that read the same rows, as one product.
pub(super) struct Product {
    /// Its place in the model's list of layouts.
    pub(super) id: usize,
    pub(super) weight: Packed,
}

/// Which published outputs the columns of a product are.
pub(super) struct Layout {
    pub(super) linears: Vec<LinearSpec>,
    /// Runs of columns, in order.
    pub(super) runs: Vec<Slice>,
}

impl Layout {
    pub(super) fn width(&self) -> usize {
        self.runs.iter().map(|run| run.len).sum()
    }

    /// Runs as (first column, run).
    pub(super) fn columns(&self) -> impl Iterator<Item = (usize, Slice)> {
        self.runs.iter().scan(0, |next, run| {
            let first = *next;
            *next += run.len;
            Some((first, *run))
        })
    }
}

/// Rows of a product, by the adapter they are computed with.
#[derive(Default)]
pub(super) struct Users {
    adapters: Vec<Arc<AdapterTerms>>,
    /// For each row an index into `adapters`; empty where no row has one.
    rows: Vec<Option<usize>>,
}

impl Users {
    /// `rows` gives each row's adapter.
    pub(super) fn new<'a>(rows: impl Iterator<Item = Option<&'a Arc<AdapterTerms>>>) -> Self {
        let mut users = Self::default();
        for adapter in rows {
            let index = adapter.filter(|adapter| adapter.changes_products()).map(|adapter| {
                let known = users.adapters.iter().position(|known| Arc::ptr_eq(known, adapter));
                known.unwrap_or_else(|| {
                    users.adapters.push(adapter.clone());
                    users.adapters.len() - 1
                })
            });
            users.rows.push(index);
        }
        if users.adapters.is_empty() {
            users.rows.clear();
        }
        users
    }

    /// Those of some of the rows.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        if self.adapters.is_empty() {
            return Self::default();
        }
        let rows = rows.iter().map(|row| self.rows[*row]).collect();
        Self { adapters: self.adapters.clone(), rows }
    }

    /// Adapters with their rows.
    fn iter(&self) -> impl Iterator<Item = (&AdapterTerms, Vec<usize>)> {
        self.adapters.iter().enumerate().map(|(index, adapter)| {
            let is_user = |row: &usize| self.rows[*row] == Some(index);
            (&**adapter, (0..self.rows.len()).filter(is_user).collect())
        })
    }
}

impl Product {
    /// Columns of the product.
    pub(super) fn n(&self) -> usize {
        self.weight.n()
    }

    /// `out[rows, n] = x[rows, k] w^T + bias`, with each row's adapter.
    pub(super) fn forward(&self, x: &[f32], out: &mut Vec<f32>, users: &Users, team: &Team) {
        out.resize(x.len() / self.weight.k() * self.n(), 0.0);
        self.weight.multiply(x, out, team);
        for (adapter, rows) in users.iter() {
            if let Some(term) = adapter.term(self.id).filter(|_| !rows.is_empty()) {
                term.apply(&self.weight, x, out, &rows, team);
            }
        }
    }
}
