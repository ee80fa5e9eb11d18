//! Making a persistent-memory namespace usable.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::exec;
use crate::init;
use crate::modules;
use crate::protocol::{Answer, Code, Fault, params};

/// What serves a namespace in one mode or another. They are asked for by alias too, but ndctl does not wait for that.
const MODULES: [&str; 4] = ["nd_btt", "nd_pmem", "dax_pmem", "device_dax"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    namespace: String,
    mode: Mode,
    sector_size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fsdax,
    Devdax,
    Sector,
    Raw,
}

impl Mode {
    fn name(&self) -> &'static str {
        match self {
            Self::Fsdax => "fsdax",
            Self::Devdax => "devdax",
            Self::Sector => "sector",
            Self::Raw => "raw",
        }
    }
}

/// `nvdimm_create {namespace, mode, sector_size}`: give a namespace a new mode. What was in it is lost.
pub fn create(given: Map<String, Value>) -> Answer {
    let wanted: Create = params(given)?;
    init::wait_for_devices();
    for module in MODULES {
        modules::need(module)?;
    }
    let mut argv = vec!["ndctl", "create-namespace", "-f", "-e", &wanted.namespace, "-m", wanted.mode.name()];
    let size = wanted.sector_size.map(|size| size.to_string());
    if let Some(size) = &size {
        argv.extend(["-l", size]);
    }
    let output = exec::tool(&argv)?;
    serde_json::from_str(&output)
        .map_err(|error| Fault::new(Code::Failed, format!("ndctl's answer is no JSON ({error}): {output}")))
}
