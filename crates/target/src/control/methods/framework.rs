//! The program itself: version, methods, states, end.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::configuration::SUBSYSTEMS;
use crate::control::core::Core;
use crate::control::load::{self, Strictness};
use crate::control::message::{RpcError, code};
use crate::control::method::{Method, Outcome, Wait, When};
use crate::control::parameters::{Parameters, Refusal, given};

/// The release of SPDK whose methods, parameters and replies these are.
const SPDK: (u32, u32) = (26, 5);

pub static METHODS: &[Method] = &[
    Method::new("spdk_get_version", When::Always, get_version),
    Method::new("rpc_get_methods", When::Always, get_methods),
    Method::new("framework_start_init", When::Startup, start_init),
    Method::new("framework_wait_init", When::Always, wait_init),
    Method::new("framework_get_subsystems", When::Runtime, get_subsystems),
    Method::new("framework_get_config", When::Runtime, get_config),
    Method::new("spdk_kill_instance", When::Runtime, kill_instance),
    Method::new("nvlane_get_status", When::Always, get_status),
];

fn get_version(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("spdk_get_version method requires no parameters")?;
    let (major, minor) = SPDK;
    let own = env!("CARGO_PKG_VERSION");
    Ok(json!({
        "version": format!("nvlane-target v{own}, with the RPC of SPDK v{major}.{minor:02}"),
        "fields": {
            "major": major,
            "minor": minor,
            "patch": 0,
            "suffix": format!("-nvlane-{own}"),
            "commit": "",
        },
    })
    .into())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetMethods {
    #[serde(default, deserialize_with = "given")]
    current: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    include_aliases: Option<bool>,
}

fn get_methods(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: GetMethods = parameters.decode_or_default(Refusal::Plain)?;
    let state = asked.current.unwrap_or(false).then_some(core.running);
    Ok(json!(core.methods.names(state, asked.include_aliases.unwrap_or(false))).into())
}

fn start_init(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("framework_start_init requires no parameters")?;
    core.running = true;
    log::info!("initialized by RPC");
    let pending = std::mem::take(&mut core.pending);
    load::carry_out(core, pending, Strictness::Strict)
        .map_err(|why| RpcError::new(code::INTERNAL_ERROR, "Internal error").with(why))?;
    Ok(Value::Bool(true).into())
}

fn get_subsystems(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("'framework_get_subsystems' requires no arguments")?;
    let subsystems = SUBSYSTEMS.iter().map(|(name, needs)| json!({"subsystem": name, "depends_on": needs}));
    Ok(Value::from(subsystems.collect::<Vec<_>>()).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetConfig {
    name: String,
    /// Batches are not written, whether they would be welcome or not.
    #[serde(default, rename = "with_batches", deserialize_with = "given")]
    _with_batches: Option<bool>,
}

fn get_config(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: GetConfig = parameters
        .decode(Refusal::Plain)
        .map_err(|error| RpcError { message: "Invalid arguments".into(), ..error })?;
    let unknown = || RpcError::new(code::INVALID_PARAMS, format!("Subsystem '{}' not found", asked.name));
    Ok(core.configuration.subsystem(&asked.name).ok_or_else(unknown)?.into())
}

fn wait_init(core: &mut Core, _: &Parameters) -> Result<Outcome, RpcError> {
    if core.running {
        return Ok(Value::Bool(true).into());
    }
    let poll = |core: &mut Core, _| core.running.then_some(Ok(Value::Bool(true)));
    Ok(Outcome::Wait(Wait { deadline: None, poll: Box::new(poll) }))
}

/// Ours: what SPDK has no method for.
fn get_status(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("nvlane_get_status requires no parameters")?;
    let missing: Vec<Value> = core
        .configuration
        .missing()
        .iter()
        .map(|missing| json!({"method": missing.call.method, "params": missing.call.params, "reason": missing.why}))
        .collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "state": if core.running { "running" } else { "startup" },
        "bdevs": core.target.bdevs().len(),
        "controllers": core.target.controllers().len(),
        "reactors": core.target.reactors().len(),
        "files_confined": core.confinement.paths.is_some(),
        "allowed_paths": core.confinement.paths,
        // Saved, but not to be had at this start; tried again at the next.
        "missing": missing,
    })
    .into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillInstance {
    sig_name: Signal,
}

#[derive(Clone, Copy, Deserialize)]
enum Signal {
    #[serde(rename = "SIGINT")]
    Interrupt,
    #[serde(rename = "SIGTERM")]
    Terminate,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGHUP")]
    HangUp,
    #[serde(rename = "SIGKILL")]
    Kill,
    /// It does nothing to SPDK's applications but to those that ask for it.
    #[serde(rename = "SIGUSR1")]
    User,
}

fn kill_instance(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: KillInstance = parameters.decode(Refusal::Plain)?;
    match asked.sig_name {
        Signal::Interrupt | Signal::Terminate | Signal::Quit | Signal::HangUp => core.ending = true,
        Signal::User => {}
        Signal::Kill => {
            let this = rustix::process::getpid();
            rustix::process::kill_process(this, rustix::process::Signal::KILL)
                .map_err(|errno| RpcError::errno(errno.raw_os_error()))?;
        }
    }
    Ok(Value::Bool(true).into())
}
