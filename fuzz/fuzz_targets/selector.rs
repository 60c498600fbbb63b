#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| flipback::foreign::run("selector", data));
