//! Languages: parsing, validity, cutting completions, diffs and token masks
