#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade::fuzz::kube_bodies(bytes));
