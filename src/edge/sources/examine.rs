//! `check --live`: what every signal of a service shows now, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::client::Prometheus;
use super::decode;
use super::observe::buckets;
use super::promql::{Selector, Template};
use crate::domain::service::{Service, SlotSpec, Slots};
use crate::domain::signal::Quantile;
use crate::domain::time::{Span, Timestamp};
use crate::judge::quantile::quantile;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `checkout blue requests`, `checkout green health`.
    pub subject: String,
    pub level: Level,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    Error,
}

impl Prometheus {
    pub async fn examine(&self, service: &Service) -> Vec<Finding> {
        let mut findings = Vec::new();
        let template = match Template::parse(&service.metrics) {
            Ok(template) => template,
            Err(why) => return vec![finding(&service.name, Level::Error, why)],
        };
        let server_now = match self.time().await {
            Ok(now) => now,
            Err(failure) => return vec![finding("prometheus", Level::Error, failure.to_string())],
        };
        let none = BTreeMap::new();
        let slots = match &service.slots {
            Slots::Named(named) => named,
            Slots::Versions => &none,
        };
        for (slot, spec) in slots {
            self.examine_slot(service, &template, slot.as_str(), spec, server_now, &mut findings).await;
            if !service.metrics.by_slot() {
                break;
            }
        }
        if slots.is_empty() {
            self.examine_slot(service, &template, "", &SlotSpec::default(), server_now, &mut findings).await;
        }
        let cost = self.tick_cost(service, server_now).await;
        let subject = format!("{} a tick's cost", service.name);
        findings.push(match cost {
            Ok(text) => finding(subject, Level::Ok, text),
            Err(failure) => finding(subject, Level::Error, failure.to_string()),
        });
        findings
    }

    async fn examine_slot(
        &self,
        service: &Service,
        template: &Template,
        slot: &str,
        spec: &SlotSpec,
        server_now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        let services = BTreeSet::from([service.name.as_str()]);
        let slots: BTreeSet<&str> = if slot.is_empty() { BTreeSet::new() } else { BTreeSet::from([slot]) };
        let named = [
            ("requests", Some(&template.requests)),
            ("errors", template.errors.as_ref()),
            ("latency", template.latency.as_ref()),
            ("native latency", template.native.as_ref()),
        ];
        for (what, selector) in named.into_iter().filter_map(|(what, s)| Some((what, s?))) {
            let subject = format!("{} {slot} {what}", service.name);
            let bound = selector.bind(&services, &slots, spec);
            let began = Instant::now();
            let result = self.look(service, what, &bound, server_now).await;
            let cost_ms = began.elapsed().as_millis();
            findings.push(match result {
                Ok((level, text)) => finding(&subject, level, format!("{text}; {cost_ms} ms")),
                Err(failure) => finding(&subject, Level::Error, format!("{bound}: {failure}")),
            });
        }
    }

    async fn look(
        &self,
        service: &Service,
        what: &str,
        x: &Selector,
        server_now: Timestamp,
    ) -> Result<(Level, String), crate::domain::signal::ReadFailure> {
        let series = decode::vector(&self.instant(&format!("count(last_over_time({x}[5m]))"), None).await?)?;
        let Some(count) = series.first().map(|s| s.value) else {
            // An error series that was never born is as it should be.
            return Ok(if what == "errors" {
                (Level::Ok, "no series yet: counts as no errors while requests are there".into())
            } else {
                (Level::Error, format!("{x} has no series: is the metric's name right, is the slot scraped?"))
            });
        };
        let newest = decode::vector(&self.instant(&format!("max(timestamp({x}))"), None).await?)?;
        let age_s = newest.first().map(|s| (server_now.as_secs_f64() - s.value).max(0.0));
        let ups = decode::raw_samples(&self.instant(&format!("{x}[5m]"), None).await?)?;
        let interval_s = ups
            .iter()
            .filter(|s| s.points.len() > 1)
            .map(|s| (s.points[s.points.len() - 1].0 - s.points[0].0) as f64 / 1000.0 / (s.points.len() - 1) as f64);
        let interval_s = interval_s.fold(None, |longest: Option<f64>, i| Some(longest.map_or(i, |l| l.max(i))));
        let mut text = format!("{count:.0} series");
        let mut level = Level::Ok;
        let warn = |level: &mut Level, text: &mut String, why: String| {
            *level = (*level).max(Level::Warning);
            text.push_str(&format!("; {why}"));
        };
        match age_s {
            Some(age) => text.push_str(&format!(", newest sample {age:.1} s old")),
            None => warn(&mut level, &mut text, "stale: no sample within Prometheus's lookback".into()),
        }
        if let Some(interval) = interval_s {
            text.push_str(&format!(", scraped every {interval:.1} s"));
            if interval > service.policy.tick.as_secs_f64() * 1.05 {
                let why = format!(
                    "the tick of {} is below the scrape interval and will be raised to it",
                    service.policy.tick
                );
                warn(&mut level, &mut text, why);
            }
            if age_s.is_some_and(|age| age > 3.0 * interval + 5.0) {
                warn(&mut level, &mut text, "stale".into());
            }
        }
        if what == "native latency" {
            let q99 = format!("histogram_quantile(0.99, sum(rate({x}[{}])))", Span::from_mins(5));
            match decode::vector(&self.instant(&q99, None).await?)?.first() {
                Some(p99) => text.push_str(&format!(", p99 {:.0} ms", p99.value * 1000.0)),
                None => warn(&mut level, &mut text, "no native histogram: is it a classic one (..._bucket)?".into()),
            }
        } else if what == "latency" {
            let sums = decode::vector(&self.instant(&format!("sum by (le) (increase({x}[1h]))"), None).await?)?;
            let by_le = sums.iter().filter_map(|s| Some((s.labels.get("le")?.clone(), s.value))).collect();
            match buckets(&by_le) {
                Ok(buckets) => {
                    for q in Quantile::ALL {
                        if let Some(s) = quantile(&buckets, q.q()) {
                            text.push_str(&format!(", {q} {:.0} ms", s * 1000.0));
                        }
                    }
                    let ratio = service.policy.limits.ratio.get();
                    if let Some(why) = too_coarse(&buckets, ratio) {
                        warn(&mut level, &mut text, why);
                    }
                }
                Err(why) => warn(&mut level, &mut text, why),
            }
        } else {
            let rate = decode::vector(&self.instant(&format!("sum(rate({x}[{}]))", Span::from_mins(5)), None).await?)?;
            if let Some(rate) = rate.first() {
                text.push_str(&format!(", {:.2}/s", rate.value));
            }
        }
        Ok((level, text))
    }
}

/// Buckets whose neighbours are further apart than the ratio cannot show it.
fn too_coarse(b: &crate::domain::counts::Buckets, ratio: f64) -> Option<String> {
    let p99 = quantile(b, 0.99)?;
    let limit = p99 * ratio;
    let above = b.bounds().iter().copied().find(|bound| *bound >= limit);
    match above {
        None => Some(format!("{ratio} × p99 is {:.0} ms, beyond the last bucket", limit * 1000.0)),
        Some(bound) if bound > limit * ratio => Some(format!(
            "buckets are coarse: the next bound above {ratio} × p99 ({:.0} ms) is {:.0} ms",
            limit * 1000.0,
            bound * 1000.0
        )),
        Some(_) => None,
    }
}

pub(super) fn finding(subject: impl ToString, level: Level, text: String) -> Finding {
    Finding { subject: subject.to_string(), level, text }
}
