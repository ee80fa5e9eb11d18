#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nvlane_nvme::emulated::fuzz::device(data));
