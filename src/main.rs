//! The flipback binary: provider, command line, exit code.

fn main() {
    // Before anything that might open a TLS connection; a second provider in one process is impossible.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::process::exit(flipback::cli::main());
}
