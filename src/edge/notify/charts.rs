//! The pictures of a notice, as a message carries them.

use super::page::ChartRef;
use crate::account::charts::of_breach;
use crate::chart::Chart;
use crate::domain::notice::Notice;
use crate::journal::Reader;

/// `pictures`: mails carry them; everywhere else their words will do.
pub fn of(reader: &Reader, notice: &Notice, pictures: bool) -> Vec<(ChartRef, Option<Vec<u8>>)> {
    if notice.watch.breach.is_none() || notice.watch.is_drill() {
        return Vec::new();
    }
    let mut account = match reader.account(&notice.watch.id) {
        Ok(Some(account)) => account,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, notice = %notice.key, "the readings of a chart cannot be read");
            return Vec::new();
        }
    };
    // As it was when the notice came, whenever it is delivered.
    account.view = notice.watch.clone();
    of_breach(&account, notice.at).iter().enumerate().map(|(i, chart)| drawn(chart, i, pictures)).collect()
}

/// A chart as a message carries it.
pub fn drawn(chart: &Chart, i: usize, picture: bool) -> (ChartRef, Option<Vec<u8>>) {
    let png = if picture { chart.png() } else { None };
    let (width, height) = (crate::chart::WIDTH, crate::chart::HEIGHT);
    let picture = png.is_some();
    let reference =
        ChartRef { cid: format!("chart{i}"), alt: chart.words(), sparkline: chart.sparkline(), width, height, picture };
    (reference, png)
}
