//! Facts of the build, for `flipback version`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let rustc = std::process::Command::new(env("RUSTC")).arg("--version").output();
    let rustc = rustc.ok().and_then(|done| String::from_utf8(done.stdout).ok()).unwrap_or_default();
    println!("cargo::rustc-env=FLIPBACK_RUSTC={}", rustc.trim());
    println!("cargo::rustc-env=FLIPBACK_TARGET={}", env("TARGET"));
    println!("cargo::rustc-env=FLIPBACK_PROFILE={}", env("PROFILE"));
}
