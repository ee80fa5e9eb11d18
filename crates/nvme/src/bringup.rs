//! From a function that knows nothing of us to a controller that is enabled, identified and has queues to give.

use std::sync::Arc;

use crate::admin::Admin;
use crate::queue::{EVENT_INDICES, Limits, SHADOWS, Shadows};
use crate::quiesce::{disable, wait_ready};
use crate::spec::{
    Capabilities, Command, Configuration, Identifiers, IdentifyController, IdentifyNamespace, NvmLimits,
    PAGE, Version, doorbell, feature, namespace_list, register,
};
use crate::{Device, DmaBuffer, Namespace, NvmeError, Options};

/// What a controller said of itself.
#[derive(Clone)]
pub(crate) struct Identity {
    pub capabilities: Capabilities,
    pub version: Version,
    pub controller: IdentifyController,
    pub limits: NvmLimits,
    /// I/O queue pairs that it gives.
    pub queues: u16,
    pub shadows: Option<Arc<Shadows>>,
}

impl Identity {
    pub fn stride(&self) -> usize {
        self.capabilities.doorbell_stride()
    }

    pub fn queue_limits(&self, options: &Options) -> Limits {
        let controller = &self.controller;
        Limits {
            max_transfer: controller.max_transfer,
            // Without a limit of its own that of data holds (as in Linux, nvme_init_non_mdts_limits).
            write_zeroes: Some(self.limits.write_zeroes)
                .filter(|&bytes| bytes != 0)
                .or(controller.max_transfer),
            deallocate: match self.limits.deallocate_range {
                0 => u32::MAX,
                blocks => blocks,
            },
            volatile_cache: controller.volatile_cache,
            has_write_zeroes: controller.write_zeroes,
            has_deallocate: controller.dataset_management,
            io_ticks: options.ticks(options.io_timeout),
            grace_ticks: options.ticks(options.abort_grace),
            retries: options.retries,
        }
    }
}

/// Enables the controller and asks it everything but its namespaces. It is disabled first, from whatever state.
///
/// # Errors
/// A sentence about what does not work, or is not supported.
pub(crate) fn bring_up(
    device: &Arc<dyn Device>,
    admin: &mut Admin,
    options: &Options,
) -> Result<Identity, NvmeError> {
    let address = device.address().to_owned();
    device.set_bus_master(true)?;
    let version = Version(device.read32(register::VS));
    let capabilities = Capabilities(device.read64(register::CAP));
    if version.is_absent() || capabilities.0 == u64::MAX {
        return Err(NvmeError::gone(&address));
    }
    refuse_capabilities(&address, capabilities)?;
    disable(&**device, options)?;
    admin.install(capabilities);
    device.write32(register::CC, Configuration::enabled(capabilities).0);
    wait_ready(&**device, true, options)?;

    let page = admin.read_page("Identify Controller", &Command::identify_controller(admin.data()))?;
    let controller = IdentifyController::parse(&page);
    refuse_controller(&address, &controller)?;
    let limits = if version >= Version::V2_0 { nvm_limits(admin)? } else { NvmLimits::default() };
    let queues = ask_for_queues(device, admin, capabilities, options)?;
    let shadows = offer_shadows(admin, &controller)?;
    configure_events(admin, &controller)?;
    Ok(Identity { capabilities, version, controller, limits, queues, shadows })
}

fn nvm_limits(admin: &mut Admin) -> Result<NvmLimits, NvmeError> {
    match admin.read_page("Identify NVM limits", &Command::identify_nvm_limits(admin.data())) {
        Ok(page) => Ok(NvmLimits::parse(&page)),
        // Not every controller of that version knows it; then there is nothing to go by.
        Err(error) if error.errno == libc::EIO => Ok(NvmLimits::default()),
        Err(error) => Err(error),
    }
}

fn refuse_capabilities(address: &str, capabilities: Capabilities) -> Result<(), NvmeError> {
    let refuse = |why: String| Err(NvmeError::new(libc::ENOTSUP, format!("{address}: {why}")));
    if capabilities.smallest_page() > PAGE {
        return refuse(format!(
            "its smallest page has {} bytes; 4096 are needed",
            capabilities.smallest_page()
        ));
    }
    if !capabilities.nvm_command_set() {
        return refuse("it has no NVM command set, so it keeps no blocks".to_owned());
    }
    if capabilities.max_queue_entries() < 4 {
        return refuse(format!("its queues have {} entries; 4 are needed", capabilities.max_queue_entries()));
    }
    Ok(())
}

fn refuse_controller(address: &str, controller: &IdentifyController) -> Result<(), NvmeError> {
    let refuse = |why: String| Err(NvmeError::new(libc::ENOTSUP, format!("{address}: {why}")));
    if let 2.. = controller.kind {
        return refuse("it is a discovery or administrative controller, which keeps no blocks".to_owned());
    }
    if controller.command_shift > 6 || controller.completion_shift > 4 {
        return refuse(format!(
            "it wants queue entries of 2^{} and 2^{} bytes; commands have 64 and completions 16",
            controller.command_shift, controller.completion_shift
        ));
    }
    Ok(())
}

