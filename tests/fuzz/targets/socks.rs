#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade::fuzz::socks(bytes));
