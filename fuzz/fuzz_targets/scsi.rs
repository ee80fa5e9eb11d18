#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nvlane_scsi::exercise::run(data));
