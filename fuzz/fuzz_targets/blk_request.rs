#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nvlane_target::device::blk::fuzz::requests(data));
