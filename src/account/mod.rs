//! A watch's account: its pictures, and why it was judged as it was. Pure: what was read is an argument.

pub mod backtest;
pub mod charts;
pub mod explain;
pub mod glance;
pub mod replay;
pub mod rivals;
pub mod switches;
pub mod what_if;
