//! The helper as a binary of its own, for users of the library whose `main` is not theirs to change, such as tests.

fn main() -> std::process::ExitCode {
    match aha_sandbox::run_helper_if_asked() {
        Some(code) => code,
        None => std::process::ExitCode::from(2),
    }
}