fn ask_for_queues(
    device: &Arc<dyn Device>,
    admin: &mut Admin,
    capabilities: Capabilities,
    options: &Options,
) -> Result<u16, NvmeError> {
    let wanted = options.io_queues.max(1);
    let value = u32::from(wanted - 1) | u32::from(wanted - 1) << 16;
    let given = admin
        .run("Set Features, Number of Queues", &Command::set_feature(feature::NUMBER_OF_QUEUES, value))?;
    let given = ((given & 0xffff).min(given >> 16) + 1).min(u32::from(wanted)) as u16;
    let mapped = |queue: u16| doorbell(queue, true, capabilities.doorbell_stride()) + 4 <= device.len();
    match (1..=given).take_while(|&queue| mapped(queue)).last() {
        Some(queues) => Ok(queues),
        None => Err(NvmeError::new(
            libc::ENOTSUP,
            format!(
                "{}: BAR0 has {} bytes, too few for the doorbells of one queue",
                device.address(),
                device.len()
            ),
        )),
    }
}

fn offer_shadows(
    admin: &mut Admin,
    controller: &IdentifyController,
) -> Result<Option<Arc<Shadows>>, NvmeError> {
    if !controller.doorbell_buffers {
        return Ok(None);
    }
    let memory = DmaBuffer::new(2 * PAGE)?;
    let command = Command::doorbell_buffer(memory.iova(SHADOWS), memory.iova(EVENT_INDICES));
    match admin.run("Doorbell Buffer Config", &command) {
        Ok(_) => Ok(Some(Arc::new(Shadows { memory }))),
        // It says that it can and does not: doorbells then.
        Err(error) if error.errno == libc::EIO => Ok(None),
        Err(error) => Err(error),
    }
}

fn configure_events(admin: &mut Admin, controller: &IdentifyController) -> Result<(), NvmeError> {
    // Critical warnings of SMART, and changed namespaces.
    let wanted = 0x1f | u32::from(controller.namespace_attribute_notices) << 8;
    match admin.run("Set Features, Asynchronous Events", &Command::set_feature(feature::ASYNC_EVENTS, wanted))
    {
        Err(error) if error.errno != libc::EIO => return Err(error),
        _ => {}
    }
    admin.arm_events(controller.event_limit);
    Ok(())
}

/// What namespaces there are: those that can be served, and why the others cannot.
pub(crate) struct Found {
    pub namespaces: Vec<Namespace>,
    pub unusable: Vec<String>,
}

pub(crate) fn find_namespaces(admin: &mut Admin, identity: &Identity) -> Result<Found, NvmeError> {
    let mut found = Found { namespaces: Vec::new(), unusable: Vec::new() };
    for id in namespace_ids(admin, identity)? {
        if let Some(result) = identify_namespace(admin, identity, id)? {
            match result {
                Ok(namespace) => found.namespaces.push(namespace),
                Err(why) => found.unusable.push(why),
            }
        }
    }
    Ok(found)
}

/// More namespaces than this are a device's nonsense or a case nobody has seen.
const MOST: usize = 8192;

fn namespace_ids(admin: &mut Admin, identity: &Identity) -> Result<Vec<u32>, NvmeError> {
    if identity.version < Version::V1_1 {
        return Ok((1..=identity.controller.namespaces.min(MOST as u32)).collect());
    }
    let mut ids: Vec<u32> = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or(0);
        let page = admin
            .read_page("Identify Active Namespaces", &Command::identify_namespaces(after, admin.data()))?;
        // Ascending, or it is no list (and would never end).
        let more = namespace_list(&page);
        let usable = more.iter().copied().scan(after, |last, id| {
            let ascending = id > *last && id < u32::MAX - 1;
            *last = id;
            ascending.then_some(id)
        });
        let before = ids.len();
        ids.extend(usable);
        if more.len() < PAGE / 4 || ids.len() == before || ids.len() >= MOST {
            return Ok(ids);
        }
    }
}

/// None for an identifier without a namespace.
pub(crate) fn identify_namespace(
    admin: &mut Admin,
    identity: &Identity,
    id: u32,
) -> Result<Option<Result<Namespace, String>>, NvmeError> {
    let command = Command::identify_namespace(id, admin.data());
    let data = match admin.read_page("Identify Namespace", &command) {
        Ok(page) => IdentifyNamespace::parse(&page),
        Err(error) if error.errno == libc::EIO => return Ok(Some(Err(error.message))),
        Err(error) => return Err(error),
    };
    if !data.is_active() {
        return Ok(None);
    }
    let mut identifiers = Identifiers::default();
    if identity.version >= Version::V1_3 {
        let command = Command::identify_descriptors(id, admin.data());
        match admin.read_page("Identify Namespace Descriptors", &command) {
            Ok(page) => identifiers = Identifiers::parse(&page),
            Err(error) if error.errno == libc::EIO => {} // some have none
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Namespace::new(id, data, identifiers)))
}
