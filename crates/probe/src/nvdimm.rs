//! Making persistent memory usable: label areas and namespaces.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::exec;
use crate::init;
use crate::modules;
use crate::protocol::{Answer, Code, Fault, params};
use crate::sysfs::Tree;

/// What serves a namespace in one mode or another. They are asked for by alias too, but ndctl does not wait for that.
const MODULES: [&str; 4] = ["nd_btt", "nd_pmem", "dax_pmem", "device_dax"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    /// The namespace that gets a new mode, or
    namespace: Option<String>,
    /// the region in which a new one is made.
    region: Option<String>,
    mode: Mode,
    /// Bytes of a sector, in mode `sector`.
    sector_size: Option<u64>,
    /// Bytes of the pages that `fsdax` and `devdax` can be mapped by.
    align: Option<u64>,
    /// Bytes, page map and sector map included; left out: all.
    size: Option<u64>,
    /// The name in the label area.
    name: Option<String>,
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

/// `nvdimm_create {namespace | region, mode, sector_size, align, size, name}`: give a namespace a new mode, which loses
/// what was in it, or make a new one in a region with a label area.
pub fn create(given: Map<String, Value>) -> Answer {
    let wanted: Create = params(given)?;
    init::wait_for_devices();
    for module in MODULES {
        modules::need(module)?;
    }
    let output = exec::tool(&wanted.argv()?.iter().map(String::as_str).collect::<Vec<_>>())?;
    serde_json::from_str(&output)
        .map_err(|error| Fault::new(Code::Failed, format!("ndctl's answer is no JSON ({error}): {output}")))
}

impl Create {
    fn argv(&self) -> Result<Vec<String>, Fault> {
        let place = match (&self.namespace, &self.region) {
            (Some(namespace), None) => format!("--reconfig={namespace}"),
            (None, Some(region)) => format!("--region={region}"),
            _ => return Err(Fault::new(Code::BadRequest, "name a namespace or a region, and not both")),
        };
        let mut argv = vec!["ndctl".into(), "create-namespace".into(), "--force".into(), place];
        argv.push(format!("--mode={}", self.mode.name()));
        let numbers = [("--sector-size", self.sector_size), ("--align", self.align), ("--size", self.size)];
        argv.extend(numbers.iter().filter_map(|(key, number)| Some(format!("{key}={}", (*number)?))));
        argv.extend(self.name.iter().map(|name| format!("--name={name}")));
        Ok(argv)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    region: String,
}

/// `nvdimm_label {region}`: an empty label area on the NVDIMMs of a region, so that namespaces can be made in it one by
/// one. Every namespace that it had is lost.
pub fn label(given: Map<String, Value>) -> Answer {
    let wanted: Label = params(given)?;
    init::wait_for_devices();
    let dimms = dimms(&Tree::system(), &wanted.region);
    if dimms.is_empty() {
        let message = format!("{} is no region of an NVDIMM: it has no mapping", wanted.region);
        return Err(Fault::new(Code::NotFound, message));
    }
    exec::tool(&["ndctl", "disable-region", &wanted.region])?;
    let mut argv = vec!["ndctl", "init-labels", "--force"];
    argv.extend(dimms.iter().map(String::as_str));
    let labelled = exec::tool(&argv);
    // Whatever became of the labels, the region is not left switched off.
    exec::tool(&["ndctl", "enable-region", &wanted.region])?;
    labelled?;
    Ok(json!({"dimms": dimms}))
}

/// The NVDIMMs of a region: `mapping0` reads `nmem0,0,1073741824,0` (drivers/nvdimm/region_devs.c, mappingN).
fn dimms(tree: &Tree, region: &str) -> Vec<String> {
    let mapping = |k| tree.text(format!("sys/bus/nd/devices/{region}/mapping{k}"));
    let name = |text: String| text.split(',').next().unwrap_or_default().to_owned();
    (0..).map_while(mapping).map(name).filter(|name| name.starts_with("nmem")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    fn argv(given: Value) -> Result<String, Fault> {
        let wanted: Create = params(given.as_object().expect("an object").clone())?;
        Ok(wanted.argv()?.join(" "))
    }

    #[test]
    fn ndctl_is_told_what_was_asked_for() {
        let given = json!({"namespace": "namespace0.0", "mode": "sector", "sector_size": 512});
        let expected =
            "ndctl create-namespace --force --reconfig=namespace0.0 --mode=sector --sector-size=512";
        assert_eq!(argv(given).expect("good"), expected);
        let given =
            json!({"region": "region1", "mode": "devdax", "align": 4096, "size": 1 << 30, "name": "a"});
        let expected = "ndctl create-namespace --force --region=region1 --mode=devdax --align=4096 \
            --size=1073741824 --name=a";
        assert_eq!(argv(given).expect("good"), expected);
    }

    #[test]
    fn a_place_is_named_once() {
        for given in [json!({"mode": "raw"}), json!({"mode": "raw", "namespace": "n", "region": "r"})] {
            assert_eq!(argv(given).expect_err("which?").code, Code::BadRequest);
        }
        assert_eq!(
            argv(json!({"mode": "other", "region": "r"})).expect_err("no mode").code,
            Code::BadRequest
        );
    }

    #[test]
    fn the_nvdimms_of_a_region_are_its_mappings() {
        let fake = Fake::new();
        let region = "sys/bus/nd/devices/region0";
        fake.files(region, &[("mapping0", "nmem0,0,1073741824,0"), ("mapping1", "nmem4,0,1073741824,1")]);
        assert_eq!(dimms(&fake.tree(), "region0"), ["nmem0", "nmem4"]);
        assert!(dimms(&fake.tree(), "region1").is_empty());
    }
}
