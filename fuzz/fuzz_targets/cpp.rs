#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hardn_fuzz::analyse(bytes, hardn_types::Language::Cpp));
