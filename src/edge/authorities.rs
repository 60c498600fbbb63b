//! Who vouches for other hosts' certificates: this machine's authorities, where it has any.

use std::sync::OnceLock;

use reqwest::{Client, ClientBuilder};

/// A minimal root has no certificate authorities, and then no client could be made at all. There flipback speaks plain
/// HTTP, and TLS with servers whose authority is named in the configuration; every other certificate is unknown.
pub fn of_this_machine(builder: ClientBuilder) -> ClientBuilder {
    static NONE: OnceLock<bool> = OnceLock::new();
    // Two processes at once come to the same answer; the provider is installed by then, or it is ours to install.
    let none = NONE.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let none = Client::builder().build().is_err();
        if none {
            tracing::warn!("this machine has no certificate authorities: https needs a ca_file");
        }
        none
    });
    if *none { builder.tls_certs_only([]) } else { builder }
}
