use std::process::ExitCode;

fn main() -> ExitCode {
    stockade::cli::run()
}
