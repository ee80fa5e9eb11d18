//! The log's levels and flags.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::journal;
use crate::control::core::Core;
use crate::control::message::{RpcError, code};
use crate::control::method::{Method, Outcome, When};
use crate::control::parameters::{Parameters, Refusal};

pub static METHODS: &[Method] = &[
    Method::new("log_get_level", When::Always, get_level),
    Method::new("log_set_level", When::Always, set_level),
    Method::new("log_get_print_level", When::Always, get_print_level),
    Method::new("log_set_print_level", When::Always, set_print_level),
    Method::new("log_get_flags", When::Always, get_flags),
    Method::new("log_set_flag", When::Always, set_flag),
    Method::new("log_clear_flag", When::Always, clear_flag),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    flag: String,
}

fn level(parameters: &Parameters) -> Result<u8, RpcError> {
    let asked: Level = parameters.decode(Refusal::Internal)?;
    journal::level(&asked.level).ok_or_else(|| {
        let levels = journal::LEVELS.join(", ");
        Refusal::Internal.error(format!("`level` is one of {levels}, not {}", asked.level))
    })
}

fn get_level(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("log_get_level requires no parameters")?;
    Ok(json!(journal::level_name(journal::logged())).into())
}

fn set_level(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    journal::set_logged(level(parameters)?);
    Ok(json!(true).into())
}

fn get_print_level(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("log_get_print_level requires no parameters")?;
    Ok(json!(journal::level_name(journal::printed())).into())
}

fn set_print_level(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    journal::set_printed(level(parameters)?);
    Ok(json!(true).into())
}

fn get_flags(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("log_get_flags requires no parameters")?;
    let flags = journal::FLAGS.iter().enumerate();
    let flags: Map<String, Value> =
        flags.map(|(index, (name, _))| ((*name).to_owned(), journal::flag(index).into())).collect();
    Ok(Value::Object(flags).into())
}

fn change_flag(parameters: &Parameters, raised: bool) -> Result<Outcome, RpcError> {
    let asked: Flag = parameters.decode(Refusal::Internal)?;
    // SPDK takes `all` for every flag, and names in either case.
    if asked.flag.eq_ignore_ascii_case("all") {
        (0..journal::FLAGS.len()).for_each(|index| journal::set_flag(index, raised));
        return Ok(json!(true).into());
    }
    let index = journal::FLAGS.iter().position(|(name, _)| name.eq_ignore_ascii_case(&asked.flag));
    let index = index.ok_or_else(|| {
        RpcError::new(code::INVALID_PARAMS, "invalid log flag")
            .with(format!("there is no flag {}; log_get_flags lists them", asked.flag))
    })?;
    journal::set_flag(index, raised);
    Ok(json!(true).into())
}

fn set_flag(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    change_flag(parameters, true)
}

fn clear_flag(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    change_flag(parameters, false)
}
