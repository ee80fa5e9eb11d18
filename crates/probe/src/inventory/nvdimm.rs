//! Persistent memory: regions, namespaces and DAX devices.
//!
//! A namespace's mode is what the kernel's `mode` attribute says, in ndctl's words (drivers/nvdimm/namespace_devs.c,
//! mode_show: `raw`, `safe`, `memory`, `dax`; ndctl says raw, sector, fsdax, devdax).

use serde::Serialize;

use crate::sysfs::Tree;

#[derive(Debug, Serialize)]
pub struct Nvdimm {
    pub regions: Vec<Region>,
    pub namespaces: Vec<PmemNamespace>,
    pub dax: Vec<DaxDevice>,
}

#[derive(Debug, Serialize)]
pub struct Region {
    pub name: String,
    /// `nfit` for an NVDIMM, `virtio-pmem`, or the kernel's own name of another provider.
    pub provider: Option<String>,
    pub size_bytes: Option<u64>,
    /// The guest-physical address at which it starts.
    pub resource: Option<u64>,
    pub available_bytes: Option<u64>,
    /// `cpu_cache`, `memory_controller`, or null where the platform promises none.
    pub persistence_domain: Option<String>,
    pub mappings: Option<u64>,
    pub align: Option<u64>,
    pub read_only: bool,
    pub numa_node: Option<i64>,
}

