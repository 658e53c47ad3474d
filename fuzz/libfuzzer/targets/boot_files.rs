#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| twinflash_fuzz::run("boot_files", data));
