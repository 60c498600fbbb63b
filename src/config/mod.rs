//! TOML → raw (serde) → [`Settings`] (validated); every problem at once.

pub mod settings;

pub use settings::Settings;
