//! How far a text has come under a constraint.

use llguidance::{Matcher, toktrie::SimpleVob};

use super::{AllowedTokens, readable};
use crate::{DecodeError, Result};

/// A constraint and the tokens of one text so far. A copy goes on by itself.
#[derive(Clone)]
pub struct ConstraintState {
    matcher: Matcher,
    key: &'static str,
    vocab_size: usize,
    end_tokens: Vec<u32>,
    /// The token that stands for all end tokens.
    end: u32,
    /// Tokens so far, without the end.
    n_tokens: usize,
    /// An end token came.
    is_ended: bool,
    /// What may come next, where it was computed.
    mask: Option<SimpleVob>,
}

impl ConstraintState {
    pub(super) fn new(
        matcher: Matcher,
        key: &'static str,
        vocab_size: usize,
        end_tokens: &[u32],
        end: u32,
    ) -> Self {
        Self {
            matcher,
            key,
            vocab_size,
            end_tokens: end_tokens.to_vec(),
            end,
            n_tokens: 0,
            is_ended: false,
            mask: None,
        }
    }

    /// Writes which tokens may come next, `vocab_size` bits; end tokens are allowed exactly where the text may end.
    ///
    /// # Errors
    /// [`DecodeError::Constraint`] if no token can go on with the text and it may not end: the vocabulary lacks what the
    /// form asks for, or the form took more work than is allowed.
    pub fn allow(&mut self, allowed: &mut AllowedTokens) -> Result<()> {
        if self.is_ended {
            allowed.copy(&[], self.vocab_size);
            return Ok(());
        }
        let (end, vocab_size) = (self.end, self.vocab_size);
        let mask = self.mask()?;
        let may_end = mask.is_allowed(end);
        allowed.copy(mask.as_slice(), vocab_size);
        // Beyond the tokenizer's own tokens, where a model has more logits, the end's stand-in is an id of the model.
        allowed.set(end, false);
        for id in &self.end_tokens {
            allowed.set(*id, may_end);
        }
        Ok(())
    }

    /// Whether nothing but the end can follow: the text is complete and every longer one is wrong.
    ///
    /// # Errors
    /// Those of [`Self::allow`].
    pub fn is_over(&mut self) -> Result<bool> {
        if self.is_ended || self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(true);
        }
        if !self.may_end()? {
            return Ok(false);
        }
        let end = self.end as usize;
        Ok(self.mask()?.iter().all(|id| id as usize == end))
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// Those of [`Self::allow`].
    pub fn may_end(&mut self) -> Result<bool> {
        let accepting = self.matcher.is_accepting();
        Ok(self.is_ended || accepting.map_err(|error| self.error(&error.to_string()))?)
    }

    /// Adds a token to the text.
    ///
    /// # Errors
    /// [`DecodeError::Constraint`] for a token that may not come next; the state stays as it was.
    pub fn push(&mut self, id: u32) -> Result<()> {
        let is_end = self.end_tokens.contains(&id);
        let is_taken = if self.is_ended {
            false
        } else if is_end {
            self.may_end()?
        } else if id >= self.end {
            false
        } else {
            let taken = self.matcher.try_consume_tokens(&[id]);
            taken.map_err(|error| self.error(&error.to_string()))? == 1
        };
        if !is_taken {
            return Err(self.error(&format!(
                "token {id} cannot follow after {} tokens of this form",
                self.n_tokens
            )));
        }
        if is_end {
            self.is_ended = true;
        } else {
            self.n_tokens += 1;
            self.mask = None;
        }
        Ok(())
    }

    /// Takes the last `n` tokens back, an end token included; the state is then as if they had never been added.
    ///
    /// # Errors
    /// [`DecodeError::Constraint`] if the text has fewer.
    pub fn rollback(&mut self, n: usize) -> Result<()> {
        let n_text = n - usize::from(self.is_ended).min(n);
        if n_text > self.n_tokens {
            let message = format!("cannot take {n} tokens back from a text of {}", self.n_tokens);
            return Err(self.error(&message));
        }
        if n > 0 {
            self.is_ended = false;
        }
        if n_text > 0 {
            self.mask = None;
            let back = self.matcher.rollback(n_text);
            back.map_err(|error| self.error(&error.to_string()))?;
            self.n_tokens -= n_text;
        }
        Ok(())
    }

    /// The next tokens, the end's stand-in among them.
    fn mask(&mut self) -> Result<&SimpleVob> {
        if self.mask.is_none() {
            let found = self.matcher.compute_mask_or_eos();
            let mask = found.map_err(|error| {
                let what = format!(
                    "after {} tokens no token of the vocabulary can go on with a text of this form",
                    self.n_tokens
                );
                let why = readable(&error.to_string());
                self.error(&if why.is_empty() || why.contains("NoExtension") {
                    what
                } else {
                    format!("{what}: {why}")
                })
            })?;
            self.mask = Some(mask);
        }
        Ok(self.mask.get_or_insert_with(SimpleVob::new))
    }

    fn error(&self, message: &str) -> DecodeError {
        DecodeError::Constraint { key: self.key, message: readable(message) }
    }
}
