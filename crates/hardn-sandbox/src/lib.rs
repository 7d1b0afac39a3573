//! Runs untrusted programs under limits; fails closed
