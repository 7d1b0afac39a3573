//! Embedded security analyser: code in, findings out; rules are data
