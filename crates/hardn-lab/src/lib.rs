//! The small world in which everything runs in minutes
