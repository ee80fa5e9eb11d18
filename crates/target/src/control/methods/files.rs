//! `aio` and `uring` bdevs: files and block devices.

use std::path::PathBuf;
use std::sync::Arc;

use nvlane_bdev::file::{Driver, Options};
use nvlane_bdev::{Bdev, BdevError, FileBdev, Uuid};
use serde::Deserialize;
use serde_json::{Value, json};

use super::bdevs::{Name, bdev_error, delete, uuid};
use crate::control::configuration::Call;
use crate::control::core::Core;
use crate::control::message::{RpcError, code};
use crate::control::method::{Method, Outcome};
use crate::control::parameters::{Parameters, Refusal, given};

pub static METHODS: &[Method] = &[
    Method::saving("bdev_aio_create", aio_create),
    Method::saving("bdev_aio_delete", aio_delete),
    Method::saving("bdev_aio_rescan", aio_rescan),
    Method::saving("bdev_uring_create", uring_create),
    Method::saving("bdev_uring_delete", uring_delete),
    Method::saving("bdev_uring_rescan", uring_rescan),
];

const AIO: &str = "bdev_aio_create";
const URING: &str = "bdev_uring_create";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AioCreate {
    name: String,
    filename: PathBuf,
    #[serde(default, deserialize_with = "given")]
    block_size: Option<u32>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    fallocate: bool,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    #[serde(default)]
    nowait: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UringCreate {
    name: String,
    filename: PathBuf,
    #[serde(default, deserialize_with = "given")]
    block_size: Option<u32>,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

fn aio_create(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: AioCreate = parameters.decode(Refusal::Internal)?;
    // SPDK frees space only with `fallocate`; here a discard frees it where the file system can. Nothing ever waits in a
    // submission, which is what `nowait` is for.
    let _ = (asked.fallocate, asked.nowait);
    let create = Create {
        driver: Driver::Aio,
        name: asked.name,
        path: asked.filename,
        block_size: asked.block_size.filter(|size| *size != 0),
        read_only: asked.readonly,
        uuid: asked.uuid,
    };
    create.start(core, |error| error)
}

fn uring_create(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: UringCreate = parameters.decode(Refusal::Internal)?;
    let create = Create {
        driver: Driver::Uring,
        name: asked.name,
        path: asked.filename,
        block_size: asked.block_size.filter(|size| *size != 0),
        read_only: false,
        uuid: asked.uuid,
    };
    // SPDK tells nobody why.
    create.start(core, |error| {
        let why = error.detail.unwrap_or(error.message);
        RpcError::new(code::INTERNAL_ERROR, "Unable to create URING bdev.").with(why)
    })
}

struct Create {
    driver: Driver,
    name: String,
    path: PathBuf,
    block_size: Option<u32>,
    read_only: bool,
    uuid: Option<Uuid>,
}

impl Create {
    /// Opens the file on a worker thread: a path may lie on a network that takes its time.
    fn start(self, core: &mut Core, dress: fn(RpcError) -> RpcError) -> Result<Outcome, RpcError> {
        core.check_new(&self.name).map_err(dress)?;
        let allowed = core.allowed_paths();
        Ok(Outcome::Work(Box::new(move || {
            let path = self.path.clone();
            let made = self.make().map_err(|error| allowed.explain(&path, bdev_error(error)));
            Box::new(move |core| {
                let (bdev, call) = made.map_err(dress)?;
                let name = bdev.info().name.clone();
                core.add_bdev(Arc::new(bdev), None, call).map_err(dress)?;
                Ok(json!(name))
            })
        })))
    }

    fn make(self) -> Result<(FileBdev, Call), BdevError> {
        let uuid = self.uuid.map_or_else(Uuid::random, Ok)?;
        let mut params = json!({"name": self.name, "filename": self.path, "uuid": uuid.to_string()});
        if let Some(size) = self.block_size {
            params["block_size"] = size.into();
        }
        let method = match self.driver {
            Driver::Aio => {
                params["readonly"] = self.read_only.into();
                AIO
            }
            Driver::Uring => URING,
        };
        let bdev = FileBdev::open(Options {
            name: self.name,
            uuid,
            driver: self.driver,
            path: self.path,
            block_size: self.block_size,
            read_only: self.read_only,
            no_uring: false,
        })?;
        Ok((bdev, Call::new(method, params)))
    }
}

fn aio_delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    delete(core, parameters, AIO, Refusal::Internal)
}

fn uring_delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    delete(core, parameters, URING, Refusal::Internal)
}

fn aio_rescan(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    rescan(core, parameters, AIO)
}

fn uring_rescan(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    rescan(core, parameters, URING)
}

/// Takes over the size that the file or device has now.
fn rescan(core: &mut Core, parameters: &Parameters, maker: &str) -> Result<Outcome, RpcError> {
    let Name { name } = parameters.decode(Refusal::Internal)?;
    let bdev = core.made_bdev(&name, maker)?;
    if bdev.rescan().map_err(bdev_error)? {
        core.resized(&bdev);
    }
    Ok(Value::Bool(true).into())
}