#[derive(Debug, Serialize)]
pub struct PmemNamespace {
    pub name: String,
    pub region: Option<String>,
    /// `raw`, `sector`, `fsdax` or `devdax`.
    pub mode: Option<String>,
    pub size_bytes: Option<u64>,
    pub uuid: Option<String>,
    /// The name that its label gives it.
    pub name_in_label: Option<String>,
    pub sector_size: Option<u64>,
    /// Bytes of the pages by which it can be mapped, in the modes `fsdax` and `devdax`.
    pub align: Option<u64>,
    pub numa_node: Option<i64>,
    /// Whether programs can map it with no page cache between: a block device whose file systems may use DAX, or a DAX
    /// device.
    pub dax: bool,
    pub blockdev: Option<String>,
    pub chardev: Option<String>,
    /// The size of the block or DAX device: what is left after the namespace's own metadata.
    pub usable_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct DaxDevice {
    pub name: String,
    pub size_bytes: Option<u64>,
    pub align: Option<u64>,
    pub target_node: Option<i64>,
    pub driver: Option<String>,
}

const BUS: &str = "sys/bus/nd/devices";

pub fn read(tree: &Tree) -> Nvdimm {
    let names = tree.names(BUS);
    let regions =
        names.iter().filter(|name| name.starts_with("region")).map(|name| region(tree, name)).collect();
    let all = names.iter().filter(|name| name.starts_with("namespace")).map(|name| namespace(tree, name));
    // A region keeps a seed, a namespace of no size from which the next one is made: that is no namespace yet.
    let namespaces = all.filter(|found| found.size_bytes != Some(0)).collect();
    let dax = tree.names("sys/bus/dax/devices").iter().map(|name| dax_device(tree, name)).collect();
    Nvdimm { regions, namespaces, dax }
}

fn region(tree: &Tree, name: &str) -> Region {
    let at = format!("{BUS}/{name}");
    Region {
        name: name.to_owned(),
        provider: provider(tree, &at),
        size_bytes: tree.number(format!("{at}/size")),
        resource: tree.number(format!("{at}/resource")),
        available_bytes: tree.number(format!("{at}/available_size")),
        persistence_domain: tree.text(format!("{at}/persistence_domain")),
        mappings: tree.number(format!("{at}/mappings")),
        align: tree.number(format!("{at}/align")),
        read_only: tree.flag(format!("{at}/read_only")),
        numa_node: tree.text(format!("{at}/numa_node")).and_then(|node| node.parse().ok()),
    }
}

/// The name that the bus's driver gave itself (`ACPI.NFIT`, `virtio-pmem`), in the words of this module.
fn provider(tree: &Tree, region: &str) -> Option<String> {
    let real = tree.real(region)?;
    let bus = real.ancestors().find(|part| part.join("provider").is_file())?;
    let name = tree.text(bus.join("provider"))?;
    Some(if name == "ACPI.NFIT" { "nfit".into() } else { name })
}

fn namespace(tree: &Tree, name: &str) -> PmemNamespace {
    let at = format!("{BUS}/{name}");
    // fsdax, devdax and sector put a device of their own, the holder, over the raw namespace.
    let holder = tree.text(format!("{at}/holder")).map(|holder| format!("{BUS}/{holder}"));
    let places: Vec<&str> = holder.as_deref().into_iter().chain([at.as_str()]).collect();
    let in_places =
        |attribute: &str| places.iter().find_map(|place| tree.text(format!("{place}/{attribute}")));
    let blockdev = places.iter().find_map(|place| tree.names(format!("{place}/block")).pop());
    let chardev = holder.as_deref().and_then(|holder| dax_child(tree, holder));
    let dax = match &blockdev {
        Some(block) => tree.flag(format!("sys/class/block/{block}/queue/dax")),
        None => chardev.is_some(),
    };
    let usable = match (&blockdev, &chardev) {
        (Some(block), _) => tree.number(format!("sys/class/block/{block}/size")).map(|sectors| sectors * 512),
        (None, Some(dax)) => tree.number(format!("sys/bus/dax/devices/{dax}/size")),
        (None, None) => None,
    };
    PmemNamespace {
        name: name.to_owned(),
        region: tree.real(&at).and_then(|real| Some(real.parent()?.file_name()?.to_str()?.to_owned())),
        mode: tree.text(format!("{at}/mode")).map(|mode| match mode.as_str() {
            "safe" => "sector".to_owned(),
            "memory" => "fsdax".to_owned(),
            "dax" => "devdax".to_owned(),
            _ => mode,
        }),
        size_bytes: tree.number(format!("{at}/size")),
        uuid: in_places("uuid"),
        name_in_label: tree.text(format!("{at}/alt_name")),
        sector_size: in_places("sector_size").and_then(|sizes| chosen(&sizes)),
        align: holder.as_deref().and_then(|holder| tree.number(format!("{holder}/align"))),
        numa_node: tree.text(format!("{at}/numa_node")).and_then(|node| node.parse().ok()),
        dax,
        blockdev,
        chardev,
        usable_bytes: usable,
    }
}

/// The size that is chosen of those to choose from, `512 [4096] `, or the only one (drivers/nvdimm/core.c,
/// nd_size_select_show).
fn chosen(sizes: &str) -> Option<u64> {
    let bracketed = sizes.split(' ').find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    bracketed.unwrap_or(sizes).parse().ok()
}

/// The DAX device below a holder: `dax0.0` under the namespace bus's own `dax0.1`, some levels deep.
fn dax_child(tree: &Tree, holder: &str) -> Option<String> {
    let real = tree.real(holder)?;
    let below = |name: &String| {
        tree.real(format!("sys/bus/dax/devices/{name}")).is_some_and(|dax| dax.starts_with(&real))
    };
    tree.names("sys/bus/dax/devices").into_iter().find(below)
}

fn dax_device(tree: &Tree, name: &str) -> DaxDevice {
    let at = format!("sys/bus/dax/devices/{name}");
    DaxDevice {
        name: name.to_owned(),
        size_bytes: tree.number(format!("{at}/size")),
        align: tree.number(format!("{at}/align")),
        target_node: tree.text(format!("{at}/target_node")).and_then(|node| node.parse().ok()),
        driver: tree.link_name(format!("{at}/driver")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    const REGION: &str = "sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0";

    fn region0(fake: &Fake) {
        fake.link("sys/bus/nd/devices/region0", REGION);
        fake.file("sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/provider", "ACPI.NFIT\n");
        fake.files(
            REGION,
            &[("size", "1073741824"), ("persistence_domain", "cpu_cache"), ("align", "0x1000000")],
        );
        fake.link("sys/bus/nd/devices/namespace0.0", &format!("{REGION}/namespace0.0"));
        fake.link("sys/bus/nd/devices/namespace0.1", &format!("{REGION}/namespace0.1"));
        fake.files(&format!("{REGION}/namespace0.1"), &[("size", "0"), ("mode", "raw")]);
    }

    #[test]
    fn a_raw_namespace_has_its_own_block_device() {
        let fake = Fake::new();
        region0(&fake);
        fake.files(
            &format!("{REGION}/namespace0.0"),
            &[("size", "1073741824"), ("mode", "raw"), ("holder", "")],
        );
        fake.file(&format!("{REGION}/namespace0.0/block/pmem0/size"), "2097152");
        fake.file("sys/class/block/pmem0/size", "2097152");
        let found = read(&fake.tree());
        assert_eq!(found.regions[0].provider.as_deref(), Some("nfit"));
        assert_eq!(found.regions[0].align, Some(16 << 20));
        assert_eq!(found.namespaces.len(), 1, "the seed is no namespace");
        assert_eq!(found.namespaces[0].blockdev.as_deref(), Some("pmem0"));
        assert_eq!(found.namespaces[0].region.as_deref(), Some("region0"));
        assert_eq!(found.namespaces[0].usable_bytes, Some(1 << 30));
        assert!(!found.namespaces[0].dax, "the kernel has no page map of a raw namespace");
    }

    #[test]
    fn fsdax_stands_behind_its_holder() {
        let fake = Fake::new();
        region0(&fake);
        fake.files(
            &format!("{REGION}/namespace0.0"),
            &[("size", "1073741824"), ("mode", "memory"), ("holder", "pfn0.1")],
        );
        fake.link("sys/bus/nd/devices/pfn0.1", &format!("{REGION}/pfn0.1"));
        fake.file(&format!("{REGION}/pfn0.1/block/pmem0/size"), "2064384");
        fake.files(&format!("{REGION}/pfn0.1"), &[("uuid", "abc"), ("align", "2097152")]);
        fake.files(&format!("{REGION}/namespace0.0"), &[("alt_name", "files"), ("numa_node", "1")]);
        fake.file("sys/class/block/pmem0/queue/dax", "1");
        let found = &read(&fake.tree()).namespaces[0];
        assert_eq!(found.mode.as_deref(), Some("fsdax"));
        assert_eq!((found.blockdev.as_deref(), found.uuid.as_deref()), (Some("pmem0"), Some("abc")));
        assert_eq!((found.name_in_label.as_deref(), found.align), (Some("files"), Some(2 << 20)));
        assert_eq!((found.dax, found.numa_node), (true, Some(1)));
    }

    #[test]
    fn a_sector_namespace_has_the_sectors_that_were_chosen() {
        let fake = Fake::new();
        region0(&fake);
        fake.files(
            &format!("{REGION}/namespace0.0"),
            &[("size", "1073741824"), ("mode", "safe"), ("holder", "btt0.1"), ("sector_size", "512")],
        );
        fake.link("sys/bus/nd/devices/btt0.1", &format!("{REGION}/btt0.1"));
        fake.files(&format!("{REGION}/btt0.1"), &[("sector_size", "512 520 528 [4096] 4104 ")]);
        fake.file(&format!("{REGION}/btt0.1/block/pmem0s/size"), "2094368");
        let found = &read(&fake.tree()).namespaces[0];
        assert_eq!((found.mode.as_deref(), found.sector_size), (Some("sector"), Some(4096)));
        assert_eq!((found.blockdev.as_deref(), found.dax), (Some("pmem0s"), false));
        assert_eq!((chosen("512"), chosen("[520] 528"), chosen("")), (Some(512), Some(520), None));
    }

    #[test]
    fn devdax_names_its_character_device() {
        let fake = Fake::new();
        region0(&fake);
        fake.files(
            &format!("{REGION}/namespace0.0"),
            &[("size", "1073741824"), ("mode", "dax"), ("holder", "dax0.1")],
        );
        fake.link("sys/bus/nd/devices/dax0.1", &format!("{REGION}/dax0.1"));
        fake.link("sys/bus/dax/devices/dax0.0", &format!("{REGION}/dax0.1/dax_region/dax0.0"));
        fake.files(
            &format!("{REGION}/dax0.1/dax_region/dax0.0"),
            &[("size", "1054867456"), ("align", "2097152")],
        );
        let found = read(&fake.tree());
        assert_eq!(found.namespaces[0].mode.as_deref(), Some("devdax"));
        assert_eq!(found.namespaces[0].chardev.as_deref(), Some("dax0.0"));
        assert_eq!(found.namespaces[0].usable_bytes, Some(1054867456));
        assert_eq!(found.dax[0].align, Some(2 << 20));
        assert!(found.namespaces[0].dax);
    }
}
