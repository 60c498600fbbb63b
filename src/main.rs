//! The flipback binary: provider, command line, exit code.

fn main() -> std::process::ExitCode {
    // Before anything that might open a TLS connection; a second provider in one process is impossible.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The codes are small; one that does not fit is a failure all the same.
    std::process::ExitCode::from(u8::try_from(flipback::cli::main()).unwrap_or(1))
}
