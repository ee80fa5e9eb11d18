//! What was done: by bdev, by reactor, by thread.

use nvlane_bdev::{Kind, Statistics, ticks};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::control::core::Core;
use crate::control::cpumask::CpuMask;
use crate::control::message::RpcError;
use crate::control::method::{Method, Outcome, When};
use crate::control::parameters::{Parameters, Refusal, given};
use crate::reactor::{ReactorStats, tick_rate};

pub static METHODS: &[Method] = &[
    Method::new("bdev_get_iostat", When::Runtime, get_iostat),
    Method::new("bdev_reset_iostat", When::Runtime, reset_iostat),
    Method::new("framework_get_reactors", When::Runtime, get_reactors),
    Method::new("thread_get_stats", When::Runtime, thread_stats),
];

/// What a reset takes back.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    All,
    Maxmin,
    /// Only errors.
    Error,
    #[default]
    None,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetIostat {
    #[serde(default, deserialize_with = "given")]
    names: Option<Vec<String>>,
    #[serde(default)]
    per_channel: bool,
    #[serde(default)]
    reset_mode: Mode,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetIostat {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    mode: Option<Mode>,
}

fn get_iostat(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: GetIostat = parameters.decode_or_default(Refusal::Internal)?;
    refuse_partial(asked.reset_mode)?;
    if asked.per_channel && asked.names.as_ref().is_none_or(|names| names.len() != 1) {
        return Err(RpcError::errno(libc::EINVAL).with("`per_channel` is of one bdev, which `names` names"));
    }
    let bdevs = match &asked.names {
        None => core.bdevs(),
        Some(names) => names.iter().map(|name| core.bdev(name)).collect::<Result<_, _>>()?,
    };
    let mut reply = json!({"tick_rate": ticks::rate(), "ticks": ticks::now()});
    match bdevs.first().filter(|_| asked.per_channel) {
        Some(bdev) => {
            reply["name"] = bdev.info().name.clone().into();
            let channels = bdev.channel_statistics();
            let channels = channels.iter().map(|(reactor, statistics)| {
                let mut channel = Map::from_iter([("thread_id".to_owned(), json!(thread_id(*reactor)))]);
                channel.extend(counters(statistics));
                Value::Object(channel)
            });
            reply["channels"] = channels.collect();
        }
        None => {
            let bdevs = bdevs.iter().map(|bdev| {
                let mut entry = Map::from_iter([("name".to_owned(), json!(bdev.info().name))]);
                entry.extend(counters(&bdev.statistics()));
                Value::Object(entry)
            });
            reply["bdevs"] = bdevs.collect();
        }
    }
    if asked.reset_mode == Mode::All {
        bdevs.iter().for_each(|bdev| bdev.reset_statistics());
    }
    Ok(reply.into())
}

fn refuse_partial(mode: Mode) -> Result<(), RpcError> {
    match mode {
        Mode::All | Mode::None => Ok(()),
        Mode::Maxmin | Mode::Error => {
            Err(RpcError::errno(libc::EOPNOTSUPP)
                .with("counters are reset together (all) or not at all (none)"))
        }
    }
}

/// SPDK numbers its threads from 1 on; the first is the control thread.
fn thread_id(reactor: usize) -> usize {
    reactor + 2
}

/// As `spdk_bdev_dump_io_stat_json` writes them. Copies are not offered and stay 0.
fn counters(statistics: &Statistics) -> Map<String, Value> {
    let (read, write, unmap) =
        (statistics.kind(Kind::Read), statistics.kind(Kind::Write), statistics.kind(Kind::Unmap));
    let mut errors = Map::new();
    for (name, count) in [("failed", statistics.failed), ("aborted", statistics.aborted)] {
        if count > 0 {
            errors.insert(name.to_owned(), count.into());
        }
    }
    let counters = json!({
        "bytes_read": read.bytes,
        "num_read_ops": read.operations,
        "bytes_written": write.bytes,
        "num_write_ops": write.operations,
        "bytes_unmapped": unmap.bytes,
        "num_unmap_ops": unmap.operations,
        "bytes_copied": 0,
        "num_copy_ops": 0,
        "read_latency_ticks": read.latency,
        "max_read_latency_ticks": read.longest,
        "min_read_latency_ticks": read.shortest,
        "write_latency_ticks": write.latency,
        "max_write_latency_ticks": write.longest,
        "min_write_latency_ticks": write.shortest,
        "unmap_latency_ticks": unmap.latency,
        "max_unmap_latency_ticks": unmap.longest,
        "min_unmap_latency_ticks": unmap.shortest,
        "copy_latency_ticks": 0,
        "max_copy_latency_ticks": 0,
        "min_copy_latency_ticks": 0,
        "io_error": errors,
    });
    match counters {
        Value::Object(counters) => counters,
        _ => Map::new(),
    }
}

fn reset_iostat(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: ResetIostat = parameters.decode_or_default(Refusal::Internal)?;
    let mode = asked.mode.unwrap_or(Mode::All);
    refuse_partial(mode)?;
    if mode == Mode::All {
        let bdevs = match asked.name {
            None => core.bdevs(),
            Some(name) => vec![core.bdev(&name)?],
        };
        bdevs.iter().for_each(|bdev| bdev.reset_statistics());
    }
    Ok(json!(true).into())
}

fn mask(cpu: usize) -> String {
    CpuMask::from_cpus([cpu]).to_string()
}

fn get_reactors(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("`framework_get_reactors` requires no arguments")?;
    let elapsed = core.elapsed_ticks();
    let stats = core.target.reactors().stats();
    let reactors = stats.iter().enumerate().map(|(index, reactor)| {
        let (user, system) = processor_time(reactor.thread);
        let name = format!("reactor_{index}");
        json!({
            "lcore": reactor.cpu,
            "numa_id": numa_node(reactor.cpu),
            "tid": reactor.thread,
            "busy": reactor.busy,
            "idle": reactor.idle,
            "in_interrupt": reactor.asleep,
            "irq": 0,
            "sys": system,
            "usr": user,
            "lw_threads": [{"name": name, "id": thread_id(index), "cpumask": mask(reactor.cpu), "elapsed": elapsed}],
            // Ours: how often it slept, how often it called a guest, how many queues it serves.
            "sleeps": reactor.sleeps,
            "calls": reactor.calls,
            "queues": reactor.queues,
        })
    });
    let reactors: Vec<Value> = reactors.collect();
    Ok(json!({"tick_rate": tick_rate(), "pid": std::process::id(), "reactors": reactors}).into())
}

fn thread_stats(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("'thread_get_stats' requires no arguments")?;
    let stats = core.target.reactors().stats();
    let threads = stats.iter().enumerate().map(|(index, reactor): (usize, &ReactorStats)| {
        json!({
            "name": format!("reactor_{index}"),
            "id": thread_id(index),
            "cpumask": mask(reactor.cpu),
            "busy": reactor.busy,
            "idle": reactor.idle,
            "active_pollers_count": reactor.queues,
            "timed_pollers_count": 0,
            "paused_pollers_count": 0,
        })
    });
    let threads: Vec<Value> = threads.collect();
    Ok(json!({"tick_rate": tick_rate(), "threads": threads}).into())
}

/// User and system time of a thread, in clock ticks of the kernel (proc_pid_stat(5), fields 14 and 15).
fn processor_time(thread: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    // The second field is a name in parentheses, which may hold anything; the third comes after the last of them.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse().ok()).unwrap_or(0);
    (field(11), field(12))
}

/// The node of a processor; -1 where the kernel does not say.
fn numa_node(cpu: usize) -> i64 {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}"));
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let node = |name: std::ffi::OsString| name.to_str()?.strip_prefix("node")?.parse().ok();
    names.filter_map(node).next().unwrap_or(-1)
}
