//! Configurations: files in SPDK's form, made by its `save_config`, by our state, or by hand.
//!
//! ```json
//! {"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_malloc_create", "params": {...}}, ...]}, ...]}
//! ```
//!
//! An element of `config` may be a list of calls (a batch, from SPDK 26.09 on). Anything else in the root is passed over,
//! as SPDK does.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::configuration::{Call, Missing};
use super::core::Core;
use super::message::{RpcError, code};
use super::method::{Methods, When};
use super::parameters::Parameters;

/// One call of a configuration, and where it stands.
#[derive(Clone, Debug)]
pub struct Entry {
    pub subsystem: String,
    pub method: String,
    pub params: Option<Box<RawValue>>,
    pub line: usize,
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow)]
    subsystems: Vec<Subsystem<'a>>,
}

#[derive(Deserialize)]
struct Subsystem<'a> {
    subsystem: String,
    #[serde(borrow, default)]
    config: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Element {
    method: String,
    #[serde(default)]
    params: Option<Box<RawValue>>,
}

/// Reads a configuration; the error says where in the text it is broken.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let at = |line: usize, error: &dyn std::fmt::Display| format!("line {line}: {error}");
    // serde_json says the line itself, at the end.
    let root: Root<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    for subsystem in root.subsystems {
        for element in subsystem.config.unwrap_or_default() {
            let line = line_of(text, element);
            let calls: Vec<&RawValue> = if element.get().starts_with('[') {
                serde_json::from_str(element.get()).map_err(|error| at(line, &error))?
            } else {
                vec![element]
            };
            for call in calls {
                let line = line_of(text, call);
                let Element { method, params } = serde_json::from_str(call.get())
                    .map_err(|error| at(line, &format!("a call has a `method` and `params`: {error}")))?;
                entries.push(Entry { subsystem: subsystem.subsystem.clone(), method, params, line });
            }
        }
    }
    Ok(entries)
}

/// Values are slices of the text, so their place in it is known.
fn line_of(text: &str, value: &RawValue) -> usize {
    let offset = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Whether a configuration can be read and names only methods that there are; the error says where not.
pub fn check(text: &str) -> Result<(), String> {
    all_known(&parse(text)?, &super::table())
}

fn all_known(entries: &[Entry], methods: &Methods) -> Result<(), String> {
    match entries.iter().find(|entry| methods.when(&entry.method).is_none()) {
        None => Ok(()),
        Some(entry) => {
            Err(format!("line {}: there is no method {} ({})", entry.line, entry.method, entry.subsystem))
        }
    }
}

/// What to do when a device cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Stop: somebody wrote this and is there to mend it.
    Strict,
    /// Say so, keep it in the configuration, and go on with the rest: other guests are waiting for their disks.
    Lenient,
}

/// Carries out the calls that belong before `framework_start_init`, then, unless `wait`, the others.
pub fn run(core: &mut Core, entries: Vec<Entry>, strictness: Strictness, wait: bool) -> Result<(), String> {
    all_known(&entries, &core.methods)?;
    let (startup, rest): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| core.methods.when(&entry.method) == Some(When::Startup));
    carry_out(core, startup, strictness)?;
    if wait {
        core.pending = rest;
        return Ok(());
    }
    core.running = true;
    carry_out(core, rest, strictness)
}

/// Carries out calls in their order.
pub fn carry_out(core: &mut Core, entries: Vec<Entry>, strictness: Strictness) -> Result<(), String> {
    for entry in entries {
        // What is asked for before `framework_start_init` and again after it is asked for once.
        if entry.method == "framework_start_init" {
            continue;
        }
        let Err(error) = core.call_and_wait(&entry.method, Parameters::new(entry.params.clone())) else {
            continue;
        };
        let why = format!("line {}: {}: {error}", entry.line, entry.method);
        if strictness == Strictness::Strict || undecodable(&error) {
            return Err(why);
        }
        log::error!("{why}; it stays in the configuration and is tried again at the next start");
        let params = entry.params.and_then(|params| serde_json::from_str(params.get()).ok());
        let call = Call::new(&entry.method, params.unwrap_or_default());
        core.configuration.add_missing(Missing { subsystem: entry.subsystem, call, why });
    }
    Ok(())
}

/// Nobody saved this: the file is broken.
fn undecodable(error: &RpcError) -> bool {
    error.message == "spdk_json_decode_object failed"
        || matches!(error.code, code::METHOD_NOT_FOUND | code::INVALID_STATE | code::INVALID_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_with_their_lines() {
        let text = "{\n \"x\": 1,\n \"subsystems\": [\n  {\"subsystem\": \"bdev\", \"config\": [\n   {\"method\": \"a\"},\n   \
                    [{\"method\": \"b\", \"params\": {\"n\": 1}},\n    {\"method\": \"c\"}]\n  ]},\n  {\"subsystem\": \
                    \"scsi\", \"config\": null},\n  {\"subsystem\": \"vmd\"}\n ]\n}\n";
        let entries = parse(text).unwrap();
        let seen: Vec<(&str, usize)> =
            entries.iter().map(|entry| (entry.method.as_str(), entry.line)).collect();
        assert_eq!(seen, [("a", 5), ("b", 6), ("c", 7)]);
        assert_eq!(entries[1].params.as_ref().unwrap().get(), "{\"n\": 1}");
    }

    #[test]
    fn what_is_broken_is_placed() {
        let error = |text: &str| parse(text).unwrap_err();
        assert!(error("{\n\"subsystems\": [\n}").contains("line 3"));
        assert!(error("{}").contains("subsystems"));
        assert!(error("").contains("EOF"));
        let text = "{\"subsystems\": [{\"subsystem\": \"bdev\", \"config\": [\n\n{\"params\": {}}]}]}";
        assert!(error(text).starts_with("line 3:"), "{}", error(text));
        let text = "{\"subsystems\": [{\"subsystem\": \"bdev\", \"config\": [\n7]}]}";
        assert!(error(text).starts_with("line 2:"));
    }
}
