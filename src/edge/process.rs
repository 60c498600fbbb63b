//! What the process itself costs, under the names that every exporter uses.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug)]
struct Process;

pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
}

/// Read anew at each scrape; what /proc does not tell is left away.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Costs {
    cpu_s: f64,
    started_s: f64,
    resident_bytes: f64,
}

fn read() -> Option<Costs> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    let stat = text("/proc/self/stat")?;
    // The name may hold anything, brackets too: the fields begin behind its last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<f64>().ok();
    // ProcSubset=pid hides /proc/stat and its boot time: the uptime call knows as much.
    let booted_s = {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        (now.tv_sec - up.tv_sec) as f64 + (now.tv_nsec - up.tv_nsec) as f64 / 1e9
    };
    let resident = text("/proc/self/statm")?.split_whitespace().nth(1)?.parse::<f64>().ok()?;
    Some(Costs {
        cpu_s: (number(11)? + number(12)?) / ticks,
        started_s: booted_s + number(19)? / ticks,
        resident_bytes: resident * page,
    })
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(costs) = read() else { return Ok(()) };
        let cpu = ConstCounter::new(costs.cpu_s);
        let out = encoder.encode_descriptor("process_cpu", "CPU time", Some(&Unit::Seconds), cpu.metric_type())?;
        cpu.encode(out)?;
        let started = ConstGauge::new(costs.started_s);
        let out = encoder.encode_descriptor(
            "process_start_time",
            "When it started",
            Some(&Unit::Seconds),
            started.metric_type(),
        )?;
        started.encode(out)?;
        let resident = ConstGauge::new(costs.resident_bytes);
        let out = encoder.encode_descriptor(
            "process_resident_memory",
            "Memory in use",
            Some(&Unit::Bytes),
            resident.metric_type(),
        )?;
        resident.encode(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let costs = read().unwrap();
        assert!(costs.resident_bytes > 1e6 && costs.started_s > 1.6e9 && costs.cpu_s >= 0.0, "{costs:?}");
    }
}
