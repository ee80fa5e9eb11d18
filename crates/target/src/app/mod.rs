//! The program around the control plane: options, start-up in its order, the loop of the control thread, the end.

mod confine;
mod identity;
pub mod journal;
pub mod listener;
mod options;
mod ready;
mod run;
mod start;

use std::process::ExitCode;

/// The program `nvlane-target`.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let options = match options::parse(arguments) {
        Ok(options::Asked::Run(options)) => options,
        Ok(options::Asked::Text(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("nvlane-target: {why}\nSee nvlane-target --help.");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = journal::start(options.log_level) {
        eprintln!("nvlane-target: {error}");
        return ExitCode::FAILURE;
    }
    match start::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log::error!("{why}");
            ExitCode::FAILURE
        }
    }
}
