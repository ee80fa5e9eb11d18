//! Counters in Prometheus' text form (exposition format 0.0.4).

use std::fmt::Write;

use nvlane_bdev::{Kind, Statistics, ticks};

use crate::control::core::Core;
use crate::reactor::tick_rate;
use crate::target::KindView;

/// A value of a label, with what the format wants escaped.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}=\"{}\"", label(text))).collect();
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{}}} {value}", labels.join(","))
        };
    }
}

fn seconds(ticks: u64, rate: u64) -> f64 {
    ticks as f64 / rate.max(1) as f64
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Read, "read"),
    (Kind::Write, "write"),
    (Kind::Unmap, "unmap"),
    (Kind::Flush, "flush"),
    (Kind::WriteZeroes, "write_zeroes"),
];

/// The whole page.
pub fn render(core: &Core) -> String {
    let mut page = Page(String::new());
    page.family("nvlane_target_info", "gauge", "The program; always 1.");
    page.sample("nvlane_target_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family(
        "nvlane_target_missing",
        "gauge",
        "Parts of the saved configuration that could not be made again.",
    );
    page.sample("nvlane_target_missing", &[], core.configuration.missing().len());
    bdevs(&mut page, core);
    controllers(&mut page, core);
    reactors(&mut page, core);
    page.0
}

fn bdevs(page: &mut Page, core: &Core) {
    let bdevs: Vec<(String, u64, Statistics)> =
        core.bdevs().iter().map(|bdev| (bdev.info().name.clone(), bdev.bytes(), bdev.statistics())).collect();
    page.family("nvlane_bdev_size_bytes", "gauge", "Size of a bdev.");
    for (name, bytes, _) in &bdevs {
        page.sample("nvlane_bdev_size_bytes", &[("bdev", name)], bytes);
    }
    let rate = ticks::rate();
    type Value = fn(&Statistics, Kind, u64) -> f64;
    let families: [(&str, &str, Value); 3] = [
        ("nvlane_bdev_operations_total", "Requests that have ended.", |all, kind, _| {
            all.kind(kind).operations as f64
        }),
        ("nvlane_bdev_bytes_total", "Bytes that they were about.", |all, kind, _| {
            all.kind(kind).bytes as f64
        }),
        ("nvlane_bdev_latency_seconds_total", "Time that they took together.", |all, kind, rate| {
            seconds(all.kind(kind).latency, rate)
        }),
    ];
    for (family, help, value) in families {
        page.family(family, "counter", help);
        for (name, _, statistics) in &bdevs {
            for (kind, label) in KINDS {
                page.sample(family, &[("bdev", name), ("operation", label)], value(statistics, kind, rate));
            }
        }
    }
    page.family("nvlane_bdev_errors_total", "counter", "Requests that have failed.");
    for (name, _, statistics) in &bdevs {
        for (result, count) in [("failed", statistics.failed), ("aborted", statistics.aborted)] {
            page.sample("nvlane_bdev_errors_total", &[("bdev", name), ("result", result)], count);
        }
    }
}

fn controllers(page: &mut Page, core: &Core) {
    let controllers = core.target.controllers();
    page.family("nvlane_controller_sessions", "gauge", "Front ends that are connected to a controller.");
    for controller in &controllers {
        let front_end = match controller.kind {
            KindView::Blk { .. } => "blk",
            KindView::Scsi { .. } => "scsi",
        };
        let labels = [("controller", controller.name.as_str()), ("front_end", front_end)];
        page.sample("nvlane_controller_sessions", &labels, controller.sessions.len());
    }
    page.family("nvlane_controller_queues", "gauge", "Queues of a controller that are served.");
    for controller in &controllers {
        page.sample(
            "nvlane_controller_queues",
            &[("controller", &controller.name)],
            controller.sessions.iter().map(|session| session.queues).sum::<usize>(),
        );
    }
}

fn reactors(page: &mut Page, core: &Core) {
    let stats = core.target.reactors().stats();
    let rate = tick_rate();
    let cpus: Vec<String> = stats.iter().map(|reactor| reactor.cpu.to_string()).collect();
    page.family(
        "nvlane_reactor_seconds_total",
        "counter",
        "Time of a reactor, with and without something to do.",
    );
    for (reactor, cpu) in stats.iter().zip(&cpus) {
        for (state, time) in [("busy", reactor.busy), ("idle", reactor.idle)] {
            page.sample(
                "nvlane_reactor_seconds_total",
                &[("cpu", cpu), ("state", state)],
                seconds(time, rate),
            );
        }
    }
    for (family, kind, help, value) in [
        ("nvlane_reactor_sleeps_total", "counter", "How often a reactor went to sleep.", 0),
        ("nvlane_reactor_calls_total", "counter", "How often it called a guest.", 1),
        ("nvlane_reactor_queues", "gauge", "Queues that it serves.", 2),
    ] {
        page.family(family, kind, help);
        for (reactor, cpu) in stats.iter().zip(&cpus) {
            page.sample(family, &[("cpu", cpu)], [reactor.sleeps, reactor.calls, reactor.queues][value]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.family("a_total", "counter", "What it is.");
        page.sample("a_total", &[("name", "x\"y\\z\n")], 1.5);
        page.sample("a_total", &[], 7);
        assert_eq!(
            page.0,
            "# HELP a_total What it is.\n# TYPE a_total counter\na_total{name=\"x\\\"y\\\\z\\n\"} 1.5\na_total 7\n"
        );
    }
}
