//! The vhost-user target. Everything is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    nvlane_target::app::main(std::env::args_os().skip(1))
}
