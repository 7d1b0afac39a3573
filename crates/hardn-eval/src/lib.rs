//! Scenarios to completions to verdicts to statistics
